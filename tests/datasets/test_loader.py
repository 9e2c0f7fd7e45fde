from __future__ import annotations

import doctest
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ppvcli.datasets.loader
from ppvcli.datasets.annotations import Sample
from ppvcli.datasets.frames import FrameJob, extract_frames
from ppvcli.datasets.loader import Batch, ClipLoader, batch_shares
from ppvcli.datasets.workers import Crew
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.clip import load_frames
from ppvcli.video.multi_scale import MultiScale
from ppvcli.video.render import write_video
from ppvcli.video.transforms import Augment
from tests.video.numbered import numbered_frames, numbers_of

PREPROCESS = Preprocess(
    sampling=Sampling(mode="uniform", num_segments=4), resize=Resize(short_side=64), crop=Crop(kind="center", size=56)
)
AUGMENTS = {
    "area": Augment(min_area_ratio=0.5),
    "multi-scale": Augment(multi_scale=MultiScale(size=64, num_points=13)),
}


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> tuple[Sample, ...]:
    """11 clips of 10 to 20 frames; the label is the place in the list."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(11):
        write_video(folder / f"{i}.mp4", numbered_frames(10 + i))
    return tuple(Sample(folder / f"{i}.mp4", i) for i in range(11))


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    for batch, other in zip(batches, others, strict=True):
        assert np.array_equal(batch.frames_nvthwc, other.frames_nvthwc)
        assert np.array_equal(batch.labels, other.labels)
        assert np.array_equal(batch.indices, other.indices)
        assert batch.failures == other.failures


@pytest.mark.parametrize("augment", AUGMENTS)
def test_number_of_workers_does_not_change_what_is_seen(augment: str, samples: tuple[Sample, ...]) -> None:
    broken = (*samples[:4], Sample(Path("none.mp4"), 4), *samples[4:])
    loaders = [
        ClipLoader(broken, PREPROCESS, batch_size=4, num_workers=n, augment=AUGMENTS[augment], seed=1)
        for n in (0, 1, 3)
    ]
    for epoch in (3, 4):
        alone, one, three = (list(loader.epoch(epoch)) for loader in loaders)
        assert_same(alone, one)
        assert_same(alone, three)
        assert sum(len(batch.labels) for batch in alone) == 11
        assert alone[0].frames_nvthwc.shape == (4 - len(alone[0].failures), 1, 4, 56, 56, 3)


def test_epochs_differ_and_repeat(samples: tuple[Sample, ...]) -> None:
    loader = ClipLoader(samples, PREPROCESS, batch_size=11, num_workers=0, augment=Augment(), seed=1)
    first, second, again = (next(loader.epoch(epoch)) for epoch in (0, 1, 0))
    assert np.array_equal(first.frames_nvthwc, again.frames_nvthwc)
    assert not np.array_equal(first.frames_nvthwc, second.frames_nvthwc)


def test_eval_batches_are_in_order_with_all_views(samples: tuple[Sample, ...]) -> None:
    ten_crop = replace(PREPROCESS, crop=Crop(kind="ten", size=56))
    (first, second, third) = ClipLoader(samples, ten_crop, batch_size=4, num_workers=1).epoch()
    assert first.frames_nvthwc.shape == (4, 10, 4, 56, 56, 3)
    assert [*first.indices, *second.indices, *third.indices] == list(range(11))
    assert third.labels.tolist() == [8, 9, 10]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_broken_clips_are_named_and_never_replaced(
    num_workers: int, samples: tuple[Sample, ...], tmp_path: Path
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    mixed = (samples[0], Sample(tmp_path / "broken.mp4", 7), samples[1], Sample(tmp_path / "none.mp4", 8))
    first, second = ClipLoader(mixed, PREPROCESS, batch_size=2, num_workers=num_workers).epoch()
    assert first.labels.tolist() == [0]
    assert [(Path(f.path).name, f.index) for f in (*first.failures, *second.failures)] == [
        ("broken.mp4", 1), ("none.mp4", 3),
    ]  # fmt: skip
    assert second.failures[0].hint == "check the path"
    only_broken = ClipLoader(mixed[3:], PREPROCESS, batch_size=2, num_workers=num_workers)
    (empty,) = only_broken.epoch()
    assert empty.frames_nvthwc.shape == (0, 1, 4, 56, 56, 3)


@pytest.mark.parametrize("augment", [None, AUGMENTS["area"]], ids=["eval", "train"])
def test_damage_is_told_with_the_number_of_frames(augment: Augment | None, tmp_path: Path) -> None:
    write_video(tmp_path / "whole.avi", numbered_frames(30), codec="mpeg4")
    chunks = (tmp_path / "whole.avi").read_bytes().split(b"00dc")
    (tmp_path / "cut.avi").write_bytes(b"00dc".join(chunks[:20])[:-20])  # it ends within a frame
    clips = (Sample(tmp_path / "whole.avi", 0), Sample(tmp_path / "cut.avi", 1))
    (batch,) = ClipLoader(clips, PREPROCESS, batch_size=2, num_workers=0, augment=augment).epoch()
    num_frames = load_frames(tmp_path / "cut.avi", PREPROCESS).num_frames
    assert 1 < num_frames < 30
    assert batch.damage == {1: f"cut off within a frame; {num_frames} frames can be decoded"}


def test_abandoned_epoch_does_not_disturb_the_next(samples: tuple[Sample, ...]) -> None:
    loader = ClipLoader(samples, PREPROCESS, batch_size=3, num_workers=2, augment=AUGMENTS["area"], seed=4)
    whole = list(loader.epoch(1))
    abandoned = loader.epoch(0)
    next(abandoned)
    side_by_side = loader.epoch(1)
    first = next(side_by_side)
    abandoned.close()
    assert_same(whole, [first, *side_by_side])
    assert_same(whole, list(loader.epoch(1)))


@pytest.mark.parametrize("world_size", [1, 2])
def test_workers_stay_for_the_next_epoch_where_nobody_asks_beyond_the_last_batch(
    world_size: int, samples: tuple[Sample, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the trainer does; the last batch of the second of two processes is empty."""
    crews: list[Crew] = []

    def start(*args: Any, **settings: Any) -> Crew:
        crews.append(Crew(*args, **settings))
        return crews[-1]

    monkeypatch.setattr(ppvcli.datasets.loader, "Crew", start)
    loader = ClipLoader(
        samples[:3], PREPROCESS, batch_size=1, num_workers=1, augment=AUGMENTS["area"], rank=world_size - 1,
        world_size=world_size,
    )  # fmt: skip
    for epoch in range(2):
        batches = loader.epoch(epoch)
        assert sum(len(batch.labels) for batch in islice(batches, len(loader))) == 3 // world_size
    assert len(crews) == 1


def test_folders_of_frames_give_the_clips_of_their_videos(samples: tuple[Sample, ...], tmp_path: Path) -> None:
    jobs = [
        FrameJob(clip=sample.path, folder=tmp_path / sample.path.stem, work_dir=tmp_path / "work")
        for sample in samples[:3]
    ]
    results = extract_frames(jobs, num_workers=1)
    folders = [
        Sample(result.job.folder, sample.label, result.num_frames)
        for sample, result in zip(samples[:3], results, strict=True)
    ]
    whole = replace(PREPROCESS, resize=Resize(size_hw=(64, 96)), crop=Crop(kind="none"))
    for augment in (None, Augment(flip_ratio=0.0)):
        of_videos, of_folders = (
            next(ClipLoader(clips, whole, batch_size=3, num_workers=1, augment=augment, seed=2).epoch(5))
            for clips in (samples[:3], folders)
        )
        assert of_videos.indices.tolist() == of_folders.indices.tolist()
        for video, folder in zip(of_videos.frames_nvthwc, of_folders.frames_nvthwc, strict=True):
            assert numbers_of(video[0]) == numbers_of(folder[0])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
@pytest.mark.parametrize("num_samples", [1, 5, 12, 13, 16, 31])
def test_shares_of_all_ranks_are_the_batches_of_one_process(num_samples: int, world_size: int) -> None:
    order = np.random.default_rng(0).permutation(num_samples).tolist()
    shares = [batch_shares(order, batch_size=4, rank=rank, world_size=world_size) for rank in range(world_size)]
    alone = batch_shares(order, batch_size=4 * world_size, rank=0, world_size=1)
    together = [[index for part in parts for index in part] for parts in zip(*shares, strict=True)]
    assert together == alone
    assert [index for batch in alone for index in batch] == order
    for parts in zip(*shares, strict=True):
        sizes = [len(part) for part in parts]
        assert max(sizes) <= 4
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("augment", [None, AUGMENTS["area"]])
def test_ranks_together_see_what_one_process_sees(augment: Augment | None, samples: tuple[Sample, ...]) -> None:
    def loader(*, batch_size: int, rank: int = 0, world_size: int = 1) -> ClipLoader:
        return ClipLoader(
            samples[:9], PREPROCESS, batch_size=batch_size, num_workers=0, augment=augment, seed=6, rank=rank,
            world_size=world_size,
        )  # fmt: skip

    alone = list(loader(batch_size=8).epoch(2))
    ranks = [loader(batch_size=2, rank=rank, world_size=4) for rank in range(4)]
    assert [len(one) for one in ranks] == [2] * 4
    parts = [list(one.epoch(2)) for one in ranks]
    for whole, *pieces in zip(alone, *parts, strict=True):
        assert np.array_equal(whole.frames_nvthwc, np.concatenate([piece.frames_nvthwc for piece in pieces]))
        assert np.array_equal(whole.indices, np.concatenate([piece.indices for piece in pieces]))
    assert [len(part[-1].labels) for part in parts] == [1, 0, 0, 0]
    assert Counter(int(i) for part in parts for batch in part for i in batch.indices) == Counter(range(9))


def test_examples_in_docstrings_hold() -> None:
    assert doctest.testmod(ppvcli.datasets.loader).failed == 0
