"""What the networks share: convolution + BatchNorm, the bottleneck block, linear layers, temporal shift, network frame.

Inside a network frames are [N*T, C, H, W] (or [N*T, H, W, C]); only the temporal shift and the head restore T.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import paddle
import paddle.nn.functional as F
from paddle import nn
from paddle.nn.initializer import KaimingNormal, Normal
from paddle.regularizer import L2Decay

from ppvcli.errors import UsageError

DataFormat = Literal["NCHW", "NHWC"]


@dataclass(frozen=True, kw_only=True)
class Style:
    """What one ResNet family does differently from another, the same in all its blocks."""

    activation: Callable[[paddle.Tensor], paddle.Tensor] = F.relu
    num_segments: int | None = None
    """Frames per clip over which every block shifts its input; None: no shift."""
    decay_batch_norm: bool = False
    """Whether the optimizer's weight decay reaches BatchNorm scales and offsets."""
    data_format: DataFormat = "NCHW"


def conv2d(
    in_channels: int,
    out_channels: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    bias: bool = False,
    data_format: DataFormat = "NCHW",
) -> nn.Conv2D:
    """A convolution padded by half its kernel, its weight drawn with std sqrt(2 / fan_in)."""
    return nn.Conv2D(
        in_channels,
        out_channels,
        kernel,
        stride=stride,
        padding=(kernel - 1) // 2,
        groups=groups,
        # Paddle's own default counts all input channels of a grouped convolution as fan_in
        weight_attr=paddle.ParamAttr(initializer=KaimingNormal()),
        bias_attr=None if bias else False,
        data_format=data_format,
    )


def batch_norm(channels: int, *, decay: bool = False, data_format: DataFormat = "NCHW") -> nn.BatchNorm2D:
    """BatchNorm whose scale and offset are exempt from weight decay unless `decay`."""

    def attr() -> paddle.ParamAttr:
        return paddle.ParamAttr(regularizer=None if decay else L2Decay(0.0))

    return nn.BatchNorm2D(channels, weight_attr=attr(), bias_attr=attr(), data_format=data_format)


def fast_linear(in_features: int, out_features: int, *, std: float | None) -> nn.Linear:
    """A Linear layer that learns 5 (weight) and 10 times (bias) as fast, decayed by 1e-4 (weight) and 0 (bias).

    Its weight is drawn from N(0, std), or with None as Paddle does by default; its bias starts at 0.
    """
    return nn.Linear(
        in_features,
        out_features,
        weight_attr=paddle.ParamAttr(
            initializer=None if std is None else Normal(0.0, std), learning_rate=5.0, regularizer=L2Decay(1e-4)
        ),
        bias_attr=paddle.ParamAttr(learning_rate=10.0, regularizer=L2Decay(0.0)),
    )


def plain_linear(in_features: int, out_features: int, *, std: float) -> nn.Linear:
    """A Linear layer with weight N(0, std) and bias 0 that learns and decays like the rest of the network."""
    return nn.Linear(in_features, out_features, weight_attr=paddle.ParamAttr(initializer=Normal(0.0, std)))


def temporal_shift(frames: paddle.Tensor, num_segments: int, *, data_format: DataFormat = "NCHW") -> paddle.Tensor:
    """Moves 1/T of the channels one frame later and 1/T one frame earlier within each clip of T frames.

    The share is 1/T, not a fixed 1/8, because released weights were trained so. Source: Lin et al. 2019, TSM.
    """
    return F.temporal_shift(frames, num_segments, 1.0 / num_segments, data_format=data_format)


class ConvBN(nn.Layer):
    """Convolution without bias, BatchNorm, and the family's activation if `activated`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        style: Style,
        stride: int = 1,
        activated: bool = True,
    ) -> None:
        super().__init__()
        self._conv = conv2d(in_channels, out_channels, kernel, stride=stride, data_format=style.data_format)
        self._batch_norm = batch_norm(out_channels, decay=style.decay_batch_norm, data_format=style.data_format)
        self.activation = style.activation if activated else None

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self._batch_norm(self._conv(x))
        return x if self.activation is None else self.activation(x)


class Bottleneck(nn.Layer):
    """1x1, 3x3 with the stride, 1x1 to four times the width; `short` projects the input where its shape changes.

    With a shifting style the three convolutions see shifted frames, the shortcut the original ones.
    """

    def __init__(self, in_channels: int, width: int, *, stride: int, style: Style, short: nn.Layer | None) -> None:
        super().__init__()
        self.conv0 = ConvBN(in_channels, width, 1, style=style)
        self.conv1 = ConvBN(width, width, 3, style=style, stride=stride)
        self.conv2 = ConvBN(width, width * 4, 1, style=style, activated=False)
        self.short = short
        self.style = style

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        branch = x
        if self.style.num_segments is not None:
            branch = temporal_shift(x, self.style.num_segments, data_format=self.style.data_format)
        branch = self.conv2(self.conv1(self.conv0(branch)))
        short = x if self.short is None else self.short(x)
        return self.style.activation(short + branch)


def max_pool(x: paddle.Tensor, *, data_format: DataFormat = "NCHW") -> paddle.Tensor:
    """3x3 maximum with stride 2, after a ResNet's stem."""
    return F.max_pool2d(x, kernel_size=3, stride=2, padding=1, data_format=data_format)


def mean_over_frames(x: paddle.Tensor, num_frames: int) -> paddle.Tensor:
    """[N*T, C] -> [N, C]."""
    return x.reshape([-1, num_frames, x.shape[-1]]).mean(axis=1)


class ClipMeanHead(nn.Layer):
    """Frame features [N*T, C] -> logits [N, K]: mean over the frames of a clip, dropout, `fc`."""

    def __init__(self, fc: nn.Linear, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.fc = fc

    def forward(self, features: paddle.Tensor, num_frames: int) -> paddle.Tensor:
        return self.fc(self.dropout(mean_over_frames(features, num_frames)))


def check_clips(clips_ntchw: paddle.Tensor, num_segments: int | None) -> None:
    """Refuses anything but [N, T, 3, H, W] with T = `num_segments` (any T for None).

    Raises: UsageError. A wrong T would otherwise shift features across the border of two clips without a word.
    """
    shape = list(clips_ntchw.shape)
    if len(shape) != 5 or shape[2] != 3 or num_segments not in (None, shape[1]):
        frames = "T" if num_segments is None else num_segments
        raise UsageError(
            f"the network takes clips [N, {frames}, 3, H, W], got an array of shape {shape}",
            hint="clips as ppvcli.load_clip(path, model_name) returns them fit this model",
        )


class Recognizer2D(nn.Layer):
    """Clips -> frames -> `backbone` -> one feature vector a frame -> `head` -> logits."""

    def __init__(self, backbone: nn.Layer, head: nn.Layer, *, num_segments: int | None) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.num_segments = num_segments

    def forward(self, clips_ntchw: paddle.Tensor) -> paddle.Tensor:
        """float32 [N, T, 3, H, W] -> logits float32 [N, K].

        Raises: UsageError for another number of dimensions, channels or, in a shifting network, frames.
        """
        check_clips(clips_ntchw, self.num_segments)
        features = self.backbone(clips_ntchw.flatten(0, 1))
        return self.head(features, clips_ntchw.shape[1])
