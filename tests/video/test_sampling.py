"""Frame indices against the reference's own rows, against literals, and for every length there is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvcli.errors import NoFramesError, UsageError
from ppvcli.specs import Sampling
from ppvcli.video import sampling

MODES = ("uniform", "select_left", "linspace", "dense", "window")
Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows(goldens_dir: Path) -> list[Row]:
    return json.loads(gzip.decompress((goldens_dir / "data" / "sampling_golden.json.gz").read_bytes()))


def _usable(row: Row) -> bool:
    return not row["float_idx"] and not row["out_of_range"]


def _zero_based(row: Row) -> list[int]:
    return [int(index) - (row["format"] == "frame") for index in row["idx"]]


def _ours(row: Row) -> np.ndarray:
    num_frames, num_segments = row["frames_len"], row["num_seg"]
    if row["mode"] == "dense":  # file numbers start at 1, and the reference uses them unchanged on videos
        shift = 0 if row["format"] == "frame" else 1
        return sampling.dense_eval(num_frames, num_segments, num_clips=10, shift=shift).ravel()
    functions = {"uniform": sampling.uniform_eval, "select_left": sampling.select_left_eval}
    return functions.get(row["mode"], sampling.linspace)(num_frames, num_segments)


@pytest.mark.parametrize("mode", ["uniform", "select_left", "linspace", "dense"])
def test_eval_indices_equal_every_usable_row_of_the_reference(mode: str, rows: list[Row]) -> None:
    chosen = [row for row in rows if row["mode"] == mode and row["valid"] and _usable(row)]
    assert len(chosen) > 100
    for row in chosen:
        assert _ours(row).tolist() == _zero_based(row), row


def test_eval_indices_where_the_reference_fails_are_integers_in_range(rows: list[Row]) -> None:
    chosen = [row for row in rows if row["valid"] and not _usable(row)]
    assert {row["mode"] for row in chosen} == {"uniform", "select_left", "dense"}
    for row in chosen:
        indices = _ours(row)
        assert indices.dtype == np.int64
        assert indices.min() >= 0 and indices.max() < row["frames_len"], row


def _support(row: Row, place: int) -> range:
    """Every index that our training may draw for one place of a clip."""
    num_frames, num_segments = row["frames_len"], row["num_seg"]
    if row["mode"] == "dense":
        first = place * (64 // num_segments) + (row["format"] == "video")
        return range(first, first + max(1, num_frames - 63))
    if row["mode"] == "linspace":
        index = int(sampling.linspace(num_frames, num_segments)[place])
        return range(index, index + 1)
    length = num_frames // num_segments
    if length == 0:
        return range(place % num_frames, place % num_frames + 1)
    return range(place * length, (place + 1) * length)


@pytest.mark.parametrize("mode", ["uniform", "select_left", "linspace", "dense"])
def test_train_rows_of_the_reference_are_draws_that_ours_can_make(mode: str, rows: list[Row]) -> None:
    chosen = [row for row in rows if row["mode"] == mode and not row["valid"] and _usable(row)]
    assert len(chosen) > 80
    for row in chosen:
        for place, index in enumerate(_zero_based(row)):
            support = _support(row, place)
            assert index in {one % row["frames_len"] for one in support}, row


@pytest.mark.parametrize("mode", ["uniform", "select_left", "dense"])
@pytest.mark.parametrize(("num_frames", "num_segments"), [(40, 8), (66, 8), (9, 3), (16, 16), (70, 3)])
def test_train_indices_over_many_draws_cover_exactly_their_range(mode: str, num_frames: int, num_segments: int) -> None:
    rng = np.random.default_rng(0)
    choice = Sampling(mode=mode, num_segments=num_segments)
    draws = np.concatenate([sampling.train_indices(choice, num_frames, rng) for _ in range(600)])
    row = {"mode": mode, "frames_len": num_frames, "num_seg": num_segments, "format": "video"}
    for place in range(num_segments):
        expected = {index % num_frames for index in _support(row, place)}
        assert set(draws[:, place].tolist()) == expected


@settings(max_examples=300, deadline=None)
@given(
    mode=st.sampled_from(MODES),
    num_frames=st.integers(1, 400),
    num_segments=st.integers(1, 70),
    clips=st.integers(1, 12),
    interval=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_indices_of_any_video_are_int64_in_range_and_of_the_promised_shape(
    mode: str, num_frames: int, num_segments: int, clips: int, interval: int, seed: int
) -> None:
    num_clips = clips if mode in ("dense", "window") else 1
    choice = Sampling(mode=mode, num_segments=num_segments, num_clips=num_clips, frame_interval=interval)
    evaluated = sampling.eval_indices(choice, num_frames)
    trained = sampling.train_indices(choice, num_frames, np.random.default_rng(seed))
    assert evaluated.shape == (num_clips, num_segments)
    assert trained.shape == (1, num_segments)
    for indices in (evaluated, trained):
        assert indices.dtype == np.int64
        assert indices.min() >= 0 and indices.max() < num_frames


@pytest.mark.parametrize(
    ("num_frames", "num_clips", "starts"),
    [(61, 1, [16]), (62, 1, [16]), (29, 1, [0]), (61, 2, [0, 32]), (61, 3, [0, 16, 32]), (30, 3, [0, 0, 1])],
)
def test_window_eval_takes_the_middle_or_spreads_the_starts(num_frames: int, num_clips: int, starts: list[int]) -> None:
    indices = sampling.window_eval(num_frames, 8, interval=4, num_clips=num_clips)
    assert indices[:, 0].tolist() == starts
    assert np.all(np.diff(indices, axis=1) == 4)


def test_window_longer_than_the_video_spreads_over_all_of_it() -> None:
    assert sampling.window_eval(16, 8, interval=4, num_clips=2).tolist() == [[1, 3, 5, 7, 9, 11, 13, 15]] * 2
    drawn = sampling.window_train(4, 8, interval=4, rng=np.random.default_rng(0))
    assert drawn.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


def test_window_train_over_many_draws_starts_everywhere_it_fits() -> None:
    rng = np.random.default_rng(0)
    draws = np.stack([sampling.window_train(35, 8, interval=4, rng=rng) for _ in range(200)])
    assert set(draws[:, 0].tolist()) == set(range(7))
    assert np.all(np.diff(draws, axis=1) == 4)


def test_dense_eval_past_the_last_frame_wraps_to_the_first() -> None:
    assert sampling.dense_eval(3, 8, num_clips=1).tolist() == [[1, 0, 2, 1, 0, 2, 1, 0]]


def test_dense_eval_of_one_clip_starts_in_the_middle() -> None:
    assert sampling.dense_eval(131, 8, num_clips=1).tolist() == [[34, 42, 50, 58, 66, 74, 82, 90]]


def test_select_left_eval_of_a_short_video_spreads_instead_of_repeating_the_first_frame() -> None:
    assert sampling.select_left_eval(4, 8).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize("mode", MODES)
def test_train_indices_with_the_same_seed_are_the_same(mode: str) -> None:
    choice = Sampling(mode=mode, num_segments=8, num_clips=1, frame_interval=2)
    first, second = (sampling.train_indices(choice, 131, np.random.default_rng(5)) for _ in range(2))
    assert first.tolist() == second.tolist()


@pytest.mark.parametrize("mode", MODES)
def test_indices_of_a_video_without_frames_raise(mode: str) -> None:
    choice = Sampling(mode=mode, num_segments=8, frame_interval=4)
    with pytest.raises(NoFramesError):
        sampling.eval_indices(choice, 0)
    with pytest.raises(NoFramesError):
        sampling.train_indices(choice, 0, np.random.default_rng(0))


@pytest.mark.parametrize(
    "choice",
    [
        Sampling(mode="uniform", num_segments=8, num_clips=2),
        Sampling(mode="window", num_segments=8),
        Sampling(mode="window", num_segments=8, frame_interval=0),
        Sampling(mode="uniform", num_segments=0),
        Sampling(mode="dense", num_segments=8, num_clips=0),
    ],
)
def test_eval_indices_of_an_impossible_sampling_raise(choice: Sampling) -> None:
    with pytest.raises(UsageError):
        sampling.eval_indices(choice, 100)
