"""Plain sequential decoding with PyAV: what frame i of a video is, and what the plan falls back to."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from ppvcli.errors import (
    FrameIndexError,
    NoFramesError,
    TruncatedVideoError,
    UnreadableVideoError,
    UsageError,
    VideoError,
)
from ppvcli.video.container import FETCH_AGAIN, OpenStream, open_stream
from ppvcli.video.limits import Watch

Frames = npt.NDArray[np.uint8]
Indices = Sequence[int] | npt.NDArray[np.int64]
Convert = Callable[[av.VideoFrame], Frames]
Transform = Callable[[Frames], Frames]
"""What is kept of a frame: from uint8 [H, W, 3] RGB to uint8 of any shape, the same for all frames of a size."""
Choose = Callable[[int], npt.NDArray[np.int64]]
"""From a number of frames to the indices that are wanted, of any shape."""

KEPT_PIXELS = 64 << 20
"""Frames decoded while counting stay in memory up to so many pixels (of 1 to 8 bytes): those that `expect` says will
be wanted, without it all. If they are more, or the header claims another number of frames, decoding starts again."""


class SequentialReader:
    """Sequential decoding with one codec thread: the definition of what frame i is."""

    def __init__(
        self,
        path: Path,
        watch: Watch,
        *,
        convert: Convert | None = None,
        likely_frames: int | None = None,
        opened: OpenStream | None = None,
    ) -> None:
        """`convert` makes RGB of a frame; without it PyAV does as it does by default. `likely_frames` is how many there
        are, should the header be wrong. `opened` is what `open_stream` gave for `path`, not yet read from."""
        self._path = path
        self._watch = watch
        self._convert = convert or plain_rgb
        self._kept: dict[int, av.VideoFrame] = {}
        self._choose: Choose | None = None
        self._num_frames: int | None = None
        self._duration_s = 0.0
        self._damage: str | None = None
        self._at_start = True
        self._container, self._stream = opened or open_stream(path, watch=watch)
        self._likely_frames = likely_frames or self._stream.frames

    @property
    def num_frames(self) -> int:
        if self._num_frames is None:
            self._num_frames = self._count()
        if self._num_frames == 0:
            raise no_frames(self._path, self._damage)
        return self._num_frames

    @property
    def duration_s(self) -> float:
        return self._duration_s if self.num_frames else 0.0  # counting tells it

    @property
    def damage(self) -> str | None:
        """What decoding has complained of so far; the frames that it could not give are not counted."""
        return self._damage

    def expect(self, choose: Choose) -> None:
        """Says which frames will be wanted of so many, so that counting can keep them if the header tells the truth."""
        self._choose = choose

    def read(self, indices: Indices, *, transform: Transform | None = None) -> Frames:
        wanted = check_indices(indices, self._path)
        keep = Keeper(convert=self._to_rgb, transform=transform, path=self._path)
        numbers = wanted.numbers.tolist()
        if all(number in self._kept for number in numbers):
            return stack(keep((self._kept[number] for number in numbers), wanted.numbers), wanted)
        return collect(wanted, self._decode(), keep=keep, damage=lambda: self._damage)

    def close(self) -> None:
        self._kept = {}
        self._container.close()

    def _to_rgb(self, frame: av.VideoFrame) -> Frames:
        return to_rgb(frame, convert=self._convert, path=self._path)

    def _count(self) -> int:
        targets = self._targets(self._likely_frames)
        kept: dict[int, av.VideoFrame] = {}
        kept_pixels = count = 0
        starts_s: list[float] = []
        rate = self._stream.average_rate or self._stream.guessed_rate
        frame_s = float(1 / rate) if rate else 0.0
        for frame in self._decode():
            if kept_pixels > KEPT_PIXELS and targets is None:  # the header does not say how many frames there are
                targets = self._targets(self._count_packets() if self._choose else 0) or set()
                kept = {number: one for number, one in kept.items() if number in targets}
                kept_pixels = sum(one.width * one.height for one in kept.values())
            if kept_pixels > KEPT_PIXELS:
                kept = {}
            elif targets is None or count in targets:
                kept[count] = frame
                kept_pixels += frame.width * frame.height
            count += 1
            if (start_s := frame.time) is not None:
                starts_s.append(start_s)
        timed = len(starts_s) == count > 0
        self._duration_s = max(starts_s) - min(starts_s) + frame_s if timed else count * frame_s
        self._kept = kept
        return count

    def _targets(self, num_frames: int) -> set[int] | None:
        """What will be wanted of so many frames; None where that is not known, or their number (0 or less)."""
        if self._choose is None or num_frames <= 0:
            return None
        return set(self._choose(num_frames).ravel().tolist())

    def _count_packets(self) -> int:
        container, stream = open_stream(self._path, watch=self._watch)
        count = 0
        try:
            for packet in container.demux(stream):
                self._watch.check_time()
                count += packet.size > 0
        except (av.error.FFmpegError, IndexError):  # decoding tells what is wrong
            pass
        finally:
            container.close()
        return count

    def _decode(self) -> Iterator[av.VideoFrame]:
        """Every frame from the first on. What is damaged is noted and skipped; it ends the video only if it must."""
        if not self._at_start:
            self._container.close()
            self._container, self._stream = open_stream(self._path, watch=self._watch)
        self._at_start = False
        packets = self._container.demux(self._stream)
        while True:
            self._watch.check_time()
            try:
                packet = next(packets, None)
            except IndexError:  # PyAV does not know a stream that appears within the file, but goes on after its packet
                packets = self._container.demux(self._stream)
                continue
            except av.error.ExitError as error:
                raise self._watch.timeout() from error
            except av.error.FFmpegError as error:
                self._damage = error.strerror
                with suppress(av.error.FFmpegError):
                    yield from self._sized(self._stream.codec_context.decode(None))
                return
            if packet is None:
                return
            if packet.is_corrupt:
                self._damage = "cut off within a frame"
            try:
                yield from self._sized(packet.decode())
            except av.error.FFmpegError as error:
                self._damage = self._damage or error.strerror
                self._watch.check_size(self._stream.codec_context.width, self._stream.codec_context.height)

    def _sized(self, frames: list[av.VideoFrame]) -> list[av.VideoFrame]:
        for frame in frames:
            self._watch.check_size(frame.width, frame.height)
        return frames


def plain_rgb(frame: av.VideoFrame) -> Frames:
    """The pixels of a frame as PyAV gives them: uint8 [H, W, 3] RGB."""
    frame_hwc: Frames = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
    return frame_hwc


class RgbConverter:
    """The same pixels as `plain_rgb`, with one scaler for all frames, one thread and no copy of the result."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Frames:
        plane = self._reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        return np.ndarray(
            (frame.height, frame.width, 3), dtype=np.uint8, buffer=memoryview(plane), strides=(plane.line_size, 3, 1)
        )


def to_rgb(frame: av.VideoFrame, *, convert: Convert, path: Path) -> Frames:
    """The pixels of a frame, upright: uint8 [H, W, 3] RGB. Raises: UnreadableVideoError for a format without RGB."""
    try:
        frame_hwc = convert(frame)
    except (av.error.FFmpegError, ValueError) as error:
        raise UnreadableVideoError(
            f"can't turn a frame of {path} ({frame.format.name}) into RGB: {error}", hint=FETCH_AGAIN
        ) from error
    turns = round(frame.rotation / 90) % 4
    return np.rot90(frame_hwc, turns) if turns else frame_hwc


class Wanted(NamedTuple):
    """Indices of frames, checked."""

    order: npt.NDArray[np.int64]
    """int64 [N]: as they were asked for."""
    numbers: npt.NDArray[np.int64]
    """int64 [M]: those to read: ascending, each once; frame 0 if none was asked for, since it tells the size."""


def check_indices(indices: Indices, path: Path, *, num_frames: int | None = None) -> Wanted:
    """Of a video at `path`. Raises: UsageError; FrameIndexError for a frame that one of `num_frames` does not have."""
    try:
        given = np.asarray(indices)
    except ValueError as error:
        raise UsageError(f"frame indices are a flat list of integers: {error}") from error
    if given.size and (given.ndim != 1 or given.dtype.kind not in "iu"):
        raise UsageError(f"frame indices are a flat list of integers, got {given.dtype} of shape {given.shape}")
    order = given.ravel().astype(np.int64)
    numbers = sorted(set(order.tolist())) or [0]
    if numbers[0] < 0:  # uint64 has larger ones, which become negative
        worst = int(given[order.argmin()])
        reason = "frames are numbered from 0" if worst < 0 else "no video has so many"
        raise FrameIndexError(f"frame {worst} of {path}: {reason}")
    if num_frames is not None and numbers[-1] >= num_frames:
        raise past_end(path, numbers[-1], num_frames, damage=None)
    return Wanted(order, np.array(numbers, dtype=np.int64))


def size_changes(path: Path, number: int, expected: tuple[int, ...], got: tuple[int, ...]) -> VideoError:
    return VideoError(
        f"the frame size of {path} changes from {expected[1]}x{expected[0]} to {got[1]}x{got[0]} at frame {number}",
        hint="re-encode it to one size, with ffmpeg for example",
    )


@dataclass(frozen=True, kw_only=True)
class Keeper:
    """Makes of decoded frames what is kept of them, one by one, so that no more than one is held in full."""

    convert: Callable[[Any], Frames]
    """To RGB: uint8 [H, W, 3]."""
    transform: Transform | None
    path: Path
    size_error: Callable[[Path, int, tuple[int, ...], tuple[int, ...]], VideoError] = size_changes
    """Of (path, number of the frame, shape expected, shape got)."""

    def __call__(self, frames: Iterable[Any], numbers: npt.NDArray[np.int64]) -> Iterator[Frames]:
        """What is kept of `frames`, which have these `numbers`. Raises: VideoError where their size changes."""
        expected: tuple[int, ...] | None = None
        # frames come first, so that they are asked to the end; a damaged video has fewer than there are numbers
        for frame, number in zip(frames, numbers.tolist(), strict=False):
            frame_hwc = self.convert(frame)
            expected = expected or frame_hwc.shape
            if frame_hwc.shape != expected:
                raise self.size_error(self.path, number, expected, frame_hwc.shape)
            yield frame_hwc if self.transform is None else self.transform(frame_hwc)


def collect(wanted: Wanted, frames: Iterator[Any], *, keep: Keeper, damage: Callable[[], str | None]) -> Frames:
    """Runs through `frames` up to the last wanted one; converts none but the wanted."""
    last, count = int(wanted.numbers[-1]), 0

    def chosen() -> Iterator[Any]:
        nonlocal count
        targets = set(wanted.numbers.tolist())
        for count, frame in enumerate(frames, start=1):
            if count - 1 in targets:
                yield frame
            if count > last:
                return

    result = stack(keep(chosen(), wanted.numbers), wanted)
    if count == 0:
        raise no_frames(keep.path, damage())
    if count <= last:
        raise past_end(keep.path, last, count, damage=damage())
    return result


def stack(kept: Iterator[Frames], wanted: Wanted) -> Frames:
    """One array of what is kept of the frames `wanted.numbers`, in the order they were asked for: uint8 [N, ...]."""
    result = np.empty((0, 0, 0, 3), dtype=np.uint8)
    places: dict[int, list[int]] = {number: [] for number in wanted.numbers.tolist()}
    for place, number in enumerate(wanted.order.tolist()):
        places[number].append(place)
    targets = iter(places.values())
    for count, one in enumerate(kept):
        if count == 0:
            result = np.empty((len(wanted.order), *one.shape), dtype=np.uint8)
        for place in next(targets):
            result[place] = one
    return result


def no_frames(path: Path, reason: str | None, *, hint: str = FETCH_AGAIN) -> NoFramesError:
    return NoFramesError(f"not one frame of {path} can be decoded{f' ({reason})' if reason else ''}", hint=hint)


def past_end(path: Path, index: int, count: int, *, damage: str | None) -> VideoError:
    message = f"frame {index} of {path}: it has {count} frames, 0 to {count - 1}"
    if damage:
        return TruncatedVideoError(f"{message}, and is damaged ({damage})", hint="fetch or copy it again")
    return FrameIndexError(message, hint=f"ask for frames 0 to {count - 1}")
