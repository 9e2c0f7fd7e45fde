"""What a command shows while weights are fetched: a bar for a person, lines for a log. All on stderr."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ppvcli.cli import output

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

    from ppvcli.weights.download import DownloadProgress, Report


@contextlib.contextmanager
def open_progress() -> Iterator[Report]:
    """A function that shows progress on stderr: a bar with speed and time left for a person, else a line per event."""
    if not output.is_terminal(sys.stderr):
        yield PlainProgress().report
        return
    with download_bar(output.stderr_console()) as bar:
        yield drawn_progress(bar)


def download_bar(console: Console) -> Progress:
    """An empty display for `drawn_progress`."""
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.table import Column

    figures = (DownloadColumn, TransferSpeedColumn, TimeRemainingColumn)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),  # what a narrow terminal makes smaller
        *(figure(table_column=Column(no_wrap=True)) for figure in figures),
        console=console,
        transient=True,
    )


def drawn_progress(bar: Progress) -> Report:
    """A function that draws downloads, one after the other, as a line of the bar."""
    task = bar.add_task("", start=False, visible=False)

    def report(event: DownloadProgress) -> None:
        if event.stage in ("wait", "retry"):
            bar.console.print(f"{event.name}: {event.message}", markup=False)
        elif event.stage == "transfer":
            if not bar.tasks[0].visible:
                # a resumed transfer begins here; its first bytes must not count as speed
                bar.reset(task, description=event.name, visible=True, completed=event.received_bytes)
            bar.update(task, completed=event.received_bytes, total=event.total_bytes)
        elif event.stage == "convert":
            bar.update(task, description=f"{event.name}: checking", refresh=True)
        else:
            bar.update(task, visible=False)

    return report


class PlainProgress:
    """A line when a transfer begins and when something is in its way."""

    def __init__(self) -> None:
        self._last_stage = ""

    def report(self, event: DownloadProgress) -> None:
        if event.stage == "transfer" and self._last_stage != "transfer":
            size = "" if event.total_bytes is None else f", {output.format_size(event.total_bytes)}"
            start = f", from {output.format_size(event.received_bytes)} on" if event.received_bytes else ""
            output.show_note(f"{event.name}: fetching {event.message}{size}{start}")
        elif event.stage in ("wait", "retry"):
            output.show_note(f"{event.name}: {event.message}")
        self._last_stage = event.stage
