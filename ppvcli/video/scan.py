"""What the packets of a file say: all are demuxed once and their headers parsed, nothing is decoded.

From this follow the number of frames, which packet becomes which frame, where decoding may start, and which packets
nothing depends on; or that the headers (headers/) leave a doubt.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import av
import av.error
import numpy as np
import numpy.typing as npt

from ppvcli.video.headers.h264 import H264Scan
from ppvcli.video.headers.hevc import HevcScan
from ppvcli.video.headers.mjpeg import MjpegScan
from ppvcli.video.headers.mpeg4 import Mpeg4Scan
from ppvcli.video.headers.order import CodedOrder, HeaderScan, UntrustedError
from ppvcli.video.limits import Watch

KEPT_PACKET_BYTES = 128 << 20
"""Packets stay in memory up to this many bytes; those of larger files are read again where they are needed."""

DEMUXED_TOGETHER = 16
"""Packets that are demuxed before the clock is looked at."""

BATCH_PACKETS = 4096
BATCH_BYTES = 8 << 20
"""A batch of packets is full with so many, or with so many bytes."""

SCANS: dict[str, Callable[[av.VideoCodecContext], HeaderScan]] = {
    "h264": lambda codec: H264Scan(codec.extradata),
    "hevc": lambda codec: HevcScan(codec.extradata),
    "mpeg4": lambda codec: Mpeg4Scan(codec.extradata),
    "mjpeg": lambda codec: MjpegScan(codec.extradata, height=codec.height),
}
"""Codec -> what reads its headers. All others are decoded sequentially."""

MOST_REPEATED = 1.25
"""Threads may decode this many times what one would: each begins at a key frame of its own."""


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
        if self.order.hides_loss or self.order.leaks_damage:
            wanted[pictures[frames]] = True
            return np.flatnonzero(wanted)
        for picture in pictures[frames].tolist():
            place = int(np.searchsorted(starts, picture, side="right")) - 1
            while ranks[starts[place]] > ranks[picture]:  # shown before the start: it depends on the one before
                place -= 1
            start = starts[place]
            wanted[start:picture] |= is_reference[start:picture] & (ranks[start:picture] >= ranks[start])
            wanted[picture] = True
        return np.flatnonzero(wanted)

    def restarts(self, needed: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """bool [N]: whether a decoder that gets the pictures `needed` is emptied before this one, a start, so that it
        begins anew: where no picture from there on is shown before it."""
        ranks = self.order.ranks[needed]
        first_shown = np.minimum.accumulate(ranks[::-1])[::-1]
        is_restart = self.order.is_start[needed] & (ranks == first_shown) & self.order.restarts
        is_restart[:1] = False
        return is_restart

    def shares(self, frames: npt.NDArray[np.int64], *, most: int) -> list[npt.NDArray[np.int64]]:
        """`frames` (ascending) in up to `most` runs, as many as can be decoded apart with little decoded twice."""
        num_needed = len(self.needed(frames))
        for count in range(min(most, len(frames)), 1, -1):
            shares = np.array_split(frames, count)
            if sum(len(self.needed(share)) for share in shares) <= MOST_REPEATED * num_needed:
                return shares
        return [frames]


def begin_scan(stream: av.VideoStream) -> HeaderScan:
    """What reads the headers of `stream`. Raises: UntrustedError where nothing does."""
    codec = stream.codec_context
    if codec.name not in SCANS:
        raise UntrustedError(f"{codec.name} is always decoded sequentially")
    return SCANS[codec.name](codec)


def make_plan(
    container: av.container.InputContainer, stream: av.VideoStream, *, scan: HeaderScan, watch: Watch
) -> StreamPlan:
    """Demuxes and scans a whole stream. Raises: UntrustedError where only sequential decoding is certain."""
    kept: list[av.Packet] | None = []
    times: list[int | None] = []
    num_bytes = 0
    for batch in checked_packets(container, stream, watch=watch):
        contents = [bytes(packet) for packet in batch]
        scan.feed(contents)
        times += [packet.pts for packet in batch]
        num_bytes += sum(map(len, contents))
        kept = kept + batch if kept is not None and num_bytes <= KEPT_PACKET_BYTES else None
    order = scan.finish()
    rate = stream.average_rate or stream.guessed_rate
    frame_s = float(1 / rate) if rate else 0.0
    duration_s = order.num_frames * frame_s
    shown = [time for packet, time in enumerate(times) if packet not in order.unshown]
    known = [time for time in shown if time is not None]
    if len(known) == len(shown) and stream.time_base:
        duration_s = float((max(known) - min(known)) * stream.time_base) + frame_s
    return StreamPlan(order=order, packets=kept, duration_s=duration_s)


def checked_packets(
    container: av.container.InputContainer, stream: av.VideoStream, *, watch: Watch
) -> Iterator[list[av.Packet]]:
    """All packets with something in them, in batches, since headers are parsed faster together.

    Raises: UntrustedError for what sequential decoding treats specially.
    """
    batch: list[av.Packet] = []
    num_bytes = num_before = 0
    is_over = False
    packets = container.demux(stream)
    try:
        while some := list(itertools.islice(packets, DEMUXED_TOGETHER)):
            watch.check_time()
            sizes = [packet.size for packet in some]
            if is_over or 0 in sizes[:-1] or any(packet.is_corrupt or packet.is_discard for packet in some):
                num_frames = num_before + len(batch)
                for one in itertools.chain(some, packets):
                    watch.check_time()
                    num_frames += one.size > 0 and not one.is_discard
                raise UntrustedError("packets that are empty, damaged or not to be shown", num_frames=num_frames)
            if sizes[-1] == 0:  # what the last packet has to be
                is_over = True
                some.pop()
            batch += some
            num_bytes += sum(sizes)
            if len(batch) >= BATCH_PACKETS or num_bytes >= BATCH_BYTES:
                yield _without_new_parameters(batch)
                num_before += len(batch)
                batch, num_bytes = [], 0
        if batch:
            yield _without_new_parameters(batch)
    except av.error.ExitError as error:
        raise watch.timeout() from error
    except (av.error.FFmpegError, IndexError) as error:
        raise UntrustedError("the container is damaged") from error


def _without_new_parameters(batch: list[av.Packet]) -> list[av.Packet]:
    """`batch`. Raises: UntrustedError."""
    if any(side.data_type == "new_extradata" for packet in batch for side in packet.iter_sidedata()):
        raise UntrustedError("parameters that change")
    return batch
