"""PP-TSMv2: PP-LCNetV2, depthwise-separable blocks, with one temporal shift and optional temporal attention.

Frames are [N*T, C, H, W] throughout; sizes in the comments are for frames of 224 x 224.
Source: PaddleVideo's model page and the tensors and numbers of its `PPTSMv2_k400*.pdparams`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ppvcli.models.layers import batch_norm, check_clips, conv2d, fast_linear, mean_over_frames, temporal_shift
from ppvcli.specs import NetworkSpec

LAST_CHANNELS = 1280
DROPOUT = 0.2


class ConvBN(nn.Layer):
    """Convolution without bias, BatchNorm, ReLU if `activated`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        groups: int = 1,
        activated: bool = True,
    ) -> None:
        super().__init__()
        self.conv = conv2d(in_channels, out_channels, kernel, stride=stride, groups=groups)
        self.bn = batch_norm(out_channels)
        self.activated = activated

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        x = self.bn(self.conv(x))
        return F.relu(x) if self.activated else x


class SeparableBlock(nn.Layer):
    """Depthwise 3x3, then 1x1: the block of the stem and of the first two stages."""

    def __init__(self, in_channels: int, out_channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.dw_conv = ConvBN(in_channels, in_channels, 3, stride=stride, groups=in_channels)
        self.pw_conv = ConvBN(in_channels, out_channels, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.pw_conv(self.dw_conv(x))


class SqueezeExcitation(nn.Layer):
    """Scales each channel by a factor in 0..1 that two 1x1 convolutions derive from the frame's mean."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv2d(channels, channels // 4, 1, bias=True)
        self.conv2 = conv2d(channels // 4, channels, 1, bias=True)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        factors = self.conv2(F.relu(self.conv1(x.mean(axis=[2, 3], keepdim=True))))
        return x * F.sigmoid(factors)


class MultiBranchBlock(nn.Layer):
    """Sum of depthwise 5x5, 3x3 and (without stride) 1x1, ReLU, and 1x1: the block of the last two stages.

    `split` puts two 1x1 convolutions at the end instead of one and squeeze-and-excitation before them; `residual` adds
    the input to the result. `merge_branches` turns the sum into the one convolution `dw_conv`, which belongs to the
    released files and is unused before.
    """

    def __init__(self, in_channels: int, out_channels: int, *, stride: int, split: bool, residual: bool) -> None:
        super().__init__()
        kernels = (5, 3, 1) if stride == 1 else (5, 3)
        self.dw_conv_list = nn.LayerList(
            [
                ConvBN(in_channels, in_channels, kernel, stride=stride, groups=in_channels, activated=False)
                for kernel in kernels
            ]
        )
        self.dw_conv = conv2d(in_channels, in_channels, kernels[0], stride=stride, groups=in_channels, bias=True)
        if split:
            self.se = SqueezeExcitation(in_channels)
            self.pw_conv_1 = ConvBN(in_channels, out_channels // 2, 1)
            self.pw_conv_2 = ConvBN(out_channels // 2, out_channels, 1)
        else:
            self.pw_conv = ConvBN(in_channels, out_channels, 1)
        self.split = split
        self.residual = residual
        self.merged = False

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        y = F.relu(self.dw_conv(x) if self.merged else self._sum_branches(x))
        y = self.pw_conv_2(self.pw_conv_1(self.se(y))) if self.split else self.pw_conv(y)
        return x + y if self.residual else y

    def _sum_branches(self, x: paddle.Tensor) -> paddle.Tensor:
        first, *others = self.dw_conv_list
        total = first(x)
        for branch in others:
            total = total + branch(x)
        return total

    def merge_branches(self) -> None:
        """Writes the branches, their BatchNorm included, into `dw_conv` and uses that from now on."""
        kernel, offset = _merge_depthwise(self.dw_conv_list, size=self.dw_conv.weight.shape[-1])
        self.dw_conv.weight.set_value(kernel)
        self.dw_conv.bias.set_value(offset)
        self.merged = True


def _merge_depthwise(branches: Sequence[ConvBN], *, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Kernel [C, 1, size, size] and bias [C] of the convolution that equals the sum of conv + BatchNorm branches."""
    channels = len(branches[0].conv.weight)
    kernel, offset = np.zeros((channels, 1, size, size)), np.zeros(channels)
    for branch in branches:
        # in double precision, so that the merged network differs by no more than its own rounding
        scale, shift, mean, variance = (
            p.numpy().astype(np.float64)
            for p in (branch.bn.weight, branch.bn.bias, branch.bn._mean, branch.bn._variance)
        )
        gain = scale / np.sqrt(variance + branch.bn._epsilon)
        small = branch.conv.weight.numpy()
        margin = (size - small.shape[-1]) // 2
        kernel[:, :, margin : size - margin, margin : size - margin] += small * gain.reshape([-1, 1, 1, 1])
        offset += shift - mean * gain
    return kernel.astype(np.float32), offset.astype(np.float32)


class TemporalAttention(nn.Layer):
    """LTA: scales each frame of a clip by a learned factor in 0..1 that depends on the means of all its frames."""

    def __init__(self, num_segments: int) -> None:
        super().__init__()
        self.num_segments = num_segments
        self.fc = fast_linear(num_segments, num_segments, std=None)

    def forward(self, frames: paddle.Tensor) -> paddle.Tensor:
        means = frames.mean(axis=[1, 2, 3]).reshape([-1, self.num_segments])
        return frames * F.sigmoid(self.fc(means)).reshape([-1, 1, 1, 1])


class PPLCNetV2(nn.Layer):
    """Frames [N*T, 3, H, W] -> logits [N, K]; the released files keep the classifier inside the backbone."""

    def __init__(self, num_segments: int, num_classes: int, *, dropout: float, temporal_attention: bool) -> None:
        super().__init__()
        self.num_segments = num_segments
        self.stem = nn.Sequential(ConvBN(3, 32, 3, stride=2), SeparableBlock(32, 64))  # 112
        self.stages = nn.LayerList(
            [
                nn.Sequential(SeparableBlock(64, 128, stride=2), SeparableBlock(128, 128)),  # 56
                nn.Sequential(SeparableBlock(128, 256, stride=2), SeparableBlock(256, 256)),  # 28
                nn.Sequential(  # 14
                    MultiBranchBlock(256, 512, stride=2, split=True, residual=False),
                    *[MultiBranchBlock(512, 512, stride=1, split=True, residual=False) for _ in range(5)],
                ),
                nn.Sequential(  # 7
                    MultiBranchBlock(512, 1024, stride=2, split=False, residual=False),
                    MultiBranchBlock(1024, 1024, stride=1, split=False, residual=True),
                ),
            ]
        )
        self.last_conv = conv2d(1024, LAST_CHANNELS, 1)
        # scales at eval instead of in training: released weights need their features times 1 - dropout
        self.dropout = nn.Dropout(dropout, mode="downscale_in_infer")
        self.fc = nn.Linear(LAST_CHANNELS, num_classes)
        self.global_attention = TemporalAttention(num_segments) if temporal_attention else None

    def forward(self, frames: paddle.Tensor) -> paddle.Tensor:
        x = self.stages[1](self.stages[0](self.stem(frames)))
        if self.global_attention is not None:
            x = self.global_attention(x)
        x = temporal_shift(x, self.num_segments)
        x = self.stages[3](self.stages[2](x))
        x = F.relu(self.last_conv(x.mean(axis=[2, 3], keepdim=True)))
        return self.fc(mean_over_frames(self.dropout(x.flatten(1)), self.num_segments))


class PPTSMv2(nn.Layer):
    """float32 [N, T, 3, H, W] -> logits [N, K], T = `spec.num_segments`."""

    def __init__(self, spec: NetworkSpec, num_classes: int, *, dropout: float | None = None) -> None:
        super().__init__()
        assert spec.num_segments is not None
        self.num_segments = spec.num_segments
        self.backbone = PPLCNetV2(
            spec.num_segments,
            num_classes,
            dropout=DROPOUT if dropout is None else dropout,
            temporal_attention=spec.temporal_attention,
        )

    def forward(self, clips_ntchw: paddle.Tensor) -> paddle.Tensor:
        """Raises: UsageError for another number of dimensions, channels or frames."""
        check_clips(clips_ntchw, self.num_segments)
        return self.backbone(clips_ntchw.flatten(0, 1))

    def reparameterize(self) -> None:
        """Merges the depthwise branches for inference: same logits, fewer operations. Not for a network in training."""
        reparameterize(self)


def reparameterize(network: nn.Layer) -> None:
    """Merges the branches of every block of `network` that has some; state-dict keys stay the same."""
    for layer in network.sublayers():
        if isinstance(layer, MultiBranchBlock):
            layer.merge_branches()
