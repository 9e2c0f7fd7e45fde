"""What `ppv train --json` prints."""

from __future__ import annotations

import json
import math

from ppvcli.cli.train_run import to_json
from ppvcli.results import ClassResult, EvalReport, TrainResult
from tests.engine.run_entries import epoch_result


def test_losses_that_are_no_numbers_are_null() -> None:
    classes = (ClassResult(label="a", num_clips=1, num_correct=0, num_predicted=0),)
    val = EvalReport(model="m", num_clips=1, num_correct=0, num_correct_top5=0, loss=math.nan, classes=classes)
    epochs = (epoch_result(1, val_loss=math.nan), epoch_result(2, val_loss=math.inf), epoch_result(3))
    tree = to_json(TrainResult(run_dir="run", model="m", epochs=epochs, best_epoch=3, val=val))
    printed = json.loads(json.dumps(tree, allow_nan=False))
    assert [epoch["val_loss"] for epoch in printed["epochs"]] == [None, None, 1.25]
    assert printed["epochs"][2]["failures"] == [["bad \udce9.mp4", "it is cut off"]]
    assert (printed["val"]["loss"], printed["best_epoch"]) == (None, 3)
