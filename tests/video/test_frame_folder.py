from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ppvcli.errors import (
    FrameFileError,
    FrameIndexError,
    FrameTooLargeError,
    NotAVideoFileError,
    VideoError,
    VideoNotFoundError,
)
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.clip import load_frames, load_train_frames
from ppvcli.video.frame_folder import FrameFolder, frame_name, last_frame_number
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits, Watch
from ppvcli.video.render import render_action
from ppvcli.video.transforms import Augment
from tests.video.numbered import numbered_frames, numbers_of

Frames = npt.NDArray[np.uint8]


def write_folder(folder: Path, frames: Frames) -> Path:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        Image.fromarray(frame).save(folder / frame_name(number), quality=95)
    return folder


def open_folder(folder: Path, num_frames: int, limits: DecodeLimits = DEFAULT_LIMITS) -> FrameFolder:
    return FrameFolder(folder, num_frames, Watch(folder, limits))


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 frames that carry their number."""
    return write_folder(tmp_path_factory.mktemp("frames") / "clip", numbered_frames())


def test_frames_have_the_pixels_that_pillow_reads(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip", render_action("walk", num_frames=5))
    expected = np.stack([np.asarray(Image.open(folder / frame_name(i)).convert("RGB")) for i in (4, 1, 4)])
    assert np.array_equal(open_folder(folder, 5).read([3, 0, 3]), expected)


def test_real_frames_have_the_pixels_that_pillow_reads(shared_dir: Path, tmp_path: Path) -> None:
    paths = sorted((shared_dir / "data" / "frames" / "v_Surfing_g25_c02").glob("*.jpg"))
    for number, path in enumerate(paths, start=1):
        (tmp_path / frame_name(number)).symlink_to(path)
    expected = np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])
    assert np.array_equal(open_folder(tmp_path, len(paths)).read(range(len(paths))), expected)


def test_grey_jpeg_is_read_as_rgb(tmp_path: Path) -> None:
    grey = np.tile(np.arange(0, 240, 15, dtype=np.uint8), (16, 1))
    Image.fromarray(grey).save(tmp_path / frame_name(1), quality=100)
    frame = open_folder(tmp_path, 1).read([0])[0]
    assert frame.shape == (16, 16, 3)
    assert np.abs(frame.astype(int) - grey[:, :, np.newaxis]).max() <= 2


SAMPLINGS = {
    "uniform": Sampling(mode="uniform", num_segments=8),
    "select_left": Sampling(mode="select_left", num_segments=25),
    "linspace": Sampling(mode="linspace", num_segments=25),
    "dense": Sampling(mode="dense", num_segments=8, num_clips=10),
    "window": Sampling(mode="window", num_segments=8, frame_interval=4),
}
AS_IT_IS = Preprocess(sampling=SAMPLINGS["uniform"], resize=Resize(size_hw=(64, 96)), crop=Crop(kind="none"))


@pytest.mark.parametrize("num_frames", [1, 2, 3, 7, 8, 9, 24, 25, 26, 40])
@pytest.mark.parametrize("mode", SAMPLINGS)
def test_no_sampling_asks_for_a_frame_that_does_not_exist(mode: str, num_frames: int, numbered: Path) -> None:
    preprocess = replace(AS_IT_IS, sampling=SAMPLINGS[mode])
    clip = load_frames(numbered, preprocess, num_frames=num_frames)
    assert numbers_of(clip.frames_vthwc.reshape(-1, 64, 96, 3)) == clip.indices.ravel().tolist()
    assert clip.indices.min() >= 0
    assert clip.indices.max() < num_frames
    assert clip.num_frames == num_frames
    for seed in range(3):
        rng = np.random.default_rng(seed)
        drawn = load_train_frames(numbered, preprocess, Augment(flip_ratio=0.0), rng=rng, num_frames=num_frames)
        assert numbers_of(drawn.frames_vthwc[0]) == drawn.indices[0].tolist()


def test_dense_sampling_counts_files_as_the_reference_does(tmp_path: Path) -> None:
    """The reference asks for file `start + i * 8 + 1`: index `start + i * 8`, without the shift it has on videos."""
    folder = write_folder(tmp_path / "clip", np.zeros((80, 64, 96, 3), np.uint8))
    preprocess = replace(AS_IT_IS, sampling=SAMPLINGS["dense"])
    clip = load_frames(folder, preprocess, num_frames=80)
    starts = np.linspace(0, 80 - 64, 10).astype(int)
    assert clip.indices.tolist() == [[start + 8 * i for i in range(8)] for start in starts]


def test_missing_frame_is_named_with_what_the_folder_holds(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip", numbered_frames(5))
    with pytest.raises(FrameFileError, match=r"img_00009\.jpg is missing: .* 9 frames, the folder ends at img_00005"):
        open_folder(folder, 9)
    (folder / frame_name(3)).unlink()
    with pytest.raises(FrameFileError, match=r"img_00003\.jpg is missing: .* 5 frames, it goes on to img_00005"):
        open_folder(folder, 5).read([0, 2])
    with pytest.raises(FrameIndexError, match="frame 5"):
        open_folder(folder, 5).read([5])


@pytest.mark.parametrize("kind", ["cut", "text", "empty", "png"])
def test_frame_that_is_no_whole_jpeg_is_named(kind: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip", render_action("walk", num_frames=2))
    path = folder / frame_name(2)
    if kind == "png":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path, format="PNG")
    else:
        path.write_bytes({"cut": path.read_bytes()[:-600], "text": b"hello", "empty": b""}[kind])
    with pytest.raises(FrameFileError, match=r"img_00002\.jpg is (cut off|no JPEG)"):
        open_folder(folder, 2).read([0, 1])


def test_frames_of_different_sizes_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "clip", numbered_frames(2))
    Image.fromarray(np.zeros((8, 12, 3), np.uint8)).save(folder / frame_name(2))
    with pytest.raises(FrameFileError, match=r"img_00002\.jpg is 12x8, others are 96x64"):
        open_folder(folder, 2).read([0, 1])


def test_limits_hold_for_folders(numbered: Path) -> None:
    with pytest.raises(FrameTooLargeError):
        open_folder(numbered, 40, DecodeLimits(max_pixels=1000)).read([0])
    with pytest.raises(VideoError, match="took more than"):
        open_folder(numbered, 40, DecodeLimits(timeout_s=1e-9)).read([0])


def test_path_without_a_folder_is_an_error_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(VideoNotFoundError):
        open_folder(tmp_path / "none", 1)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(NotAVideoFileError):
        open_folder(tmp_path / "file", 1)


@pytest.mark.parametrize(
    ("names", "last"),
    [((), 0), (("img_00001.jpg", "img_00003.jpg"), 3), (("img_100000.jpg",), 100000), (("img_1.jpg", "a.jpg"), 0)],
)
def test_last_frame_number_is_the_highest_name(names: tuple[str, ...], last: int, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert last_frame_number(tmp_path) == last
    assert last_frame_number(tmp_path / "none") == 0
