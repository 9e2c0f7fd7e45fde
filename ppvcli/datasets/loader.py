"""Batches of decoded clips, prepared by worker processes.

Every random choice is a function of (seed, epoch, index of the clip): neither the number of workers nor an interruption
changes what a run sees. Frames stay uint8 until the training process normalises them.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ppvcli.datasets.annotations import Sample
from ppvcli.datasets.workers import HAVE_WORKERS, Crew, Output, Result, map_here
from ppvcli.errors import VideoError, counted
from ppvcli.specs import Preprocess
from ppvcli.video.clip import ClipFrames, load_frames, load_train_frames
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits
from ppvcli.video.transforms import Augment


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A clip that could not be decoded."""

    path: str
    error: str
    hint: str | None
    index: int
    """Which of the loader's samples it is."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """The clips of a batch that could be decoded, and those that could not."""

    frames_nvthwc: np.ndarray
    """uint8 [N, V, T, H, W, 3]; N may be smaller than the batch size, or 0."""
    labels: np.ndarray
    """int64 [N]."""
    indices: np.ndarray
    """int64 [N]: which of the loader's samples these are."""
    failures: tuple[Failure, ...]
    damage: dict[int, str]
    """By index, what is wrong with clips that could be read all the same, and how many frames they have."""


class ClipLoader:
    """Batches of `samples`: in their order with eval preprocessing, or, with `augment`, shuffled and augmented.

    Of `world_size` processes, the one with this `rank` gets its part of every global batch of `world_size * batch_size`
    clips: all processes together see what one process with the global batch size sees, each clip once. The last global
    batch is divided as evenly as possible; a part may be empty, so that all processes make the same number of steps.

    Workers start with the first epoch and stay for the next ones, until an epoch is left before its last batch.
    `num_workers` 0 decodes in this process.
    """

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
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self._samples = samples
        self._reader = ClipReader(preprocess=preprocess, augment=augment, seed=seed, limits=limits)
        self._batch_size = batch_size
        self._num_workers = num_workers if HAVE_WORKERS else 0
        self._shuffle_seed = seed if augment is not None else None
        self._rank = rank
        self._world_size = world_size
        self._crew: Crew | None = None

    def __len__(self) -> int:
        """Number of batches; the last one may be smaller."""
        return -(-len(self._samples) // (self._batch_size * self._world_size))

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """All clips once. Raises: what a worker raised that is no VideoError; DatasetError if a worker dies."""
        order = np.arange(len(self._samples))
        if self._shuffle_seed is not None:
            order = np.random.default_rng([self._shuffle_seed, epoch]).permutation(order)
        shares = batch_shares(order.tolist(), batch_size=self._batch_size, rank=self._rank, world_size=self._world_size)
        with closing(self._read([self._item(epoch, index) for share in shares for index in share])) as results:
            for i, share in enumerate(shares, start=1):
                batch = self._gather(share, results)
                if i == len(shares):  # before the last batch is given: perhaps nobody asks beyond it
                    next(results, None)  # lets it see that all were fetched
                yield batch

    def _item(self, epoch: int, index: int) -> ClipItem:
        sample = self._samples[index]
        return ClipItem(path=sample.path, num_frames=sample.num_frames, epoch=epoch, index=index)

    def _read(self, items: Sequence[ClipItem]) -> Generator[Result, None, None]:
        if self._num_workers == 0:
            yield from map_here(self._reader, items)
            return
        crew, self._crew = self._crew, None
        if crew is None:
            crew = Crew(
                self._reader,
                num_workers=self._num_workers,
                # a batch to fetch, the next one, and no worker idle in between
                num_slots=2 * self._batch_size + 2 * self._num_workers,
                max_bytes=math.prod(self._reader.clip_shape),
            )
        yield from crew.map(items)
        self._crew = crew

    def _gather(self, share: Sequence[int], results: Iterator[Result]) -> Batch:
        frames = np.empty((len(share), *self._reader.clip_shape), np.uint8)
        decoded: list[int] = []
        failures: list[Failure] = []
        damage: dict[int, str] = {}
        for index in share:
            result = next(results)
            if isinstance(result, VideoError):
                path = str(self._samples[index].path)
                failures.append(Failure(path=path, error=result.message, hint=result.hint, index=index))
                continue
            frames[len(decoded)] = result.array
            decoded.append(index)
            if result.note is not None:
                damage[index] = result.note
        return Batch(
            frames_nvthwc=frames[: len(decoded)],
            labels=np.array([self._samples[index].label for index in decoded], np.int64),
            indices=np.array(decoded, np.int64),
            failures=tuple(failures),
            damage=damage,
        )


def batch_shares(order: Sequence[int], *, batch_size: int, rank: int, world_size: int) -> list[list[int]]:
    """What process `rank` takes of every global batch of `order`: a run of `batch_size`, or fewer of the last one.

    >>> [batch_shares(range(11), batch_size=2, rank=rank, world_size=2) for rank in (0, 1)]
    [[[0, 1], [4, 5], [8, 9]], [[2, 3], [6, 7], [10]]]
    """
    shares = []
    for start in range(0, len(order), batch_size * world_size):
        batch = order[start : start + batch_size * world_size]
        smaller, num_larger = divmod(len(batch), world_size)
        first = rank * smaller + min(rank, num_larger)
        shares.append(list(batch[first : first + smaller + (rank < num_larger)]))
    return shares


@dataclass(frozen=True, kw_only=True)
class ClipItem:
    """A clip to read."""

    path: Path
    num_frames: int | None
    epoch: int
    index: int

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True, kw_only=True)
class ClipReader:
    """Reads clips, wherever it runs."""

    preprocess: Preprocess
    augment: Augment | None
    seed: int
    limits: DecodeLimits

    @property
    def clip_shape(self) -> tuple[int, ...]:
        """V, T, H, W, 3."""
        num_views = self.preprocess.num_views if self.augment is None else 1
        return (num_views, self.preprocess.sampling.num_segments, *self.preprocess.input_hw, 3)

    def __call__(self, item: ClipItem) -> Output:
        """What is wrong with a damaged clip, and uint8 [V, T, H, W, 3]. Raises: VideoError."""
        if self.augment is None:
            clip = load_frames(item.path, self.preprocess, num_frames=item.num_frames, limits=self.limits)
        else:
            clip = load_train_frames(
                item.path,
                self.preprocess,
                self.augment,
                rng=np.random.default_rng([self.seed, item.epoch, item.index]),
                num_frames=item.num_frames,
                limits=self.limits,
            )
        return Output(_describe_damage(clip), clip.frames_vthwc)


def _describe_damage(clip: ClipFrames) -> str | None:
    """What decoding complained of, if anything, and how many frames there are all the same."""
    return None if clip.damage is None else f"{clip.damage}; {counted(clip.num_frames, 'frame')} can be decoded"
