"""The two ResNet backbones of the family: frames [N*T, 3, H, W] -> one pooled feature vector a frame [N*T, 2048].

`ResNet` (TSN, TSM) is the network of He et al. 2015 with the stride in the 3x3 convolution; `ResNetVD` (PP-TSN, PP-TSM)
has the deep stem and the pooled shortcuts of ResNet-D (He et al. 2018, "Bag of Tricks").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, NamedTuple

import paddle
import paddle.nn.functional as F
from paddle import nn

from ppvcli.models.layers import Bottleneck, ConvBN, Style, max_pool

BLOCKS_PER_STAGE = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
FEATURE_CHANNELS = 2048

Depth = Literal[50, 101]


class BlockPlan(NamedTuple):
    """Place and size of one bottleneck block; it puts out four times `width` channels."""

    stage: int
    number: int
    """Within its stage, from 0."""
    in_channels: int
    width: int
    stride: int


def plan_blocks(depth: Depth) -> Iterator[BlockPlan]:
    """Every bottleneck block of a ResNet in order; block 0 of each stage but the first halves height and width."""
    channels = 64
    for stage, num_blocks in enumerate(BLOCKS_PER_STAGE[depth]):
        width = 64 * 2**stage
        for number in range(num_blocks):
            yield BlockPlan(stage, number, channels, width, 2 if number == 0 and stage > 0 else 1)
            channels = width * 4


class ResNet(nn.Layer):
    """ResNet with one 7x7 convolution as stem and strided 1x1 convolutions as shortcuts."""

    def __init__(self, depth: Depth, *, style: Style) -> None:
        super().__init__()
        self.data_format = style.data_format
        self.conv = ConvBN(3, 64, 7, stride=2, style=style)
        self.blocks: list[Bottleneck] = []
        for plan in plan_blocks(depth):
            short = None
            if plan.number == 0:
                short = ConvBN(plan.in_channels, plan.width * 4, 1, stride=plan.stride, style=style, activated=False)
            block = Bottleneck(plan.in_channels, plan.width, stride=plan.stride, style=style, short=short)
            self.blocks.append(self.add_sublayer(_block_name(plan, depth=depth), block))

    def forward(self, frames_nchw: paddle.Tensor) -> paddle.Tensor:
        nhwc = self.data_format == "NHWC"
        x = frames_nchw.transpose([0, 2, 3, 1]) if nhwc else frames_nchw
        x = max_pool(self.conv(x), data_format=self.data_format)
        for block in self.blocks:
            x = block(x)
        return x.mean(axis=[1, 2] if nhwc else [2, 3])


def _block_name(plan: BlockPlan, *, depth: Depth) -> str:
    """`res2a`, `res2b` ...; the long third stage of a deep network is `res4a`, `res4b1`, `res4b2` ..."""
    if depth > 50 and plan.stage == 2 and plan.number > 0:
        return f"res4b{plan.number}"
    return f"res{plan.stage + 2}{'abcdef'[plan.number]}"


class PooledConvBN(ConvBN):
    """The ResNet-D shortcut: 2x2 mean pooling carries the stride, the 1x1 convolution has none."""

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return super().forward(F.avg_pool2d(x, kernel_size=2, stride=2, ceil_mode=True))


class ResNetVD(nn.Layer):
    """ResNet-D: three 3x3 convolutions as stem, mean pooling before the projection of a strided shortcut."""

    def __init__(self, depth: Depth, *, style: Style) -> None:
        super().__init__()
        self.conv1_1 = ConvBN(3, 32, 3, stride=2, style=style)
        self.conv1_2 = ConvBN(32, 32, 3, style=style)
        self.conv1_3 = ConvBN(32, 64, 3, style=style)
        self.blocks: list[Bottleneck] = []
        for plan in plan_blocks(depth):
            short = None
            if plan.number == 0:
                projection = ConvBN if plan.stride == 1 else PooledConvBN
                short = projection(plan.in_channels, plan.width * 4, 1, style=style, activated=False)
            block = Bottleneck(plan.in_channels, plan.width, stride=plan.stride, style=style, short=short)
            self.blocks.append(self.add_sublayer(f"bb_{plan.stage}_{plan.number}", block))

    def forward(self, frames_nchw: paddle.Tensor) -> paddle.Tensor:
        x = max_pool(self.conv1_3(self.conv1_2(self.conv1_1(frames_nchw))))
        for block in self.blocks:
            x = block(x)
        return x.mean(axis=[2, 3])
