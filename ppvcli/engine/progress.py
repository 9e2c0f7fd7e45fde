"""What a run tells whoever watches it, and the sums it is told from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ppvcli.datasets.loader import Batch
from ppvcli.results import EpochResult, StartReport


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """A training step, for whoever watches."""

    epoch: int
    """1-based."""
    step: int
    """1-based, within the epoch."""
    num_steps: int
    num_epochs: int
    loss: float
    """Mean over the epoch so far."""
    top1: float
    """Share in 0..1; with Mixup, mixed as the clips are."""
    top5: float
    learning_rate: float
    images_per_s: float
    """Frames that went through the network, over all processes."""
    data_wait_ratio: float
    """Share of the time in which the network waited for clips."""


class TrainObserver(Protocol):
    """Watches a run; the command shows what it sees, the library is silent."""

    def on_start(self, report: StartReport) -> None: ...

    def on_step(self, report: StepReport) -> None: ...

    def on_eval_clip(self, done: int, total: int) -> None: ...

    def on_epoch(self, result: EpochResult) -> None: ...


@dataclass
class Meter:
    """Running sums of an epoch."""

    num_clips: int = 0
    loss_sum: float = 0.0
    top1_sum: float = 0.0
    top5_sum: float = 0.0
    wait_s: float = 0.0
    start: float = field(default_factory=time.perf_counter)

    def add(self, *, loss: float, top1: float, top5: float, num_clips: int) -> None:
        """Counts a batch by its means."""
        self.num_clips += num_clips
        self.loss_sum += loss * num_clips
        self.top1_sum += top1 * num_clips
        self.top5_sum += top5 * num_clips

    def take_totals(self, total: Callable[[Sequence[float]], list[float]]) -> None:
        """Replaces the sums by those over all processes, and the wait by the mean."""
        num_clips, self.loss_sum, self.top1_sum, self.top5_sum, wait_s, num_processes = total(
            [self.num_clips, self.loss_sum, self.top1_sum, self.top5_sum, self.wait_s, 1]
        )
        self.num_clips, self.wait_s = int(num_clips), wait_s / num_processes

    @property
    def elapsed_s(self) -> float:
        return time.perf_counter() - self.start

    def timed(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The same batches; the time spent waiting for them goes to `wait_s`."""
        while True:
            start = time.perf_counter()
            batch = next(batches, None)
            self.wait_s += time.perf_counter() - start
            if batch is None:
                return
            yield batch
