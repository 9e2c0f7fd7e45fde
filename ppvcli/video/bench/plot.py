"""A picture of a `DecodeReport`: bars of time per video, one colour for each library."""

from __future__ import annotations

import importlib.util
import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ppvcli.errors import UsageError, counted
from ppvcli.files import check_writable, replacing
from ppvcli.results import DecodeReport, DecodeSpeed

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

SUFFIXES = (".png", ".svg", ".pdf")
MAX_VIDEOS = 11
"""With more of them, only the total is drawn."""

NUM_COLUMNS = 3
BAR_HEIGHT = 0.28
"""In inches."""
NAME_LENGTH = 44
"""Letters above a panel."""

FAST, SLOW, BASE = "#2a9d8f", "#e76f51", "#6c757d"


class Bar(NamedTuple):
    """One library in one panel."""

    speed: DecodeSpeed | None
    """None where it failed."""
    is_wrong: bool
    """Some of its frames are not the exact ones."""


def check_plot_path(path: Path) -> None:
    """Passes if a plot can be written there, so that nobody waits for a benchmark in vain.

    Raises:
        UsageError: matplotlib is not installed, the path is a folder, its suffix is none of `SUFFIXES`, the folder
            around it does not exist, or the system does not let us write into that.
    """
    if path.is_dir():
        hint = f"--plot {shlex.quote(str(path / 'bench.png'))}"
        raise UsageError(f"can't plot into {path}: it is a folder", hint=hint)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"can't plot into {path}", hint=f"choose a name that ends in {', '.join(SUFFIXES)}")
    if not path.absolute().parent.exists():
        hint = f"mkdir -p {shlex.quote(str(path.parent))}"
        raise UsageError(f"can't plot into {path}: no such folder", hint=hint)
    try:
        check_writable(path.absolute().parent)
    except OSError as error:
        raise UsageError(
            f"can't plot into {path}: {error.strerror or error}", hint="--plot in another folder"
        ) from error
    if importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a plot needs matplotlib, which is not installed", hint="pip install 'ppvcli[plot]'")


def plot_report(report: DecodeReport, path: Path) -> None:
    """Draws wall time per sample: bars to the median, a whisker to the 95th percentile, one panel a video.

    Raises: UsageError, as `check_plot_path`, and where writing fails.
    """
    check_plot_path(path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    libs = [one.lib for one in report.contestants if one.num_files]
    totals = {one.lib: Bar(one.speed, one.num_wrong > 0) for one in report.contestants}
    total = f"all runs on {counted(report.num_common, 'video')}; x: mean of each video's ratio"
    panels: list[tuple[str, Mapping[str, Bar]]] = [(total, totals)]
    videos: dict[str, dict[str, Bar]] = {}
    for row in report.files:
        videos.setdefault(row.path, {})[row.lib] = Bar(row.speed, bool(row.num_wrong))
    if len(videos) <= MAX_VIDEOS:
        panels += [(_shorten(Path(name).name), bars) for name, bars in videos.items()]
    columns = min(NUM_COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.2 * columns, 1.5 + rows * (0.8 + BAR_HEIGHT * len(libs))), layout="constrained")
    FigureCanvasAgg(figure)
    frames = counted(report.num_segments, "frame")
    figure.suptitle(f"{frames} of a video: ms to open and decode\nbar: median, line: to p95", fontsize=10)
    figure.legend(handles=_legend(report.base), loc="outside lower center", ncols=2 * min(2, columns), fontsize=8)
    for number, (name, bars) in enumerate(panels, start=1):
        _draw_panel(figure.add_subplot(rows, columns, number), libs, bars, title=name, base=report.base)
    try:
        with replacing(path) as temporary, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing from font")  # boxes stand for them
            figure.savefig(temporary, dpi=150)
    except OSError as error:
        raise UsageError(
            f"can't plot into {path}: {error.strerror or error}", hint="free some space there, or plot elsewhere"
        ) from error


def _legend(base: str) -> list[Patch]:
    from matplotlib.patches import Patch

    colours = ((BASE, f"{base} (1x)"), (FAST, f"faster than {base}"), (SLOW, f"slower than {base}"))
    patches = [Patch(facecolor=colour, label=text) for colour, text in colours]
    return [*patches, Patch(facecolor="white", edgecolor=BASE, hatch="///", label="not exact")]


def _shorten(name: str) -> str:
    half = NAME_LENGTH // 2
    return name if len(name) <= NAME_LENGTH else f"{name[: half - 1]}…{name[-half:]}"


def _draw_panel(axes: Axes, libs: Sequence[str], bars: Mapping[str, Bar], *, title: str, base: str) -> None:
    for place, lib in enumerate(libs):
        speed, is_wrong = bars[lib]
        if speed is None:
            axes.text(0, place, " failed", va="center", fontsize=8, color=SLOW)
            continue
        colour = BASE if lib == base or speed.ratio is None else FAST if speed.ratio >= 1 else SLOW
        axes.barh(
            place, speed.median_ms, height=0.7, color=colour, hatch="///" if is_wrong else None, edgecolor="white"
        )
        axes.plot([speed.median_ms, speed.p95_ms], [place, place], color="black", linewidth=0.8)
        text = f" {speed.median_ms:.1f}"
        if speed.ratio is not None and lib != base:
            text += f", {speed.ratio:.2f}x"
        axes.text(speed.p95_ms, place, text + (", not exact" if is_wrong else ""), va="center", fontsize=8)
    axes.set_title(title, fontsize=9, loc="left", parse_math=False)  # names may have $ in them
    axes.set_yticks(range(len(libs)), libs, fontsize=8)
    axes.set_ylim(len(libs) - 0.4, -0.6)
    axes.set_xlim(0, 1.5 * max((bar.speed.p95_ms for bar in bars.values() if bar.speed is not None), default=1.0))
    axes.tick_params(axis="x", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
