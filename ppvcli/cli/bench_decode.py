"""`ppv bench-decode`: how fast libraries decode, and whether they give the right frames."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.cli import output
from ppvcli.errors import counted

if TYPE_CHECKING:
    from ppvcli.results import DecodeContestant, DecodedFile, DecodeReport, DecodeSpeed

    Row = tuple[str, ...]
    """A cell for each of `HEADINGS`."""

COLUMNS = (
    *("file", "lib", "version", "threads", "median_ms", "p95_ms", "cpu_ms"),
    *("frames_per_s", "ratio", "cpu_ratio", "peak_mib", "frames", "fallback"),
)
"""Of the lines with tabs."""

HEADINGS = ("", "median ms", "p95", "CPU", "frames/s", "speed", "MiB", "frames")
"""Of the table; the first column is the library, the times are in milliseconds."""
DISPENSABLE = ("p95", "MiB", "CPU", "frames/s", "median ms", "speed")
"""What a narrow terminal does without, the least important first."""

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
            metavar="FILE|FOLDER",
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
        float, typer.Option(metavar="SECONDS", help="End a library that takes longer for one run.")
    ] = 60.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw it, as .png, .svg or .pdf; needs pip install 'ppvcli[plot]'."),
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

    found: list[DecodeReport] = []
    try:
        with output.open_bar("decoding") as advance:
            report = run(
                files or None,
                names,
                frames=frames,
                repeat=repeat,
                base=base,
                timeout_s=timeout,
                on_run=advance,
                on_report=found.append,
            )
    finally:  # Ctrl-C costs no more than the video at work
        for each in found:
            if as_json:
                output.print_json(each.to_dict())
            elif each.files:
                _print(each)
            _tell(each)
    if plot is not None and report.files:
        plot_report(report, plot)
    if report.failures:
        raise typer.Exit(1)


def _print(report: DecodeReport) -> None:
    if output.is_terminal(sys.stdout):
        _show(report)
        return
    for line in _lines(report):
        output.print_line(line)


def _lines(report: DecodeReport) -> list[str]:
    """One line for each library on each video, then one for each library on all of them."""
    lines = ["\t".join(COLUMNS)]
    facts = {one.lib: (one.version or "", str(one.num_threads)) for one in report.contestants}
    for row in report.files:
        texts = (output.printable(row.path), row.lib, *facts[row.lib])
        words = (output.printable(text) for text in (row.error or _verdict(row), row.fallback or ""))
        lines.append("\t".join((*texts, *_numbers(row.speed), _mib(row.peak_bytes), *words)))
    for one in report.contestants:
        texts = (TOTAL, one.lib, *facts[one.lib])
        lines.append("\t".join((*texts, *_numbers(one.speed), _mib(one.peak_bytes), _total_verdict(one), "")))
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
        return "failed"
    if not row.num_wrong:
        return "exact"
    return f"{row.num_wrong} off by {f'{row.mean_diff:.1f}' if row.mean_diff >= 0.05 else '<0.1'}"


def _total_verdict(one: DecodeContestant) -> str:
    if one.error is not None:
        return output.printable(f"{one.error}: {one.hint}" if one.hint else one.error)
    parts = []
    if one.num_files:
        parts.append(f"{one.num_wrong} of {one.num_compared} off" if one.num_wrong else "exact")
    if one.num_failed:
        parts.append(f"failed on {one.num_failed} of {counted(one.num_failed + one.num_files, 'video')}")
    return ", ".join(parts)


def _show(report: DecodeReport) -> None:
    """A table for each video and one for all, then what the numbers are about."""
    videos: dict[str, list[DecodedFile]] = {}
    for row in report.files:
        videos.setdefault(row.path, []).append(row)
    parts = [
        (_title(path, rows), [(row.lib, *_figures(row.speed, row.peak_bytes), _verdict(row)) for row in rows])
        for path, rows in videos.items()
    ]
    loaded = [one for one in report.contestants if one.version is not None]
    if len(videos) > 1:
        totals = [(one.lib, *_figures(one.speed, one.peak_bytes), _total_verdict(one)) for one in loaded]
        parts.append((f"{TOTAL}: {counted(report.num_common, 'video')} that all of them decode", totals))
    _print_tables(parts)
    for one in report.contestants:
        if one.error is not None:
            output.print_line(f"{one.lib}: {_total_verdict(one)}")
    frames, runs = counted(report.num_segments, "frame"), counted(report.num_runs, "run")
    output.print_line(f"{frames} of a video, {runs}; speed is relative to {report.base}")
    for one in loaded:
        threads = "1 thread" if one.num_threads == 1 else f"up to {one.num_threads} threads"
        output.print_line(f"{one.lib} {one.version}: {one.how}, {threads}")


def _title(path: str, rows: Sequence[DecodedFile]) -> str:
    return path + "".join(f" ({row.lib} decodes it sequentially: {row.fallback})" for row in rows if row.fallback)


def _figures(speed: DecodeSpeed | None, peak_bytes: int | None) -> tuple[str, ...]:
    cells = ["-"] * 5
    if speed is not None:
        cells = [f"{value:.1f}" for value in (speed.median_ms, speed.p95_ms, speed.cpu_ms)]
        cells += [f"{speed.frames_per_s:.0f}", "-" if speed.ratio is None else f"{speed.ratio:.2f}x"]
    return (*cells, _mib(peak_bytes) or "-")


def _print_tables(parts: Sequence[tuple[str, Sequence[Row]]]) -> None:
    """Tables under their titles, all with the same columns: as many as the terminal has room for."""
    from rich.text import Text

    console = output.stdout_console()
    cells = zip(HEADINGS, *(row for _, rows in parts for row in rows), strict=True)
    widths = {column[0]: max(map(len, column)) for column in cells}
    for name in DISPENSABLE:
        if sum(widths.values()) + len(widths) - 1 > console.width:
            del widths[name]

    def show(row: Row, colour: str) -> None:
        lib, *numbers, verdict = (cell for name, cell in zip(HEADINGS, row, strict=True) if name in widths)
        padded = [number.rjust(width) for number, width in zip(numbers, [*widths.values()][1:-1], strict=True)]
        line = Text(" ".join((lib.ljust(widths[""]), *padded, "")))
        console.print(line.append(verdict, style=colour), soft_wrap=True)

    for number, (title, rows) in enumerate(parts):
        console.print(Text(output.printable(title), style="bold"), soft_wrap=True)
        if number == 0:
            show(HEADINGS, "")
        for row in rows:
            show(row, "green" if row[-1] == "exact" else "yellow")


def _tell(report: DecodeReport) -> None:
    """What a person should know besides the figures, on stderr."""
    for path, damage in report.damaged:
        output.show_warning(f"{path} is damaged ({damage}): a library that shows other frames of it may be right")
    for row in report.files:
        if row.error is not None:
            output.show_warning(f"{row.lib} failed on {row.path}: {row.error}")
    for path, error in report.failures:
        output.show_error(output.with_path(path, error))
    for hint in report.hints:
        output.show_hint(hint)
