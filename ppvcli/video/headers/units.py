"""What H.264 and HEVC share: where units begin and end, what is in them, and how parameter sets describe a display.

Source: ITU-T H.264 (08/2021), Annex B, 7.4.1 and E.1.1; ITU-T H.265 (08/2021), Annex B and E.2.1.
"""

from __future__ import annotations

import re

from ppvcli.video.headers.bits import Bits
from ppvcli.video.headers.order import UntrustedError

START_CODE = re.compile(b"\0\0\1")
"""As an expression, because that searches a buffer without a copy, in half the time."""


EXTENDED_SAR = 255
"""The shape of pixels that is spelt out."""


def units_by_length(data: bytes | memoryview, *, width: int, least: int) -> list[tuple[int, int]]:
    """(first byte, end) of each unit, `least` bytes or more, behind its length of `width` bytes.

    Raises: UntrustedError where lengths don't add up.
    """
    units = []
    place = 0
    while place < len(data):
        start = place + width
        place = start + int.from_bytes(data[place:start], "big")
        # FFmpeg takes a start code for the beginning of another unit, here too
        if place > len(data) or place < start + least or START_CODE.search(data, start, place):
            raise UntrustedError("lengths that don't add up")
        units.append((start, place))
    return units


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


def unescaped(data: bytes) -> bytes:
    """The payload without emulation prevention bytes. Raises: UntrustedError for what must not be in a unit."""
    if b"\0\0" not in data:
        return data
    if b"\0\0\0" in data or b"\0\0\1" in data or b"\0\0\2" in data:
        raise UntrustedError("a damaged unit")
    return data.replace(b"\0\0\3", b"\0\0")


def skip_display(bits: Bits) -> None:
    """Passes over the shape of pixels, overscan, colours and the place of chroma. Raises: BitsEndError."""
    if bits.flag() and bits.u(8) == EXTENDED_SAR:
        bits.u(32)
    if bits.flag():
        bits.u(1)
    if bits.flag():
        bits.u(4)
        if bits.flag():
            bits.u(24)
    if bits.flag():
        bits.ue()
        bits.ue()
