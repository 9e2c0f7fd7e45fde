"""A picture of a run: how loss, accuracy, learning rate and speed went, epoch by epoch."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ppvcli.engine.checkpoint import best_epoch
from ppvcli.engine.log import cannot_write
from ppvcli.files import replacing
from ppvcli.results import EpochResult

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVES_FILE = "curves.png"
MAX_MARKED = 30
"""With more epochs, the lines have no dots."""

TRAIN, VAL, OTHER = "#0072b2", "#d55e00", "#444444"
"""Blue and vermilion, told apart with any colour vision, and by their lines: train is dashed."""


def write_curves(epochs: Sequence[EpochResult], path: Path) -> bool:
    """Draws what `epochs` (at least one) measured into a PNG; False, and no picture, without matplotlib.

    Raises: LogError where the disk refuses to write.
    """
    if importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6.4))
    FigureCanvasAgg(figure)
    # placed by hand: looking for a layout takes as long as drawing
    grid = figure.add_gridspec(2, 6, left=0.06, right=0.985, top=0.94, bottom=0.08, hspace=0.34, wspace=0.9)
    _draw_loss(figure.add_subplot(grid[0, :3]), epochs)
    _draw_top1(figure.add_subplot(grid[0, 3:]), epochs)
    _draw_other(figure.add_subplot(grid[1, :2]), _series(epochs, "learning_rate"), title="learning rate")
    _draw_other(figure.add_subplot(grid[1, 2:4]), _series(epochs, "images_per_s"), title="images per second")
    waits = figure.add_subplot(grid[1, 4:])
    _draw_other(waits, 100 * _series(epochs, "data_wait_ratio"), title="time spent waiting for data, %")
    waits.set_ylim(0, 100)
    for axes in figure.axes:
        _finish(axes, len(epochs))
    try:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=110)
    except OSError as error:
        raise cannot_write(path, error) from error
    return True


def _series(epochs: Sequence[EpochResult], name: str) -> npt.NDArray[np.float64]:
    """float64 [epochs]; infinities become NaN, a gap in the line."""
    values = np.array([getattr(epoch, name) for epoch in epochs], dtype=np.float64)
    return np.where(np.isfinite(values), values, np.nan)


def _draw_loss(axes: Axes, epochs: Sequence[EpochResult]) -> None:
    train, val = _series(epochs, "train_loss"), _series(epochs, "val_loss")
    _draw_pair(axes, train, val)
    axes.set_title("loss", loc="left", fontsize=11)
    axes.set_ylim(0, _top(np.append(train, val)))
    axes.legend(frameon=False, fontsize=9)


def _draw_top1(axes: Axes, epochs: Sequence[EpochResult]) -> None:
    val = 100 * _series(epochs, "val_top1")
    _draw_pair(axes, 100 * _series(epochs, "train_top1"), val)
    best = best_epoch(epochs)
    top1 = val[best - 1]
    axes.plot(best, top1, marker="o", markersize=9, markerfacecolor="none", color=VAL, clip_on=False)
    axes.set_title(f"top-1, %   (best held-out: {top1:.1f} after epoch {best})", loc="left", fontsize=11)
    axes.set_ylim(0, 102)


def _draw_pair(axes: Axes, train: npt.NDArray[np.float64], val: npt.NDArray[np.float64]) -> None:
    marker = "." if len(train) <= MAX_MARKED else None
    numbers = np.arange(1, len(train) + 1)
    axes.plot(numbers, train, color=TRAIN, linestyle="--", linewidth=1.4, marker=marker, label="train")
    axes.plot(numbers, val, color=VAL, linewidth=1.6, marker=marker, label="held-out")


def _draw_other(axes: Axes, values: npt.NDArray[np.float64], *, title: str) -> None:
    marker = "." if len(values) <= MAX_MARKED else None
    axes.plot(np.arange(1, len(values) + 1), values, color=OTHER, linewidth=1.4, marker=marker)
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_ylim(0, _top(values))


def _top(values: npt.NDArray[np.float64]) -> float:
    """A little above the largest of `values`."""
    return 1.08 * max(values[values > 0], default=1.0)


def _finish(axes: Axes, num_epochs: int) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlim(0.5, num_epochs + 0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
    axes.set_xlabel("epoch", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
