"""What H.264 and HEVC share: where units begin and end, what is in them, and how parameter sets describe a display.

Source: ITU-T H.264 (08/2021), Annex B, 7.4.1 and E.1.1; ITU-T H.265 (08/2021), Annex B and E.2.1.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ppvcli.video.headers.bits import Bits
from ppvcli.video.headers.order import UntrustedError

HEADER_BYTES = 96
"""How much of a slice is looked at if its parameters say nothing else; a longer header counts as damaged."""

MOST_HEADER_BYTES = 4096

MOST_LOOKED_AT = 32 << 20
"""So many bytes of headers are looked at together; several times that is taken while they are parsed."""

MOST_UNITS = 1024
"""So many units a packet has at most; some encoders make tens."""

EXTENDED_SAR = 255
"""The shape of pixels that is spelt out."""

_SEARCHED_PAIRS = 1 << 17


@dataclass(frozen=True, kw_only=True)
class Units:
    """The units of some packets, in their order."""

    data: npt.NDArray[np.uint8]
    """All packets, one after the other, and `MOST_HEADER_BYTES` of zeros."""
    packets: npt.NDArray[np.int64]
    """int64 [N]: the number of the packet that each unit is in, from 0."""
    starts: npt.NDArray[np.int64]
    """int64 [N]: the place of its first byte in `data`."""
    ends: npt.NDArray[np.int64]

    def content(self, number: int) -> bytes:
        return self.data[self.starts[number] : self.ends[number]].tobytes()

    def headers(
        self, chosen: npt.NDArray[np.int64], *, skip: int, num_bytes: int
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The first `num_bytes` (up to 4096) of `chosen` units after `skip` bytes, without emulation prevention bytes.

        Returns uint8 [N, num_bytes], and the number of bytes of each that belong to it.
        Raises: UntrustedError for what must not be in a unit, and for more than `MOST_LOOKED_AT` bytes.
        """
        if len(chosen) * num_bytes > MOST_LOOKED_AT:
            raise UntrustedError("more slices than are looked at")
        headers = _from_each_byte(self.data, num_bytes)[self.starts[chosen] + skip]
        sizes = np.minimum(self.ends[chosen] - self.starts[chosen] - skip, num_bytes)
        has_zeros = ((headers[:, :-1] | headers[:, 1:]) == 0).any(axis=1)
        for row in np.flatnonzero(has_zeros).tolist():
            header = unescaped(headers[row, : sizes[row]].tobytes())
            headers[row, : len(header)] = np.frombuffer(header, dtype=np.uint8)
            sizes[row] = len(header)
        return headers, sizes


def split_units(packets: Sequence[bytes], *, width: int, least: int) -> Units:
    """The units of `packets`, of `least` bytes or more: each behind its length of `width` bytes, or, where that is 0,
    behind a start code.

    Raises: UntrustedError where lengths don't add up, or a packet does not begin with a start code.
    """
    data = np.frombuffer(b"".join([*packets, bytes(MOST_HEADER_BYTES)]), dtype=np.uint8)
    sizes = np.array([len(packet) for packet in packets])
    bounds = sizes.cumsum()
    if width:
        units = _split_by_length(data, bounds - sizes, bounds, width=width, least=least)
        _refuse_start_codes(units)
        return units
    found = [
        (number, begin + first, begin + last)
        for number, (packet, begin) in enumerate(zip(packets, (bounds - sizes).tolist(), strict=True))
        for first, last in units_by_start_code(packet)
    ]
    numbers, starts, ends = np.array(found, dtype=np.int64).T
    if (ends - starts < least).any():
        raise UntrustedError("a damaged unit")
    return Units(data=data, packets=numbers, starts=starts, ends=ends)


def _split_by_length(
    data: npt.NDArray[np.uint8],
    places: npt.NDArray[np.int64],
    bounds: npt.NDArray[np.int64],
    *,
    width: int,
    least: int,
) -> Units:
    """The first unit of every packet at once, then the second of those that have one, ...

    Packets begin at `places` and end at `bounds`.
    """
    length_at = np.ndarray((len(data) - width + 1,), f">u{width}", buffer=data, strides=(1,))
    numbers = np.arange(len(bounds))
    found: list[tuple[npt.NDArray[np.int64], ...]] = []
    while len(numbers):
        starts = places + width
        if len(found) == MOST_UNITS or (starts > bounds).any():
            raise UntrustedError("lengths that don't add up")
        lengths = length_at[places].astype(np.int64)
        places = starts + lengths
        if (places > bounds).any() or (lengths < least).any():
            raise UntrustedError("lengths that don't add up")
        found.append((numbers, starts, places))
        goes_on = places < bounds
        numbers, places, bounds = numbers[goes_on], places[goes_on], bounds[goes_on]
    numbers, starts, ends = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.argsort(starts, kind="stable")  # fast for what is nearly sorted
    return Units(data=data, packets=numbers[order], starts=starts[order], ends=ends[order])


def _refuse_start_codes(units: Units) -> None:
    """FFmpeg takes a start code for the beginning of another unit, even where units have lengths."""
    data = units.data
    pairs = data[: int(units.ends[-1]) + 2 & -2].view("<u2")
    for begin in range(0, len(pairs), _SEARCHED_PAIRS):
        # of the bytes 0 0 1, either the first two are at an even place or the last two
        evens = 2 * (np.flatnonzero((pairs[begin : begin + _SEARCHED_PAIRS] & 0xFEFF) == 0) + begin)
        firsts = evens - (data[evens + 1] == 1)
        is_code = (firsts >= 0) & (data[firsts] == 0) & (data[firsts + 1] == 0) & (data[firsts + 2] == 1)
        codes = firsts[is_code]
        owners = np.searchsorted(units.starts, codes, side="right") - 1
        # the bytes of a length may look like one
        if ((owners >= 0) & (codes + 3 <= units.ends[owners])).any():
            raise UntrustedError("a start code inside of a unit")


def _from_each_byte(data: npt.NDArray[np.uint8], num_bytes: int) -> npt.NDArray[np.uint8]:
    """A view, uint8 [N, num_bytes]: `num_bytes` of `data` from its first byte on, from its second, ..."""
    return np.ndarray((len(data) - num_bytes + 1, num_bytes), np.uint8, buffer=data, strides=(1, 1))


def units_by_start_code(data: bytes) -> list[tuple[int, int]]:
    """(first byte, end) of each unit. Raises: UntrustedError for anything before the first, and for an empty one."""
    units = []
    start = data.find(b"\0\0\1")
    if start < 0 or data[:start].strip(b"\0"):
        raise UntrustedError("no start code")
    while start >= 0:
        start += 3
        follower = data.find(b"\0\0\1", start)
        end = len(data) if follower < 0 else follower
        while end > start and data[end - 1] == 0:
            end -= 1
        if end == start:
            raise UntrustedError("an empty unit")
        units.append((start, end))
        start = follower
    return units


def begins_run(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """bool [N]: whether each number differs from the one before; the first does."""
    is_new = np.ones(len(numbers), dtype=bool)
    np.not_equal(numbers[1:], numbers[:-1], out=is_new[1:])
    return is_new


def check_pictures(packets: npt.NDArray[np.int64], is_first: npt.NDArray[np.bool_], *, num_packets: int) -> None:
    """Passes if every packet is one picture: `packets` has that of each slice, `is_first` those that begin a picture.

    Raises: UntrustedError.
    """
    if not is_first[begins_run(packets)].all():
        raise UntrustedError("a picture without its first slice")
    counts = np.bincount(packets[is_first], minlength=num_packets)
    if (counts != 1).any():
        raise UntrustedError(f"{counts[counts != 1][0]} pictures in a packet")


def unescaped(data: bytes) -> bytes:
    """The payload without emulation prevention bytes. Raises: UntrustedError for what must not be in a unit."""
    if b"\0\0" not in data:
        return data
    if b"\0\0\0" in data or b"\0\0\1" in data or b"\0\0\2" in data:
        raise UntrustedError("a damaged unit")
    return data.replace(b"\0\0\3", b"\0\0")


def messages(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """(kind, content) of each message in a unit of them (SEI), which comes without its header.

    Raises: UntrustedError for one that goes on past the end.
    """
    data = payload.rstrip(b"\0").replace(b"\0\0\3", b"\0\0")
    place = 0
    while place + 2 < len(data):  # two bytes hold no message with something in it
        kind, place = _message_number(data, place)
        size, place = _message_number(data, place)
        if place + size > len(data):
            raise UntrustedError("a damaged message")
        yield kind, data[place : place + size]
        place += size


def _message_number(data: bytes, place: int) -> tuple[int, int]:
    """A number that begins at `place`, a sum of bytes of which all but the last are 255, and the place behind it."""
    number = 0
    while data[place : place + 1] == b"\xff":
        number, place = number + 255, place + 1
    return number + (data[place] if place < len(data) else 0), place + 1


def skip_display(bits: Bits) -> None:
    """Passes over the shape of pixels, overscan, colours and the place of chroma. Raises: BitsEndError."""
    if bits.flag() and bits.u(8) == EXTENDED_SAR:
        bits.skip(32)
    if bits.flag():
        bits.skip(1)
    if bits.flag():
        bits.skip(4)
        if bits.flag():
            bits.skip(24)
    if bits.flag():
        bits.ue()
        bits.ue()
