"""Frames by index: every decoder against numbers drawn into the pictures, and against each other."""

from __future__ import annotations

import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from ppvcli.errors import FrameIndexError, UnknownNameError, UsageError, VideoError
from ppvcli.video import sequential
from ppvcli.video.decoding import READERS, open_video, read_frames
from ppvcli.video.render import write_video
from ppvcli.video.sequential import SequentialReader
from tests.video.numbered import FORMATS, NUM_FRAMES, numbered_frames, numbers_of, remux

Video = Callable[[str], Path]
SCATTERED = [39, 0, 17, 17, 5, 38, 0]
EXACT = [
    (decoder, name)
    for name, form in FORMATS.items()
    for decoder, good in (("pyav", True), ("opencv", form.opencv), ("decord", form.decord))
    if good
]


def _sequential(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


@pytest.mark.parametrize(("decoder", "name"), EXACT)
def test_read_of_scattered_indices_gives_the_frames_with_these_numbers(
    decoder: str, name: str, numbered_video: Video
) -> None:
    with open_video(numbered_video(name), decoder=decoder) as video:
        assert video.num_frames == NUM_FRAMES
        assert video.duration_s == pytest.approx(NUM_FRAMES / 25, abs=0.05)
        assert numbers_of(video.read(SCATTERED)) == SCATTERED
        assert numbers_of(video.read(range(NUM_FRAMES))) == list(range(NUM_FRAMES))


@pytest.mark.parametrize("name", FORMATS)
def test_pyav_equals_plain_sequential_decoding(name: str, numbered_video: Video) -> None:
    path = numbered_video(name)
    frames = read_frames(path, range(NUM_FRAMES))
    assert frames.dtype == np.uint8
    assert np.array_equal(frames, _sequential(path))
    assert np.array_equal(read_frames(path, SCATTERED), frames[SCATTERED])


@pytest.mark.parametrize("name", [name for name, form in FORMATS.items() if form.opencv])
def test_opencv_equals_pyav(name: str, numbered_video: Video) -> None:
    path = numbered_video(name)
    assert np.array_equal(read_frames(path, SCATTERED, decoder="opencv"), read_frames(path, SCATTERED))


def test_lossless_video_gives_the_very_frames_that_were_written(numbered_video: Video) -> None:
    assert np.array_equal(read_frames(numbered_video("lossless.avi"), range(NUM_FRAMES)), numbered_frames())


@pytest.mark.parametrize("decoder", READERS)
def test_reader_can_be_asked_again_and_before_it_has_counted(decoder: str, numbered_video: Video) -> None:
    with open_video(numbered_video("h264.mp4"), decoder=decoder) as video:
        assert numbers_of(video.read([12, 3])) == [12, 3]
        assert numbers_of(video.read(np.array([30]))) == [30]
        assert video.num_frames == NUM_FRAMES
        assert numbers_of(video.read([7])) == [7]


@pytest.mark.parametrize("decoder", READERS)
def test_read_of_no_indices_is_empty_and_keeps_the_frame_size(decoder: str, numbered_video: Video) -> None:
    assert read_frames(numbered_video("h264.mp4"), [], decoder=decoder).shape == (0, 64, 96, 3)


def test_video_larger_than_the_memory_for_frames_is_decoded_again(
    numbered_video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential, "KEPT_PIXELS", 70_000)  # of 40 x 96 x 64 = 245,760
    with open_video(numbered_video("h264.mp4"), decoder="sequential") as video:
        assert video.num_frames == NUM_FRAMES
        assert not video._kept  # type: ignore[attr-defined]
        assert numbers_of(video.read(SCATTERED)) == SCATTERED


def test_long_video_whose_header_counts_no_frames_is_decoded_once(
    numbered_video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sequential, "KEPT_PIXELS", 70_000)  # of 40 x 96 x 64 = 245,760
    passes: list[SequentialReader] = []
    decode = SequentialReader._decode

    def counted(self: SequentialReader) -> Iterator[av.VideoFrame]:
        passes.append(self)
        return decode(self)

    monkeypatch.setattr(SequentialReader, "_decode", counted)
    with open_video(numbered_video("vp9.webm"), decoder="sequential") as video:
        video.expect(lambda num_frames: np.array([num_frames - 1, 2, 20]))
        assert video.num_frames == NUM_FRAMES
        assert numbers_of(video.read([39, 2, 20])) == [39, 2, 20]
        assert len(passes) == 1
        assert numbers_of(video.read([3])) == [3]
        assert len(passes) == 2


@pytest.mark.parametrize("decoder", ["pyav", "opencv"])
def test_trimmed_mp4_gives_only_the_frames_that_are_shown(decoder: str, numbered_video: Video, tmp_path: Path) -> None:
    path = remux(numbered_video("h264.mp4"), tmp_path / "trimmed.mp4", cut_s=10 / 25)
    with open_video(path, decoder=decoder) as video:
        assert video.num_frames == 30
        assert numbers_of(video.read(range(30))) == list(range(10, 40))


def test_variable_frame_rate_counts_frames_and_takes_the_duration_from_their_times(
    numbered_video: Video, tmp_path: Path
) -> None:
    path = remux(numbered_video("vp9.webm"), tmp_path / "slow.webm", stretch_after_s=0.81)
    with open_video(path) as video:
        assert video.num_frames == NUM_FRAMES
        assert numbers_of(video.read(range(NUM_FRAMES))) == list(range(NUM_FRAMES))
        assert video.duration_s == pytest.approx(39 / 25 * 3, abs=0.1)


def test_frame_count_in_the_header_is_not_believed(numbered_video: Video, tmp_path: Path) -> None:
    content = bytearray(numbered_video("mpeg4.avi").read_bytes())
    total_frames = content.index(b"avih") + 8 + 16
    stream_length = content.index(b"strh") + 8 + 32
    assert struct.unpack_from("<I", content, stream_length) == (NUM_FRAMES,)
    for place in (total_frames, stream_length):
        struct.pack_into("<I", content, place, 55)
    path = tmp_path / "lies.avi"
    path.write_bytes(content)
    with open_video(path) as video:
        assert video.num_frames == NUM_FRAMES


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize(("angle", "turns"), [(90, 3), (180, 2), (270, 1)])
def test_rotation_metadata_is_applied(
    angle: int, turns: int, decoder: str, numbered_video: Video, tmp_path: Path
) -> None:
    upright = numbered_video("h264.mp4")
    one, unit = 1 << 16, 1 << 30
    matrices = {90: (0, one, 0, -one, 0), 180: (-one, 0, 0, 0, -one), 270: (0, -one, 0, one, 0)}
    content = bytearray(upright.read_bytes())
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, *matrices[angle], 0, 0, 0, unit)
    path = tmp_path / "rotated.mp4"
    path.write_bytes(content)
    turned = read_frames(path, [3, 21], decoder=decoder)
    assert np.array_equal(turned, np.rot90(read_frames(upright, [3, 21]), turns, axes=(1, 2)))


@pytest.mark.parametrize("decoder", READERS)
def test_metadata_that_is_not_utf8_does_not_matter(decoder: str, tmp_path: Path) -> None:
    path = tmp_path / "tagged.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "REPLACED"
        stream = container.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in numbered_frames(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    content = path.read_bytes()
    assert content.count(b"REPLACED") == 1
    path.write_bytes(content.replace(b"REPLACED", b"\xff\xfe\xe9\x80\x81\xfa\xf0\xc0"))
    with pytest.raises(UnicodeDecodeError):
        _ = av.open(str(path)).metadata
    assert numbers_of(read_frames(path, [4, 2], decoder=decoder)) == [4, 2]


def test_file_names_of_any_bytes_and_patterns_are_only_names(numbered_video: Video, tmp_path: Path) -> None:
    for name in ("frame%03d.mp4", "a b ü 視.mp4", "concat:x.mp4", "http:x.mp4", "-y.mp4"):
        path = tmp_path / name
        path.write_bytes(numbered_video("h264.mp4").read_bytes())
        for decoder in ("pyav", "opencv"):
            assert numbers_of(read_frames(path, [9], decoder=decoder)) == [9]


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("indices", [[-1], [0, 40], [400]])
def test_read_of_an_index_outside_the_video_raises(decoder: str, indices: list[int], numbered_video: Video) -> None:
    with pytest.raises(FrameIndexError) as caught:
        read_frames(numbered_video("h264.mp4"), indices, decoder=decoder)
    assert "h264.mp4" in caught.value.message
    if max(indices) > 0:
        assert "40 frames, 0 to 39" in caught.value.message


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize("index", [2**63, 2**64 - 1])
def test_index_past_all_numbers_is_not_taken_for_one_from_the_end(
    decoder: str, index: int, numbered_video: Video
) -> None:
    with pytest.raises(FrameIndexError, match=str(index)):
        read_frames(numbered_video("h264.mp4"), np.array([index, 1], np.uint64), decoder=decoder)


@pytest.mark.parametrize("indices", [[0.0, 1.0], [[0, 1]], ["0"], [[0, 1], [2]]])
def test_read_of_anything_but_a_flat_list_of_integers_raises(indices: list[object], numbered_video: Video) -> None:
    with pytest.raises(UsageError, match="flat list of integers"):
        read_frames(numbered_video("h264.mp4"), indices)  # type: ignore[arg-type]


def test_frame_size_that_changes_within_the_video_raises_only_where_it_shows(
    numbered_video: Video, tmp_path: Path
) -> None:
    larger = tmp_path / "larger.ts"
    write_video(larger, numbered_frames(20, width=128, height=96))
    path = tmp_path / "both.ts"
    path.write_bytes(numbered_video("h264.ts").read_bytes() + larger.read_bytes())
    with open_video(path) as video:
        assert video.num_frames == 60
        assert video.read([0, 39]).shape == (2, 64, 96, 3)
        assert video.read([40, 59]).shape == (2, 96, 128, 3)
        with pytest.raises(VideoError, match="changes from 96x64 to 128x96 at frame 40"):
            video.read(range(60))


def test_unknown_decoder_raises_with_the_nearest(numbered_video: Video) -> None:
    with pytest.raises(UnknownNameError, match="nearest: decord"):
        read_frames(numbered_video("h264.mp4"), [0], decoder="decor")


def test_decord_where_it_is_not_installed_raises_with_the_command(
    numbered_video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(UsageError) as caught:
        read_frames(numbered_video("h264.mp4"), [0], decoder="decord")
    assert caught.value.hint is not None and "pip install decord" in caught.value.hint


def test_decoders_that_are_not_chosen_are_not_imported(numbered_video: Video) -> None:
    program = (
        "import sys; from ppvcli.video.clip import load_frames; from ppvcli.video.decoding import read_frames;"
        f"read_frames({str(numbered_video('h264.mp4'))!r}, [0]);"
        "print([name for name in ('cv2', 'decord', 'paddle') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reader_lets_go_of_the_file_also_after_an_error(numbered_video: Video, tmp_path: Path) -> None:
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("needs /proc to see which files are open")
    path = tmp_path / "held.mp4"
    path.write_bytes(numbered_video("h264.mp4").read_bytes())
    for decoder in ("pyav", "opencv"):
        with pytest.raises(FrameIndexError):
            read_frames(path, [99], decoder=decoder)
        assert path not in [link.resolve() for link in open_files.iterdir()]


@pytest.mark.parametrize("name", ["hmdb51_Turnk_r_Pippi_Michel_cartwheel_f_cm_np2_le_med_6.avi", "SOX5yA1l24A.mp4"])
def test_real_clip_by_pyav_and_opencv_is_the_same(name: str, shared_dir: Path) -> None:
    path = shared_dir / "data" / "clips" / name
    with open_video(path) as video, open_video(path, decoder="opencv") as other:
        assert video.num_frames == other.num_frames
        indices = [video.num_frames - 1, 0, video.num_frames // 2]
        assert np.array_equal(video.read(indices), other.read(indices))
