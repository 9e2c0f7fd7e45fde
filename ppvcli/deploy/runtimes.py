"""Three engines behind one protocol: a program on disk becomes something that maps pictures to logits.

Nothing heavy is imported before an engine is loaded, and then only that engine's package.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from ppvcli.errors import MissingPackageError, RuntimeFailedError, UnknownNameError, UsageError
from ppvcli.models.device import load_paddle
from ppvcli.specs import Preprocess
from ppvcli.video.transforms import normalize

Runtime = Literal["onnxruntime", "openvino", "paddle"]
Precision = Literal["fp32", "bf16", "int8"]

RUNTIMES: tuple[Runtime, ...] = ("onnxruntime", "openvino", "paddle")
"""In the order in which `auto` prefers them where their speed is about the same."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16", "int8")

PROGRAM_FILES: dict[Runtime, tuple[str, ...]] = {
    "onnxruntime": ("inference.onnx",),
    "openvino": ("inference.xml", "inference.bin"),
    "paddle": ("inference.json", "inference.pdiparams"),
}
"""The files of a program; the first one is its name."""

_PACKAGES: dict[Runtime, tuple[str, str, str]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime", "pip install onnxruntime"),
    "openvino": ("openvino", "openvino", "pip install 'ppvcli[openvino]'"),
    "paddle": ("paddle", "paddlepaddle", "pip install paddlepaddle"),
}
"""Module, distribution, and the line that installs it."""


class Engine(Protocol):
    """A loaded program."""

    takes: Literal["uint8", "float32"]
    """`uint8`: RGB pictures [N, T, H, W, 3]; `float32`: what `normalize` makes of them, [N, T, 3, H, W]."""
    streams: int
    """Calls of `run` that may be under way at once, from different threads."""

    def run(self, clips: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Clips of the kind that `takes` says -> logits float32 [N, K]; any N.

        Raises: RuntimeFailedError where the engine reports a failure.
        """


def feed(engine: Engine, clips_nthwc: npt.NDArray[np.uint8], *, preprocess: Preprocess) -> npt.NDArray[Any]:
    """RGB clips, uint8 [N, T, H, W, 3], as `engine.run` takes them: normalised here if the program does not do it."""
    return clips_nthwc if engine.takes == "uint8" else normalize(clips_nthwc, preprocess)


@dataclass(frozen=True, kw_only=True)
class EngineSettings:
    """How a program is run."""

    threads: int
    """Cores that the engine uses, all its streams together."""
    streams: int = 1
    """Calls of `run` that the caller will have under way at once; each gets threads / streams cores."""
    precision: Precision = "fp32"
    device: str = "cpu"
    """`cpu` or `gpu:N`; a GPU only with the runtime `paddle`."""
    tensorrt: bool = False
    """GPU only."""
    clip_thw: tuple[int, int, int] | None = None
    """Frames, height and width of a clip: Paddle prints debugging lines at its first run, which is then made early."""

    def __post_init__(self) -> None:
        assert 1 <= self.streams <= self.threads


def check_choice(runtime: str, precision: str, *, device: str, tensorrt: bool, is_export: bool) -> None:
    """Passes if the settings can belong together; `is_export` says that an exported program is to be run.

    Raises: UnknownNameError, UsageError; MissingPackageError for a named runtime that is not installed, with the line
    for pip.
    """
    if runtime not in ("auto", *RUNTIMES):
        known = ("auto", *RUNTIMES)
        raise UnknownNameError("runtime", runtime, known, hint=f"there are: {', '.join(known)}")
    if precision not in PRECISIONS:
        raise UnknownNameError("precision", precision, PRECISIONS, hint=f"there are: {', '.join(PRECISIONS)}")
    if precision == "int8" and not is_export:
        raise UsageError(
            "int8 needs clips to calibrate on, which weights alone don't have",
            hint="ppv export --precision int8 --calibration FOLDER --out DIR, then: --weights DIR",
        )
    if runtime != "auto":
        require_runtime(runtime)
    if tensorrt and (device == "cpu" or runtime not in ("auto", "paddle")):
        other = "the CPU" if device == "cpu" else f"the runtime {runtime}"
        raise UsageError(f"TensorRT runs on GPUs through Paddle, not with {other}", hint="--gpu --tensorrt")
    if device != "cpu" and runtime not in ("auto", "paddle"):
        raise UsageError(f"the runtime {runtime} runs on the CPU here, not on {device}", hint="--cpu, or leave it out")
    if precision == "bf16" and (runtime not in ("auto", "openvino") or device != "cpu"):
        raise UsageError("bf16 needs the runtime openvino on a CPU", hint="--runtime openvino --precision bf16")
    if precision == "bf16":
        require_runtime("openvino")


def runtime_version(runtime: str) -> str | None:
    """The version of an installed runtime; None if it is not installed. It is not imported."""
    module, distribution, _ = _PACKAGES[_runtime(runtime)]
    if importlib.util.find_spec(module) is None:
        return None
    return package_version(distribution) or package_version(f"{distribution}-gpu") or "unknown"


def package_version(distribution: str) -> str | None:
    """The version of an installed distribution, or None."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def require_runtime(runtime: str) -> str:
    """The version of a runtime. Raises: MissingPackageError with the line for pip."""
    version = runtime_version(runtime)
    if version is None:
        raise MissingPackageError(f"the runtime {runtime} is not installed", hint=_PACKAGES[_runtime(runtime)][2])
    return version


def import_runtime(runtime: str) -> Any:
    """The module of a runtime. Raises: MissingPackageError; RuntimeFailedError as `import_package`."""
    require_runtime(runtime)
    if runtime == "onnxruntime":
        # version 1.31 reports its use to Microsoft unless told not to
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    return import_package(_PACKAGES[_runtime(runtime)][0])


def import_package(module: str) -> Any:
    """An installed package. Raises: RuntimeFailedError where it can't be loaded, as with a library of it missing."""
    try:
        if module == "paddle":
            load_paddle()
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        raise RuntimeFailedError(
            f"{module} is installed, but can't be loaded: {first_line(error)}",
            hint="install it anew, or do without it: --runtime NAME to predict, --format NAME to export",
        ) from error


def first_line(error: Exception) -> str:
    """Of what an error of another package says; its name where it says nothing."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__


def load_engine(runtime: str, program: Path, *, settings: EngineSettings) -> Engine:
    """A program, given by its first file, ready to run.

    Raises: MissingPackageError; RuntimeFailedError where the engine can't be loaded or does not take the program;
    UsageError.
    """
    require_runtime(runtime)
    from ppvcli.deploy.engines import ENGINES

    return ENGINES[_runtime(runtime)](program, settings)


def _runtime(name: str) -> Runtime:
    for runtime in RUNTIMES:
        if runtime == name:
            return runtime
    raise UnknownNameError("runtime", name, RUNTIMES)
