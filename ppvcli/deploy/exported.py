"""Folders of exported programs, ours and PaddleX's: what `inference.yml` says, written and read back. No paddle here.

Our `inference.yml` is PaddleX's with one more section, `ppvcli`, which holds what PaddleX has no words for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ppvcli.deploy.runtimes import PRECISIONS, Precision
from ppvcli.errors import ExportError
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.weights.formats import EXPORT_DESCRIPTION
from ppvcli.weights.metadata import MetadataError, WeightsMetadata, preprocess_from_json, preprocess_to_json

Format = Literal["paddle", "onnx", "openvino"]

IMPOSSIBLE: dict[tuple[Format, Precision], str] = {
    ("paddle", "bf16"): "Paddle runs its programs in fp32 on CPUs",
    ("paddle", "int8"): "what Paddle's own quantisation writes does not load again",
    ("onnx", "bf16"): "ONNX Runtime has no bf16 kernels for CPUs",
    ("openvino", "int8"): "OpenVINO fails on the temporal shift of 8-bit programs",
}
"""Pairs that are left out where the format or the precision has another partner, and refused where it has none."""

FORMAT_VERSION = 1
"""Of the section `ppvcli`; a reader refuses what is newer."""
COMPANIONS = {".json": ".pdiparams", ".pdmodel": ".pdiparams", ".xml": ".bin", ".onnx": None}
"""Suffix of a program -> suffix of the file with its weights, where that is another one."""
_FORMATS: dict[str, Format] = {".json": "paddle", ".pdmodel": "paddle", ".onnx": "onnx", ".xml": "openvino"}
_MAX_DESCRIPTION_BYTES = 16 << 20


@dataclass(frozen=True, kw_only=True)
class ProgramFile:
    """One network in one file format and precision."""

    format: Format
    precision: Precision
    path: Path
    """The file that engines are given; Paddle and OpenVINO have the weights in a second one beside it."""

    @property
    def files(self) -> tuple[Path, ...]:
        companion = COMPANIONS[self.path.suffix]
        return (self.path,) if companion is None else (self.path, self.path.with_suffix(companion))


@dataclass(frozen=True, kw_only=True)
class ExportInfo:
    """An export, as far as it can be known without loading a program."""

    folder: Path
    model: str
    """A name of the zoo; in a folder of PaddleX's making PaddleX's name."""
    labels: tuple[str, ...]
    """Class names in the order of the logits."""
    preprocess: Preprocess
    programs: tuple[ProgramFile, ...]
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the packages that wrote the programs; empty in a folder of PaddleX's making."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Which weights were exported, when, and what the check after writing measured; for people to read."""

    def find(self, format: Format, precision: Precision = "fp32") -> ProgramFile | None:
        """The program of that kind, or None."""
        for program in self.programs:
            if (program.format, program.precision) == (format, precision):
                return program
        return None


def program_path(folder: Path, format: Format, precision: Precision, *, pdmodel: bool = False) -> Path:
    """Where a program is in an export: `inference.onnx`, `inference_int8.onnx`, ..."""
    suffix = {"paddle": ".pdmodel" if pdmodel else ".json", "onnx": ".onnx", "openvino": ".xml"}[format]
    return folder / f"inference{'' if precision == 'fp32' else '_' + precision}{suffix}"


# --- writing ----------------------------------------------------------------------------------------------------------


def write_description(info: ExportInfo, *, paddlex_name: str | None) -> None:
    """Writes `inference.yml` into the folder of `info`; `paddlex_name` is what PaddleX calls this network, if it can.

    Raises: OSError.
    """
    import yaml

    content = {
        "Global": {"model_name": paddlex_name or info.model},
        "PreProcess": {"transform_ops": _paddlex_transforms(info.preprocess) if paddlex_name else []},
        "PostProcess": {"Topk": {"topk": min(5, len(info.labels)), "label_list": list(info.labels)}},
        "ppvcli": {
            "format": FORMAT_VERSION,
            "model": info.model,
            "preprocess": json.loads(preprocess_to_json(info.preprocess)),
            "programs": [
                {"file": program.path.name, "format": program.format, "precision": program.precision}
                for program in info.programs
            ],
            "versions": dict(info.versions),
            "provenance": dict(info.provenance),
        },
    }
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    (info.folder / EXPORT_DESCRIPTION).write_text(text, encoding="utf-8")


def paddlex_can_prepare(preprocess: Preprocess) -> bool:
    """Whether PaddleX's video transforms give the same frames and crop (it always scales by OpenCV, though)."""
    wanted = Preprocess(
        sampling=Sampling(mode="uniform", num_segments=preprocess.sampling.num_segments),
        resize=Resize(backend=preprocess.resize.backend, short_side=preprocess.resize.short_side, aspect="4:3"),
        crop=Crop(kind="center", size=preprocess.crop.size, rounding="round"),
        mean=preprocess.mean,
        std=preprocess.std,
    )
    return preprocess == wanted


def _paddlex_transforms(preprocess: Preprocess) -> list[dict[str, Any]]:
    assert paddlex_can_prepare(preprocess)
    read = {
        "num_seg": preprocess.sampling.num_segments,
        "target_size": preprocess.crop.size,
        "seg_len": 1,
        "sample_type": "uniform",  # without it PaddleX reads every frame of the video
    }
    return [
        {"ReadVideo": read},
        {"Scale": {"short_size": preprocess.resize.short_side}},
        {"CenterCrop": {"target_size": preprocess.crop.size}},
        {"Image2Array": {"data_format": "tchw"}},
        {"NormalizeVideo": {"mean": list(preprocess.mean), "std": list(preprocess.std)}},
    ]


# --- reading ----------------------------------------------------------------------------------------------------------


def is_export(path: str | Path) -> bool:
    """Whether a path is an export rather than a weight file or a run folder: it has an `inference.yml`.

    It is a folder, or a tar, packed or not, whatever its name.
    """
    path = Path(path)
    if path.is_file():
        from ppvcli.deploy.tars import holds_export

        return holds_export(path)
    return (path / EXPORT_DESCRIPTION).is_file()


def read_export(path: str | Path) -> ExportInfo:
    """The export in a folder, or in a tar, of ours or of PaddleX; a tar is unpacked into the cache first.

    Raises: ExportError for anything else: no `inference.yml`, a damaged one, one of a newer version, missing programs.
    """
    given = Path(path).absolute()
    folder = given
    if given.is_file():
        from ppvcli.deploy.tars import unpack

        folder = unpack(given)
    try:
        config = _load_yaml(folder / EXPORT_DESCRIPTION, given=given)
        ours = config.get("ppvcli")
        info = _read_paddlex(folder, config, given=given) if ours is None else _read_ours(folder, config, given=given)
    except (MetadataError, KeyError, TypeError, ValueError, AttributeError) as error:
        fault = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise ExportError(
            f"{given / EXPORT_DESCRIPTION} is damaged: {fault}", hint="export the model once more"
        ) from error
    for program in info.programs:
        for file in program.files:
            if not file.is_file():
                raise ExportError(
                    f"{given} is not a complete export: {file.name} is missing", hint="export the model once more"
                )
    return info


def _load_yaml(path: Path, *, given: Path) -> dict[str, Any]:
    import yaml

    try:
        if path.stat().st_size > _MAX_DESCRIPTION_BYTES:
            raise ValueError(f"larger than {_MAX_DESCRIPTION_BYTES >> 20} MB")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ExportError(
            f"{given} is not an export: no {EXPORT_DESCRIPTION}",
            hint="a folder made by ppv export, or a model folder of PaddleX",
        ) from error
    try:
        # the C parser takes a tenth of the time for 400 class names
        config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"no YAML ({str(error).splitlines()[0]})") from error
    if not isinstance(config, dict):
        raise ValueError("expected a mapping")
    return config


def _read_ours(folder: Path, config: dict[str, Any], *, given: Path) -> ExportInfo:
    ours = config["ppvcli"]
    if type(ours["format"]) is not int:
        raise ValueError("ppvcli.format: expected a number")
    if ours["format"] > FORMAT_VERSION:
        raise ExportError(
            f"{given} was exported by a newer ppv ({ours.get('versions', {}).get('ppvcli', 'unknown version')})",
            hint="pip install --upgrade ppvcli",
        )
    return ExportInfo(
        folder=folder,
        model=str(ours["model"]),
        labels=_labels(config),
        preprocess=preprocess_from_json(json.dumps(ours["preprocess"])),
        programs=tuple(_programs(folder, ours["programs"])),
        versions={str(key): str(value) for key, value in ours["versions"].items()},
        provenance=dict(ours["provenance"]),
    )


def _programs(folder: Path, entries: list[dict[str, str]]) -> Iterator[ProgramFile]:
    for entry in entries:
        path = folder / entry["file"]
        if path.parent != folder or _FORMATS.get(path.suffix) != entry["format"]:
            raise ValueError(f"ppvcli.programs: {entry['file']!r:.60} is no name of a program")
        precision = entry["precision"]
        if precision not in PRECISIONS:
            raise ValueError(f"ppvcli.programs: unknown precision {precision!r:.60}")
        yield ProgramFile(format=_FORMATS[path.suffix], precision=precision, path=path)


def _read_paddlex(folder: Path, config: dict[str, Any], *, given: Path) -> ExportInfo:
    steps = {name: args or {} for step in config["PreProcess"]["transform_ops"] for name, args in step.items()}
    if "ReadVideo" not in steps:
        raise ExportError(
            f"{given} is a model of another kind: its {EXPORT_DESCRIPTION} reads no videos",
            hint="a video classification model of PaddleX, such as PP-TSMv2-LCNetV2_16frames_uniform",
        )
    read, normalize = steps["ReadVideo"], steps.get("NormalizeVideo", {})
    if read.get("seg_len", 1) != 1:
        raise ValueError(f"ReadVideo.seg_len: only 1 frame per segment is known, got {read['seg_len']}")
    # the defaults are PaddleX's; the models were trained with Pillow's scaling
    preprocess = Preprocess(
        sampling=Sampling(mode="uniform", num_segments=read.get("num_seg", 8)),
        resize=Resize(short_side=steps.get("Scale", {}).get("short_size", 224), aspect="4:3"),
        crop=Crop(kind="center", size=steps.get("CenterCrop", {}).get("target_size", 224), rounding="round"),
        mean=tuple(normalize.get("mean", Preprocess.mean)),
        std=tuple(normalize.get("std", Preprocess.std)),
    )
    programs = [
        ProgramFile(format=format, precision="fp32", path=folder / f"inference{suffix}")
        for suffix, format in _FORMATS.items()
        if (folder / f"inference{suffix}").is_file()
    ]
    if not programs:
        raise ExportError(f"{given} is not a complete export: no inference.json and no inference.pdmodel")
    return ExportInfo(
        folder=folder,
        model=str(config["Global"]["model_name"]),
        labels=_labels(config),
        preprocess=preprocess_from_json(json.dumps(asdict(preprocess))),  # checked like any that comes with a file
        programs=tuple(programs),
    )


def _labels(config: dict[str, Any]) -> tuple[str, ...]:
    names = [str(name) for name in config["PostProcess"]["Topk"]["label_list"]]
    header = WeightsMetadata(labels=tuple(names)).to_header()
    labels = getattr(WeightsMetadata.from_header(header), "labels", None)  # checked like those of a weight file
    assert labels is not None
    return labels
