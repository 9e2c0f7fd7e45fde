"""What a plan has to know of a stream: its coded pictures, in the order of decoding and in that of showing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt


class UntrustedError(Exception):
    """The headers of a stream don't say for certain what sequential decoding yields; the message says why."""

    def __init__(self, message: str, *, num_frames: int | None = None) -> None:
        super().__init__(message)
        self.num_frames = num_frames
        """How many frames there are by the packets, where that is known better than from the header."""


@dataclass(frozen=True, kw_only=True)
class BlockEnds:
    """Where the coded data of pictures end, for a decoder that does not notice when they end early."""

    block_size: int
    last_blocks: list[tuple[tuple[int, int], ...]]
    """(left, top) of the last block of each slice, for every picture."""
    last_use: npt.NDArray[np.int64]
    """int64 [N]: the last picture in the order of decoding that depends on this one, or itself."""


@dataclass(frozen=True, kw_only=True)
class CodedOrder:
    """The coded pictures of a stream in the order of decoding; each yields exactly one frame."""

    ranks: npt.NDArray[np.int64]
    """int64 [N]: the number of the frame that each picture becomes; a permutation of 0 to N - 1."""
    is_start: npt.NDArray[np.bool_]
    """bool [N]: nothing that is shown after this picture depends on anything decoded before it."""
    is_reference: npt.NDArray[np.bool_]
    """bool [N]: other pictures may depend on it. The rest may be left out without changing any other frame."""
    packets: npt.NDArray[np.int64]
    """int64 [N]: where the picture is: the number of its packet."""
    spans: dict[int, tuple[int, int]]
    """Pictures that are not a whole packet: picture -> (first byte, end)."""
    num_lead: int = 1
    """So many pictures at the start are always decoded: from them a decoder learns what it needs for all others."""
    leaks_damage: bool = False
    """A damaged picture may change any that is decoded later, also after a start: none before may be left out."""
    hides_loss: bool = False
    """A damaged reference may swallow another picture, which only decoding all references brings to light."""
    restarts: bool = False
    """A picture's place in the order follows from the pictures before it: where they are left out, the decoder begins
    anew with the next start."""
    unshown: frozenset[int] = frozenset()
    """Packets whose picture becomes no frame."""
    ends: BlockEnds | None = None
    """None where the decoder notices itself what is missing."""

    @property
    def num_frames(self) -> int:
        return len(self.ranks)


class HeaderScan(Protocol):
    """Looks at every packet of a stream once, at headers only."""

    def feed(self, packets: Sequence[bytes]) -> None:
        """Takes the next packets, one or more. Raises: UntrustedError."""

    def finish(self) -> CodedOrder:
        """The pictures of all packets. Raises: UntrustedError."""


def picture_order_counts(
    lsb: npt.NDArray[np.int64],
    is_idr: npt.NDArray[np.bool_],
    is_anchor: npt.NDArray[np.bool_],
    *,
    bits: int,
) -> npt.NDArray[np.int64]:
    """int64 [N]: picture order counts from their lowest `bits`; they begin at 0 with every IDR picture, and the first.

    Each is relative to the last anchor before it: in H.264 a reference picture (8.2.1.1), in HEVC one of temporal layer
    0 that others of its layer may refer to and that is no leading picture (8.3.1). So IDR pictures are anchors.
    """
    size, numbers = 1 << bits, np.arange(len(lsb))
    last = np.maximum.accumulate(np.where(is_anchor, numbers, 0))
    previous = np.concatenate([[0], last[:-1]])
    step = lsb - lsb[previous]
    step += size * (step <= -size // 2) - size * (step > size // 2)
    step[is_idr] = 0
    chain = np.cumsum(np.where(is_anchor, step, 0))
    counts = np.where(is_anchor, chain, chain[previous] + step)
    period = np.maximum.accumulate(np.where(is_idr, numbers, 0))
    return counts - chain[period]


def reorder_depth(ranks: npt.NDArray[np.int64]) -> int:
    """The most pictures that are decoded before one and shown after it: what a decoder has to hold back.

    Raises: UntrustedError where pictures are too far out of order for any decoder.
    """
    shifts = ranks - np.arange(len(ranks))
    window = int(shifts.max(initial=0) - shifts.min(initial=0))
    if window > 64:
        raise UntrustedError("pictures are far out of order")
    held = np.zeros(len(ranks), dtype=np.int64)
    for distance in range(1, window + 1):
        held[distance:] += ranks[:-distance] > ranks[distance:]
    return int(held.max(initial=0))
