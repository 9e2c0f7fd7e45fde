"""Pictures to transform, and the training transform of a whole clip."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ppvcli.specs import Preprocess
from ppvcli.video.transforms import Augment, draw_augment

Frames = npt.NDArray[np.uint8]


def noise(num_frames: int, *, width: int, height: int) -> Frames:
    """Random pixels, the same for the same size."""
    return np.random.default_rng(width).integers(0, 256, (num_frames, height, width, 3)).astype(np.uint8)


def augmented(frames_thwc: Frames, preprocess: Preprocess, augment: Augment, *, rng: np.random.Generator) -> Frames:
    """A clip as training sees it: one draw, for all frames."""
    transform = draw_augment(frames_thwc.shape[1:3], preprocess, augment, rng=rng)
    return np.stack([transform(frame_hwc) for frame_hwc in frames_thwc])
