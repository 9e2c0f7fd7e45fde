"""BatchNorm statistics measured over many batches, in place of the moving average that training leaves behind.

Source: Wu & Johnson 2021, "Rethinking 'Batch' in BatchNorm", in the reference's form (SPEC 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable

import paddle
from paddle import nn

BATCH_NORMS = (nn.BatchNorm1D, nn.BatchNorm2D, nn.BatchNorm3D)


def recompute_batch_norm(network: nn.Layer, clips: Iterable[paddle.Tensor]) -> int:
    """Replaces the statistics of every BatchNorm in train mode by the mean over batches of clips; returns their number.

    `network` is in train mode and its weights stay as they are; `clips` gives float32 [N, T, 3, H, W]. BatchNorm
    layers on stored statistics (frozen ones) are left alone, and without a batch everything is.
    """
    layers = [layer for layer in network.sublayers() if isinstance(layer, BATCH_NORMS) and layer.training]
    momenta = [layer._momentum for layer in layers]
    sums: list[tuple[paddle.Tensor, paddle.Tensor]] = []
    num_batches = 0
    try:
        for layer in layers:
            layer._momentum = 0.0  # the layer then holds the statistics of the last batch alone
        for batch in clips:
            with paddle.no_grad():
                network(batch)
            stats = [(layer._mean.clone(), layer._variance.clone()) for layer in layers]
            sums = [(a + c, b + d) for (a, b), (c, d) in zip(sums, stats, strict=True)] if sums else stats
            num_batches += 1
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer._momentum = momentum
    for layer, (mean_sum, variance_sum) in zip(layers, sums, strict=False):
        layer._mean.set_value(mean_sum / num_batches)
        layer._variance.set_value(variance_sum / num_batches)
    return num_batches
