"""`evaluate`: from names and paths to a report."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

from ppvcli.configs.load import load_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.annotations import Format, Sample, read_samples
from ppvcli.datasets.catalog import open_split
from ppvcli.datasets.folder import scan_class_folders
from ppvcli.engine.checkpoint import CONFIG_FILE
from ppvcli.engine.evaluator import build_report, evaluate_logits
from ppvcli.engine.inputs import final_preprocess
from ppvcli.engine.reports import check_out_dir, write_report
from ppvcli.errors import DatasetError, UsageError
from ppvcli.models.device import select_device
from ppvcli.models.recognizer import Recognizer, open_recognizer
from ppvcli.models.zoo import get_model_row
from ppvcli.results import EvalReport, EvalSetup
from ppvcli.specs import Preprocess
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits
from ppvcli.video.protocols import apply_protocol
from ppvcli.weights.formats import LAST_CHECKPOINT, resolve_weights_path
from ppvcli.weights.store import file_sha256

OWN_PROTOCOL = "own"
MAX_NAMES = 10
"""Classes that an error names."""
PACKAGES = ("ppvcli", "paddlepaddle", "paddlepaddle-gpu", "numpy", "av", "pillow", "opencv-python")


@dataclass(frozen=True, kw_only=True)
class _Clips:
    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    source: str
    """For the report."""


def evaluate(
    model: str | None = None,
    *,
    config: TrainConfig | str | None = None,
    weights: str | Path | None = None,
    data: str | Path | None = None,
    list_file: str | None = None,
    data_format: Format | None = None,
    protocol: str | None = None,
    skip_broken: bool = False,
    batch_size: int = 1,
    num_workers: int = 1,
    device: str = "auto",
    out: str | Path | None = None,
    limits: DecodeLimits = DEFAULT_LIMITS,
    on_clip: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Accuracy of a model on labelled clips.

    `data` is a folder with one sub-folder per class, whose names must be the model's labels, or a list (rows
    `path label`) or CSV file (columns `path`, `label`) with paths relative to it; with `list_file`, `data` is the root
    of the paths in that list or CSV. With `data_format="frames"` a clip is a folder of frames, and a row of a list
    `folder num_frames label`; unless told, clips are what those of the run were, or else videos. Without `data` the
    clips are those that `config`, or else the config of the run folder that `weights` is, holds out.

    Clips are looked at as the weights say, or by a `protocol` of `ppvcli.video.protocols`: `uniform`, `dense` or
    `ten-crop`. One that can't be decoded is listed and counts as wrong, or with `skip_broken` not at all. With `out`
    the report and its tables are written into that folder. `limits` say what one file may cost. `on_clip(done, total)`
    is called after each clip.

    Raises: DatasetError, WeightsError, ConfigError; UsageError for arguments that exclude each other, or an `out` that
    holds other files.
    """
    if isinstance(config, str):
        config = load_config(config)
    if out is not None:
        check_out_dir(Path(out))
    began, start = datetime.now(timezone.utc), time.perf_counter()
    place = select_device(device)
    recognizer = open_recognizer(config.model.name if config is not None and model is None else model, weights=weights)
    preprocess = _preprocess(recognizer, config, protocol=protocol)
    run_config = _run_config(weights)
    clips = _find_clips(
        data,
        list_file,
        data_format=data_format or ("videos" if run_config is None else run_config.data.format),
        recognizer=recognizer,
        config=config,
        run_config=run_config,
    )
    count = iter(range(1, len(clips.samples) + 1))

    def on_one() -> None:
        if on_clip is not None:
            on_clip(next(count), len(clips.samples))

    rows = evaluate_logits(
        recognizer.network,
        clips.samples,
        preprocess,
        batch_size=batch_size,
        num_workers=num_workers,
        limits=limits,
        on_clip=on_one,
    )
    path = recognizer.network.load_report.path
    setup = EvalSetup(
        protocol=protocol or OWN_PROTOCOL,
        views=preprocess.protocol,
        preprocess=json.loads(json.dumps(dataclasses.asdict(preprocess))),
        weights=str(path),
        weights_sha256=file_sha256(path) if path.is_file() else None,
        data=clips.source,
        skip_broken=skip_broken,
        batch_size=batch_size,
        device=place,
        versions=_versions(),
        date=began.isoformat(timespec="seconds"),
        elapsed_s=round(time.perf_counter() - start, 2),
    )
    counted = build_report(clips.samples, rows, labels=clips.labels, model=recognizer.model, skip_broken=skip_broken)
    report = replace(counted, setup=setup)
    if out is not None:
        write_report(Path(out), report, samples=clips.samples, rows=rows, labels=clips.labels)
    return report


def _preprocess(recognizer: Recognizer, config: TrainConfig | None, *, protocol: str | None) -> Preprocess:
    """What the weights say, else the config, else the zoo; then the protocol."""
    preprocess, row = recognizer.preprocess, get_model_row(recognizer.model)
    if config is not None and recognizer.network.load_report.preprocess is None:
        preprocess = final_preprocess(config)
    if protocol is None:
        return preprocess
    if protocol == "ten-crop" and row.network.num_segments is None:
        # a network that takes any number of frames is published with more of them than it was trained on
        preprocess = replace(preprocess, sampling=row.preprocess.sampling)
    return apply_protocol(preprocess, protocol)


def _run_config(weights: str | Path | None) -> TrainConfig | None:
    """The config of the run folder that `weights` is, or lies in."""
    folder = find_run_dir(weights)
    return None if folder is None else load_config(str(folder / CONFIG_FILE))


def find_run_dir(weights: str | Path | None) -> Path | None:
    """The run folder that `weights` is, or lies in; None for other weights."""
    if weights is None:
        return None
    path = Path(weights)
    return next(
        (folder for folder in (path, path.parent, path.parent.parent) if (folder / CONFIG_FILE).is_file()), None
    )


def default_out_dir(
    model: str | None,
    *,
    weights: str | Path | None,
    data: str | Path | None,
    list_file: str | None,
    protocol: str | None,
) -> Path:
    """Where `ppv eval` writes unless told: a folder for each pair of weights and clips and protocol.

    `RUN_DIR/eval/<clips>-<protocol>` for the weights of a run (`last-<clips>-<protocol>` for those of the last epoch),
    else `eval/<model>-<clips>-<protocol>` in the working directory.
    """
    clips = "held-out" if data is None else Path(list_file or Path(data).absolute().name).stem
    name = f"{clips}-{protocol or OWN_PROTOCOL}"
    run_dir = find_run_dir(weights)
    if run_dir is None:
        return Path("eval") / f"{Path(weights).stem if weights is not None else model}-{name}"
    is_last = resolve_weights_path(weights or "").name == LAST_CHECKPOINT.name
    return run_dir / "eval" / (f"last-{name}" if is_last else name)


def _find_clips(
    data: str | Path | None,
    list_file: str | None,
    *,
    data_format: Format,
    recognizer: Recognizer,
    config: TrainConfig | None,
    run_config: TrainConfig | None,
) -> _Clips:
    labels = recognizer.labels
    if data is None:
        if list_file is not None:
            raise UsageError("a list file needs the folder of its clips", hint="--data DIR --list FILE, or --data FILE")
        return _held_out(recognizer, config=config, run_config=run_config)
    if config is not None:
        raise UsageError("config and data both say which clips to evaluate; say one", hint="--set data.root=DIR")
    path = Path(data)
    if list_file is not None:
        if path.is_file():
            raise UsageError(f"--data {path} is a list itself; --list can't take effect", hint="leave --list out")
        samples = read_samples(path / list_file, path, labels=labels, format=data_format)
        return _Clips(samples=samples, labels=labels, source=str(path / list_file))
    if path.is_file():
        samples = read_samples(path, path.parent, labels=labels, format=data_format)
        return _Clips(samples=samples, labels=labels, source=str(path))
    return _Clips(samples=_class_folders(path, labels, data_format=data_format), labels=labels, source=str(path))


def _held_out(recognizer: Recognizer, *, config: TrainConfig | None, run_config: TrainConfig | None) -> _Clips:
    chosen = config or run_config
    if chosen is None:
        raise UsageError("no clips to evaluate on", hint="--data DIR, with one sub-folder of clips per class")
    split, labels = open_split(chosen.data, seed=chosen.seed), recognizer.labels
    if config is None and split.labels != labels:
        raise DatasetError(f"{chosen.data.root} no longer has the classes the run was trained on")
    if recognizer.network.load_report.labels is None and len(split.labels) == len(labels):
        labels = split.labels  # the file names no classes, the config does
    samples = _by_name(split.val, split.labels, labels=labels, source=chosen.data.root)
    return _Clips(samples=samples, labels=labels, source=f"held out of {chosen.data.root}")


def _class_folders(root: Path, labels: tuple[str, ...], *, data_format: Format) -> tuple[Sample, ...]:
    samples, folders = scan_class_folders(root, format=data_format)
    return _by_name(samples, folders, labels=labels, source=str(root))


def _by_name(
    samples: tuple[Sample, ...], names: tuple[str, ...], *, labels: tuple[str, ...], source: str
) -> tuple[Sample, ...]:
    """The samples with the class indices of the model, which may know more classes and have them in another order."""
    unknown = sorted(set(names) - set(labels))
    if unknown:
        shown = _quoted(unknown) + (", ..." if len(unknown) > MAX_NAMES else "")
        raise DatasetError(
            f"{source}: classes that the model does not know: {shown}",
            hint=f"it knows {_quoted(labels)}"
            + (f" and {len(labels) - MAX_NAMES} more" if len(labels) > MAX_NAMES else ""),
        )
    return tuple(replace(sample, label=labels.index(names[sample.label])) for sample in samples)


def _quoted(names: Sequence[str]) -> str:
    """The first of the names; quoted, because a name may hold a comma."""
    return ", ".join(f"'{name}'" for name in names[:MAX_NAMES])


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
