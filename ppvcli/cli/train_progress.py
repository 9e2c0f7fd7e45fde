"""What `ppv train` shows while it works: lines for a log, or a live bar on a terminal. All on stderr."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ppvcli.cli import output
from ppvcli.cli.download_progress import PlainProgress, download_bar, drawn_progress

if TYPE_CHECKING:
    from rich.progress import Progress

    from ppvcli.engine.progress import StepReport
    from ppvcli.results import EpochResult, StartReport

QUIET_S = 60.0
"""How long a log hears nothing."""
MAX_NAMES = 6
"""Tensors that are named one by one."""


def open_watcher() -> LineWatcher | TerminalWatcher:
    """The one that fits stderr."""
    return TerminalWatcher() if output.is_terminal(sys.stderr) else LineWatcher()


def start_lines(report: StartReport) -> list[str]:
    """Where the first weights come from, and what of them and of the network is left over."""
    lines = [f"start: {report.num_loaded} tensors from {report.weights}"]
    if report.skipped:
        keys = [key for key, _ in report.skipped]
        lines.append(f"start: {len(keys)} of its tensors not taken: {_some(keys)}")
    if report.new:
        lines.append(f"start: {len(report.new)} tensors begin untrained: {_some(report.new)}")
    return lines


def _some(names: tuple[str, ...] | list[str]) -> str:
    more = f", and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _epoch_line(result: EpochResult) -> str:
    return (
        f"epoch {result.epoch}: loss {result.train_loss:.3f}, top-1 {result.train_top1:.1%}, "
        f"val loss {result.val_loss:.3f}, val top-1 {result.val_top1:.1%}, lr {result.learning_rate:.2e}, "
        f"{result.train_s + result.eval_s:.0f} s, {result.data_wait_ratio:.0%} waiting for data"
    )


class LineWatcher:
    """One line an epoch on stderr, for logs, and one a minute within a long epoch."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.on_download = PlainProgress().report

    def __enter__(self) -> LineWatcher:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def on_start(self, report: StartReport) -> None:
        for line in start_lines(report):
            print(line, file=sys.stderr, flush=True)

    def on_step(self, report: StepReport) -> None:
        if time.monotonic() - self._last >= QUIET_S:
            self._last = time.monotonic()
            print(
                f"epoch {report.epoch}, step {report.step} of {report.num_steps}: loss {report.loss:.3f}, "
                f"top-1 {report.top1:.1%}, lr {report.learning_rate:.2e}, {report.images_per_s:.0f} img/s, "
                f"{report.data_wait_ratio:.0%} waiting for data",
                file=sys.stderr,
                flush=True,
            )

    def on_eval_clip(self, done: int, total: int) -> None:
        pass

    def on_epoch(self, result: EpochResult) -> None:
        print(_epoch_line(result), file=sys.stderr, flush=True)


class TerminalWatcher:
    """A bar of downloads, one over all epochs, and the figures of a step; a line for each epoch that is done."""

    def __enter__(self) -> TerminalWatcher:
        from rich.console import Group
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.text import Text

        console = output.stderr_console()
        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            *output.time_columns(),
            console=console,
            speed_estimate_period=300,
        )
        self._task = self._progress.add_task("starting", total=None)
        self._detail = Text()
        downloads = download_bar(console)
        self.on_download = drawn_progress(downloads)
        shown = Group(downloads, self._progress, self._detail)
        self._live = Live(shown, console=console, transient=True, refresh_per_second=10)
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def on_start(self, report: StartReport) -> None:
        for line in start_lines(report):
            self._progress.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def on_step(self, report: StepReport) -> None:
        self._progress.update(
            self._task,
            description=f"epoch {report.epoch}/{report.num_epochs}",
            total=report.num_epochs * report.num_steps,
            completed=(report.epoch - 1) * report.num_steps + report.step,
        )
        self._detail.plain = (
            f"loss {report.loss:.3f}  top-1 {report.top1:.1%}  top-5 {report.top5:.1%}  "
            f"lr {report.learning_rate:.1e}  {report.images_per_s:.0f} img/s  {report.data_wait_ratio:.0%} waiting"
        )

    def on_eval_clip(self, done: int, total: int) -> None:
        self._detail.plain = f"evaluating clip {done} of {total}"

    def on_epoch(self, result: EpochResult) -> None:
        self._progress.console.print(_epoch_line(result), soft_wrap=True)
