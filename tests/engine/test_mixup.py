from __future__ import annotations

import numpy as np
import pytest

from ppvcli.engine.mixup import mix_clips


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    clips = np.random.default_rng(0).standard_normal((size, 2, 3, 4, 4)).astype(np.float32)
    return clips, np.arange(size, dtype=np.int64)


def test_every_clip_becomes_the_weighted_mean_that_its_labels_say() -> None:
    clips, labels = batch(5)
    mixed, targets = mix_clips(clips, labels, alpha=0.2, rng=np.random.default_rng(3))
    assert targets.other_labels is not None
    assert sorted(targets.other_labels) == list(labels)
    for i in range(5):
        expected = targets.share * clips[targets.labels[i]] + (1 - targets.share) * clips[targets.other_labels[i]]
        np.testing.assert_allclose(mixed[i], expected, atol=1e-6)
    assert mixed.dtype == np.float32


def test_shares_follow_the_beta_distribution() -> None:
    clips, labels = batch(2)
    rng = np.random.default_rng(1)
    shares = np.array([mix_clips(clips, labels, alpha=0.2, rng=rng)[1].share for _ in range(2000)])
    # Beta(a, a): mean 1/2, variance 1 / (4 (2a + 1))
    assert shares.mean() == pytest.approx(0.5, abs=0.03)
    assert shares.var() == pytest.approx(1 / (4 * 1.4), abs=0.01)


def test_same_generator_gives_the_same_mixture() -> None:
    clips, labels = batch(4)
    first, second = (mix_clips(clips, labels, alpha=1.0, rng=np.random.default_rng([5, 2])) for _ in range(2))
    assert np.array_equal(first[0], second[0])
    assert first[1].share == second[1].share
