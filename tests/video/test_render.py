"""The figure that is drawn, and the files it is written to."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ppvcli.errors import UnknownNameError, VideoError
from ppvcli.video.decoding import open_video, read_frames
from ppvcli.video.render import ACTIONS, GROUND_Y, render_action, write_video
from tests.video.numbered import numbered_frames

STANDING = ("bend", "jack", "pjump", "wave1", "wave2")


def _figure(frames_thwc: npt.NDArray[np.uint8]) -> npt.NDArray[np.bool_]:
    """Where the figure is: dark against the wall, above the pavement and left of the door."""
    return frames_thwc[:, : int(GROUND_Y) - 3, :165].max(axis=-1) < 95


def _centre_x(mask_thw: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    columns = mask_thw.sum(axis=1)
    return (columns * np.arange(mask_thw.shape[2])).sum(axis=1) / columns.sum(axis=1)


def _top_y(mask_thw: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    return mask_thw.any(axis=2).argmax(axis=1)


@pytest.mark.parametrize("action", ACTIONS)
def test_figure_of_every_action_is_whole_and_moves(action: str) -> None:
    frames = render_action(action, num_frames=30)
    assert frames.shape == (30, 144, 180, 3)
    assert frames.dtype == np.uint8
    figure = _figure(frames)
    areas = figure.sum(axis=(1, 2))
    assert areas.min() > 450  # pixels of a person 66 tall
    assert areas.max() < 1300
    changed = (figure[:1] != figure[1:]).sum(axis=(1, 2))
    assert changed.max() > 150


@pytest.mark.parametrize("action", ACTIONS)
def test_figure_travels_or_stays_as_its_action_says(action: str) -> None:
    centre = _centre_x(_figure(render_action(action, num_frames=25)))
    travelled = abs(centre[-1] - centre[0])
    if action in STANDING:
        assert np.ptp(centre) < 14
    else:
        assert 25 < travelled < 110


def test_actions_at_the_same_moment_look_different() -> None:
    figures = {action: _figure(render_action(action, num_frames=16))[15] for action in ACTIONS}
    for first in ACTIONS:
        for second in ACTIONS:
            if first < second:
                assert (figures[first] != figures[second]).sum() > 60, (first, second)


@pytest.mark.parametrize(("action", "raised"), [("wave1", True), ("wave2", True), ("jack", True), ("walk", False)])
def test_hands_go_above_the_head_where_they_should(action: str, raised: bool) -> None:
    tops = _top_y(_figure(render_action(action, num_frames=30)))
    head = np.max(tops)
    assert (tops.min() < head - 6) == raised


def test_bend_brings_the_head_down() -> None:
    tops = _top_y(_figure(render_action("bend", num_frames=30)))
    assert tops.max() - tops.min() > 20


def test_rendering_twice_gives_the_same_frames_and_another_seed_another_wall() -> None:
    first, again, other = (render_action("wave2", num_frames=3, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_unknown_action_raises_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="nearest: wave"):
        render_action("waves")


def test_command_line_writes_a_small_video_of_the_action(tmp_path: Path) -> None:
    path = tmp_path / "demo.mp4"
    command = [sys.executable, "-m", "ppvcli.video.render", str(path), "--action", "jack", "--frames", "30"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
    assert path.stat().st_size < 200_000
    with open_video(path) as video:
        assert video.num_frames == 30
        decoded = video.read(range(30))
    assert np.abs(decoded.astype(int) - render_action("jack", num_frames=30)).mean() < 4


def test_written_video_appears_whole_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "numbers.avi"
    path.write_bytes(b"old")
    frames = numbered_frames(6)
    write_video(path, frames, codec="rawvideo", pixel_format="bgr24")
    assert np.array_equal(read_frames(path, range(6)), frames)
    assert [file.name for file in tmp_path.iterdir()] == ["numbers.avi"]


@pytest.mark.parametrize(
    ("name", "codec", "width"),
    [("a.mp4", "nosuchcodec", 96), ("a.nosuchsuffix", "libx264", 96), ("a.mp4", "libx264", 95)],
)
def test_video_that_cannot_be_written_raises_and_leaves_the_old_one(
    name: str, codec: str, width: int, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(b"old")
    with pytest.raises(VideoError, match="can't write"):
        write_video(path, numbered_frames(2, width=width), codec=codec)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == [name]
