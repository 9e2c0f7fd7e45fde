"""`export`: a model as a folder of programs that run elsewhere, complete and checked, or not there."""

from __future__ import annotations

import datetime
import itertools
import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppvcli.arguments import as_names
from ppvcli.datasets.annotations import read_labels
from ppvcli.deploy import programs, quantize
from ppvcli.deploy.check import check_program
from ppvcli.deploy.clips import RENDERED_ACTIONS, Clip, Clips, load_first_views, rendered_views
from ppvcli.deploy.compile import weights_sha256
from ppvcli.deploy.export_plan import FORMATS, Plan, default_formats, make_plan
from ppvcli.deploy.exported import (
    ExportInfo,
    Format,
    ProgramFile,
    paddlex_can_prepare,
    program_path,
    write_description,
)
from ppvcli.deploy.publish import publishing
from ppvcli.deploy.runtimes import EngineSettings, runtime_version
from ppvcli.errors import DatasetError, ExportError, PpvError, UsageError
from ppvcli.models.recognizer import Recognizer, open_recognizer
from ppvcli.models.views import clip_logits
from ppvcli.models.zoo import get_model_row
from ppvcli.results import ExportedProgram, ExportReport
from ppvcli.specs import NetworkSpec, Preprocess
from ppvcli.video.transforms import normalize

MAX_CALIBRATION_CLIPS = 200
"""The ranges of activations hardly move after a hundred; with more, every n-th clip is taken."""
_MARGIN_BYTES = 16 << 20

Report = Callable[[str], None]


def export(
    model: str | None,
    out: str | Path,
    *,
    weights: str | Path | None = None,
    formats: str | Sequence[str] | None = None,
    precisions: str | Sequence[str] = ("fp32",),
    calibration: str | Path | None = None,
    check: str | Path | None = None,
    program: str = "json",
    force: bool = False,
    threads: int | None = None,
    labels: str | Path | None = None,
    class_names: Sequence[str] | None = None,
    on_step: Callable[[str], None] | None = None,
) -> ExportReport:
    """Writes a model as programs for other engines into the folder `out`, with an `inference.yml` that PaddleX reads.

    `formats` are `paddle`, `onnx`, `openvino` or several of them (None: paddle and, where paddle2onnx is installed,
    onnx), `precisions` of `fp32`, `bf16`, `int8`; bf16 is for OpenVINO, int8 for ONNX, and needs `calibration`: a
    folder of clips or a list with one path a line. `program` is `json`, or `pdmodel` for Paddle's old format. `model`
    None is the model that `weights` says it is of. `labels` is a file with one class name a line and comes before all
    other names; `class_names` name classes that neither it nor the weights name.

    Every program is run in a child process, on rendered clips and those of `check` (folder, list or video), and its
    logits are compared with those of the network before its conversion; the folder appears when all have passed, else
    nothing does. `force` replaces an export that is there. `on_step` is told what is being done.

    Raises: UsageError (impossible settings, `out` exists); MissingPackageError; DatasetError, VideoError (clips);
    WeightsError; ExportError where a program crashes, answers differently or can't be written.
    """
    precisions = as_names(precisions)
    formats = default_formats(precisions) if formats is None else as_names(formats)
    plan = make_plan(formats, precisions, calibration=calibration, check=check, program=program, threads=threads)
    say = on_step or (lambda step: None)
    out = Path(out)
    names = None if labels is None else read_labels(Path(labels))
    with publishing(out, force=force) as folder, tempfile.TemporaryDirectory(prefix="ppv-export-") as work:
        say("loading the network")
        recognizer = _name_classes(open_recognizer(model, weights=weights), names, unnamed=class_names)
        _check_space(folder, Path(work), recognizer, plan)
        say("running the network on the clips of the check")
        reference = _answer(recognizer, plan, clips_path=Path(work) / "clips.npy")  # conversion changes the network
        written = [*_write_programs(recognizer, folder, plan, say, work=Path(work))]
        results = [*_checked(written, reference, recognizer.preprocess, plan, say)]
        _describe(recognizer, folder, written=written, results=results)
    return ExportReport(out_dir=str(out), model=recognizer.model, programs=tuple(results))


def _name_classes(recognizer: Recognizer, names: Sequence[str] | None, *, unnamed: Sequence[str] | None) -> Recognizer:
    """With `names`; else, where its weights name no classes, with `unnamed`."""
    if names is None and recognizer.network.load_report.labels is None:
        names = unnamed
    if names is None:
        return recognizer
    if len(names) != len(recognizer.labels):
        raise UsageError(
            f"{len(names)} class names for a network of {len(recognizer.labels)} classes",
            hint="one name for each class, in the order of the class indices",
        )
    return replace(recognizer, labels=tuple(names))


def _check_space(folder: Path, work: Path, recognizer: Recognizer, plan: Plan) -> None:
    """Refuses at once what would fill the disk: Paddle and OpenVINO may die of that or leave half a file silently."""
    size_bytes = sum(tensor.size * 4 for tensor in recognizer.network.state_dict().values())
    clips_bytes = math.prod(_clips_shape(recognizer.preprocess, plan))
    for place, needed in ((folder, len(plan.pairs) * size_bytes), (work, 3 * size_bytes + clips_bytes)):
        free = shutil.disk_usage(place).free
        if free < needed + _MARGIN_BYTES:
            raise ExportError(
                f"not enough space for the export in {place}: {(needed + _MARGIN_BYTES) >> 20} MB needed, "
                f"{free >> 20} MB free",
                hint="free some space, or choose another --out (for temporary files: TMPDIR, or fewer clips)",
            )


# --- the network's own answers ----------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Reference:
    """What the network answers to the clips of the check."""

    clips_path: Path
    """A .npy file of uint8 [N, T, H, W, 3]: a list of a whole validation set does not fit into memory."""
    logits_nk: npt.NDArray[np.float32]
    truth: tuple[int, ...]
    """Class index of each clip; -1 where nobody says it."""


def _clips_shape(preprocess: Preprocess, plan: Plan) -> tuple[int, ...]:
    num_clips = len(RENDERED_ACTIONS) + (0 if plan.check is None else len(plan.check.paths))
    return (num_clips, preprocess.sampling.num_segments, *preprocess.input_hw, 3)


def _answer(recognizer: Recognizer, plan: Plan, *, clips_path: Path) -> _Reference:
    """The network's answers, while it is as it was loaded. Raises: DatasetError, VideoError, OSError."""
    preprocess, network = recognizer.preprocess, recognizer.network
    truth = [-1] * len(RENDERED_ACTIONS)
    clips: Iterable[Clip] = rendered_views(preprocess)
    if plan.check is not None:
        truth += _classes(plan.check, recognizer.labels)
        clips = itertools.chain(clips, load_first_views(plan.check, preprocess))
    logits = []
    with clips_path.open("wb") as file:
        header = {"descr": "|u1", "fortran_order": False, "shape": _clips_shape(preprocess, plan)}
        np.lib.format.write_array_header_1_0(file, header)
        for clip in clips:
            file.write(clip.tobytes())
            logits.append(clip_logits(network, clip[np.newaxis], preprocess=preprocess))
    return _Reference(clips_path=clips_path, logits_nk=np.stack(logits), truth=tuple(truth))


def _classes(clips: Clips, labels: Sequence[str]) -> Sequence[int]:
    """Of each clip, as its list says, else by the name of its folder; -1 where that is none. Raises: DatasetError."""
    if clips.truth is None:
        indices = {label: index for index, label in enumerate(labels)}
        return [indices.get(path.absolute().parent.name, -1) for path in clips.paths]
    for path, label in zip(clips.paths, clips.truth, strict=True):
        if label >= len(labels):
            raise DatasetError(
                f"check: label {label} of {path}, but there are {len(labels)} classes (counted from 0)",
                hint="a row is `path label`, where label is the number of the class, counted from 0",
            )
    return clips.truth


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_programs(
    recognizer: Recognizer, folder: Path, plan: Plan, say: Report, *, work: Path
) -> Iterator[ProgramFile]:
    preprocess, network = recognizer.preprocess, recognizer.network
    shape: dict[str, Any] = {"num_segments": preprocess.sampling.num_segments, "input_hw": preprocess.input_hw}
    onnx_files = {"fp32": work / "fp32.onnx", "int8": work / "int8.onnx"}
    if any(format != "paddle" for format, _ in plan.pairs):
        say("converting to ONNX")
        programs.write_onnx(network, onnx_files["fp32"], **shape)
    if plan.calibration is not None:
        say("calibrating int8")
        clips = _calibration_clips(plan.calibration, preprocess)
        quantize.write_int8_onnx(onnx_files["fp32"], onnx_files["int8"], clips_ntchw=clips)
    for format, precision in plan.pairs:
        path = program_path(folder, format, precision, pdmodel=plan.pdmodel)
        say(f"writing {path.name}")
        source = onnx_files["int8" if precision == "int8" else "fp32"]
        if format == "paddle":
            programs.write_paddle_program(network, folder, pdmodel=plan.pdmodel, **shape)
        elif format == "onnx":
            shutil.copyfile(source, path)
        else:
            programs.write_openvino(source, path, precision=precision)
        yield ProgramFile(format=format, precision=precision, path=path)


def _calibration_clips(clips: Clips, preprocess: Preprocess) -> Iterator[npt.NDArray[np.float32]]:
    step = -(-len(clips.paths) // MAX_CALIBRATION_CLIPS)
    for clip in load_first_views(Clips(paths=clips.paths[::step]), preprocess):
        yield normalize(clip[np.newaxis], preprocess)


def _describe(
    recognizer: Recognizer, folder: Path, *, written: Sequence[ProgramFile], results: Sequence[ExportedProgram]
) -> None:
    source = recognizer.network.load_report.path
    network = get_model_row(recognizer.model).network
    info = ExportInfo(
        folder=folder,
        model=recognizer.model,
        labels=recognizer.labels,
        preprocess=recognizer.preprocess,
        programs=tuple(written),
        versions=_versions({program.format for program in written}),
        provenance={
            "weights": {"file": source.name, "sha256": weights_sha256(source)},
            "exported": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "check": {
                result.file: {"max_diff": result.max_diff, "top1": f"{result.num_agree} of {result.num_clips}"}
                for result in results
            },
        },
    )
    can_prepare = paddlex_can_prepare(recognizer.preprocess)
    write_description(info, paddlex_name=paddlex_name(network) if can_prepare else None)


def paddlex_name(spec: NetworkSpec) -> str | None:
    """What PaddleX 3.7 calls a network, if it knows it."""
    if spec.architecture == "pptsmv2" and spec.num_segments in (8, 16):
        return f"PP-TSMv2-LCNetV2_{spec.num_segments}frames_uniform"
    if spec.architecture == "pptsm" and (spec.num_segments, spec.depth) == (8, 50):
        return "PP-TSM-R50_8frames_uniform"
    return None


def _versions(formats: set[Format]) -> dict[str, str]:
    import ppvcli

    names = ["paddle", *(FORMATS[format] for format in sorted(formats) if format != "paddle")]
    return {"ppvcli": ppvcli.__version__, **{name: runtime_version(name) or "unknown" for name in names}}


# --- checking ---------------------------------------------------------------------------------------------------------


def _checked(
    written: Sequence[ProgramFile], reference: _Reference, preprocess: Preprocess, plan: Plan, say: Report
) -> Iterator[ExportedProgram]:
    """Every program after its check. Raises: ExportError that names the first one that fails."""
    for program in written:
        say(f"checking {program.path.name}")
        try:
            result = check_program(
                FORMATS[program.format],
                program.path,
                clips_path=reference.clips_path,
                logits_nk=reference.logits_nk,
                preprocess=preprocess,
                settings=EngineSettings(threads=plan.threads, precision=program.precision),
                truth=reference.truth,
            )
        except PpvError as error:
            raise ExportError(
                f"{program.path.name} ({program.format}, {program.precision}) failed its check, nothing was exported: "
                f"{error.message}",
                hint=error.hint or "leave this format or precision out",
            ) from error
        yield ExportedProgram(
            file=program.path.name,
            format=program.format,
            precision=program.precision,
            size_bytes=sum(file.stat().st_size for file in program.files),
            max_diff=result.max_diff,
            num_clips=result.num_clips,
            num_agree=result.num_agree,
            num_labelled=sum(label >= 0 for label in reference.truth),
            num_correct=result.num_correct,
            time_ms=result.time_ms,
            threads=result.threads,
        )
