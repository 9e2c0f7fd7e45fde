"""Which epoch of a run is the best one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from ppvcli.engine.checkpoint import RunState, best_epoch
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
