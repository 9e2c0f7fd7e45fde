"""H.264: what the headers of all packets say of the order of frames, without decoding.

Every slice header of the stream is parsed to its end (all at once, with numpy), because a damaged one costs sequential
decoding a frame and shifts all that follow. Only what is provably one frame a packet is accepted: progressive frames
and unchanging parameter sets, no gaps in `frame_num`, and an order of output that the decoder's delay can hold.
Frames are found by their picture order count, not by the container's times.

Source: ITU-T H.264 (08/2021), 7.3 and 8.2.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter

import numpy as np
import numpy.typing as npt

from ppvcli.video.headers.bits import BitsEndError, HeaderRows
from ppvcli.video.headers.h264_parameters import PictureParameters, SequenceParameters, parse_pps, parse_sps
from ppvcli.video.headers.h264_slices import IDR_SLICE, I, parse_slice_headers
from ppvcli.video.headers.order import CodedOrder, UntrustedError, picture_order_counts, reorder_depth
from ppvcli.video.headers.units import (
    HEADER_BYTES,
    Units,
    begins_run,
    check_pictures,
    messages,
    split_units,
    unescaped,
    units_by_start_code,
)

SLICE, SEI, SPS, PPS, DELIMITER, FILLER = 1, 6, 7, 8, 9, 12
SEI_RECOVERY_POINT, SEI_DISPLAY_ORIENTATION = 6, 47


class H264Scan:
    """A `HeaderScan` of H.264, with lengths (mp4, mkv, flv) or start codes (ts, avi) before its units."""

    def __init__(self, extradata: bytes | None) -> None:
        self._length_bytes = 0
        self._sps: bytes | None = None
        self._pps: dict[bytes, PictureParameters] = {}
        self._parameters: SequenceParameters | None = None
        self._slices: list[dict[str, npt.NDArray[np.int64]]] = []
        """What the slices of some packets say, one row a slice."""
        self._is_recovery: list[bool] = []
        """Whether decoding may begin at each packet, as a message says."""
        if extradata:
            self._read_extradata(extradata)

    def feed(self, packets: Sequence[bytes]) -> None:
        if self._length_bytes and 1 in map(itemgetter(0), packets):
            raise UntrustedError("a packet that looks like a header")
        units = split_units(packets, width=self._length_bytes, least=2)
        kinds = units.data[units.starts] & 0x1F
        is_slice = (kinds == SLICE) | (kinds == IDR_SLICE)
        slices = np.flatnonzero(is_slice)
        first_slice = slices.min(initial=len(kinds))
        num_packets = len(self._is_recovery)
        self._is_recovery += [False] * len(packets)
        for number in np.flatnonzero(~is_slice).tolist():
            kind = int(kinds[number])
            if kind == SEI:
                packet = num_packets + int(units.packets[number])
                self._is_recovery[packet] |= _has_recovery_point(units.content(number)[1:])
            elif kind in (SPS, PPS):
                self._take_parameters(units.content(number), is_late=bool(self._slices) or number > first_slice)
            elif kind not in (DELIMITER, FILLER):
                raise UntrustedError(f"a unit of kind {kind}")
        if (units.ends[slices] - units.starts[slices] < 3).any() or (units.data[units.starts[slices]] & 0x80).any():
            raise UntrustedError("a damaged unit")
        begins_picture = units.data[units.starts[slices] + 1] >= 0x80  # its first macroblock is number 0
        check_pictures(units.packets[slices], begins_picture, num_packets=len(packets))
        fields = self._parse_slices(units, slices)
        self._slices.append({**fields, "packet": num_packets + units.packets[slices]})

    def finish(self) -> CodedOrder:
        if not self._slices:
            raise UntrustedError("no parameter set")
        fields = {name: np.concatenate([part[name] for part in self._slices]) for name in self._slices[0]}
        packets = fields["packet"]
        is_first = begins_run(packets)
        for name in ("unit", "frame_num", "poc_lsb"):
            if (fields[name] != fields[name][is_first][packets]).any():
                raise UntrustedError("slices of one picture contradict each other")
        # of a slice that is there twice the decoder counts all blocks, and takes those of a lost one for decoded
        if (np.diff(fields["first_block"])[~is_first[1:]] <= 0).any():
            raise UntrustedError("slices out of order")
        intra = np.logical_and.reduceat(fields["slice_type"] == I, np.flatnonzero(is_first))
        pictures = {name: values[is_first] for name, values in fields.items()}
        return self._order(pictures, intra=intra)

    def _read_extradata(self, extradata: bytes) -> None:
        if extradata[0] != 1:
            for start, end in units_by_start_code(extradata):
                self._take_parameters(extradata[start:end])
            return
        self._length_bytes = (extradata[4] & 3) + 1 if len(extradata) > 6 else 0
        if self._length_bytes not in (1, 2, 4):
            raise UntrustedError("a damaged header")
        place = 5
        for mask in (0x1F, 0xFF):
            count = extradata[place] & mask if place < len(extradata) else 0
            place += 1
            for _ in range(count):
                length = int.from_bytes(extradata[place : place + 2], "big")
                self._take_parameters(extradata[place + 2 : place + 2 + length])
                place += 2 + length

    def _take_parameters(self, unit: bytes, *, is_late: bool = False) -> None:
        """`is_late` says that a slice came before."""
        unit = unit.rstrip(b"\0")
        if not unit:
            raise UntrustedError("an empty unit")
        try:
            if unit[0] & 0x1F == SPS:
                if self._sps is None:
                    self._sps, self._parameters = unit, parse_sps(unescaped(unit[1:]))
                elif self._sps != unit:
                    raise UntrustedError("parameters that change")
            elif unit[0] & 0x1F == PPS and unit not in self._pps:
                if is_late:
                    raise UntrustedError("parameters that change")
                self._pps[unit] = parse_pps(unescaped(unit[1:]))
        except BitsEndError as error:
            raise UntrustedError("a damaged parameter set") from error

    def _parse_slices(self, units: Units, slices: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.int64]]:
        sets = list(self._pps.values())
        numbers = [one.pps_id for one in sets]
        if len(set(numbers)) != len(numbers) or not sets or self._parameters is None:
            raise UntrustedError("parameters that change")
        if any(one.sps_id != self._parameters.sps_id for one in sets):
            raise UntrustedError("several parameter sets")
        rows = HeaderRows(*units.headers(slices, skip=1, num_bytes=HEADER_BYTES))
        fields = parse_slice_headers(
            rows,
            units=units.data[units.starts[slices]].astype(np.int64),
            sps=self._parameters,
            sets=dict(zip(numbers, sets, strict=True)),
        )
        if rows.bad.any():
            raise UntrustedError("a damaged slice header")
        return fields

    def _order(self, pictures: dict[str, npt.NDArray[np.int64]], *, intra: npt.NDArray[np.bool_]) -> CodedOrder:
        sps = self._parameters
        assert sps is not None
        is_start = (pictures["unit"] & 0x1F) == IDR_SLICE
        is_reference = (pictures["unit"] & 0x60) > 0
        _check_frame_numbers(pictures["frame_num"], is_start, is_reference, bits=sps.frame_num_bits)
        if (is_start & ~intra).any():
            raise UntrustedError("a start that is not intra-coded")
        num_pictures = len(is_start)
        if sps.poc_type == 2:
            ranks = np.arange(num_pictures)
        else:
            pocs = picture_order_counts(pictures["poc_lsb"], is_start, is_reference, bits=sps.poc_lsb_bits)
            period = np.cumsum(is_start)
            order = np.lexsort((pocs, period))
            same_period = np.diff(period[order]) == 0
            is_first = begins_run(period[order])
            if (np.diff(pocs[order])[same_period] <= 0).any() or not is_start[order[is_first]].all():
                raise UntrustedError("two pictures with one place in the order")
            ranks = np.empty(num_pictures, dtype=np.int64)
            ranks[order] = np.arange(num_pictures)
        depth = reorder_depth(ranks)
        if depth and (sps.num_reorder_frames is None or depth > sps.num_reorder_frames):
            raise UntrustedError("frames are shown in another order than decoded, and the stream does not say how far")
        # The decoder searches for the next frame to show no further than to the next picture it takes for a key frame
        keys = (intra | np.array(self._is_recovery)) & ~is_start
        if depth and keys.any():
            before = np.maximum.accumulate(ranks)[np.flatnonzero(keys) - 1]
            after = np.minimum.accumulate(ranks[::-1])[::-1][keys]
            if (before > after).any():
                raise UntrustedError("pictures are out of order around a key frame")
        return CodedOrder(
            ranks=ranks,
            is_start=is_start,
            is_reference=is_reference,
            packets=np.arange(num_pictures),
            spans={},
            # An error within a block coded with CAVLC leaves coefficients behind in the decoder, which are added
            # to the next block at that place, in whatever frame. CABAC finds its errors before it reads coefficients.
            leaks_damage=not all(pps.cabac for pps in self._pps.values()),
        )


def _has_recovery_point(payload: bytes) -> bool:
    """Whether a message says that decoding may begin here. Raises: UntrustedError for one that turns the picture."""
    kinds = [kind for kind, _ in messages(payload)]
    if SEI_DISPLAY_ORIENTATION in kinds:
        raise UntrustedError("turned within the stream")
    return SEI_RECOVERY_POINT in kinds


def _check_frame_numbers(
    frame_num: npt.NDArray[np.int64],
    is_start: npt.NDArray[np.bool_],
    is_reference: npt.NDArray[np.bool_],
    *,
    bits: int,
) -> None:
    """Passes where no picture is missing. Raises: UntrustedError."""
    if not is_start[0] or not is_reference[is_start].all() or frame_num[is_start].any():
        raise UntrustedError("it does not begin with a start")
    # the number of the last reference before each picture
    last = np.maximum.accumulate(np.where(is_reference, np.arange(len(frame_num)), 0))
    expected = (frame_num[last[:-1]] + 1) % (1 << bits)
    if (frame_num[1:] != expected)[~is_start[1:]].any():
        raise UntrustedError("a picture is missing")
