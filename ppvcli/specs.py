"""Typed facts that cross packages: what a network is, and what its eval preprocessing does. Imports nothing heavy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

DECODE_TIMEOUT_S = 600.0
"""Wall time that one video may take to decode."""
MAX_PIXELS = 8192 * 8192
"""Width x height that a frame may have."""

VIDEO_SUFFIXES = frozenset(
    (
        *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2t", ".m2ts", ".m2v", ".m4v"),
        *(".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".ogv", ".qt", ".rm", ".rmvb", ".ts", ".vob"),
        *(".webm", ".wmv", ".wtv"),
    )
)
"""What is taken for a video in a folder, in any case; `video/container.py` opens all of them."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Which frames of a video form its clips. `mode` names a function of `video/sampling.py`."""

    mode: Literal["uniform", "select_left", "linspace", "dense", "window"]
    num_segments: int
    """Frames of one clip, T."""
    num_clips: int = 1
    """Clips of one video at eval; more than one only for `dense` and `window`."""
    frame_interval: int | None = None
    """Distance of neighbouring frames; `window` only (the others derive it)."""


@dataclass(frozen=True, kw_only=True)
class Resize:
    """How a whole frame is scaled before the crop."""

    backend: Literal["pillow", "cv2"] = "pillow"
    """`pillow`: bilinear with antialiasing; `cv2`: INTER_LINEAR without it. Released weights know one of the two."""
    short_side: int | None = None
    """Scale so that the short side has this many pixels ..."""
    size_hw: tuple[int, int] | None = None
    """... or, instead, scale the whole frame to exactly this height and width."""
    aspect: Literal["keep", "4:3"] = "keep"
    """With `short_side`: keep the frame's aspect ratio, or force the long side to 4/3 of the short one."""
    rounding: Literal["floor", "round"] = "floor"
    """With `short_side` and `keep`: how the long side becomes an integer."""


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Crops of a scaled frame: 1 (`center`), 10 (`ten`), 3 (`three`), or the whole frame as it is (`none`)."""

    kind: Literal["center", "ten", "three", "none"]
    size: int = 224
    """Side of the square."""
    size_hw: tuple[int, int] | None = None
    """Height and width of crops that are no squares, in place of `size`."""
    rounding: Literal["floor", "round"] = "floor"
    """`center` only: how an odd margin is halved (`round` is round-half-even)."""

    @property
    def num_crops(self) -> int:
        return {"center": 1, "ten": 10, "three": 3, "none": 1}[self.kind]

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width of a crop; not for `none`."""
        return self.size_hw or (self.size, self.size)


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """The eval preprocessing of a checkpoint: file -> float32 [V, T, 3, H, W] with V = crops x clips, crop-major."""

    sampling: Sampling
    resize: Resize
    crop: Crop
    mean: tuple[float, float, float] = IMAGENET_MEAN
    """Per RGB channel, of values in 0..1."""
    std: tuple[float, float, float] = IMAGENET_STD

    @property
    def num_views(self) -> int:
        return self.crop.num_crops * self.sampling.num_clips

    @property
    def input_hw(self) -> tuple[int, int]:
        """Height and width of what the network sees."""
        if self.crop.kind != "none":
            return self.crop.hw
        assert self.resize.size_hw is not None
        return self.resize.size_hw

    @property
    def protocol(self) -> str:
        """What one video is measured from, such as `25 frames x 10 crops` or `8 frames x 10 clips x 3 crops`."""
        parts = [f"{self.sampling.num_segments} frames"]
        if self.sampling.num_clips > 1:
            parts.append(f"{self.sampling.num_clips} clips")
        num_crops = self.crop.num_crops
        parts.append("whole frame" if self.crop.kind == "none" else f"{num_crops} crop{'s'[: num_crops > 1]}")
        return " x ".join(parts)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """Which network to build: a family and the facts that change its tensors or its arithmetic."""

    architecture: Literal["tsn", "tsm", "pptsn", "pptsm", "pptsmv2", "tsm_efflite0"]
    num_segments: int | None = None
    """Frames per clip of a network that shifts features over time; None for TSN and PP-TSN, which take any number."""
    depth: Literal[50, 101] = 50
    """Of the ResNet families."""
    data_format: Literal["NCHW", "NHWC"] = "NCHW"
    """Layout inside the network (TSM only); its input is [N, T, 3, H, W] either way."""
    temporal_shift: bool = True
    """Off only for `tsm_efflite0`, to measure what the shift is worth; without it frames have no order."""
    temporal_attention: bool = False
    """PP-TSMv2's learned per-frame scaling (LTA)."""
    teacher: NetworkSpec | None = None
    """The other network of a DML file; eval, predict and export use the student, which is the rest of this spec."""
