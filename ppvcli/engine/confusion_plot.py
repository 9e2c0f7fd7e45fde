"""A picture of a confusion matrix that can be read with three classes and with four hundred."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import Normalize

MAX_COUNTED = 30
"""With more classes the cells hold no numbers."""
MAX_NAMED = 110
"""With more classes the axes show indices, and the names stand beside the most frequent confusions."""
NUM_CONFUSIONS = 25
MAX_NAME = 28
"""Characters of a class name that are shown."""
DARK = 0.55
"""Share from which a cell's number is white."""


def has_matplotlib() -> bool:
    """Whether `plot_confusion` can draw."""
    return importlib.util.find_spec("matplotlib") is not None


def plot_confusion(confusion: npt.NDArray[np.int64], labels: Sequence[str], *, path: Path, title: str) -> None:
    """Draws int64 [K, K + 1] counts as shares of each row; a last column of zeros (all decoded) is left out."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    num_classes = len(labels)
    columns = [_short(label) for label in labels]
    if confusion[:, -1].any():
        columns.append("(not decoded)")
    counts = confusion[:, : len(columns)]
    by_index = num_classes > MAX_NAMED
    side = 9.0 if by_index else max(3.0, (0.42 if num_classes <= MAX_COUNTED else 0.17) * num_classes)
    figure = Figure(
        figsize=(side + (6.0 if by_index else 2.6), side + (1.0 if by_index else 2.0)), layout="constrained"
    )
    FigureCanvasAgg(figure)
    if by_index:
        axes, beside = figure.subplots(1, 2, width_ratios=(side, 5.0))
        _list_confusions(beside, counts, columns)
    else:
        axes = figure.subplots()
    _draw_matrix(axes, counts, columns)
    if num_classes <= MAX_COUNTED:
        _write_counts(axes, counts)
    axes.set_title(title, fontsize=11, loc="left", parse_math=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # names in scripts that the font lacks become boxes
        figure.savefig(path, dpi=150, bbox_inches="tight")


def _draw_matrix(axes: Axes, counts: npt.NDArray[np.int64], columns: Sequence[str]) -> None:
    num_classes = len(counts)
    image = axes.imshow(_shares(counts), cmap="Blues", norm=_norm(num_classes), interpolation="nearest", aspect="equal")
    bar = axes.figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, format=lambda share, _: f"{share:.0%}")
    bar.set_label("share of the clips of a class", fontsize=8)
    bar.ax.tick_params(labelsize=7)
    axes.set_xlabel("taken for")
    axes.set_ylabel("class")
    axes.spines[:].set_color("#cccccc")
    if num_classes > MAX_NAMED:
        axes.tick_params(labelsize=8)
        return
    fontsize = 9 if num_classes <= MAX_COUNTED else 7
    style = {"fontsize": fontsize, "parse_math": False}
    axes.set_xticks(range(len(columns)), columns, rotation=90, **style)  # type: ignore[arg-type]
    axes.set_yticks(range(num_classes), columns[:num_classes], **style)  # type: ignore[arg-type]
    axes.tick_params(length=0)


def _norm(num_classes: int) -> Normalize:
    """Few clips of many classes make faint cells: a square root lifts them."""
    from matplotlib.colors import Normalize, PowerNorm

    return Normalize(0, 1) if num_classes <= MAX_COUNTED else PowerNorm(0.5, 0, 1)


def _write_counts(axes: Axes, counts: npt.NDArray[np.int64]) -> None:
    shares = _shares(counts)
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "white" if shares[row, column] > DARK else "#1b3a5c"
            axes.text(column, row, str(count), ha="center", va="center", fontsize=8, color=colour)


def _list_confusions(axes: Axes, counts: npt.NDArray[np.int64], columns: Sequence[str]) -> None:
    """The most frequent mistakes, as lines of text."""
    mistakes = counts.copy()
    np.fill_diagonal(mistakes, 0)
    order = np.argsort(-mistakes, axis=None, kind="stable")[:NUM_CONFUSIONS]
    pairs = [divmod(int(place), counts.shape[1]) for place in order]
    axes.set_axis_off()
    axes.set_title("most frequent mistakes: class (index) → taken for", fontsize=9, loc="left")
    for line, (row, column) in enumerate(pairs):
        if mistakes[row, column]:
            text = (
                f"{mistakes[row, column]} of {counts[row].sum()}  {columns[row]} ({row}) → {columns[column]} ({column})"
            )
            axes.text(0, 1 - (line + 0.5) / NUM_CONFUSIONS, text, fontsize=7, va="center", parse_math=False)


def _shares(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Of each row; a class without clips is 0."""
    return counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)


def _short(label: str) -> str:
    shown = "".join(char if char.isprintable() else "?" for char in label)
    return shown if len(shown) <= MAX_NAME else shown[: MAX_NAME - 1] + "…"
