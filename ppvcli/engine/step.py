"""One step of the optimizer: the part of training that the reference's numbers hold us to."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import paddle

from ppvcli.engine.amp import Precision
from ppvcli.engine.distributed import ALONE, World
from ppvcli.engine.losses import Targets
from ppvcli.engine.objectives import Objective
from ppvcli.engine.progress import Meter

Part = tuple[npt.NDArray[np.floating], Targets]
"""Clips [N, T, 3, H, W] that go through the network at once, and their classes."""


def optimizer_step(
    network: paddle.nn.Layer,
    parts: Iterable[Part],
    *,
    num_clips: int,
    objective: Objective,
    optimizer: paddle.optimizer.Optimizer,
    precision: Precision,
    rate: float,
    meter: Meter,
    world: World = ALONE,
) -> None:
    """Forward and backward on each of `parts`, then one update with the mean gradient of `num_clips` clips.

    These are the clips of `parts` in all processes of `world`.
    """
    optimizer.set_lr(rate)
    for clips_ntchw, targets in parts:
        with precision.autocast():
            loss, logits = objective(network, paddle.to_tensor(clips_ntchw), targets)
        precision.backward(loss * (len(targets.labels) / num_clips))
        logits_nk = logits.numpy()
        meter.add(
            loss=float(loss.item()),
            top1=targets.accuracy(logits_nk),
            top5=targets.accuracy(logits_nk, k=5),
            num_clips=len(targets.labels),
        )
    world.sum_gradients(network.parameters())
    precision.step(optimizer)
    optimizer.clear_grad()
