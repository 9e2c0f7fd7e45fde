"""The decoding plan: only the packets that the wanted frames depend on are decoded, and only where that is exact.

All packets are demuxed once and their headers parsed (h264.py, mpeg4.py). From these follow the number of frames, which
packet becomes which frame, where decoding may start, and which packets nothing depends on. Those that are needed go
through one decoder as if they were the whole stream; a frame that is missing, damaged or out of order, or a header that
leaves a doubt, and the video is decoded sequentially instead. docs/concepts/decoding.md tells why this is exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt

from ppvcli.video.container import open_stream
from ppvcli.video.h264 import H264Scan
from ppvcli.video.limits import Watch
from ppvcli.video.mpeg4 import Mpeg4Scan
from ppvcli.video.order import CodedOrder, HeaderScan, UntrustedError
from ppvcli.video.sequential import (
    Choose,
    Frames,
    Indices,
    RgbConverter,
    SequentialReader,
    as_indices,
    collect_known,
    past_end,
    to_rgb,
)

KEPT_PACKET_BYTES = 128 << 20
"""Packets stay in memory up to this many bytes; those of larger files are read again where they are needed."""

SCANS: dict[str, Callable[[bytes | None], HeaderScan]] = {"h264": H264Scan, "mpeg4": Mpeg4Scan}
"""Codec -> what reads its headers. All others are decoded sequentially."""

_MAGIC = ((4, b"ftyp"), (4, b"moov"), (0, b"\x1aE\xdf\xa3"), (0, b"RIFF"))
"""Where mov, mp4, mkv, webm and avi say what they are. Their headers hold all that a decoder needs; other containers
are looked into first."""


@dataclass(frozen=True, kw_only=True)
class StreamPlan:
    """One stream, scanned: what to send to a decoder for any wanted frames."""

    order: CodedOrder
    packets: list[av.Packet] | None
    """None where they are too many to keep."""
    duration_s: float

    def needed(self, frames: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """The pictures to decode for `frames`, in the order of decoding.

        The first one is always among them: it carries what a decoder learns only once, such as the encoder's name.
        """
        ranks, is_reference = self.order.ranks, self.order.is_reference
        pictures = np.empty_like(ranks)
        pictures[ranks] = np.arange(len(ranks))
        starts = np.flatnonzero(self.order.is_start)
        wanted = is_reference.copy() if self.order.hides_loss else np.zeros(len(ranks), dtype=bool)
        wanted[: self.order.num_lead] = True
        if self.order.leaks_damage:
            wanted[: pictures[frames].max()] = True
        for picture in sorted(pictures[frames].tolist(), reverse=True):
            if self.order.hides_loss or self.order.leaks_damage:
                wanted[picture] = True
                continue
            place = int(np.searchsorted(starts, picture, side="right")) - 1
            while ranks[starts[place]] > ranks[picture]:  # shown before the start: it depends on the one before
                place -= 1
            start = starts[place]
            wanted[start:picture] |= is_reference[start:picture]
            wanted[picture] = True
        return np.flatnonzero(wanted)


class PlannedReader:
    """Decodes by plan, or sequentially where the plan can't be trusted; the frames are the same."""

    def __init__(self, path: Path, watch: Watch) -> None:
        self._path = path
        self._watch = watch
        self._is_fresh = True
        self._plan: StreamPlan | None = None
        self._sequential: SequentialReader | None = None
        self._choose: Choose | None = None
        self.fallback: str | None = None
        """Why this video is decoded sequentially; None where the plan is good."""
        self._container, self._stream = open_stream(path, watch=watch, quick=_is_quick(path))
        try:
            self._plan = _make_plan(self._container, self._stream, watch=watch)
        except UntrustedError as reason:
            self._fall_back(reason)

    @property
    def num_frames(self) -> int:
        return self._plan.order.num_frames if self._plan else self._fallen_back().num_frames

    @property
    def duration_s(self) -> float:
        return self._plan.duration_s if self._plan else self._fallen_back().duration_s

    def expect(self, choose: Choose) -> None:
        """Says which frames will be wanted of so many; it saves sequential decoding a second pass."""
        self._choose = choose

    def read(self, indices: Indices) -> Frames:
        if self._plan is not None:
            wanted = as_indices(indices, self._path)
            if wanted.max(initial=0) >= self._plan.order.num_frames:
                raise past_end(self._path, int(wanted.max()), self._plan.order.num_frames, damage=None)
            try:
                return self._read(wanted, plan=self._plan)
            except UntrustedError as reason:
                self._fall_back(reason)
        return self._fallen_back().read(indices)

    def close(self) -> None:
        self._plan = None
        self._container.close()
        if self._sequential is not None:
            self._sequential.close()

    def _read(self, wanted: npt.NDArray[np.int64], *, plan: StreamPlan) -> Frames:
        if not self._is_fresh:
            self._container.close()
            self._container, self._stream = open_stream(self._path, watch=self._watch, quick=_is_quick(self._path))
        self._is_fresh = False
        packets: Iterable[av.Packet] | None = plan.packets
        if packets is None:
            self._container.close()
            self._container, self._stream = open_stream(self._path, watch=self._watch, quick=_is_quick(self._path))
            packets = _checked_packets(self._container, self._stream, watch=self._watch)
        numbers, places = np.unique(wanted, return_inverse=True)
        numbers = numbers if len(numbers) else np.zeros(1, dtype=np.int64)
        convert = RgbConverter()
        return collect_known(
            _decode(self._stream.codec_context, packets, plan=plan, wanted=numbers, watch=self._watch),
            places,
            numbers=numbers,
            convert=lambda frame: to_rgb(frame, convert=convert, path=self._path),
            path=self._path,
        )

    def _fall_back(self, reason: UntrustedError) -> None:
        self.fallback = str(reason)
        self._plan = None
        self._container.close()

    def _fallen_back(self) -> SequentialReader:
        if self._sequential is None:
            self._sequential = SequentialReader(self._path, self._watch, convert=RgbConverter())
            if self._choose is not None:
                self._sequential.expect(self._choose)
        return self._sequential


def _is_quick(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(12)
    return any(head[place : place + len(magic)] == magic for place, magic in _MAGIC)


def _make_plan(container: av.container.InputContainer, stream: av.VideoStream, *, watch: Watch) -> StreamPlan:
    """Demuxes and scans a whole stream. Raises: UntrustedError where only sequential decoding is certain."""
    codec = stream.codec_context.name
    if codec not in SCANS:
        raise UntrustedError(f"{codec} is always decoded sequentially")
    scan = SCANS[codec](stream.codec_context.extradata)
    kept: list[av.Packet] | None = []
    times: list[int | None] = []
    num_bytes = 0
    for packet in _checked_packets(container, stream, watch=watch):
        scan.feed(memoryview(packet))
        times.append(packet.pts)
        num_bytes += packet.size
        if kept is not None:
            kept.append(packet)
            kept = kept if num_bytes <= KEPT_PACKET_BYTES else None
    order = scan.finish()
    rate = stream.average_rate or stream.guessed_rate
    frame_s = float(1 / rate) if rate else 0.0
    duration_s = order.num_frames * frame_s
    known = [time for time in times if time is not None]
    if len(known) == len(times) and stream.time_base:
        duration_s = float((max(known) - min(known)) * stream.time_base) + frame_s
    return StreamPlan(order=order, packets=kept, duration_s=duration_s)


def _checked_packets(
    container: av.container.InputContainer, stream: av.VideoStream, *, watch: Watch
) -> Iterator[av.Packet]:
    """All packets with something in them. Raises: UntrustedError for what sequential decoding treats specially."""
    is_over = False
    try:
        for packet in container.demux(stream):
            watch.check_time()
            if is_over or packet.is_corrupt or packet.is_discard:
                raise UntrustedError("packets that are empty, damaged or not to be shown")
            if packet.has_sidedata("new_extradata"):
                raise UntrustedError("parameters that change")
            is_over = packet.size == 0
            if not is_over:
                yield packet
    except av.error.ExitError as error:
        raise watch.timeout() from error
    except (av.error.FFmpegError, IndexError) as error:
        raise UntrustedError("the container is damaged") from error


def _decode(
    decoder: av.VideoCodecContext,
    packets: Iterable[av.Packet],
    *,
    plan: StreamPlan,
    wanted: npt.NDArray[np.int64],
    watch: Watch,
) -> Iterator[av.VideoFrame]:
    """The frames with the numbers `wanted` (ascending, no repeats), in order.

    Raises: UntrustedError as soon as anything is not as the headers promise.
    """
    decoder.options = {**decoder.options, "err_detect": "explode"}
    needed = plan.needed(wanted)
    expected = iter(np.sort(plan.order.ranks[needed]).tolist())
    targets = set(wanted.tolist())
    try:
        for packet in itertools.chain(_pictures(packets, plan.order, needed), [None]):
            watch.check_time()
            for frame in decoder.decode(packet):
                watch.check_size(frame.width, frame.height)
                if frame.pts != next(expected, None) or frame.is_corrupt:
                    raise UntrustedError("frames are not what the headers promise")
                if frame.pts in targets:
                    yield frame
    except av.error.FFmpegError as error:
        raise UntrustedError("decoding failed") from error
    if next(expected, None) is not None:
        raise UntrustedError("frames are missing")


def _pictures(packets: Iterable[av.Packet], order: CodedOrder, needed: npt.NDArray[np.int64]) -> Iterator[av.Packet]:
    """The needed pictures as packets of their own; the time of each is the number of its frame."""
    numbered = enumerate(packets)
    number = -1
    whole: av.Packet | None = None
    for picture, place, rank in zip(
        needed.tolist(), order.packets[needed].tolist(), order.ranks[needed].tolist(), strict=True
    ):
        while number < place:
            number, whole = next(numbered, (place, None))
        if whole is None:
            raise UntrustedError("the file has changed")
        packet = whole
        if picture in order.spans:
            first, end = order.spans[picture]
            packet = av.Packet(end - first)  # made from bytes it would lack the padding that decoders read into
            packet.update(bytes(memoryview(whole)[first:end]))
        packet.pts = rank
        packet.dts = None
        yield packet
