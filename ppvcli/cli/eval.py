"""`ppv eval`: the accuracy of a model on labelled clips."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.cli import output
from ppvcli.cli.download_weights import fetch_weights
from ppvcli.cli.options import (
    CpuOption,
    DecodeTimeoutOption,
    DeviceOption,
    GpuOption,
    MaxPixelsOption,
    choose_device,
    choose_limits,
    complete_model,
)

if TYPE_CHECKING:
    from ppvcli.results import EvalReport


def evaluate(
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Model to evaluate.", autocompletion=complete_model)
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE|RUN_DIR", help="Weights of your own, or a run of `ppv train`.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="One sub-folder of clips per class.  [default: what the run held out]"),
    ] = None,
    list_file: Annotated[
        str | None, typer.Option("--list", metavar="FILE", help="Rows 'path label', relative to --data.")
    ] = None,
    workers: Annotated[int, typer.Option(metavar="N", min=0, help="Decoding processes.")] = 1,
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
    from ppvcli.engine.cpu import tune_math_library

    tune_math_library(os.environ)  # before Paddle is imported, and for this process alone
    if weights is None and model is not None:
        fetch_weights(model)
    from ppvcli.engine.run import evaluate

    def run(on_clip: object = None) -> EvalReport:
        return evaluate(
            model,
            weights=weights,
            data=data,
            list_file=list_file,
            num_workers=workers,
            device=place,
            limits=limits,
            on_clip=on_clip if callable(on_clip) else None,
        )

    if output.is_terminal(sys.stderr):
        from rich.progress import Progress

        with Progress(console=output.stderr_console(), transient=True) as progress:
            task = progress.add_task("evaluating", total=None)
            report = run(lambda done, total: progress.update(task, completed=done, total=total))
    else:
        report = run()
    if as_json:
        output.print_json(report.to_dict())
    else:
        _show(report)


def _show(report: EvalReport) -> None:
    width = max(len(result.label) for result in report.classes)
    for result in report.classes:
        if result.num_clips:
            share = result.num_correct / result.num_clips
            output.print_line(f"{result.label:<{width}}  {result.num_correct:>4} of {result.num_clips:<4} {share:6.1%}")
    for path, label, predicted in report.wrong[:20]:
        output.print_line(f"wrong: {path}: {label} taken for {predicted}")
    if len(report.wrong) > 20:
        output.print_line(f"wrong: and {len(report.wrong) - 20} more; --json lists them all")
    for path, error in report.failures:
        output.show_warning(f"{path}: {error} (counted as wrong)")
    output.print_line(
        f"{report.model}: top-1 {report.top1:.1%} ({report.num_correct} of {report.num_clips} clips), "
        f"top-5 {report.top5:.1%}, loss {report.loss:.3f}"
    )
