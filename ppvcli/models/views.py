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
    logits_vk = [
        run(np.ascontiguousarray(frames_vthwc[first : first + views_at_once]))
        for first in range(0, len(frames_vthwc), views_at_once)
    ]
    return np.concatenate(logits_vk).mean(axis=0)


def clip_logits(
    network: paddle.nn.Layer, frames_vthwc: npt.NDArray[np.uint8], *, preprocess: Preprocess
) -> npt.NDArray[np.float32]:
    """`mean_over_views` of a network in eval mode: uint8 [V, T, H, W, 3] RGB -> float32 [K]."""
    import paddle  # here, because prediction through a compiled program must not wait for it

    with paddle.no_grad():
        return mean_over_views(
            lambda views: network(paddle.to_tensor(normalize(views, preprocess))).numpy(), frames_vthwc
        )
