"""TSN: ResNet-50 on single frames; the mean over the frames of a clip is classified.

Source: Wang et al. 2016, "Temporal Segment Networks"; tensors and numbers of PaddleVideo's `TSN_k400*.pdparams`.
"""

from __future__ import annotations

from ppvcli.models.layers import ClipMeanHead, Recognizer2D, Style, plain_linear
from ppvcli.models.resnet import FEATURE_CHANNELS, ResNet
from ppvcli.specs import NetworkSpec


class TSN(Recognizer2D):
    """float32 [N, T, 3, H, W] -> logits [N, K], for any T. Alone in the family it decays its BatchNorm parameters."""

    def __init__(self, spec: NetworkSpec, num_classes: int, *, dropout: float | None = None) -> None:
        super().__init__(
            ResNet(spec.depth, style=Style(decay_batch_norm=True)),
            ClipMeanHead(
                plain_linear(FEATURE_CHANNELS, num_classes, std=0.01), dropout=0.4 if dropout is None else dropout
            ),
            num_segments=None,
        )
