"""TSM: ResNet-50 whose every block first moves some channels to the frame before and the frame after.

Source: Lin et al. 2019, "TSM: Temporal Shift Module"; tensors and numbers of PaddleVideo's `TSM_*.pdparams`.
"""

from __future__ import annotations

import paddle
from paddle import nn

from ppvcli.models.layers import Recognizer2D, Style, fast_linear, mean_over_frames
from ppvcli.models.resnet import FEATURE_CHANNELS, ResNet
from ppvcli.specs import NetworkSpec


class TSMHead(nn.Layer):
    """Frame features [N*T, C] -> logits [N, K]: dropout and linear for each frame, mean of the frames' scores."""

    def __init__(self, num_classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = fast_linear(FEATURE_CHANNELS, num_classes, std=0.001)

    def forward(self, features: paddle.Tensor, num_frames: int) -> paddle.Tensor:
        return mean_over_frames(self.fc(self.dropout(features)), num_frames)


class TSM(Recognizer2D):
    """float32 [N, T, 3, H, W] -> logits [N, K], T = `spec.num_segments`.

    With `spec.data_format` "NHWC" frames are channels-last inside; input, weights and logits stay the same.
    """

    def __init__(self, spec: NetworkSpec, num_classes: int, *, dropout: float | None = None) -> None:
        super().__init__(
            ResNet(spec.depth, style=Style(num_segments=spec.num_segments, data_format=spec.data_format)),
            TSMHead(num_classes, dropout=0.5 if dropout is None else dropout),
            num_segments=spec.num_segments,
        )
