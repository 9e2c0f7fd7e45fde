"""What prediction runs: a program with all that is known about it, from the cache or from an export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

from ppvcli.deploy import DEFAULT_MODEL
from ppvcli.deploy.exported import IMPOSSIBLE, ExportInfo, is_export, read_export
from ppvcli.deploy.runtimes import (
    RUNTIMES,
    Engine,
    EngineSettings,
    Precision,
    Runtime,
    check_choice,
    load_engine,
    require_runtime,
    runtime_version,
)
from ppvcli.errors import UsageError
from ppvcli.machine import resolve_threads
from ppvcli.models.device import find_device
from ppvcli.models.facts import choose_row, has_trained_weights, published_path, untrained_error
from ppvcli.models.zoo import ALIASES
from ppvcli.specs import Preprocess
from ppvcli.weights.formats import resolve_weights_path


@dataclass(frozen=True, kw_only=True)
class Program:
    """A network compiled for a runtime, with its preprocessing and its labels."""

    model: str
    """Name of its row in the zoo, or what an export says."""
    labels: tuple[str, ...]
    """Class names in the order of the logits; `class_0`, `class_1`, ... where nothing names them."""
    preprocess: Preprocess
    runtime: str
    path: Path
    """The program's first file."""
    settings: EngineSettings
    unkept: str | None = None
    """Why it was compiled for this process alone; None for one that later processes find again."""

    def load(self, *, streams: int) -> Engine:
        """The program ready to run, by `streams` callers at once. Raises: as `load_engine`."""
        clip_thw = (self.preprocess.sampling.num_segments, *self.preprocess.input_hw)
        settings = replace(self.settings, streams=streams, clip_thw=clip_thw)
        return load_engine(self.runtime, self.path, settings=settings)


def open_program(
    model: str | None,
    *,
    weights: str | Path | None = None,
    device: str = "auto",
    runtime: str = "auto",
    threads: int | None = None,
    precision: str | None = None,
    tensorrt: bool = False,
    on_compile: Callable[[str], None] | None = None,
) -> Program:
    """The program that these settings ask for; see `Predictor`. Raises: as `Predictor`."""
    threads = resolve_threads(threads)
    place = find_device(device)
    export = None
    if weights is not None and is_export(Path(weights).expanduser()):
        export = read_export(Path(weights).expanduser())
        precision = precision or _only_precision(export)
    check_choice(runtime, precision or "fp32", device=place, tensorrt=tensorrt, is_export=export is not None)
    settings = EngineSettings(
        threads=threads, precision=cast(Precision, precision or "fp32"), device=place, tensorrt=tensorrt
    )
    if place != "cpu":
        runtime = "paddle"
    if export is not None:
        return _from_export(model, export, runtime=runtime, settings=settings)
    return _from_weights(model, weights, runtime=runtime, settings=settings, on_compile=on_compile)


def _from_weights(
    model: str | None,
    weights: str | Path | None,
    *,
    runtime: str,
    settings: EngineSettings,
    on_compile: Callable[[str], None] | None,
) -> Program:
    from ppvcli.deploy.compile import Request, compiled, weights_sha256

    path = None if weights is None else resolve_weights_path(weights)
    row = choose_row(model, path, default=DEFAULT_MODEL)
    if path is None:
        if not has_trained_weights(row):
            raise untrained_error(row)
        path = published_path(row)
    request = Request(
        row=row,
        weights=path,
        weights_sha256=weights_sha256(path),
        precision=settings.precision,
        threads=settings.threads,
        on_compile=on_compile,
    )
    runtime, entry = compiled(request, runtime)
    return Program(
        model=row.name,
        labels=entry.record.labels,
        preprocess=entry.record.preprocess,
        runtime=runtime,
        path=entry.program,
        settings=settings,
        unkept=entry.unkept,
    )


# --- exports ----------------------------------------------------------------------------------------------------------

_FORMATS: dict[Runtime, Literal["onnx", "openvino", "paddle"]] = {
    "onnxruntime": "onnx",
    "openvino": "openvino",
    "paddle": "paddle",
}


def _only_precision(export: ExportInfo) -> Precision:
    """fp32, unless the export has only another one."""
    found = [program.precision for program in export.programs]
    return "fp32" if "fp32" in found or not found else found[0]


def _from_export(model: str | None, export: ExportInfo, *, runtime: str, settings: EngineSettings) -> Program:
    if model is not None and ALIASES.get(model, model) != export.model:
        raise UsageError(f"{export.folder} is an export of {export.model}, not of {model}", hint="leave --model out")
    there = {name: path for name in RUNTIMES if (path := _program_for(export, name, settings.precision)) is not None}
    names = [name for name in there if runtime in ("auto", name)]
    if not names:
        formats = [_FORMATS[name] for name in RUNTIMES if runtime in ("auto", name)]
        formats = [format for format in formats if (format, settings.precision) not in IMPOSSIBLE]
        kinds = ", ".join(f"{program.format} {program.precision}" for program in export.programs)
        wanted = settings.precision if runtime == "auto" else f"{runtime} in {settings.precision}"
        raise UsageError(
            f"{export.folder} has no program for {wanted}, only: {kinds}",
            hint=f"ppv export writes it: --format {','.join(formats)} --precision {settings.precision}"
            if formats
            else f"there is none; leave out --runtime {runtime} or --precision {settings.precision}",
        )
    installed = [name for name in names if runtime_version(name) is not None]
    if not installed:
        require_runtime(names[0])
    return Program(
        model=export.model,
        labels=export.labels,
        preprocess=export.preprocess,
        runtime=installed[0],
        path=there[installed[0]],
        settings=settings,
    )


def _program_for(export: ExportInfo, runtime: Runtime, precision: Precision) -> Path | None:
    program = export.find(_FORMATS[runtime], precision)
    if program is None and (runtime, precision) == ("openvino", "bf16"):
        program = export.find("openvino", "fp32")  # OpenVINO rounds when it loads
    return None if program is None else program.path
