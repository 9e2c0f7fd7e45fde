"""Frames of a video file by index, exactly as sequential decoding gives them.

Whatever decoder is chosen, PyAV looks at the file first: what is missing, empty, not a video, or a playlist that names
other files is refused before another decoder sees it. Only local files are read.

Known of the decoders: `pyav` decodes by a plan where that provably gives the frames of sequential decoding, and
sequentially elsewhere (plan.py); `sequential` always does the latter. OpenCV is read sequentially here and is exact
(its wheel can't decode AV1). decord 0.6 seeks with its own index and returns wrong frames for trimmed mp4 (edit lists),
HEVC, H.264 and MPEG-4 with B-frames in AVI, MPEG-TS and MPEG-2; it opens neither AV1 nor GIF. It is here to be measured
against, and imported only when chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ppvcli.errors import TruncatedVideoError, UnknownNameError, UnreadableVideoError, UsageError
from ppvcli.video.container import check_file, check_stream
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits, Watch
from ppvcli.video.plan import PlannedReader
from ppvcli.video.sequential import (
    Choose,
    Frames,
    Indices,
    Keeper,
    SequentialReader,
    Transform,
    check_indices,
    collect,
    no_frames,
    stack,
)

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

    @property
    def damage(self) -> str | None:
        """What sequential decoding, where it came to that, has complained of so far; lost frames don't count."""

    def expect(self, choose: Choose) -> None:
        """Says which frames will be wanted of so many, before they are counted: some readers are faster then.

        They are read as ever; nothing is wrong with reading others.
        """

    def read(self, indices: Indices, *, transform: Transform | None = None) -> Frames:
        """The frames at `indices`, in that order: uint8 [N, H, W, 3] RGB; any order, repeats welcome.

        With `transform`, what it makes of each of them: [N, ...]. It gets every frame as soon as that is decoded, once
        and perhaps in several threads, so that large frames need not be held. Where decoding must start again, it gets
        them again.

        Raises:
            FrameIndexError: an index below zero or past the last frame.
            TruncatedVideoError: the same, where the file is damaged.
            VideoError: the frame size changes within the video.
        """

    def close(self) -> None:
        """Lets go of the file."""


def read_frames(
    path: str | Path, indices: Indices, *, decoder: str = "pyav", limits: DecodeLimits = DEFAULT_LIMITS
) -> Frames:
    """The frames at `indices`, in that order, exactly as sequential decoding gives them: uint8 [N, H, W, 3] RGB.

    `indices` is a list, range or integer array, in any order and with repeats; `decoder` is `pyav`, `sequential`,
    `opencv` or `decord`. Rotation metadata is applied.

    Raises: UnknownNameError (decoder); FrameIndexError for an index below zero or past the last frame; other kinds of
    VideoError for a file that can't give the frames, DecodeTimeoutError and FrameTooLargeError where they would cost
    more than `limits` allow.
    """
    with open_video(path, decoder=decoder, limits=limits) as video:
        return video.read(indices)


@contextmanager
def open_video(
    path: str | Path, *, decoder: str = "pyav", limits: DecodeLimits = DEFAULT_LIMITS
) -> Iterator[VideoReader]:
    """A reader of one local file, closed at the end of the `with` block; the time of `limits` runs from here.

    Raises:
        DecodeTimeoutError, FrameTooLargeError: here and when reading: more than `limits` allow. (decord can't be
            stopped while it decodes.)
        UnknownNameError: `decoder` is none of `READERS`.
        VideoNotFoundError, NotAVideoFileError, EmptyFileError, NoVideoStreamError: the file is what they say.
        UnreadableVideoError, TruncatedVideoError: it can't be opened, the latter where its end is missing.
    """
    if decoder not in READERS:
        raise UnknownNameError("decoder", decoder, READERS, hint=f"use one of: {', '.join(READERS)}")
    check_file(path)
    path = Path(path)
    reader = READERS[decoder](path, Watch(path, limits))
    try:
        yield reader
    finally:
        reader.close()


class OpencvReader:
    """OpenCV, sequentially: `grab` for every frame, `retrieve` for the wanted ones (its seeking is not exact)."""

    def __init__(self, path: Path, watch: Watch) -> None:
        import cv2

        self._cv2 = cv2
        self._path = path
        self._watch = watch
        self._num_frames: int | None = None
        self.damage: str | None = None  # OpenCV does not say
        check_stream(path, watch)
        self._capture = self._open()

    @property
    def num_frames(self) -> int:
        if self._num_frames is None:
            self._num_frames = sum(1 for _ in self._grab())
        if self._num_frames == 0:
            raise no_frames(self._path, "by OpenCV", hint=_USE_PYAV)
        return self._num_frames

    def expect(self, choose: Choose) -> None:
        pass

    @property
    def duration_s(self) -> float:
        rate = self._capture.get(self._cv2.CAP_PROP_FPS)
        return self.num_frames / rate if rate > 0 else 0.0

    def read(self, indices: Indices, *, transform: Transform | None = None) -> Frames:
        wanted = check_indices(indices, self._path)
        keep = Keeper(convert=self._retrieve, transform=transform, path=self._path)
        return collect(wanted, self._grab(), keep=keep, damage=lambda: None)

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
            self._watch.check_time()
            yield self._capture

    def _retrieve(self, capture: Any) -> Frames:
        found, frame_bgr = capture.retrieve()
        if not found:
            raise TruncatedVideoError(f"OpenCV can't decode a frame of {self._path}", hint=_USE_PYAV)
        return self._cv2.cvtColor(frame_bgr, self._cv2.COLOR_BGR2RGB)


class DecordReader:
    """decord's own random access with one thread; the module's text says where that is wrong."""

    def __init__(self, path: Path, watch: Watch) -> None:
        try:
            import decord
        except ImportError as error:
            raise UsageError(
                "the decoder 'decord' is not installed", hint="pip install decord (x86-64 only), or use 'pyav'"
            ) from error
        self._path = path
        self._errors = (decord.DECORDError, RuntimeError)
        self.damage: str | None = None  # decord does not say
        check_stream(path, watch)
        try:
            self._video = decord.VideoReader(str(path.absolute()), num_threads=1)
        except self._errors as error:
            raise UnreadableVideoError(f"decord can't open {path}", hint=_USE_PYAV) from error

    @property
    def num_frames(self) -> int:
        if len(self._video) == 0:
            raise no_frames(self._path, "by decord", hint=_USE_PYAV)
        return len(self._video)

    def expect(self, choose: Choose) -> None:
        pass

    @property
    def duration_s(self) -> float:
        rate = self._video.get_avg_fps()
        return self.num_frames / rate if rate > 0 else 0.0

    def read(self, indices: Indices, *, transform: Transform | None = None) -> Frames:
        wanted = check_indices(indices, self._path, num_frames=self.num_frames)
        try:
            frames_thwc = self._video.get_batch(wanted.numbers.tolist()).asnumpy()
        except self._errors as error:
            raise TruncatedVideoError(f"decord can't decode {self._path}", hint=_USE_PYAV) from error
        keep = Keeper(convert=lambda frame_hwc: frame_hwc, transform=transform, path=self._path)
        return stack(keep(frames_thwc, wanted.numbers), wanted)

    def close(self) -> None:
        del self._video


READERS: dict[str, Callable[[Path, Watch], VideoReader]] = {
    "pyav": PlannedReader,
    "sequential": SequentialReader,
    "opencv": OpencvReader,
    "decord": DecordReader,
}
