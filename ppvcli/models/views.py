"""From all views of a video to one row of logits: shared by evaluation, prediction and checks, so that they agree."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ppvcli.specs import Preprocess
from ppvcli.video.transforms import normalize

if TYPE_CHECKING:
    import paddle

FRAMES_AT_ONCE = 32
"""Frames that pass through a network together: ten crops of 25 frames or 30 views of 8 would take gigabytes at once."""


def mean_over_views(
    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]], frames_vthwc: npt.NDArray[np.uint8]
) -> npt.NDArray[np.float32]:
    """The mean of the logits over the views of one video: uint8 [V, T, H, W, 3] RGB -> float32 [K].

    `run` takes some of the views at a time, uint8 [v, T, H, W, 3], and gives logits float32 [v, K].
    """
    views_at_once = max(1, FRAMES_AT_ONCE // frames_vthwc.shape[1])
    return _in_parts(run, frames_vthwc, views_at_once).mean(axis=0)


def clip_logits(
    network: paddle.nn.Layer, frames_vthwc: npt.NDArray[np.uint8], *, preprocess: Preprocess
) -> npt.NDArray[np.float32]:
    """`mean_over_views` of a network in eval mode: uint8 [V, T, H, W, 3] RGB -> float32 [K]."""
    return batch_logits(network, frames_vthwc[np.newaxis], preprocess=preprocess)[0]


def batch_logits(
    network: paddle.nn.Layer, frames_nvthwc: npt.NDArray[np.uint8], *, preprocess: Preprocess
) -> npt.NDArray[np.float32]:
    """`clip_logits` of N videos: uint8 [N, V, T, H, W, 3] RGB -> float32 [N, K].

    FRAMES_AT_ONCE pass through the network together, or one view of each video where these are more frames.
    """
    import paddle  # here, because prediction through a compiled program must not wait for it

    num_clips, num_views, num_frames = frames_nvthwc.shape[:3]
    views = frames_nvthwc.reshape(num_clips * num_views, *frames_nvthwc.shape[2:])
    with paddle.no_grad():
        logits = _in_parts(
            lambda part: network(paddle.to_tensor(normalize(part, preprocess))).numpy(),
            views,
            max(num_clips, FRAMES_AT_ONCE // num_frames),
        )
    return logits.reshape(num_clips, num_views, -1).mean(axis=1)


def _in_parts(
    run: Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]], views: npt.NDArray[np.uint8], views_at_once: int
) -> npt.NDArray[np.float32]:
    parts = range(0, len(views), views_at_once)
    return np.concatenate([run(np.ascontiguousarray(views[first : first + views_at_once])) for first in parts])
