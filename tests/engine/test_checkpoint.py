"""The state of a run in its checkpoint, and which of its epochs is the best one."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from pathlib import Path

import paddle
import pytest

from ppvcli.engine.checkpoint import RunState, best_epoch, restore_checkpoint, save_checkpoint
from ppvcli.engine.ema import WeightAverage
from ppvcli.errors import WeightsMismatchError
from ppvcli.weights.formats import WeightsMetadata
from tests.engine.run_entries import epoch_result


@pytest.mark.parametrize(
    ("top1", "loss", "best"),
    [
        ([0.5, 0.75, 0.625], [1.0, 2.0, 0.5], 2),
        ([0.5, 0.75, 0.75, 0.75], [1.0, 1.097, 0.974, 1.01], 3),
        ([0.75, 0.75], [1.0, 1.0], 1),
        ([0.0, 0.0], [math.nan, 3.0], 2),
        ([0.0, 0.0], [math.inf, math.nan], 1),
    ],
)
def test_best_epoch_is_that_of_top1_then_of_loss_then_the_first(
    top1: list[float], loss: list[float], best: int
) -> None:
    epochs = tuple(
        replace(epoch_result(i, val_loss=value), val_top1=share)
        for i, (share, value) in enumerate(zip(top1, loss, strict=True), start=1)
    )
    assert best_epoch(epochs) == best
    assert best_epoch(RunState.from_json(RunState(epochs=epochs).to_json()).epochs) == best


def test_state_has_the_clips_that_fail_in_every_epoch_only_once() -> None:
    """The header that holds it may have 100 MB; 2,000 missing clips in 50 epochs took 13."""
    missing = [(f"/data/class {i % 9}/clip \udce9 {i}.mp4", f"no file at {i}: '\"{'x' * 70}") for i in range(2000)]
    epochs = tuple(replace(epoch_result(i), failures=tuple(missing[i:] + missing[:i])) for i in range(1, 51))
    text = RunState(epochs=epochs).to_json()
    assert RunState.from_json(text).epochs == epochs
    assert len(text) < 1_000_000


def test_state_of_an_older_checkpoint_is_read() -> None:
    epochs = (epoch_result(1), replace(epoch_result(2), failures=()))
    text = json.dumps({"epochs": [asdict(epoch) for epoch in epochs], "scaler": {"scale": 2.0}})
    assert RunState.from_json(text) == RunState(epochs=epochs, scaler={"scale": 2.0})


@pytest.mark.parametrize(("averaged", "words"), [(False, "was switched on"), (True, "was switched off")])
def test_run_whose_average_was_switched_is_refused(averaged: bool, words: str, tmp_path: Path) -> None:
    network = paddle.nn.Linear(2, 3)
    optimizer = paddle.optimizer.Momentum(parameters=network.parameters())
    average = WeightAverage(network, decay=0.5)
    state, metadata = RunState(epochs=()), WeightsMetadata()
    one, other = (average, None) if averaged else (None, average)
    save_checkpoint(tmp_path, network, optimizer, state=state, metadata=metadata, average=one)
    assert restore_checkpoint(tmp_path, network, optimizer, average=one) == state
    with pytest.raises(WeightsMismatchError, match=f"ema_decay {words}") as caught:
        restore_checkpoint(tmp_path, network, optimizer, average=other)
    assert "another --out" in str(caught.value.hint)
