"""PP-TSN: TSN on ResNet-D.

Source: PaddleVideo's model page and the tensors and numbers of its `ppTSN_k400*.pdparams`.
"""

from __future__ import annotations

from ppvcli.models.layers import ClipMeanHead, Recognizer2D, Style, fast_linear
from ppvcli.models.resnet import FEATURE_CHANNELS, ResNetVD
from ppvcli.specs import NetworkSpec


class PPTSN(Recognizer2D):
    """float32 [N, T, 3, H, W] -> logits [N, K], for any T."""

    def __init__(self, spec: NetworkSpec, num_classes: int, *, dropout: float | None = None) -> None:
        super().__init__(
            ResNetVD(spec.depth, style=Style()),
            ClipMeanHead(
                fast_linear(FEATURE_CHANNELS, num_classes, std=0.01), dropout=0.4 if dropout is None else dropout
            ),
            num_segments=None,
        )
