"""MPEG-4 part 2 (XviD, DivX): what the headers of all packets say of the order of frames, without decoding.

Packed B-frames (two pictures in a packet, later an empty one) are taken apart as FFmpeg's decoder does. Only what is
provably one frame a picture is accepted: rectangular, without sprites, unchanging headers, B-frames with sane times.

Source: ISO/IEC 14496-2 (2004), 6.2; FFmpeg's mpeg4videodec.c for what it makes of packed streams.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ppvcli.video.headers.bits import Bits, BitsEndError
from ppvcli.video.headers.order import CodedOrder, UntrustedError

PICTURE, GROUP, USER_DATA = 0xB6, 0xB3, 0xB2
LAYERS = range(0x20, 0x30)
I, P, B = 0, 1, 2  # noqa: E741 (their names)
EMPTY_PICTURE_BYTES = 7
"""FFmpeg looks no further into a packet for a second picture when this many bytes are left."""

NUM_LEAD = 24
"""FFmpeg's decoder keeps a score of how well the ends of pictures are padded, one point or so for each; while it is
low, a damaged picture whose end is odd passes for a whole one. After this many pictures the score is high for good."""

MOST_DISTANCE = 0xFFFF
"""Between two references: FFmpeg keeps it in 16 bits."""

_START = b"\0\0\1"
_PICTURE_START = b"\0\0\1\xb6"
_PACKED = re.compile(rb"DivX\d+(Build|b)\d+p")
_MADE_BY = re.compile(rb"DivX\d|XviD\d")


@dataclass(frozen=True, kw_only=True)
class Layer:
    """The facts of a video object layer that picture headers depend on."""

    time_bits: int
    resolution: int
    interlaced: bool
    low_delay: bool | None
    """None where the stream does not say; then B-frames can't be trusted."""


@dataclass(frozen=True, kw_only=True)
class _Picture:
    kind: int
    seconds: int
    increment: int
    coded: bool


class Mpeg4Scan:
    """A `HeaderScan` of MPEG-4 part 2."""

    def __init__(self, extradata: bytes | None) -> None:
        self._outer = _without_groups(extradata or b"")
        self._header: bytes | None = None
        self._layer: Layer | None = None
        self._is_packed = self._may_skip = False
        self._kinds: list[int] = []
        self._times: list[tuple[int, int]] = []
        self._bases: dict[int, int] = {}
        """Where a group starts: its picture -> seconds of the group."""
        self._packets: list[int] = []
        self._spans: dict[int, tuple[int, int]] = {}
        self._num_packets = 0
        self._group_s: int | None = None
        self._waiting: tuple[int, int, int, _Picture] | None = None
        """The second picture of a packet: packet, first byte, end, header."""

    def feed(self, packets: Sequence[bytes]) -> None:
        for packet in packets:
            self._take_packet(packet)

    def _take_packet(self, whole: bytes) -> None:
        packet = self._num_packets
        self._num_packets += 1
        first = whole.find(_PICTURE_START)
        if first < 0:
            if packet == 0 or len(whole) != 1 or not self._may_skip:
                raise UntrustedError("a packet without a picture")
            # one byte says that a frame is dropped; a picture that waits is shown instead
        else:
            self._take_header(whole[:first])
        if self._waiting is not None:
            waiting, self._waiting = self._waiting, None
            self._add(waiting[3], waiting[0], span=waiting[1:3])
            if first >= 0:
                self._wait_again(whole, first, packet)
        elif first >= 0:
            self._take(whole, first, packet)

    def finish(self) -> CodedOrder:
        kinds = np.array(self._kinds)  # a picture that still waits is never shown
        if not len(kinds) or kinds[0] != I:
            raise UntrustedError("it does not begin with a start")
        ranks = np.arange(len(kinds))
        if (kinds == B).any():
            self._check_times()
            # a reference is shown when the next one comes, after the B-frames that were decoded between them
            references = np.flatnonzero(kinds != B)
            ranks[kinds == B] -= 1
            ranks[references] = np.append(references[1:], len(kinds)) - 1
        return CodedOrder(
            ranks=ranks,
            is_start=kinds == I,
            is_reference=kinds != B,
            packets=np.array(self._packets),
            spans=self._spans,
            num_lead=NUM_LEAD,
            hides_loss=self._is_packed,
        )

    def _take(self, whole: bytes, first: int, packet: int) -> None:
        picture = self._parse(whole, first)
        if not picture.coded:
            raise UntrustedError("a picture that is not coded")
        second = whole.find(_PICTURE_START, first + 4)
        if second < 0:
            self._add(picture, packet)
            return
        follower = self._parse(whole, second)
        is_odd = whole.find(_START, second + 4) >= 0 or whole.find(_START, first + 4) != second
        if not self._is_packed or follower.kind != B or not follower.coded or picture.kind == B or is_odd:
            raise UntrustedError("two pictures in a packet")
        if len(whole) - second <= EMPTY_PICTURE_BYTES:
            raise UntrustedError("a picture too small to be found")
        self._add(picture, packet, span=(0, second))
        self._waiting = (packet, second, len(whole), follower)

    def _wait_again(self, whole: bytes, first: int, packet: int) -> None:
        """While a picture waited: another B-frame takes its place, an empty picture ends the row."""
        picture = self._parse(whole, first)
        if whole.find(_START, first + 4) >= 0 or first:
            raise UntrustedError("several pictures after a packed pair")
        if picture.coded and picture.kind == B and len(whole) > EMPTY_PICTURE_BYTES:
            self._waiting = (packet, 0, len(whole), picture)
        elif picture.coded or picture.kind != P:
            raise UntrustedError("a picture lost after a packed pair")

    def _add(self, picture: _Picture, packet: int, *, span: tuple[int, int] | None = None) -> None:
        if self._group_s is not None:
            self._bases[len(self._kinds)] = self._group_s
            self._group_s = None
        if span is not None:
            self._spans[len(self._kinds)] = span
        self._kinds.append(picture.kind)
        self._times.append((picture.seconds, picture.increment))
        self._packets.append(packet)

    def _take_header(self, prefix: bytes) -> None:
        """What stands before a picture: all of the headers or nothing, and perhaps the start of a group."""
        if self._header is not None and not prefix:
            return
        header = _without_groups(prefix)
        if header != prefix:
            self._group_s = _group_time(prefix)
        if self._header is not None:
            if header and header != (self._header or self._outer):
                raise UntrustedError("headers that change")
            return
        self._header = header
        if header and self._outer and header != self._outer:
            raise UntrustedError("headers that change")
        known = header or self._outer
        layers = [place for place in _starts(known) if known[place + 3] in LAYERS]
        if len(layers) != 1:
            raise UntrustedError("no video object layer, or several")
        try:
            self._layer = parse_layer(known[layers[0] + 4 :])
        except BitsEndError as error:
            raise UntrustedError("a damaged header") from error
        self._is_packed = _PACKED.search(known) is not None
        self._may_skip = _MADE_BY.search(known) is not None

    def _parse(self, whole: bytes, start: int) -> _Picture:
        assert self._layer is not None
        try:
            return _parse_picture(whole[start + 4 : start + 24], self._layer)
        except BitsEndError as error:
            raise UntrustedError("a damaged picture header") from error

    def _check_times(self) -> None:
        """Passes where each B-frame lies between its references. Raises: UntrustedError."""
        assert self._layer is not None
        if self._layer.low_delay is not False or self._layer.interlaced:
            raise UntrustedError("B-frames whose delay is not certain")
        base = previous_base = last = distance = 0
        num_references = 0
        for picture, (kind, (seconds, increment)) in enumerate(zip(self._kinds, self._times, strict=True)):
            base = self._bases.get(picture, base)
            if kind != B:
                previous_base, base = base, base + seconds
                now = base * self._layer.resolution + increment
                distance, last = now - last, now
                num_references += 1
            else:
                now = (previous_base + seconds) * self._layer.resolution + increment
                if num_references < 2 or distance > MOST_DISTANCE or not 0 < distance - (last - now) < distance:
                    raise UntrustedError("B-frames out of place")


def parse_layer(data: bytes) -> Layer:
    """A video object layer, after its start code.

    Raises: BitsEndError where it is cut off; UntrustedError for the parts of the standard we don't read.
    """
    bits = Bits(data)
    bits.skip(9)
    version = 1
    if bits.flag():
        version = bits.u(4)
        bits.skip(3)
    if bits.u(4) == 15:
        bits.skip(16)
    low_delay = None
    if bits.flag():
        bits.skip(2)
        low_delay = bits.flag()
        if bits.flag():
            bits.skip(79)
    if bits.u(2):
        raise UntrustedError("a shape that is no rectangle")
    bits.skip(1)
    resolution = bits.u(16)
    time_bits = max((resolution - 1).bit_length(), 1)
    bits.skip(1)
    if bits.flag():
        bits.skip(time_bits)
    bits.skip(29)
    interlaced = bits.flag()
    bits.skip(1)
    if bits.u(1 if version == 1 else 2) or bits.flag() or not resolution:
        raise UntrustedError("sprites or more than 8 bits")
    if bits.flag():
        for _ in range(2):
            if bits.flag():
                _skip_matrix(bits)
    if version != 1:
        bits.skip(1)
    if not bits.flag():
        raise UntrustedError("complexity estimation")
    bits.skip(1)
    if bits.flag():
        raise UntrustedError("data partitions")
    if version != 1 and bits.u(2):
        raise UntrustedError("new prediction or reduced resolution")
    if bits.flag():
        raise UntrustedError("scalability")
    return Layer(time_bits=time_bits, resolution=resolution, interlaced=interlaced, low_delay=low_delay)


def _parse_picture(data: bytes, layer: Layer) -> _Picture:
    """Reads a picture header to its end. Raises: UntrustedError for what a decoder would refuse."""
    bits = Bits(data)
    kind = bits.u(2)
    seconds = 0
    while bits.flag():
        seconds += 1
    is_whole = bits.flag()
    increment = bits.u(layer.time_bits)
    is_whole &= bits.flag()
    coded = bits.flag()
    if kind > B or not is_whole:
        raise UntrustedError("a damaged picture header")
    if coded:
        bits.skip(1 if kind == P else 0)
        bits.skip(5 if layer.interlaced else 3)
        is_whole = bits.u(5) > 0
        for _ in range(kind):
            is_whole &= bits.u(3) > 0
        if not is_whole:
            raise UntrustedError("a damaged picture header")
    return _Picture(kind=kind, seconds=seconds, increment=increment, coded=coded)


def _skip_matrix(bits: Bits) -> None:
    for _ in range(64):
        if not bits.u(8):
            return


def _starts(data: bytes) -> list[int]:
    places = []
    place = data.find(_START)
    while 0 <= place < len(data) - 3:
        places.append(place)
        place = data.find(_START, place + 3)
    return places


def _group_time(data: bytes) -> int:
    """The seconds in the start of a group. Raises: UntrustedError for a damaged one, or several."""
    places = [place for place in _starts(data) if data[place + 3] == GROUP]
    bits = Bits(data[places[0] + 4 :])
    try:
        hours, minutes, marker, seconds = bits.u(5), bits.u(6), bits.flag(), bits.u(6)
    except BitsEndError as error:
        raise UntrustedError("a damaged group") from error
    if len(places) != 1 or not marker:
        raise UntrustedError("a damaged group")
    return seconds + 60 * (minutes + 60 * hours)


def _without_groups(data: bytes) -> bytes:
    """Headers without the starts of groups, which differ from one to the next."""
    places = _starts(data)
    if not places:
        return data
    parts = [data[: places[0]]]
    for place, end in zip(places, [*places[1:], len(data)], strict=True):
        if data[place + 3] != GROUP:
            parts.append(data[place:end])
    return b"".join(parts)
