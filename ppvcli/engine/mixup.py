"""Mixup: every clip of a batch becomes a weighted mean with another one of it. Source: Zhang et al. 2018."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ppvcli.engine.losses import Targets


def mix_clips(
    clips_ntchw: npt.NDArray[np.float32], labels_n: npt.NDArray[np.int64], *, alpha: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.float32], Targets]:
    """Whole clips mixed in pairs, one share from Beta(alpha, alpha) and one permutation for the batch.

    float32 [N, T, 3, H, W] and int64 [N] -> the same shape, and both labels of every clip. The reference calls it
    "VideoMix" in its documentation.
    """
    share = float(np.float32(rng.beta(alpha, alpha)))
    order = rng.permutation(len(labels_n))
    mixed = np.float32(share) * clips_ntchw + np.float32(1.0 - share) * clips_ntchw[order]
    return mixed, Targets(labels=labels_n, other_labels=labels_n[order], share=share)
