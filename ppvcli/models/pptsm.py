"""PP-TSM: TSM on ResNet-D of depth 50 or 101, with leaky ReLU everywhere.

Source: PaddleVideo's model page and the tensors and numbers of its `ppTSM_k400*.pdparams`.
"""

from __future__ import annotations

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppvcli.models.layers import Recognizer2D, Style, fast_linear, mean_over_frames
from ppvcli.models.resnet import FEATURE_CHANNELS, ResNetVD
from ppvcli.specs import NetworkSpec

LEAKY_RELU_SLOPE = 0.01


def leaky_relu(x: paddle.Tensor) -> paddle.Tensor:
    return F.leaky_relu(x, LEAKY_RELU_SLOPE)


class PPTSMHead(nn.Layer):
    """Frame features [N*T, C] -> logits [N, K]: dropout for each frame, mean over frames, linear."""

    def __init__(self, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = fast_linear(FEATURE_CHANNELS, num_classes, std=0.01)

    def forward(self, features: paddle.Tensor, num_frames: int) -> paddle.Tensor:
        return self.fc(mean_over_frames(self.dropout(features), num_frames))


class PPTSM(Recognizer2D):
    """float32 [N, T, 3, H, W] -> logits [N, K], T = `spec.num_segments`."""

    def __init__(self, spec: NetworkSpec, num_classes: int, *, dropout: float | None = None) -> None:
        super().__init__(
            ResNetVD(spec.depth, style=Style(activation=leaky_relu, num_segments=spec.num_segments)),
            PPTSMHead(num_classes, dropout=0.5 if dropout is None else dropout),
            num_segments=spec.num_segments,
        )
