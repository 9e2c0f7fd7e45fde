"""From a model and its weights to a compiled, checked program: out of the cache, or written into it on first use.

Paddle is imported by `_build` alone, that is when something is compiled.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

import ppvcli
from ppvcli.deploy import cache
from ppvcli.deploy.cache import CheckResult, Entry, Record
from ppvcli.deploy.engines import OPTIMIZED, optimize_onnx
from ppvcli.deploy.quiet import silenced
from ppvcli.deploy.runtimes import (
    PROGRAM_FILES,
    RUNTIMES,
    EngineSettings,
    Precision,
    package_version,
    require_runtime,
    runtime_version,
)
from ppvcli.errors import CacheError, MissingPackageError, PpvError, RuntimeFailedError, WeightsError
from ppvcli.machine import cpu_features
from ppvcli.models.device import load_paddle
from ppvcli.models.facts import DEMO_CLIP
from ppvcli.models.zoo import ModelRow
from ppvcli.weights.store import file_sha256

FORMAT = "1"
"""Of the entries; another one makes all older entries foreign."""
CLEARLY_FASTER = 0.8
"""`auto` leaves the order of RUNTIMES only for a runtime that takes less than this share of the time: what is first
there starts faster too, and on a busy machine times of the same program differ by a tenth."""
_PROGRAM_TEXT_BYTES = 2 << 20
"""Room for what is no weight in the files of a program."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be compiled."""

    row: ModelRow
    weights: Path
    """A file or a legacy folder."""
    weights_sha256: str
    precision: Precision
    """fp32 or bf16."""
    threads: int
    """For measuring; no program depends on it."""
    on_compile: Callable[[str], None] | None = None
    """Called with the model's name before work of seconds begins."""


def compiled(request: Request, runtime: str) -> tuple[str, Entry]:
    """The runtime that `runtime` stands for and its entry in the cache, compiled and checked on first use.

    Where the cache can't be written, it is compiled into a temporary folder, for this process alone.

    Raises: MissingPackageError, RuntimeFailedError, CacheError; what `open_recognizer` raises about the weights.
    """
    try:
        return _compiled(request, runtime)
    except CacheError as error:
        folder = tempfile.mkdtemp(prefix="ppv-compiled-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        with cache.elsewhere(Path(folder)):
            runtime, entry = _compiled(request, runtime)
        return runtime, replace(entry, unkept=error.message)


def _compiled(request: Request, runtime: str) -> tuple[str, Entry]:
    return _choose(request) if runtime == "auto" else (runtime, _entry(request, runtime, network=None))


def weights_sha256(path: Path) -> str:
    """Of a weight file, or of all files of a legacy folder with their names. Raises: WeightsError."""
    try:
        if not path.is_dir():
            return file_sha256(path)
        digest = hashlib.sha256()
        for file in sorted(path.iterdir()):
            if file.is_file():
                digest.update(f"{file.name}\0{file_sha256(file)}\n".encode())
        return digest.hexdigest()
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error}") from error


# --- which runtime ----------------------------------------------------------------------------------------------------


def _choose(request: Request) -> tuple[str, Entry]:
    """The fastest runtime whose program passed its check here; measured once, then read from the cache."""
    candidates: tuple[str, ...] = ("openvino",) if request.precision == "bf16" else RUNTIMES
    versions = {name: str(runtime_version(name)) for name in candidates}
    considered = {**versions, "paddle2onnx": str(package_version("paddle2onnx"))}
    facts = _facts(request, "auto", engine=" ".join(f"{name} {version}" for name, version in considered.items()))
    choice = cache.read_choice(facts)
    if choice is not None and choice.get("runtime") in candidates:
        runtime = str(choice["runtime"])
        entry = cache.find(_facts(request, runtime, engine=versions[runtime]))
        if entry is not None:
            return runtime, entry
    network = _Network(request)
    entries: dict[str, Entry] = {}
    measured: dict[str, object] = {}
    for name in candidates:
        if versions[name] == "None" or (name == "paddle" and entries):
            continue  # Paddle takes seconds to start and was never the fastest: it is for where no other one works
        try:
            entries[name] = _entry(request, name, network=network)
            measured[name] = {"time_ms": entries[name].record.check.time_ms}
        except (MissingPackageError, RuntimeFailedError) as error:
            measured[name] = {"error": error.message}
    if not entries:
        raise _none_works(request, measured)
    best = next(iter(entries))
    for name, entry in entries.items():
        if entry.record.check.time_ms < CLEARLY_FASTER * entries[best].record.check.time_ms:
            best = name
    cache.write_choice(facts, best, measured=measured)
    return best, entries[best]


def _none_works(request: Request, measured: dict[str, object]) -> PpvError:
    if not measured:
        require_runtime("openvino" if request.precision == "bf16" else "onnxruntime")
    said = "; ".join(f"{name}: {result['error']}" for name, result in measured.items() if isinstance(result, dict))
    return RuntimeFailedError(
        f"no runtime passed the check of {request.row.name} on this machine ({said})",
        hint="PPV_DEBUG=1 shows more; another --model may work",
    )


# --- one entry --------------------------------------------------------------------------------------------------------


class _Network:
    """The network of a request and what it answers to the checked clips; built when first needed."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._folder = tempfile.TemporaryDirectory(prefix="ppv-compile-")
        self._built: tuple[Any, npt.NDArray[np.uint8], npt.NDArray[np.float32]] | None = None

    def get(self) -> tuple[Any, npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
        """The `Recognizer`, clips uint8 [N, T, H, W, 3] and their logits [N, K]."""
        if self._built is None:
            if self._request.on_compile is not None:
                self._request.on_compile(self._request.row.name)
            self._built = _build(self._request)
        return self._built

    def onnx(self) -> Path:
        """The network as ONNX that takes uint8; the file is gone when this object is."""
        from ppvcli.deploy import programs

        path = Path(self._folder.name) / "plain.onnx"
        if not path.exists():
            recognizer = self.get()[0]
            preprocess = recognizer.preprocess
            with silenced():
                programs.write_onnx(
                    recognizer.network,
                    path,
                    num_segments=preprocess.sampling.num_segments,
                    input_hw=preprocess.input_hw,
                    fold_normalize=preprocess,
                )
        return path


def _entry(request: Request, runtime: str, *, network: _Network | None) -> Entry:
    facts = _facts(request, runtime, engine=require_runtime(runtime))
    entry = cache.find(facts)
    if entry is not None:
        return entry
    with cache.locked(facts):
        entry = cache.find(facts)  # another process may have been faster
        if entry is None:
            entry = _compile(request, runtime, facts=facts, network=network or _Network(request))
    return entry


def _facts(request: Request, runtime: str, *, engine: str) -> dict[str, str]:
    """Everything that the program of a model depends on."""
    row = request.row
    return {
        "format": FORMAT,
        "model": row.name,
        "runtime": runtime,
        "precision": request.precision,
        "weights": request.weights_sha256,
        "network": f"{row.network} {row.preprocess} {row.labels}",
        "package": ppvcli.__version__,
        "engine": engine,
        "cpu": cpu_features(),
    }


def _compile(request: Request, runtime: str, *, facts: dict[str, str], network: _Network) -> Entry:
    recognizer, clips_nthwc, logits_nk = network.get()
    with cache.writing(facts) as folder:
        _check_space(folder, recognizer)
        program = _write_program(network, runtime, folder=folder, precision=request.precision)
        check: CheckResult = _check(
            runtime, program, request=request, clips=clips_nthwc, logits=logits_nk, preprocess=recognizer.preprocess
        )
        record = Record(
            facts=facts,
            program=program.name,
            labels=recognizer.labels,
            preprocess=recognizer.preprocess,
            check=check,
        )
        return cache.seal(folder, record)


def _check_space(folder: Path, recognizer: Any) -> None:
    """Raises OSError for a disk that the program would fill: engines say anything then, or nothing at all."""
    size_bytes = sum(tensor.size * 4 for tensor in recognizer.network.state_dict().values())
    if shutil.disk_usage(folder).free < size_bytes + _PROGRAM_TEXT_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _check(
    runtime: str,
    program: Path,
    *,
    request: Request,
    clips: npt.NDArray[np.uint8],
    logits: npt.NDArray[np.float32],
    preprocess: Any,
) -> CheckResult:
    from ppvcli.deploy.check import check_program

    settings = EngineSettings(threads=request.threads, precision=request.precision)
    with tempfile.TemporaryDirectory(prefix="ppv-clips-") as work:
        clips_path = Path(work) / "clips.npy"
        np.save(clips_path, clips)
        return check_program(
            runtime, program, clips_path=clips_path, logits_nk=logits, preprocess=preprocess, settings=settings
        )


def _write_program(network: _Network, runtime: str, *, folder: Path, precision: Precision) -> Path:
    """Writes the files of a runtime into `folder` and returns the first of them."""
    from ppvcli.deploy import programs

    if runtime == "onnxruntime":
        program = folder / f"inference{OPTIMIZED}"
        optimize_onnx(network.onnx(), program)
    elif runtime == "openvino":
        program = folder / PROGRAM_FILES["openvino"][0]
        programs.write_openvino(network.onnx(), program, precision=precision)
    else:
        program = folder / PROGRAM_FILES["paddle"][0]
        recognizer = network.get()[0]
        with silenced():
            programs.write_paddle_program(
                recognizer.network,
                folder,
                num_segments=recognizer.preprocess.sampling.num_segments,
                input_hw=recognizer.preprocess.input_hw,
            )
    return program


def _build(request: Request) -> tuple[Any, npt.NDArray[np.uint8], npt.NDArray[np.float32]]:
    """The recognizer, clips to check with (the demo's, the same backwards, noise), and its logits on them."""
    load_paddle()
    from ppvcli.models.recognizer import open_recognizer
    from ppvcli.models.views import clip_logits
    from ppvcli.video.clip import load_frames

    recognizer = open_recognizer(request.row.name, weights=request.weights)
    preprocess = recognizer.preprocess
    clip = load_frames(DEMO_CLIP, preprocess).frames_vthwc[0]
    noise = np.random.default_rng(0).integers(0, 256, clip.shape).astype(np.uint8)
    clips = np.stack([clip, clip[::-1], noise])
    logits = np.stack([clip_logits(recognizer.network, clips[i : i + 1], preprocess=preprocess) for i in range(3)])
    if weights_sha256(request.weights) != request.weights_sha256:
        raise WeightsError(f"{request.weights} changed while it was read", hint="try again")
    if not np.isfinite(logits).all():
        raise WeightsError(
            f"the weights of {recognizer.model} give scores that are no numbers",
            hint="the training that made them diverged, or the file is damaged: use another one",
        )
    return recognizer, clips, logits
