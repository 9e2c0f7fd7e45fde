"""HEVC: the order of pictures, and what depends on what, from the sets of pictures that each tells the decoder to keep.

Source: ITU-T H.265 (08/2021), 8.3.1, 8.3.2 and C.5.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ppvcli.video.headers.hevc_parameters import SequenceParameters
from ppvcli.video.headers.hevc_slices import CRA, FIRST_KEY, IDR, LAST_KEY, RADL_N, RASL
from ppvcli.video.headers.order import BlockEnds, CodedOrder, UntrustedError, picture_order_counts, reorder_depth


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What the first slices of all pictures say."""

    packets: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int64]
    layers: npt.NDArray[np.int64]
    poc_lsb: npt.NDArray[np.int64]
    distances: npt.NDArray[np.int64]
    last_blocks: npt.NDArray[np.object_]

    def without_skipped(self) -> Pictures:
        """All but those before a cut: leading pictures of the first one, whose references are not in the file."""
        is_key = self.kinds >= FIRST_KEY
        if not is_key[0]:
            raise UntrustedError("it does not begin with a start")
        is_skipped = (np.cumsum(is_key) == 1) & np.isin(self.kinds, RASL) & (self.kinds[0] == CRA)
        return Pictures(**{name: values[~is_skipped] for name, values in vars(self).items()})


def coded_order(pictures: Pictures, *, sps: SequenceParameters, num_packets: int) -> CodedOrder:
    """The order of `pictures`, none of which is skipped, of a stream of so many packets.

    Raises: UntrustedError where FFmpeg might show another order, or where a picture is missing.
    """
    num_pictures = len(pictures.kinds)
    is_key = (pictures.kinds >= FIRST_KEY) & (pictures.kinds <= LAST_KEY)
    # the numbers of pictures count from these
    is_anchor = (pictures.layers == 0) & (is_key | ((pictures.kinds % 2 == 1) & (pictures.kinds < RADL_N)))
    is_idr = np.isin(pictures.kinds, IDR)
    pocs = picture_order_counts(pictures.poc_lsb, is_idr, is_anchor, bits=sps.poc_lsb_bits)
    period = np.cumsum(is_idr)
    order = np.lexsort((pocs, period))
    ranks = np.empty(num_pictures, dtype=np.int64)
    ranks[order] = np.arange(num_pictures)
    if ranks[0] != 0 or reorder_depth(ranks) > sps.num_reorder:
        raise UntrustedError("frames are shown in another order than decoded, further than the stream says")
    pairs = _references(pictures, pocs, is_key=is_key, sps=sps)
    is_start = find_starts(ranks, is_key, pairs)
    starts = np.flatnonzero(is_start)
    if (np.maximum.accumulate(ranks)[starts[1:] - 1] > ranks[starts[1:]]).any():
        raise UntrustedError("pictures are out of order around a key frame")
    last_start = np.maximum.accumulate(np.where(is_start, np.arange(num_pictures), 0))
    is_leading = ranks < ranks[last_start]
    is_skippable = np.isin(pictures.kinds, RASL)
    last_key = np.maximum.accumulate(np.where(is_key, np.arange(num_pictures), 0))
    is_kept = (ranks < ranks[last_key]) & (pictures.kinds[last_key] == CRA)
    if (is_leading & is_anchor).any() or (is_skippable & ~is_kept).any():
        raise UntrustedError("pictures are out of order around a key frame")
    is_reference = is_anchor.copy()
    is_reference[pairs[:, 1]] = True
    last_use = np.arange(num_pictures)
    np.maximum.at(last_use, pairs[:, 1], pairs[:, 0])
    return CodedOrder(
        ranks=ranks,
        is_start=is_start,
        is_reference=is_reference,
        packets=pictures.packets,
        spans={},
        restarts=True,
        unshown=frozenset(range(num_packets)) - frozenset(pictures.packets.tolist()),
        ends=BlockEnds(block_size=sps.block_size, last_blocks=pictures.last_blocks.tolist(), last_use=last_use),
    )


def _references(
    pictures: Pictures, pocs: npt.NDArray[np.int64], *, is_key: npt.NDArray[np.bool_], sps: SequenceParameters
) -> npt.NDArray[np.int64]:
    """int64 [pairs, 2]: (picture, one that it tells the decoder to keep), where the picture is no key picture.

    Raises: UntrustedError where one of them is missing, or where the decoder would show a frame before its turn.
    """
    pairs: list[tuple[int, int]] = []
    kept: dict[int, int] = {}
    waiting: set[int] = set()
    last_shown: float = -math.inf
    is_idr = np.isin(pictures.kinds, IDR).tolist()
    keep = [row[row != 0].tolist() for row in pictures.distances]
    for picture, poc in enumerate(pocs.tolist()):
        if is_idr[picture]:
            kept, waiting, last_shown = {}, set(), -math.inf
        elif poc in kept or poc < last_shown:
            raise UntrustedError("pictures are out of order")
        wanted = {poc + distance for distance in keep[picture]}
        num_missing = len(wanted - kept.keys())
        if num_missing and not is_key[picture]:
            raise UntrustedError("a picture is missing")
        if not is_key[picture]:
            pairs += [(picture, kept[one]) for one in wanted]
        kept = {one: number for one, number in kept.items() if one in wanted or one in waiting}
        kept[poc] = picture
        waiting.add(poc)
        wanted.add(poc)
        while len(waiting) > sps.num_reorder or (waiting and len(kept) + num_missing > sps.num_buffered):
            shown = min(waiting)
            waiting.remove(shown)
            if shown not in wanted:
                del kept[shown]
            last_shown = shown
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def find_starts(
    ranks: npt.NDArray[np.int64], is_key: npt.NDArray[np.bool_], pairs: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """The key pictures over which no picture that belongs to them reaches back."""
    is_start = is_key.copy()
    while True:
        starts = np.flatnonzero(is_start)
        if (np.diff(ranks[starts]) < 0).any():
            raise UntrustedError("pictures are out of order around a key frame")
        # of the starts before a picture in both orders, the last
        before = np.minimum(
            np.searchsorted(starts, pairs[:, 0], side="right"),
            np.searchsorted(ranks[starts], ranks[pairs[:, 0]], side="right"),
        )
        own = starts[before - 1]
        reaches_back = (pairs[:, 1] < own) | (ranks[pairs[:, 1]] < ranks[own])
        if not reaches_back.any():
            return is_start
        is_start[own[reaches_back]] = False
