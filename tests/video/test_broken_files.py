"""Files that give no frames, or not all: each kind has its own error, whatever the decoder."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ppvcli.errors import (
    EmptyFileError,
    FrameIndexError,
    NoFramesError,
    NotAVideoFileError,
    NoVideoStreamError,
    PpvError,
    TruncatedVideoError,
    UnreadableVideoError,
    VideoError,
    VideoNotFoundError,
)
from ppvcli.video.clip import load_frames
from ppvcli.video.container import check_file
from ppvcli.video.decoding import READERS, open_video, read_frames
from ppvcli.video.render import write_video
from tests.small_model import PREPROCESS
from tests.video.numbered import NUM_FRAMES, numbered_frames, numbers_of, remux

Video = Callable[[str], Path]


def _missing(folder: Path, whole: bytes) -> Path:
    return folder / "missing.mp4"


def _below_a_file(folder: Path, whole: bytes) -> Path:
    (folder / "file").write_bytes(whole)
    return folder / "file" / "clip.mp4"


def _directory(folder: Path, whole: bytes) -> Path:
    return folder


def _pipe(folder: Path, whole: bytes) -> Path:
    os.mkfifo(folder / "pipe.mp4")
    return folder / "pipe.mp4"


def _empty(folder: Path, whole: bytes) -> Path:
    return _file(folder / "empty.mp4", b"")


def _text(folder: Path, whole: bytes) -> Path:
    return _file(folder / "text.mp4", b"no video at all\n" * 100)


def _image(folder: Path, whole: bytes) -> Path:
    Image.new("RGB", (64, 64)).save(folder / "image.png")
    return folder / "image.png"


def _playlist(folder: Path, whole: bytes) -> Path:
    _file(folder / "part.mp4", whole)
    return _file(folder / "list.m3u8", b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\npart.mp4\n#EXT-X-ENDLIST\n")


def _disguised_playlist(folder: Path, whole: bytes) -> Path:
    return _playlist(folder, whole).rename(folder / "list.mp4")


def _concat_script(folder: Path, whole: bytes) -> Path:
    _file(folder / "part.mp4", whole)
    return _file(folder / "script.mp4", b"ffconcat version 1.0\nfile part.mp4\n")


def _half_an_mp4(folder: Path, whole: bytes) -> Path:
    return _file(folder / "half.mp4", whole[: len(whole) // 2])


def _without_index(folder: Path, whole: bytes) -> Path:
    return _file(folder / "no_index.mp4", whole.replace(b"moov", b"abcd"))


def _unknown_codec(folder: Path, whole: bytes) -> Path:
    write_video(folder / "whole.mkv", numbered_frames(3))
    content = (folder / "whole.mkv").read_bytes()
    assert content.count(b"V_MPEG4/ISO/AVC") == 1
    return _file(folder / "unknown.mkv", content.replace(b"V_MPEG4/ISO/AVC", b"V_NOBODY/KNOWS/"))


def _sound(folder: Path, whole: bytes) -> Path:
    return _write_sound(folder / "sound.wav")


def _sound_in_a_video_container(folder: Path, whole: bytes) -> Path:
    return _write_sound(folder / "sound.mkv")


def _header_only(folder: Path, whole: bytes) -> Path:
    with av.open(str(folder / "header.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        container.start_encoding()
    return folder / "header.avi"


def _file(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        assert isinstance(stream, av.AudioStream)
        stream.layout = "mono"
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), dtype=np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


BROKEN = [
    (_missing, VideoNotFoundError, "nothing is there"),
    (_below_a_file, VideoNotFoundError, "nothing is there"),
    (_directory, NotAVideoFileError, "is a directory"),
    pytest.param(
        _pipe,
        NotAVideoFileError,
        "no regular file",
        marks=pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes"),
    ),
    (_empty, EmptyFileError, "0 bytes"),
    (_text, UnreadableVideoError, "no known video format"),
    (_image, UnreadableVideoError, "an image"),
    (_playlist, UnreadableVideoError, "a playlist"),
    (_disguised_playlist, UnreadableVideoError, "can't open"),
    (_concat_script, UnreadableVideoError, "a playlist"),
    (_half_an_mp4, TruncatedVideoError, "cut off"),
    (_without_index, UnreadableVideoError, "header is damaged"),
    (_unknown_codec, UnreadableVideoError, "codec is unknown"),
    (_sound, NoVideoStreamError, "no video stream, only: audio"),
    (_sound_in_a_video_container, NoVideoStreamError, "no video stream, only: audio"),
    (_header_only, NoFramesError, "not one frame"),
]


@pytest.mark.parametrize("decoder", READERS)
@pytest.mark.parametrize(("make", "error", "text"), BROKEN)
def test_broken_file_raises_its_own_error_with_path_and_hint(
    make: Callable[[Path, bytes], Path],
    error: type[PpvError],
    text: str,
    decoder: str,
    numbered_video: Video,
    tmp_path: Path,
) -> None:
    path = make(tmp_path, numbered_video("h264.mp4").read_bytes())
    if make is _header_only and decoder == "decord":
        error, text = UnreadableVideoError, "decord can't open"  # it refuses at once what has no frames
    with pytest.raises(error) as caught:
        read_frames(path, [0], decoder=decoder)
    assert type(caught.value) is error
    assert str(path) in caught.value.message
    assert text in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize(
    ("number", "kind", "message"),
    [
        (errno.ENOENT, VideoNotFoundError, "nothing is there"),
        (errno.EMFILE, UnreadableVideoError, "Too many open files"),
        (errno.ESTALE, UnreadableVideoError, "Stale file handle"),
        (errno.EIO, UnreadableVideoError, "no known video format"),
    ],
    ids=["gone", "too many", "stale", "other"],
)
def test_what_the_system_refuses_is_told_as_the_error_of_that_file(
    number: int,
    kind: type[VideoError],
    message: str,
    small: bool,
    numbered_video: Video,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = numbered_video("h264.mp4")
    monkeypatch.setattr("ppvcli.video.plan.PLANNED_BYTES", 1 << 30 if small else 0)

    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("ppvcli.video.container.av.open", refuse)
    with pytest.raises(kind, match=message) as caught:
        read_frames(path, [0])
    assert caught.value.hint


def test_file_that_goes_away_while_it_is_opened_is_told(numbered_video: Video, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(numbered_video("h264.mp4").read_bytes())

    def remove_after_check(given: str | Path) -> None:
        check_file(given)
        path.unlink()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ppvcli.video.decoding.check_file", remove_after_check)
        with pytest.raises(VideoNotFoundError, match="nothing is there"):
            read_frames(path, [0])


def test_file_without_read_permission_raises(numbered_video: Video, tmp_path: Path) -> None:
    path = _file(tmp_path / "secret.mp4", numbered_video("h264.mp4").read_bytes())
    path.chmod(0)
    if os.access(path, os.R_OK):
        pytest.skip("this user may read every file")
    with pytest.raises(UnreadableVideoError, match="permission denied"):
        read_frames(path, [0])


@pytest.mark.parametrize("name", ["mpeg4.avi", "h264.mkv", "h264.ts", "vp9.webm", "animation.gif"])
def test_truncated_video_counts_and_gives_the_frames_that_are_left(
    name: str, numbered_video: Video, tmp_path: Path
) -> None:
    whole = numbered_video(name).read_bytes()
    path = _file(tmp_path / name, whole[: len(whole) * 3 // 4])
    with open_video(path) as video:
        assert 0 < video.num_frames < NUM_FRAMES
        sure = max(1, video.num_frames - 4)  # the last ones may be half a frame or out of order
        assert numbers_of(video.read(range(sure))) == list(range(sure))
        with pytest.raises((FrameIndexError, TruncatedVideoError), match=f"it has {video.num_frames} frames"):
            video.read([NUM_FRAMES - 1])


def test_damage_of_a_cut_off_video_is_told_with_its_frames(numbered_video: Video, tmp_path: Path) -> None:
    whole = numbered_video("mpeg4.avi")
    content = whole.read_bytes()
    cut = _file(tmp_path / "cut.avi", b"00dc".join(content.split(b"00dc")[:20])[:-20])  # which begins each frame
    with open_video(cut) as video, open_video(cut, decoder="sequential") as known:
        assert 0 < video.num_frames == known.num_frames < NUM_FRAMES
        assert np.array_equal(video.read(range(video.num_frames)), known.read(range(known.num_frames)))
        assert video.damage == known.damage == "cut off within a frame"
    clips = [load_frames(path, PREPROCESS) for path in (cut, whole)]
    assert [clip.damage for clip in clips] == ["cut off within a frame", None]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("http://example.com/a.mp4", "http://example.com/a.mp4 is an address, and only local files are read"),
        ("rtsp://camera", "rtsp://camera is an address, and only local files are read"),
        ("", "no video: its name is empty"),
        ("-", "- (standard input) is no regular file"),
    ],
)
def test_text_that_is_no_path_is_told_as_it_was_typed(
    path: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(VideoError) as caught:
        read_frames(path, [0])
    assert caught.value.message == message
    assert caught.value.hint


def test_truncated_mp4_with_its_index_first_says_that_it_is_damaged(tmp_path: Path) -> None:
    whole = tmp_path / "whole.mp4"
    write_video(whole, numbered_frames(), options={"g": "5"})
    index_first = remux(whole, tmp_path / "index_first.mp4", container_options={"movflags": "faststart"})
    content = index_first.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")
    with av.open(str(index_first)) as container:
        middles = [packet.pos + packet.size // 2 for packet in container.demux(video=0) if packet.pos]
    cut = _file(tmp_path / "cut.mp4", content[: middles[25]])
    with open_video(cut) as video:
        assert 0 < video.num_frames < NUM_FRAMES
    with pytest.raises(TruncatedVideoError, match="is damaged"):
        read_frames(cut, [NUM_FRAMES - 1])


def test_stream_that_appears_within_the_file_does_not_end_the_video(numbered_video: Video, tmp_path: Path) -> None:
    content = bytearray(numbered_video("h264.ts").read_bytes())
    starts = [at for at in range(0, len(content), 188) if content[at + 1 : at + 3] == b"\x41\x00"]
    content[starts[29] + 2] = 1  # the 30th picture now belongs to a stream that nothing announced
    with open_video(_file(tmp_path / "stray.ts", bytes(content))) as video:
        assert video.num_frames >= NUM_FRAMES - 3
        assert numbers_of(video.read(range(20))) == list(range(20))
        assert numbers_of(video.read([video.num_frames - 1])) == [NUM_FRAMES - 1]


@pytest.mark.parametrize("name", ["h264.mp4", "hevc.ts", "vp9.webm", "mpeg4.avi", "animation.gif", "av1.webm"])
def test_random_damage_gives_frames_or_an_error_of_ours(name: str, numbered_video: Video, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    whole = numbered_video(name).read_bytes()
    outcomes = set()
    for trial in range(40):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), size=12):
            content[place] = rng.integers(0, 256)
        path = _file(tmp_path / f"{trial}.bin", bytes(content[: rng.integers(len(content) // 2, len(content))]))
        try:
            with open_video(path) as video:
                frames = video.read([video.num_frames - 1, 0])
                outcomes.add(frames.ndim)
        except PpvError as error:
            outcomes.add(type(error).__name__)
    assert 4 in outcomes  # damage spares frames at least once
