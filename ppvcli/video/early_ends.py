"""Pictures whose coded data end before the picture does, where a decoder does not notice.

What such a picture leaves out shows whatever its memory held before, which depends on all that was decoded before, and
on who else held frames. So that it can be told, the last blocks of frames are painted over before the decoder gets
their memory back: paint in a new frame is a block that nobody decoded. Fresh memory is zero, which is no colour, and
memory that stood in for a missing reference is grey.
"""

from __future__ import annotations

from collections.abc import Iterator

import av
import numpy as np

from ppvcli.video.headers.order import CodedOrder, UntrustedError

NUM_PAINTED = 8
"""So many samples in the middle of a block are painted: black, white, black, ..."""

TOLERANCE = 8
"""How far the filters of a decoder may change a sample that was not decoded, of 8 bits; none in a picture's last block.
"""


class EarlyEnds:
    """Holds each frame until no other depends on it any more, and looks at the new ones."""

    def __init__(self, order: CodedOrder) -> None:
        self._ends = order.ends
        self._pictures = np.argsort(order.ranks)
        self._held: dict[int, av.VideoFrame] = {}
        self._depths: dict[str, int] = {}
        """Pixel format -> bits of a sample."""

    def check(self, frame: av.VideoFrame) -> None:
        """Takes a frame whose time is its number. Raises: UntrustedError where one of its blocks is missing."""
        if self._ends is None or frame.pts is None:
            return
        picture = int(self._pictures[frame.pts])
        self._held[picture] = frame
        depth = self._depth(frame)
        luma_plane, *chroma_planes = frame.planes
        spots = list(self._spots(frame, picture))
        for number, (left, top, count) in enumerate(spots, start=1):
            tolerance = TOLERANCE << (depth - 8) if number < len(spots) else 0
            luma = _samples(luma_plane, left, top, count=count, depth=depth).tolist()
            plain = luma.copy()
            for plane in chroma_planes:
                place = left * plane.width // frame.width, top * plane.height // frame.height
                plain += _samples(plane, *place, count=1, depth=depth)
            if (
                max(plain) <= tolerance
                or _are_near(plain, [1 << depth - 1] * len(plain), tolerance)
                or _are_near(luma, _paint(count, depth=depth), tolerance)
            ):
                raise UntrustedError("a picture that ends early")

    def release(self, packet: av.Packet | None) -> None:
        """Gives back the frames that nothing depends on once `packet` is decoded; all of them, if it is None."""
        if self._ends is None:
            return
        picture = len(self._pictures) if packet is None or packet.pts is None else int(self._pictures[packet.pts])
        for number in [number for number in self._held if self._ends.last_use[number] < picture]:
            frame = self._held.pop(number)
            depth = self._depth(frame)
            plane = frame.planes[0]
            for left, top, count in self._spots(frame, number):
                samples = _samples(plane, left, top, count=count, depth=depth)
                for place, value in enumerate(_paint(count, depth=depth)):
                    samples[place] = value

    def _depth(self, frame: av.VideoFrame) -> int:
        name = frame.format.name
        if name not in self._depths:
            self._depths[name] = frame.format.components[0].bits
        return self._depths[name]

    def _spots(self, frame: av.VideoFrame, picture: int) -> Iterator[tuple[int, int, int]]:
        """(left, top, number) of the samples in the middle of each slice's last block."""
        assert self._ends is not None
        size = self._ends.block_size
        for left, top in self._ends.last_blocks[picture]:
            right, bottom = min(left + size, frame.width), min(top + size, frame.height)
            count = min(right - left, NUM_PAINTED)
            if count < 1 or bottom <= top:
                raise UntrustedError("a last block that is not shown")
            yield (left + right - count) // 2, (top + bottom) // 2, count


def _samples(plane: av.video.plane.VideoPlane, left: int, top: int, *, count: int, depth: int) -> memoryview:
    """Some samples of a plane, where they are in memory."""
    memory = memoryview(plane)
    width = plane.line_size
    if depth > 8:
        memory, width = memory.cast("H"), width // 2
    first = top * width + left
    return memory[first : first + count]


def _paint(count: int, *, depth: int) -> list[int]:
    return [place % 2 * ((1 << depth) - 1) for place in range(count)]


def _are_near(samples: list[int], others: list[int], tolerance: int) -> bool:
    return all(abs(one - other) <= tolerance for one, other in zip(samples, others, strict=True))
