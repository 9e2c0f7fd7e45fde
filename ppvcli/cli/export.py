"""`ppv export`: a model as programs that run elsewhere."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.cli import output
from ppvcli.cli.download_weights import fetch_weights
from ppvcli.cli.options import ThreadsOption, complete_config, complete_model
from ppvcli.cli.unfinished import tell_unfinished
from ppvcli.errors import UsageError, counted

if TYPE_CHECKING:
    from ppvcli.results import ExportReport


def export(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder for the export.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Model to export.  [default: what the weights are of]", autocompletion=complete_model
        ),
    ] = None,
    config: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="The config that the weights were trained by.", autocompletion=complete_config
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE|RUN_DIR", help="Weights of your own, or a run of `ppv train`.")
    ] = None,
    formats: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="LIST",
            help="Of paddle, onnx and openvino, with commas between.  [default: paddle,onnx, as far as installed]",
        ),
    ] = None,
    precisions: Annotated[
        str, typer.Option("--precision", metavar="LIST", help="Of fp32, bf16 (openvino) and int8 (onnx).")
    ] = "fp32",
    calibration: Annotated[
        Path | None,
        typer.Option(metavar="DIR|LIST", help="For int8: clips of the kind that will come, a hundred or so."),
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(
            metavar="CLIPS", help="Compare the programs on these clips too (folder, list, video); show the table."
        ),
    ] = None,
    program: Annotated[
        str, typer.Option(metavar="KIND", help="Of paddle: json, or pdmodel for engines before Paddle 3.")
    ] = "json",
    force: Annotated[bool, typer.Option("--force", help="Replace the export that is there.")] = False,
    threads: ThreadsOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Write a model as checked programs for other engines.

    Nothing appears at --out unless every program gave the network's answers.
    """
    class_names = None
    if config is not None:
        model, class_names = _from_config(config, model=model, weights=weights)
    from ppvcli.models.device import load_paddle

    load_paddle()
    from ppvcli.deploy.export_plan import default_formats, make_plan
    from ppvcli.deploy.exporter import export as run
    from ppvcli.deploy.publish import check_target

    wanted = _names(precisions)
    chosen = default_formats(wanted) if formats is None else _names(formats)
    if weights is None and model is not None:  # nothing is downloaded for what can't be done
        make_plan(chosen, wanted, calibration=calibration, check=check, program=program, threads=threads)
        check_target(out, force=force)
        fetch_weights(model)
    tell_unfinished(weights)
    report = run(
        model,
        out,
        weights=weights,
        formats=chosen,
        precisions=wanted,
        calibration=calibration,
        check=check,
        program=program,
        force=force,
        threads=threads,
        class_names=class_names,
        on_step=_show_step if output.is_terminal(sys.stderr) else None,
    )
    if formats is None and "onnx" not in chosen:
        output.show_note("no ONNX: paddle2onnx is not installed; pip install paddle2onnx (for Python 3.10 to 3.12)")
    if as_json:
        output.print_json(report.to_dict())
    else:
        _show(report, as_table=check is not None)


def _from_config(config: str, *, model: str | None, weights: Path | None) -> tuple[str, tuple[str, ...] | None]:
    """The model that a config trains, and the names of its classes where its data is there."""
    if model is not None:
        raise UsageError("--config and --model exclude each other", hint="the config names the model")
    if weights is None:
        raise UsageError("a config has no weights", hint="--weights FILE, or --weights RUN_DIR")
    from ppvcli.configs.load import load_config
    from ppvcli.datasets.catalog import open_split
    from ppvcli.models.facts import choose_row
    from ppvcli.weights.formats import resolve_weights_path

    settings = load_config(config)
    try:
        choose_row(settings.model.name, resolve_weights_path(weights), default=None)
    except UsageError as error:
        raise UsageError(
            f"--config {config} trains {settings.model.name}: {error.message}",
            hint="leave --config out, or give the one that they were trained by",
        ) from error
    labels = None
    if Path(settings.data.root).is_dir():
        labels = open_split(settings.data, seed=settings.seed).labels
    return settings.model.name, labels


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _show_step(step: str) -> None:
    print(f"{step} ...", file=sys.stderr)


def _show(report: ExportReport, *, as_table: bool) -> None:
    folder = Path(report.out_dir)
    if not as_table:
        for program in report.programs:
            output.print_line(output.printable(str(folder / program.file)))
        return
    rows = [["program", "precision", "MB", "logits differ by", "same top-1", "right", "ms"]]
    for program in report.programs:
        right = f"{program.num_correct} of {program.num_labelled}" if program.num_labelled else "-"
        same = f"{program.num_agree} of {program.num_clips}"
        size = f"{program.size_bytes / 1e6:.1f}"
        rows.append(
            [program.file, program.precision, size, f"{program.max_diff:.1e}", same, right, f"{program.time_ms:.1f}"]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (
            cell.ljust(width) if i < 2 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        output.print_line("  ".join(cells).rstrip())
    threads = report.programs[0].threads
    output.print_line(
        f"{report.model} -> {output.printable(str(folder))}: {report.programs[0].num_clips} clips, two of them "
        f"rendered; time of one clip with {counted(threads, 'thread')}"
    )
