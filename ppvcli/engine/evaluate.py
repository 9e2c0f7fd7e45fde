"""`evaluate`: from names and paths to a report."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import platform
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import get_args

from ppvcli.configs.load import Source, load_source
from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.annotations import Format
from ppvcli.engine.eval_clips import OWN_PROTOCOL, count_trained_on, find_clips
from ppvcli.engine.evaluator import build_report, check_answered, evaluate_logits
from ppvcli.engine.inputs import final_preprocess
from ppvcli.engine.reports import check_out_dir, write_report
from ppvcli.errors import UnknownNameError, UsageError
from ppvcli.models.device import select_device
from ppvcli.models.recognizer import Recognizer, open_recognizer
from ppvcli.models.zoo import get_model_row
from ppvcli.results import EvalReport, EvalSetup
from ppvcli.specs import Preprocess
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits
from ppvcli.video.protocols import apply_protocol
from ppvcli.weights.formats import read_metadata
from ppvcli.weights.store import file_sha256

PACKAGES = ("ppvcli", "paddlepaddle", "paddlepaddle-gpu", "numpy", "av", "pillow", "opencv-python")


def evaluate(
    model: str | None = None,
    *,
    config: TrainConfig | str | Path | None = None,
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
    on_report: Callable[[EvalReport], None] | None = None,
    source: Source | None = None,
) -> EvalReport:
    """Accuracy of a model on labelled clips.

    `data` is a folder with one sub-folder per class, whose names must be the model's labels, or a list (rows
    `path label`) or CSV file (columns `path`, `label`) with paths relative to it; with `list_file`, `data` is the root
    of the paths in that list or CSV. With `data_format="frames"` a clip is a folder of frames, and a row of a list
    `folder num_frames label`; unless told, clips are what those of the run were, or else videos. Without `data` the
    clips are those that `config`, or else the run folder that `weights` is, holds out. A run has written them down when
    it began; its `config.yaml` stands for them too, where `source` says that `config` was read from there.

    Clips are looked at as the weights say, or by a `protocol` of `ppvcli.video.protocols`: `uniform`, `dense` or
    `ten-crop`. One that can't be decoded is listed and counts as wrong, or with `skip_broken` not at all. With `out`
    the report and its tables are written into that folder. `limits` say what one file may cost. `on_clip(done, total)`
    is called after each clip, `on_report(report)` before anything is written. On a CPU every usable core computes,
    unless OMP_NUM_THREADS or an earlier import of Paddle says otherwise (`help(ppvcli)`).

    Raises: DatasetError, also where not one clip could be evaluated; WeightsError, ConfigError; UsageError for
    impossible arguments or those that exclude each other, or an `out` that holds other files; ReportError for one that
    can't be written.
    """
    _check_arguments(batch_size=batch_size, num_workers=num_workers, data_format=data_format)
    if isinstance(config, (str, Path)):
        source = Source(str(config))
        config = load_source(source)
    if out is not None:
        check_out_dir(Path(out))
    began, start = datetime.now(timezone.utc), time.perf_counter()
    place = select_device(device)
    recognizer = open_recognizer(_model_of(config, weights) if model is None else model, weights=weights)
    preprocess = _preprocess(recognizer, config, protocol=protocol)
    clips = find_clips(
        data,
        list_file,
        data_format=data_format,
        recognizer=recognizer,
        config=config,
        source=source,
        weights=weights,
    )
    num_trained_on = count_trained_on(clips, weights)
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
    check_answered(clips.samples, rows)
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
        num_trained_on=num_trained_on,
        num_newer=clips.num_newer,
    )
    counted = build_report(clips.samples, rows, labels=clips.labels, model=recognizer.model, skip_broken=skip_broken)
    report = replace(counted, setup=setup)
    if on_report is not None:
        on_report(report)
    if out is not None:
        write_report(Path(out), report, samples=clips.samples, rows=rows, labels=clips.labels)
    return report


def _check_arguments(*, batch_size: int, num_workers: int, data_format: str | None) -> None:
    if batch_size < 1:
        raise UsageError(f"batch_size must be 1 or more, got {batch_size}", hint="1 takes the least memory")
    if num_workers < 0:
        raise UsageError(f"num_workers must be 0 or more, got {num_workers}", hint="0 decodes in this process")
    if data_format is not None and data_format not in get_args(Format):
        known = get_args(Format)
        raise UnknownNameError("data_format", data_format, known, hint=f"there are: {', '.join(known)}")


def _model_of(config: TrainConfig | None, weights: str | Path | None) -> str | None:
    """The model of a config, for weights that don't say what they are of; None leaves it to them."""
    carried = None if weights is None else read_metadata(weights)
    return None if config is None or (carried is not None and carried.model is not None) else config.model.name


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


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
