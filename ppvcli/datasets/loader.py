"""Batches of decoded clips, prepared by worker processes. The data set package's one Paddle file.

Every random choice is a function of (seed, epoch, index of the clip): neither the number of workers nor an interruption
changes what a run sees. Frames stay uint8 until the training process normalises them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from paddle.io import BatchSampler, DataLoader, Dataset

from ppvcli.datasets.annotations import Sample
from ppvcli.errors import VideoError
from ppvcli.specs import Preprocess
from ppvcli.video.clip import load_frames, load_train_frames
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits
from ppvcli.video.transforms import Augment


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A clip that could not be decoded."""

    path: str
    error: str


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The clips of a batch that could be decoded, and those that could not."""

    frames_nvthwc: np.ndarray
    """uint8 [N, V, T, H, W, 3]; N may be smaller than the batch size, or 0."""
    labels: np.ndarray
    """int64 [N]."""
    failed_labels: tuple[int, ...]
    failures: tuple[Failure, ...]


class ClipLoader:
    """Batches of `samples`: in their order with eval preprocessing, or, with `augment`, shuffled and augmented."""

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocess: Preprocess,
        *,
        batch_size: int,
        num_workers: int,
        augment: Augment | None = None,
        seed: int = 0,
        limits: DecodeLimits = DEFAULT_LIMITS,
    ) -> None:
        self._dataset = _ClipDataset(samples, preprocess, augment, seed, limits)
        self._batch_size = batch_size
        self._num_workers = num_workers
        self._num_samples = len(samples)
        self._shuffle_seed = seed if augment is not None else None

    def __len__(self) -> int:
        """Number of batches; the last one may be smaller."""
        return -(-self._num_samples // self._batch_size)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """All clips once. Raises: what a worker raised that is no VideoError."""
        order = np.arange(self._num_samples)
        if self._shuffle_seed is not None:
            order = np.random.default_rng([self._shuffle_seed, epoch]).permutation(order)
        loader = DataLoader(
            self._dataset,
            batch_sampler=_EpochBatches(epoch, order, self._batch_size),
            num_workers=self._num_workers,
            collate_fn=_collate,
            # a pipe carries a batch of a few megabytes in milliseconds, and can't fill a container's 64 MB of /dev/shm
            use_shared_memory=False,
        )
        for frames, labels, decoded, failures in loader:
            ok = np.asarray(decoded, dtype=bool)
            all_labels = np.asarray(labels, dtype=np.int64)
            yield Batch(
                frames_nvthwc=np.asarray(frames)[ok],
                labels=all_labels[ok],
                failed_labels=tuple(all_labels[~ok].tolist()),
                failures=tuple(Failure(path=path, error=error) for path, error in failures),
            )


class _ClipDataset(Dataset):
    """Items by (epoch, index), so that a worker knows what random numbers to draw."""

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocess: Preprocess,
        augment: Augment | None,
        seed: int,
        limits: DecodeLimits,
    ) -> None:
        super().__init__()
        self.samples = samples
        self.preprocess = preprocess
        self.augment = augment
        self.seed = seed
        self.limits = limits

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> tuple[np.ndarray, int, str, str]:
        epoch, index = key
        sample = self.samples[index]
        try:
            if self.augment is None:
                clip = load_frames(sample.path, self.preprocess, limits=self.limits)
            else:
                rng = np.random.default_rng([self.seed, epoch, index])
                clip = load_train_frames(sample.path, self.preprocess, self.augment, rng=rng, limits=self.limits)
        except VideoError as error:
            num_views = self.preprocess.num_views if self.augment is None else 1
            shape = (num_views, self.preprocess.sampling.num_segments, *self.preprocess.input_hw, 3)
            return np.zeros(shape, np.uint8), sample.label, str(sample.path), error.message
        return clip.frames_vthwc, sample.label, "", ""


class _EpochBatches(BatchSampler):
    """Batches of (epoch, index) keys in a given order."""

    def __init__(self, epoch: int, order: np.ndarray, batch_size: int) -> None:
        self.epoch = epoch
        self.order = order
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.order), self.batch_size):
            yield [(self.epoch, int(index)) for index in self.order[start : start + self.batch_size]]


def _collate(
    items: list[tuple[np.ndarray, int, str, str]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[str, str]]]:
    frames, labels, paths, errors = zip(*items, strict=True)
    decoded = np.array([not error for error in errors], dtype=np.int64)
    failures = [(path, error) for path, error in zip(paths, errors, strict=True) if error]
    return np.stack(frames), np.array(labels, dtype=np.int64), decoded, failures
