"""`ppv bench-decode`: how fast libraries decode, and whether they give the right frames."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.cli import output

if TYPE_CHECKING:
    from rich.table import Table

    from ppvcli.results import DecodeContestant, DecodedFile, DecodeReport, DecodeSpeed

    Row = tuple[str, DecodeSpeed | None, int | None, str]
    """Library, speed, memory, verdict on its frames."""

COLUMNS = (
    *("file", "lib", "version", "threads", "median_ms", "p95_ms", "cpu_ms"),
    *("frames_per_s", "ratio", "cpu_ratio", "peak_mib", "frames"),
)
"""Of the lines with tabs."""

TOTAL = "total"
"""What stands for a file where all are meant."""


def complete_libs(incomplete: str) -> list[str]:
    """Names of libraries that go on with what was typed after the last comma."""
    from ppvcli.video.bench.contestants import CONTESTANTS

    before, comma, word = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in CONTESTANTS if name.startswith(word)]


def bench_decode(
    files: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE|FOLDER...",
            help="Videos, or folders of videos.  [default: some are rendered]",
            show_default=False,
        ),
    ] = None,
    *,
    libs: Annotated[
        str | None,
        typer.Option(
            metavar="LIB,...",
            help="Some of ppv, pyav, opencv, opencv-naive, decord, decord2, torchcodec.  "
            "[default: ppv,pyav,opencv,decord and what else is installed]",
            autocompletion=complete_libs,
        ),
    ] = None,
    frames: Annotated[int, typer.Option(metavar="N", min=1, help="Frames to take of each video.")] = 16,
    repeat: Annotated[int, typer.Option(metavar="N", min=1, help="Counted runs of each library on each video.")] = 10,
    base: Annotated[
        str | None,
        typer.Option(
            metavar="LIB", help="Speeds are relative to it.  [default: the first]", autocompletion=complete_libs
        ),
    ] = None,
    timeout: Annotated[
        float, typer.Option(metavar="S", help="Seconds after which a library without an answer is ended.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Also draw it; needs pip install 'ppvcli[plot]'.")
    ] = None,
) -> None:
    """Compare video decoders: speed, memory and exact frames.

    A table on a terminal; lines of tab-separated values under a line of names where the output goes elsewhere.
    """
    from ppvcli.video.bench.plot import check_plot_path, plot_report
    from ppvcli.video.bench.run import bench_decode as run

    if plot is not None:
        check_plot_path(plot)
    names = None if libs is None else [name.strip() for name in libs.split(",") if name.strip()]

    with output.open_bar("decoding") as advance:
        report = run(files or None, names, frames=frames, repeat=repeat, base=base, timeout_s=timeout, on_run=advance)
    for path, error in report.failures:
        output.show_error(output.with_path(path, error))
    if report.failures:
        output.show_hint("check the paths; fetch or copy damaged files again")
    if as_json:
        output.print_json(report.to_dict())
    elif output.is_terminal(sys.stdout):
        _show(report)
    else:
        for line in _lines(report):
            output.print_line(line)
    if plot is not None and report.files:
        plot_report(report, plot)
    if report.failures:
        raise typer.Exit(1)


def _lines(report: DecodeReport) -> list[str]:
    """One line for each library on each video, then one for each library on all of them."""
    lines = ["\t".join(COLUMNS)]
    facts = {one.lib: (one.version or "", str(one.num_threads)) for one in report.contestants}
    for row in report.files:
        texts = (output.printable(row.path), row.lib, *facts[row.lib])
        lines.append("\t".join((*texts, *_numbers(row.speed), _mib(row.peak_bytes), _verdict(row))))
    for one in report.contestants:
        texts = (TOTAL, one.lib, *facts[one.lib])
        lines.append("\t".join((*texts, *_numbers(one.speed), _mib(one.peak_bytes), _total_verdict(one))))
    return lines


def _numbers(speed: DecodeSpeed | None) -> list[str]:
    if speed is None:
        return [""] * 6
    ratios = ["" if value is None else f"{value:.3f}" for value in (speed.ratio, speed.cpu_ratio)]
    return [f"{value:.2f}" for value in (speed.median_ms, speed.p95_ms, speed.cpu_ms, speed.frames_per_s)] + ratios


def _mib(size: int | None) -> str:
    return "" if size is None else f"{size / (1 << 20):.0f}"


def _verdict(row: DecodedFile) -> str:
    if row.error is not None:
        return output.printable(row.error)
    return f"{row.num_wrong} off by {row.mean_diff:.1f}" if row.num_wrong else "exact"


def _total_verdict(one: DecodeContestant) -> str:
    if one.error is not None:
        return output.printable(f"{one.error}: {one.hint}" if one.hint else one.error)
    parts = []
    if one.num_files:
        parts.append(f"{one.num_wrong} of {one.num_compared} off" if one.num_wrong else "exact")
    if one.num_failed:
        parts.append(f"failed on {one.num_failed} of {one.num_failed + one.num_files} videos")
    return ", ".join(parts)


def _show(report: DecodeReport) -> None:
    """A table for each video and one for all, then what the numbers are about."""
    console = output.stdout_console()
    videos: dict[str, list[Row]] = {}
    for row in report.files:
        videos.setdefault(row.path, []).append((row.lib, row.speed, row.peak_bytes, _verdict(row)))
    for number, (path, rows) in enumerate(videos.items()):
        console.print(_table(output.printable(path), rows, with_header=number == 0))
    loaded = [one for one in report.contestants if one.version is not None]
    if len(videos) > 1:
        rows = [(one.lib, one.speed, one.peak_bytes, _total_verdict(one)) for one in loaded]
        console.print(_table(f"{TOTAL}: {report.num_common} videos that all of them decode", rows, with_header=False))
    for one in report.contestants:
        if one.error is not None:
            output.print_line(f"{one.lib}: {_total_verdict(one)}")
    output.print_line(
        f"{report.num_segments} frames of a video, {report.num_runs} runs; speed is relative to {report.base}"
    )
    for one in loaded:
        threads = "1 thread" if one.num_threads == 1 else f"up to {one.num_threads} threads"
        output.print_line(f"{one.lib} {one.version}: {one.how}, {threads}")


def _table(title: str, rows: Sequence[Row], *, with_header: bool) -> Table:
    """Times in milliseconds; columns are equally wide in all tables, and fit into 80."""
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(title, style="bold"),
        title_justify="left",
        box=None,
        show_header=with_header,
        show_edge=False,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", width=12)
    for name, width in (("median ms", 9), ("p95", 7), ("CPU", 7), ("frames/s", 8), ("speed", 6), ("MiB", 5)):
        table.add_column(name, justify="right", width=width)
    table.add_column("frames", overflow="fold")
    for lib, speed, peak_bytes, verdict in rows:
        cells = ["-"] * 5
        if speed is not None:
            cells = [f"{value:.1f}" for value in (speed.median_ms, speed.p95_ms, speed.cpu_ms)]
            cells += [f"{speed.frames_per_s:.0f}", "-" if speed.ratio is None else f"{speed.ratio:.2f}x"]
        colour = "green" if verdict == "exact" else "yellow"
        table.add_row(lib, *cells, _mib(peak_bytes) or "-", Text(verdict, style=colour))
    return table
