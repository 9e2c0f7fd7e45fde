"""From all views of a video to one row of logits: shared by evaluation and prediction, so that they agree."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import paddle

from ppvcli.specs import Preprocess
from ppvcli.video.transforms import normalize

FRAMES_AT_ONCE = 32
"""Frames that pass through a network together: ten crops of 25 frames or 30 views of 8 would take gigabytes at once."""


@paddle.no_grad()
def clip_logits(
    network: paddle.nn.Layer, frames_vthwc: npt.NDArray[np.uint8], *, preprocess: Preprocess
) -> npt.NDArray[np.float32]:
    """The mean of the logits over the views of one video: uint8 [V, T, H, W, 3] RGB -> float32 [K]."""
    views_at_once = max(1, FRAMES_AT_ONCE // frames_vthwc.shape[1])
    logits_vk = [
        network(paddle.to_tensor(normalize(frames_vthwc[first : first + views_at_once], preprocess))).numpy()
        for first in range(0, len(frames_vthwc), views_at_once)
    ]
    return np.concatenate(logits_vk).mean(axis=0)
