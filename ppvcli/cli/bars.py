"""Labels with a bar and figures each, as `ppv predict` and `ppv eval` show them on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ppvcli.cli import output

GAP = 2


class BarRow(NamedTuple):
    """A line of the table."""

    label: str
    ratio: float
    """How much of the bar is filled, 0 to 1."""
    figures: tuple[str, ...]
    style: str
    """Of the label, in words of rich."""


def print_bars(rows: Sequence[BarRow], headings: Sequence[str], *, bar_width: int) -> None:
    """Shows rows on stdout, under the headings of labels and figures (none where all are empty).

    Where a terminal is narrow the bars are shorter, then they are left out: no label is ever cut off.
    """
    from rich.cells import cell_len
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    console = output.stdout_console()
    texts = [(output.printable(row.label), *row.figures) for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(headings, *texts, strict=True)]
    bar_width = min(bar_width, console.width - sum(widths) - GAP * len(widths))
    if bar_width <= 0:
        output.print_table(headings, texts)
        return
    table = Table(box=None, padding=(0, GAP, 0, 0), pad_edge=False, show_header=any(headings), header_style="dim")
    table.add_column(headings[0])
    table.add_column("")
    for heading in headings[1:]:
        table.add_column(heading, justify="right")
    for row, (label, *figures) in zip(rows, texts, strict=True):
        bar = ProgressBar(total=1.0, completed=row.ratio, width=bar_width, complete_style="cyan", finished_style="cyan")
        table.add_row(Text(label, style=row.style), bar, *figures)
    console.print(table)
