"""MJPEG: what the headers of all packets say, without decoding: whether each packet is one frame that stands alone.

FFmpeg's decoder gives a frame for every picture whose headers it can read, whatever the coded data hold. Of one picture
it keeps tables and what comments and application data say for those after it, so these must be in every packet: tables
with the same numbers, the rest byte for byte the same.

Source: ITU-T T.81, Annex B; FFmpeg's mjpegdec.c for what it makes of damage.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ppvcli.video.headers.order import CodedOrder, UntrustedError

BASELINE, HUFFMAN, IMAGE, END, SCAN, QUANTIZATION, RESTART, COMMENT = 0xC0, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xFE
APPLICATION = range(0xE0, 0xF0)

Segment = tuple[int, bytes]
"""What it is, and what must not differ from packet to packet."""


class MjpegScan:
    """A `HeaderScan` of MJPEG."""

    def __init__(self, extradata: bytes | None, *, height: int) -> None:
        """`height` is what the container says; FFmpeg takes much lower pictures for fields, two of them for a frame."""
        if extradata:
            raise UntrustedError("tables outside of the pictures")
        self._height = height
        self._segments: list[Segment] | None = None
        self._num_packets = 0

    def feed(self, packets: Sequence[bytes]) -> None:
        for packet in packets:
            self._take_packet(packet)

    def _take_packet(self, whole: bytes) -> None:
        segments, start = _read_segments(whole)
        if self._segments is None:
            if dict(segments)[BASELINE][1:3] != self._height.to_bytes(2, "big"):
                raise UntrustedError("pictures of another height than the container says")
            self._segments = segments
        elif segments != self._segments:
            raise UntrustedError("headers that change")
        _check_scan(whole, start)
        self._num_packets += 1

    def finish(self) -> CodedOrder:
        everyone = np.arange(self._num_packets)
        if not len(everyone):
            raise UntrustedError("no picture")
        return CodedOrder(
            ranks=everyone,
            is_start=np.ones(len(everyone), dtype=bool),
            is_reference=np.zeros(len(everyone), dtype=bool),
            packets=everyone,
            spans={},
        )


def _read_segments(data: bytes) -> tuple[list[Segment], int]:
    """The segments up to the start of the scan, and where its coded data begin."""
    if data[:2] != bytes((0xFF, IMAGE)):
        raise UntrustedError("a packet without a picture")
    segments: list[Segment] = []
    place = 2
    while not segments or segments[-1][0] != SCAN:
        kind, length = data[place + 1 : place + 2], int.from_bytes(data[place + 2 : place + 4], "big")
        end = place + 2 + length
        if data[place : place + 1] != b"\xff" or length < 2 or end > len(data):
            raise UntrustedError("a damaged header")
        segments.append((kind[0], _lasting(kind[0], data[place + 4 : end])))
        place = end
    kinds = [kind for kind, _ in segments]
    if kinds.count(BASELINE) != 1:
        raise UntrustedError("no frame header, or several")
    return segments, place


def _lasting(kind: int, body: bytes) -> bytes:
    """What must be the same in all packets: of tables their numbers, of anything else the whole."""
    if kind == QUANTIZATION:
        numbers = body[::65]
        if len(body) != 65 * len(numbers) or max(numbers, default=0) > 3:
            raise UntrustedError("a damaged table")
        return numbers
    if kind == HUFFMAN:
        return _huffman_numbers(body)
    if kind not in (BASELINE, SCAN, RESTART, COMMENT, *APPLICATION):
        raise UntrustedError(f"a segment of kind {kind:#x}")
    return body


def _huffman_numbers(body: bytes) -> bytes:
    numbers = []
    place = 0
    while place < len(body):
        counts = body[place + 1 : place + 17]
        num_codes = sum(counts)
        room = sum(count << (15 - length) for length, count in enumerate(counts))
        # more codes than there is room for would make the decoder give up the picture
        if body[place] & 0xEF > 3 or len(counts) < 16 or not 0 < num_codes <= 256 or room > 1 << 16:
            raise UntrustedError("a damaged table")
        numbers.append(body[place])
        place += 17 + num_codes
    if place != len(body):
        raise UntrustedError("a damaged table")
    return bytes(numbers)


def _check_scan(data: bytes, start: int) -> None:
    """Passes if nothing but coded data, with restarts, comes between `start` and the end of the picture."""
    coded = np.frombuffer(data, dtype=np.uint8)[start:]
    followers = coded[1:][coded[:-1] == 0xFF]
    markers = followers[(followers != 0) & ((followers & 0xF8) != 0xD0)]
    if markers.tolist() != [END] or data.rstrip(b"\0")[-2:] != bytes((0xFF, END)):
        raise UntrustedError("a damaged picture, or several in a packet")
