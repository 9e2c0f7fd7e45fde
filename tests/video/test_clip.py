"""The whole way from a file to the network's input."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppvcli.errors import NoFramesError, UsageError, VideoError
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.clip import load_clip, load_frames, load_train_frames
from ppvcli.video.decoding import READERS, read_frames
from ppvcli.video.render import write_video
from ppvcli.video.transforms import Augment, apply_resize_crop, normalize
from tests.video.numbered import NUM_FRAMES, numbered_frames, numbers_of
from tests.video.protocols import VIDEO_JOBS, WHOLE_FRAME

Video = Callable[[str], Path]
BY_BOX = {"tsm_k400_test8", "pptsm_k400_uniform_test8", "pptsmv2_16f_test"}

AS_IT_IS = Resize(size_hw=(64, 96))
NUMBERED = Preprocess(sampling=Sampling(mode="uniform", num_segments=8), resize=AS_IT_IS, crop=Crop(kind="none"))


@pytest.fixture(scope="module")
def golden(goldens_dir: Path) -> dict[str, Any]:
    return json.loads((goldens_dir / "data" / "data_golden.json").read_text())


@pytest.fixture(scope="module")
def long_video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As many frames as the reference's example.avi has: 131."""
    path = tmp_path_factory.mktemp("long") / "long.mp4"
    write_video(path, numbered_frames(131))
    return path


@pytest.mark.parametrize("job", VIDEO_JOBS)
def test_frames_taken_of_131_are_those_of_the_reference(job: str, golden: dict[str, Any], long_video: Path) -> None:
    frames = load_frames(long_video, VIDEO_JOBS[job])
    sampling = VIDEO_JOBS[job].sampling
    assert frames.num_frames == 131
    assert frames.duration_s == pytest.approx(131 / 25, abs=0.02)
    assert frames.indices.shape == (sampling.num_clips, sampling.num_segments)
    assert frames.indices.ravel().tolist() == golden[job]["indices"]
    num_views, num_segments = frames.frames_vthwc.shape[:2]
    assert [num_views * num_segments, 3, *frames.frames_vthwc.shape[2:4]] == golden[job]["shape"]
    assert num_views == VIDEO_JOBS[job].num_views


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("job", VIDEO_JOBS)
def test_example_avi_equals_the_reference(job: str, decoder: str, golden: dict[str, Any], shared_dir: Path) -> None:
    preprocess, expected = VIDEO_JOBS[job], golden[job]
    frames = load_frames(shared_dir / "data" / "clips" / "example.avi", preprocess, decoder=decoder)
    assert frames.indices.ravel().tolist() == expected["indices"]
    tensor = normalize(frames.frames_vthwc, preprocess).reshape(expected["shape"])
    if job not in BY_BOX:
        assert hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest() == expected["sha256_f32"]
        return
    with np.load(shared_dir / "reference" / "data" / expected["tensor"]) as arrays:
        grey_levels = np.abs(tensor - arrays["tensor"]) * np.reshape(preprocess.std, (3, 1, 1)) * 255
    assert grey_levels.max() < 1.01
    assert grey_levels.mean() < 0.01


def test_views_are_crop_major_with_the_clips_of_a_crop_in_order(long_video: Path) -> None:
    preprocess = Preprocess(
        sampling=Sampling(mode="window", num_segments=4, num_clips=3, frame_interval=2),
        resize=Resize(short_side=64),
        crop=Crop(kind="three", size=64),
    )
    frames = load_frames(long_video, preprocess)
    taken = read_frames(long_video, frames.indices.ravel())
    left, right, centre = (taken[:, :, start : start + 64] for start in (0, 32, 16))
    assert frames.frames_vthwc.shape == (9, 4, 64, 64, 3)
    expected = np.stack([left, right, centre]).reshape(9, 4, 64, 64, 3)
    assert np.array_equal(frames.frames_vthwc, expected)


@pytest.mark.parametrize("decoder", READERS)
def test_clip_of_a_numbered_video_holds_the_frames_sampled(decoder: str, numbered_video: Video) -> None:
    frames = load_frames(numbered_video("h264.mp4"), NUMBERED, decoder=decoder)
    assert frames.num_frames == NUM_FRAMES
    assert numbers_of(frames.frames_vthwc[0]) == frames.indices[0].tolist() == [2, 7, 12, 17, 22, 27, 32, 37]
    assert set(frames.timings_ms) == {"decode", "transform"}
    assert min(frames.timings_ms.values()) > 0


def test_video_shorter_than_the_clip_repeats_frames(tmp_path: Path) -> None:
    write_video(tmp_path / "short.mp4", numbered_frames(3))
    frames = load_frames(tmp_path / "short.mp4", NUMBERED)
    assert numbers_of(frames.frames_vthwc[0]) == [0, 1, 2, 0, 1, 2, 0, 1]


def test_load_clip_is_the_normalised_float_of_the_frames(numbered_video: Video) -> None:
    path = numbered_video("h264.mp4")
    clip = load_clip(path, WHOLE_FRAME)
    assert clip.shape == (1, 8, 3, 160, 192)
    assert clip.dtype == np.float32
    indices = load_frames(path, WHOLE_FRAME).indices[0]
    crops = apply_resize_crop(read_frames(path, indices), WHOLE_FRAME)
    assert np.array_equal(clip, normalize(crops, WHOLE_FRAME))


def test_training_clip_is_one_view_that_follows_its_seed(numbered_video: Video) -> None:
    path = numbered_video("h264.mp4")

    def load(seed: int) -> Any:
        rng = np.random.default_rng(seed)
        return load_train_frames(path, WHOLE_FRAME, Augment(min_area_ratio=0.5), rng=rng)

    first, again, other = load(0), load(0), load(1)
    assert first.frames_vthwc.shape == (1, 8, 160, 192, 3)
    assert first.indices.shape == (1, 8)
    assert np.array_equal(first.frames_vthwc, again.frames_vthwc)
    assert not np.array_equal(first.frames_vthwc, other.frames_vthwc)


def test_training_clip_without_augmentation_holds_the_frames_drawn(numbered_video: Video) -> None:
    path, plain = numbered_video("h264.mp4"), Augment(flip_ratio=0.0)
    for seed in range(5):
        drawn = load_train_frames(path, NUMBERED, plain, rng=np.random.default_rng(seed))
        assert numbers_of(drawn.frames_vthwc[0]) == drawn.indices[0].tolist()


def test_training_clip_of_a_protocol_with_many_clips_is_one_clip(long_video: Path) -> None:
    dense = VIDEO_JOBS["pptsm_k400_dense_test_10clip_3crop"]
    drawn = load_train_frames(long_video, dense, Augment(), rng=np.random.default_rng(0))
    assert drawn.frames_vthwc.shape == (1, 8, 224, 224, 3)
    assert np.diff(drawn.indices[0]).tolist() == [8] * 7


def test_errors_of_files_and_of_preprocessing_come_through(numbered_video: Video, tmp_path: Path) -> None:
    (tmp_path / "none.mp4").write_bytes(b"none")
    with pytest.raises(VideoError):
        load_clip(tmp_path / "none.mp4", NUMBERED)
    too_large = Preprocess(sampling=NUMBERED.sampling, resize=Resize(short_side=32), crop=Crop(kind="center", size=48))
    with pytest.raises(UsageError):
        load_clip(numbered_video("h264.mp4"), too_large)
    with pytest.raises(NoFramesError):
        load_clip(_cut_after_the_header(numbered_video("mpeg4.avi"), tmp_path), NUMBERED)


def _cut_after_the_header(source: Path, folder: Path) -> Path:
    content = source.read_bytes()
    path = folder / "header.avi"
    path.write_bytes(content[: content.index(b"movi") + 4])
    return path
