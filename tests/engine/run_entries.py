"""A run's log, made up, and a disk that is full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from ppvcli.engine.log import RunLog
from ppvcli.engine.progress import StepReport, TrainObserver
from ppvcli.results import EpochResult


def step_report(epoch: int, step: int, *, num_steps: int = 4, loss: float = 1.5, speed: float = 40.0) -> StepReport:
    return StepReport(
        epoch=epoch,
        step=step,
        num_steps=num_steps,
        num_epochs=5,
        loss=loss,
        top1=0.25,
        top5=0.75,
        learning_rate=0.01,
        images_per_s=speed,
        data_wait_ratio=0.125,
    )


def epoch_result(epoch: int, *, val_loss: float = 1.25, speed: float = 40.0) -> EpochResult:
    return EpochResult(
        epoch=epoch,
        train_loss=1.5 / epoch,
        train_top1=0.25,
        train_top5=0.75,
        val_loss=val_loss,
        val_top1=0.5,
        val_top5=0.875,
        learning_rate=0.01,
        train_s=8.0,
        eval_s=2.0,
        images_per_s=speed,
        data_wait_ratio=0.125,
        failures=(("bad \udce9.mp4", "it is cut off"),),
    )


def open_log(run_dir: Path, epochs: Sequence[EpochResult] = (), *, interval: int = 1) -> RunLog:
    log = RunLog(run_dir / "log.jsonl", interval=interval)
    log.open(epochs)
    return log


def run_epoch(observers: Sequence[TrainObserver], epoch: int, *, num_steps: int = 4, speed: float = 40.0) -> None:
    """What a trainer says in an epoch."""
    for step in range(1, num_steps + 1):
        for observer in observers:
            observer.on_step(step_report(epoch, step, num_steps=num_steps, speed=speed))
    for observer in observers:
        observer.on_epoch(epoch_result(epoch, speed=speed))


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """Nothing can be written past that size, as on a disk that is full there."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
