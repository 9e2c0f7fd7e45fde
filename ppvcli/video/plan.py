"""The decoding plan: only the packets that the wanted frames depend on are decoded, and only where that is exact.

Those that are needed (scan.py) go through one decoder as if they were the whole stream, or in shares through several in
threads of their own. A frame that is missing, damaged or out of order, or a header that leaves a doubt, and the video
is decoded sequentially instead. docs/concepts/decoding.md tells why this is exact.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import av.error
import numpy as np
import numpy.typing as npt

from ppvcli.errors import FrameTooLargeError
from ppvcli.video.container import OpenStream, open_stream
from ppvcli.video.early_ends import EarlyEnds
from ppvcli.video.headers.order import UntrustedError
from ppvcli.video.limits import Watch
from ppvcli.video.scan import StreamPlan, begin_scan, checked_packets, make_plan
from ppvcli.video.sequential import (
    Choose,
    Frames,
    Indices,
    Keeper,
    RgbConverter,
    SequentialReader,
    Transform,
    Wanted,
    check_indices,
    stack,
    to_rgb,
)

THREADED_PIXELS = 16 << 20
"""So many pixels (of all pictures to decode) are worth a thread: some 60 ms of H.264."""

PLANNED_BYTES, PLANNED_PIXELS = 32 << 10, 1 << 20
"""A smaller file, or one with fewer pixels in all its frames, is decoded sequentially: to find out what may be left out
takes longer than to decode it."""
_DECODED_FASTER = "so small a video is decoded faster than planned"

_QUICK = {"skip_frame": "all", "probesize": "32", "fflags": "+noparse"}
"""Options for a container whose header holds all that a decoder needs, and that has a time for each packet: FFmpeg
neither looks into the stream first nor parses packets."""
_MAGIC = ((4, b"ftyp"), (4, b"moov"), (0, b"\x1aE\xdf\xa3"))
"""Where mov, mp4, mkv and webm say what they are. (avi would gain nothing.)"""


class PlannedReader:
    """Decodes by plan, or sequentially where the plan can't be trusted; the frames are the same."""

    def __init__(self, path: Path, watch: Watch) -> None:
        self._path = path
        self._watch = watch
        self._options: dict[str, str] = {}
        self._opened: OpenStream | None = None
        self._decoder_is_unused = True
        self._plan: StreamPlan | None = None
        self._sequential: SequentialReader | None = None
        self._choose: Choose | None = None
        self.fallback: str | None = None
        """Why this video is decoded sequentially; None where the plan is good."""
        try:
            num_bytes = _size(path)
            if num_bytes < PLANNED_BYTES:
                raise UntrustedError(_DECODED_FASTER)
            self._options = quick_options(path)
            container, stream = self._reopen()
            # a header may count the first fragment alone; no codec needs a byte for each pixel
            if num_bytes < PLANNED_PIXELS and 0 < _claimed_pixels(container, stream) < PLANNED_PIXELS:
                raise UntrustedError(_DECODED_FASTER)
            scan = begin_scan(stream)
        except (UntrustedError, FrameTooLargeError) as reason:  # the container's header may lie about the size
            self._give_up(reason, opened=None if self._options else self._opened)
            return
        try:
            self._plan = make_plan(container, stream, scan=scan, watch=watch)
        except UntrustedError as reason:
            self._give_up(reason)

    @property
    def num_frames(self) -> int:
        return self._plan.order.num_frames if self._plan else self._without_plan().num_frames

    @property
    def duration_s(self) -> float:
        return self._plan.duration_s if self._plan else self._without_plan().duration_s

    @property
    def damage(self) -> str | None:
        return None if self._sequential is None else self._sequential.damage

    def expect(self, choose: Choose) -> None:
        """Says which frames will be wanted of so many; it saves sequential decoding a second pass."""
        self._choose = choose
        if self._sequential is not None:
            self._sequential.expect(choose)

    def read(self, indices: Indices, *, transform: Transform | None = None) -> Frames:
        if self._plan is not None:
            wanted = check_indices(indices, self._path, num_frames=self._plan.order.num_frames)
            try:
                return self._read(wanted, plan=self._plan, transform=transform)
            except UntrustedError as reason:
                self._give_up(reason)
        return self._without_plan().read(indices, transform=transform)

    def close(self) -> None:
        self._plan = None
        self._close_container()
        if self._sequential is not None:
            self._sequential.close()

    def _open(self) -> OpenStream:
        return open_stream(self._path, watch=self._watch, options=self._options)

    def _reopen(self) -> OpenStream:
        self._close_container()
        self._opened = self._open()
        return self._opened

    def _close_container(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None

    def _read(self, wanted: Wanted, *, plan: StreamPlan, transform: Transform | None) -> Frames:
        opened = self._opened if self._decoder_is_unused and plan.packets else None
        container, stream = opened or self._reopen()
        self._decoder_is_unused = False
        packets: Iterable[av.Packet] | None = plan.packets
        if packets is None:
            packets = itertools.chain.from_iterable(checked_packets(container, stream, watch=self._watch))
        first, *others = self._shares(wanted.numbers, stream.codec_context, plan=plan)
        kept = self._kept(stream.codec_context, packets, plan=plan, wanted=first, transform=transform)
        if not others:
            return stack(kept, wanted)
        with ThreadPoolExecutor(max_workers=len(others)) as pool:
            later = [pool.submit(self._read_share, share, plan=plan, transform=transform) for share in others]
            return stack(itertools.chain(kept, (one for share in later for one in share.result())), wanted)

    def _shares(
        self, numbers: npt.NDArray[np.int64], codec: av.VideoCodecContext, *, plan: StreamPlan
    ) -> list[npt.NDArray[np.int64]]:
        """The frames for each thread; all in one share where several threads would not pay."""
        if self._watch.limits.threads == 1 or plan.packets is None:
            return [numbers]
        pixels = len(plan.needed(numbers)) * codec.width * codec.height
        return plan.shares(numbers, most=min(self._watch.limits.threads, pixels // THREADED_PIXELS))

    def _read_share(
        self, wanted: npt.NDArray[np.int64], *, plan: StreamPlan, transform: Transform | None
    ) -> list[Frames]:
        """What another thread does, with a decoder of its own."""
        assert plan.packets is not None
        container, stream = self._open()
        try:
            return list(self._kept(stream.codec_context, plan.packets, plan=plan, wanted=wanted, transform=transform))
        finally:
            container.close()

    def _kept(
        self,
        decoder: av.VideoCodecContext,
        packets: Iterable[av.Packet],
        *,
        plan: StreamPlan,
        wanted: npt.NDArray[np.int64],
        transform: Transform | None,
    ) -> Iterator[Frames]:
        convert = RgbConverter()
        keep = Keeper(
            convert=lambda frame: to_rgb(frame, convert=convert, path=self._path), transform=transform, path=self._path
        )
        return keep(_decode(decoder, packets, plan=plan, wanted=wanted, watch=self._watch), wanted)

    def _give_up(self, reason: Exception, *, opened: OpenStream | None = None) -> None:
        """From here on the video is decoded sequentially: from what is open already, if it is given.

        Raises: what `open_stream` raises; then all is as before.
        """
        if opened is None:
            self._close_container()
        likely = reason.num_frames if isinstance(reason, UntrustedError) else None
        self._sequential = SequentialReader(
            self._path, self._watch, convert=RgbConverter(), likely_frames=likely, opened=opened
        )
        self._opened = None
        self._plan = None
        self.fallback = str(reason)
        if self._choose is not None:
            self._sequential.expect(self._choose)

    def _without_plan(self) -> SequentialReader:
        assert self._sequential is not None
        return self._sequential


def _size(path: Path) -> int:
    """In bytes; 0 where it can't be told: `open_stream` says what is wrong."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _claimed_pixels(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Of all frames together, as the header says; 0 where it does not."""
    num_frames: float = stream.frames
    if not num_frames and container.duration and stream.average_rate:
        num_frames = container.duration / av.time_base * float(stream.average_rate)
    return num_frames * stream.codec_context.width * stream.codec_context.height


def quick_options(path: Path) -> dict[str, str]:
    """FFmpeg's options to open the file at `path` as fast as its container allows; none where it can't be read."""
    try:
        with path.open("rb", buffering=0) as file:
            head = file.read(12)
    except OSError:  # `open_stream` says what is wrong
        return {}
    return _QUICK if any(head.startswith(magic, place) for place, magic in _MAGIC) else {}


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
    ends = EarlyEnds(plan.order)
    try:
        for packet in itertools.chain(_pictures(packets, plan, needed), [None]):
            watch.check_time()
            for frame in decoder.decode(packet):
                watch.check_size(frame.width, frame.height)
                if frame.pts != next(expected, None) or frame.is_corrupt:
                    raise UntrustedError("frames are not what the headers promise")
                ends.check(frame)
                if frame.pts in targets:
                    yield frame
            if packet is None:
                decoder.flush_buffers()
            ends.release(packet)
    except av.error.FFmpegError as error:
        raise UntrustedError("decoding failed") from error
    if next(expected, None) is not None:
        raise UntrustedError("frames are missing")


def _pictures(
    packets: Iterable[av.Packet], plan: StreamPlan, needed: npt.NDArray[np.int64]
) -> Iterator[av.Packet | None]:
    """The needed pictures as packets of their own, None where the decoder is to give all it has and to begin anew.

    The time of each is the number of its frame.
    """
    numbered = enumerate(packets)
    number = -1
    whole: av.Packet | None = None
    order = plan.order
    restarts = set(needed[plan.restarts(needed)].tolist())
    for picture, place, rank in zip(
        needed.tolist(), order.packets[needed].tolist(), order.ranks[needed].tolist(), strict=True
    ):
        if picture in restarts:
            yield None
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
