"""Frames of a video file by index, exactly as sequential decoding gives them.

Whatever decoder is chosen, PyAV looks at the file first: what is missing, empty, not a video, or a playlist that names
other files is refused before another decoder sees it. Only local files are read.

Known of the decoders: PyAV and OpenCV are read sequentially here and are exact (OpenCV's wheel can't decode AV1).
decord 0.6 seeks with its own index and returns wrong frames for trimmed mp4 (edit lists), HEVC, H.264 and MPEG-4 with
B-frames in AVI, MPEG-TS and MPEG-2; it opens neither AV1 nor GIF. It is here to be measured against, and imported only
when chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import av
import av.error
import numpy as np
import numpy.typing as npt

from ppvcli.errors import (
    FrameIndexError,
    NoFramesError,
    TruncatedVideoError,
    UnknownNameError,
    UnreadableVideoError,
    UsageError,
    VideoError,
)
from ppvcli.video.container import FETCH_AGAIN, check_file, check_stream, open_stream

Frames = npt.NDArray[np.uint8]
Indices = Sequence[int] | npt.NDArray[np.int64]

KEPT_BYTES = 64 << 20
"""Frames decoded while counting stay in memory up to this many bytes; larger videos are decoded twice."""

_USE_PYAV = "use the decoder 'pyav', which is exact and reads every format"


class VideoReader(Protocol):
    """One open video; its frames are numbered from 0 in the order in which they are shown."""

    @property
    def num_frames(self) -> int:
        """Frames that decoding yields, whatever the header claims.

        Raises:
            NoFramesError: not one.
        """

    @property
    def duration_s(self) -> float:
        """From the start of the first frame to the end of the last."""

    def read(self, indices: Indices) -> Frames:
        """The frames at `indices`, in that order: uint8 [N, H, W, 3] RGB; any order, repeats welcome.

        Raises:
            FrameIndexError: an index below zero or past the last frame.
            TruncatedVideoError: the same, where the file is damaged.
            VideoError: the frame size changes within the video.
        """

    def close(self) -> None:
        """Lets go of the file."""


def read_frames(path: str | Path, indices: Indices, *, decoder: str = "pyav") -> Frames:
    """The frames at `indices`, in that order, exactly as sequential decoding gives them: uint8 [N, H, W, 3] RGB.

    Rotation metadata is applied. Raises: as `open_video` and `VideoReader.read`.
    """
    with open_video(path, decoder=decoder) as video:
        return video.read(indices)


@contextmanager
def open_video(path: str | Path, *, decoder: str = "pyav") -> Iterator[VideoReader]:
    """A reader of one local file, closed at the end of the `with` block.

    Raises:
        UnknownNameError: `decoder` is none of `READERS`.
        VideoNotFoundError, NotAVideoFileError, EmptyFileError, NoVideoStreamError: the file is what they say.
        UnreadableVideoError, TruncatedVideoError: it can't be opened, the latter where its end is missing.
    """
    if decoder not in READERS:
        raise UnknownNameError("decoder", decoder, READERS, hint=f"use one of: {', '.join(READERS)}")
    path = Path(path)
    check_file(path)
    reader = READERS[decoder](path)
    try:
        yield reader
    finally:
        reader.close()


class PyavReader:
    """Sequential decoding with one codec thread: the definition of what frame i is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._kept: list[av.VideoFrame] | None = None
        self._num_frames: int | None = None
        self._duration_s = 0.0
        self._damage: str | None = None
        self._at_start = True
        self._container, self._stream = open_stream(path)

    @property
    def num_frames(self) -> int:
        if self._num_frames is None:
            self._num_frames = self._count()
        if self._num_frames == 0:
            raise _no_frames(self._path, self._damage)
        return self._num_frames

    @property
    def duration_s(self) -> float:
        return self._duration_s if self.num_frames else 0.0

    def read(self, indices: Indices) -> Frames:
        wanted = _as_indices(indices, self._path)
        frames = self._decode() if self._kept is None else iter(self._kept)
        return _collect(wanted, frames, convert=self._to_rgb, path=self._path, damage=lambda: self._damage)

    def close(self) -> None:
        self._kept = None
        self._container.close()

    def _to_rgb(self, frame: av.VideoFrame) -> Frames:
        try:
            frame_hwc: Frames = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
        except (av.error.FFmpegError, ValueError) as error:
            raise UnreadableVideoError(
                f"can't turn a frame of {self._path} ({frame.format.name}) into RGB: {error}",
                hint=FETCH_AGAIN,
            ) from error
        turns = round(frame.rotation / 90) % 4
        return np.rot90(frame_hwc, turns) if turns else frame_hwc

    def _count(self) -> int:
        kept: list[av.VideoFrame] | None = []
        kept_bytes = count = 0
        starts_s: list[float] = []
        rate = self._stream.average_rate or self._stream.guessed_rate
        frame_s = float(1 / rate) if rate else 0.0
        for frame in self._decode():
            count += 1
            if frame.time is not None:
                starts_s.append(frame.time)
            if kept is not None:
                kept.append(frame)
                kept_bytes += sum(plane.buffer_size for plane in frame.planes)
                kept = kept if kept_bytes <= KEPT_BYTES else None
        timed = len(starts_s) == count > 0
        self._duration_s = max(starts_s) - min(starts_s) + frame_s if timed else count * frame_s
        self._kept = kept
        return count

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Every frame from the first on. What is damaged is noted and skipped; it ends the video only if it must."""
        if not self._at_start:
            self._container.close()
            self._container, self._stream = open_stream(self._path)
        self._at_start = False
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV does not know a stream that appears within the file, but goes on after its packet
                packets = self._container.demux(self._stream)
                continue
            except av.error.FFmpegError as error:
                self._damage = error.strerror
                with suppress(av.error.FFmpegError):
                    yield from self._stream.codec_context.decode(None)
                return
            if packet is None:
                return
            if packet.is_corrupt:
                self._damage = "cut off within a frame"
            try:
                yield from packet.decode()
            except av.error.FFmpegError as error:
                self._damage = error.strerror


class OpencvReader:
    """OpenCV, sequentially: `grab` for every frame, `retrieve` for the wanted ones (its seeking is not exact)."""

    def __init__(self, path: Path) -> None:
        import cv2

        self._cv2 = cv2
        self._path = path
        self._num_frames: int | None = None
        check_stream(path)
        self._capture = self._open()

    @property
    def num_frames(self) -> int:
        if self._num_frames is None:
            self._num_frames = sum(1 for _ in self._grab())
        if self._num_frames == 0:
            raise _no_frames(self._path, "by OpenCV", hint=_USE_PYAV)
        return self._num_frames

    @property
    def duration_s(self) -> float:
        rate = self._capture.get(self._cv2.CAP_PROP_FPS)
        return self.num_frames / rate if rate > 0 else 0.0

    def read(self, indices: Indices) -> Frames:
        wanted = _as_indices(indices, self._path)
        return _collect(wanted, self._grab(), convert=self._retrieve, path=self._path, damage=lambda: None)

    def close(self) -> None:
        self._capture.release()

    def _open(self) -> Any:
        capture = self._cv2.VideoCapture(str(self._path.absolute()), self._cv2.CAP_FFMPEG)
        if not capture.isOpened():
            raise UnreadableVideoError(f"OpenCV can't open {self._path}", hint=_USE_PYAV)
        return capture

    def _grab(self) -> Iterator[Any]:
        self._capture.release()
        self._capture = self._open()
        while self._capture.grab():
            yield self._capture

    def _retrieve(self, capture: Any) -> Frames:
        found, frame_bgr = capture.retrieve()
        if not found:
            raise TruncatedVideoError(f"OpenCV can't decode a frame of {self._path}", hint=_USE_PYAV)
        return self._cv2.cvtColor(frame_bgr, self._cv2.COLOR_BGR2RGB)


class DecordReader:
    """decord's own random access with one thread; the module's text says where that is wrong."""

    def __init__(self, path: Path) -> None:
        try:
            import decord
        except ImportError as error:
            raise UsageError(
                "the decoder 'decord' is not installed", hint="pip install decord (x86-64 only), or use 'pyav'"
            ) from error
        self._path = path
        self._errors = (decord.DECORDError, RuntimeError)
        check_stream(path)
        try:
            self._video = decord.VideoReader(str(path.absolute()), num_threads=1)
        except self._errors as error:
            raise UnreadableVideoError(f"decord can't open {path}", hint=_USE_PYAV) from error

    @property
    def num_frames(self) -> int:
        if len(self._video) == 0:
            raise _no_frames(self._path, "by decord", hint=_USE_PYAV)
        return len(self._video)

    @property
    def duration_s(self) -> float:
        rate = self._video.get_avg_fps()
        return self.num_frames / rate if rate > 0 else 0.0

    def read(self, indices: Indices) -> Frames:
        wanted = _as_indices(indices, self._path)
        if wanted.size == 0:
            return self.read([0])[:0]
        if wanted.max() >= self.num_frames:
            raise _past_end(self._path, int(wanted.max()), self.num_frames, damage=None)
        unique, inverse = np.unique(wanted, return_inverse=True)
        try:
            return self._video.get_batch(unique.tolist()).asnumpy()[inverse]
        except self._errors as error:
            raise TruncatedVideoError(f"decord can't decode {self._path}", hint=_USE_PYAV) from error

    def close(self) -> None:
        del self._video


READERS: dict[str, Callable[[Path], VideoReader]] = {
    "pyav": PyavReader,
    "opencv": OpencvReader,
    "decord": DecordReader,
}


def _as_indices(indices: Indices, path: Path) -> npt.NDArray[np.int64]:
    wanted = np.asarray(indices)
    if wanted.size == 0:
        return np.empty(0, dtype=np.int64)
    if wanted.ndim != 1 or not np.issubdtype(wanted.dtype, np.integer):
        raise UsageError(f"frame indices are a flat list of integers, got {wanted.dtype} of shape {wanted.shape}")
    if wanted.min() < 0:
        raise FrameIndexError(f"frame {wanted.min()} of {path}: frames are numbered from 0")
    return wanted.astype(np.int64)


def _collect(
    wanted: npt.NDArray[np.int64],
    frames: Iterator[Any],
    *,
    convert: Callable[[Any], Frames],
    path: Path,
    damage: Callable[[], str | None],
) -> Frames:
    """Runs through `frames` up to the last wanted one; converts none but the wanted (the first, if none is)."""
    places: dict[int, list[int]] = {}
    for place, index in enumerate(wanted.tolist()):
        places.setdefault(index, []).append(place)
    last = max(places, default=0)
    result: Frames | None = None
    count = 0
    for index, frame in enumerate(frames):
        count = index + 1
        if index in places or not places:
            frame_hwc = convert(frame)
            if result is None:
                result = np.empty((len(wanted), *frame_hwc.shape), dtype=np.uint8)
            if frame_hwc.shape != result.shape[1:]:
                raise _size_changes(path, index, expected=result.shape[1:], got=frame_hwc.shape)
            result[places.get(index, [])] = frame_hwc
        if index == last:
            break
    if count == 0:
        raise _no_frames(path, damage())
    if count <= last:
        raise _past_end(path, last, count, damage=damage())
    assert result is not None
    return result


def _no_frames(path: Path, reason: str | None, *, hint: str = FETCH_AGAIN) -> NoFramesError:
    return NoFramesError(f"not one frame of {path} can be decoded{f' ({reason})' if reason else ''}", hint=hint)


def _past_end(path: Path, index: int, count: int, *, damage: str | None) -> VideoError:
    message = f"frame {index} of {path}: it has {count} frames, 0 to {count - 1}"
    if damage:
        return TruncatedVideoError(f"{message}, and is damaged ({damage})", hint="fetch or copy it again")
    return FrameIndexError(message, hint=f"ask for frames 0 to {count - 1}")


def _size_changes(path: Path, index: int, *, expected: tuple[int, ...], got: tuple[int, ...]) -> VideoError:
    return VideoError(
        f"the frame size of {path} changes from {expected[1]}x{expected[0]} to {got[1]}x{got[0]} at frame {index}",
        hint="re-encode it to one size, with ffmpeg for example",
    )
