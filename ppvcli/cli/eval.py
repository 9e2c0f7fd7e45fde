"""`ppv eval`: the accuracy of a model on labelled clips."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ppvcli.cli import output
from ppvcli.cli.bars import BarRow, print_bars
from ppvcli.cli.download_weights import fetch_weights
from ppvcli.cli.options import (
    CpuOption,
    DecodeTimeoutOption,
    DeviceOption,
    GpuOption,
    MaxPixelsOption,
    ThreadsOption,
    choose_device,
    choose_limits,
    complete_config,
    complete_model,
)
from ppvcli.cli.unfinished import tell_unfinished
from ppvcli.errors import UsageError

if TYPE_CHECKING:
    from ppvcli.configs.load import Source
    from ppvcli.configs.schema import TrainConfig
    from ppvcli.results import ClassResult, EvalReport

MAX_CLASSES = 30
"""With more classes those without clips are not shown; with more that have clips, only the worst are."""
NUM_WORST = 10
NUM_WRONG = 20
"""Mistakes that are shown; predictions.jsonl has all."""
NUM_DAMAGED = 10
"""Damaged clips that are named; report.json has all."""
WEAK = 0.5
BAR_WIDTH = 24


def complete_protocol(incomplete: str) -> list[str]:
    """Protocols that begin with what was typed."""
    from ppvcli.video.protocols import PROTOCOLS

    return [name for name in PROTOCOLS if name.startswith(incomplete)]


def evaluate(
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model to evaluate.", autocompletion=complete_model)
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE|RUN_DIR", help="Weights of your own, or a run of `ppv train`.")
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="Take the clips that this config holds out.", autocompletion=complete_config
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting of --config: data.root=DIR."),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|LIST",
            help="One sub-folder of clips per class, or a list or CSV file.  [default: what the run held out]",
        ),
    ] = None,
    list_file: Annotated[
        str | None, typer.Option("--list", metavar="FILE", help="A list or CSV file, relative to --data as its paths.")
    ] = None,
    data_format: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="NAME",
            help="What clips of --data are: videos or (folders of) frames.  [default: as in the run]",
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="uniform, dense (10 clips x 3 crops) or ten-crop.  [default: the model's own]",
            autocompletion=complete_protocol,
        ),
    ] = None,
    skip_broken: Annotated[
        bool,
        typer.Option("--skip-broken", help="Leave out clips that can't be decoded.  [default: they count as wrong]"),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Folder for report and tables.  [default: eval/... here, or in the run folder]"
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Clips to load together.")] = 1,
    workers: Annotated[int, typer.Option(metavar="N", min=0, help="Decoding processes.")] = 1,
    threads: ThreadsOption = None,
    cpu: CpuOption = False,
    gpu: GpuOption = False,
    device: DeviceOption = None,
    decode_timeout: DecodeTimeoutOption = None,
    max_pixels: MaxPixelsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Measure a model's accuracy on labelled clips."""
    place = choose_device(cpu=cpu, gpu=gpu, device=device)
    limits = choose_limits(decode_timeout=decode_timeout, max_pixels=max_pixels)
    source = _config_source(config, overrides or [], data=data, list_file=list_file)
    settings = _load_config(source)
    clip_format = _choose_format(data_format, is_config=settings is not None or data is None)
    if protocol is not None:
        from ppvcli.video.protocols import get_protocol

        get_protocol(protocol)  # before something is downloaded for nothing
    from ppvcli.models.device import load_paddle

    load_paddle(threads)
    from ppvcli.engine.eval_clips import check_named, default_out_dir
    from ppvcli.engine.evaluate import evaluate
    from ppvcli.engine.reports import check_out_dir

    name = model if settings is None else model or settings.model.name
    folder = out or default_out_dir(
        name, config=settings, weights=weights, data=data, list_file=list_file, protocol=protocol
    )
    check_out_dir(folder)  # before something is downloaded for nothing
    if weights is None and name is not None:
        if settings is None:
            check_named(data, list_file)
        fetch_weights(name)
    tell_unfinished(weights)
    found: list[EvalReport] = []
    try:
        with output.open_bar("evaluating") as advance:
            evaluate(
                model,
                config=settings,
                weights=weights,
                data=None if settings is not None else data,
                list_file=list_file,
                data_format=clip_format,
                protocol=protocol,
                skip_broken=skip_broken,
                batch_size=batch_size,
                num_workers=workers,
                device=place,
                out=folder,
                limits=limits,
                on_clip=advance,
                on_report=found.append,
                source=source,
            )
    finally:  # a report that can't be written costs no figures
        for report in found:
            if as_json:
                output.print_json(report.to_dict())
            else:
                _show(report)
            _tell(report, weights=weights)
    if not (folder / "confusion.png").exists():
        output.show_warning("no confusion.png: it needs matplotlib; pip install 'ppvcli[plot]'")
    output.show_note(f"report and tables: {folder}")


def _config_source(
    config: str | None, overrides: list[str], *, data: Path | None, list_file: str | None
) -> Source | None:
    """The config with `--set` and, as in `ppv train`, `--data` for its `data.root`."""
    if config is None:
        if overrides:
            raise UsageError("--set changes a setting of --config, which is not given", hint="--config NAME|FILE")
        return None
    if list_file is not None:
        raise UsageError(
            "--config and --list both say which clips to evaluate; say one", hint="--set data.val_list=FILE"
        )
    from ppvcli.configs.load import Change, Source, parse_override

    root = [] if data is None else [Change(key="data.root", value=str(data), typed=f"--data {data}")]
    return Source(config, (*root, *map(parse_override, overrides)))


def _load_config(source: Source | None) -> TrainConfig | None:
    from ppvcli.configs.load import load_source

    return None if source is None else load_source(source)


def _choose_format(name: str | None, *, is_config: bool) -> Literal["videos", "frames"] | None:
    if name is not None and is_config:
        raise UsageError("--format belongs to --data; a config has data.format", hint=f"--set data.format={name}")
    if name is None:
        return None
    if name == "videos":
        return "videos"
    if name == "frames":
        return "frames"
    raise UsageError(f"unknown format '{name}'", hint="--format videos, or --format frames")


def _show(report: EvalReport) -> None:
    """Classes, mistakes and totals: a table for a person, lines with tabs between for a pipe."""
    with_clips = [result for result in report.classes if result.num_clips]
    if len(report.classes) <= MAX_CLASSES:
        shown = list(report.classes)
    else:
        shown = with_clips if len(with_clips) <= MAX_CLASSES else sorted(with_clips, key=_recall)[:NUM_WORST]
    if output.is_terminal(sys.stdout):
        _show_table(shown, num_classes=len(with_clips))
    else:
        output.print_line("class\tclips\tcorrect\trecall\tprecision\tf1")
        for result in shown:
            ratios = (_ratio(result.recall), _ratio(result.precision), _ratio(result.f1))
            counts = (str(result.num_clips), str(result.num_correct))
            output.print_line("\t".join((output.printable(result.label), *counts, *ratios)))
    for path, label, predicted in report.wrong[:NUM_WRONG]:
        output.print_line(output.printable(f"wrong: {path}: {label} taken for {predicted}"))
    if len(report.wrong) > NUM_WRONG:
        output.print_line(f"wrong: and {len(report.wrong) - NUM_WRONG} more")
    if report.setup is not None:
        output.print_line(f"{report.setup.protocol} protocol, {report.setup.views}, {report.setup.elapsed_s:.1f} s")
    output.print_line(
        f"{report.model}: top-1 {report.top1:.1%} ({report.num_correct} of {report.num_clips} clips), "
        f"top-5 {report.top5:.1%}, mean class {report.mean_class_accuracy:.1%}, loss {report.loss:.3f}"
    )


def _tell(report: EvalReport, *, weights: Path | None) -> None:
    """What a person should know besides the figures, on stderr."""
    fate = "left out" if report.num_skipped else "counted as wrong"
    for path, error in report.failures:
        output.show_warning(f"{output.with_path(path, error)} ({fate})")
    show_damaged(report)
    setup = report.setup
    if setup is not None and setup.num_trained_on:
        total = report.num_clips + report.num_skipped
        output.show_warning(
            f"{setup.num_trained_on} of these {total} clips are among those that {weights} was trained on; "
            f"ppv eval --weights {shlex.quote(str(weights))} takes those held out"
        )
    if setup is not None and setup.num_newer:
        from ppvcli.datasets.split_file import describe_newer

        output.show_note(describe_newer(setup.num_newer, setup.data))


def show_damaged(report: EvalReport) -> None:
    """Warns of the clips that count although they are damaged."""
    for path, damage in report.damaged[:NUM_DAMAGED]:
        output.show_warning(f"{path} is damaged ({damage}): counted by what is left of it")
    if len(report.damaged) > NUM_DAMAGED:
        output.show_warning(f"more clips that are damaged: {len(report.damaged) - NUM_DAMAGED}")


def _show_table(results: list[ClassResult], *, num_classes: int) -> None:
    if len(results) < num_classes:
        output.print_line(f"the worst {len(results)} of {num_classes} classes")
    rows = [
        BarRow(
            result.label,
            _recall(result),
            (
                *(_ratio(ratio) for ratio in (result.recall, result.precision, result.f1)),
                f"{result.num_correct} of {result.num_clips}" if result.num_clips else "no clips",
            ),
            "red" if result.num_clips and _recall(result) < WEAK else "",
        )
        for result in results
    ]
    print_bars(rows, ("class", "recall", "precision", "F1", "correct"), bar_width=BAR_WIDTH)


def _recall(result: ClassResult) -> float:
    return result.recall or 0.0


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
