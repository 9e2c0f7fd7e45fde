"""H.264: what the headers of all packets say of the order of frames, without decoding.

Every slice header of the stream is parsed to its end (all at once, with numpy), because a damaged one costs sequential
decoding a frame and shifts all that follow. Only what is provably one frame a packet is accepted: progressive frames
and unchanging parameter sets, no gaps in `frame_num`, and an order of output that the decoder's delay can hold.
Frames are found by their picture order count, not by the container's times.

Source: ITU-T H.264 (08/2021), 7.3 and 8.2.1.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ppvcli.video.headers.bits import HEADER_BYTES, BitsEndError, HeaderRows
from ppvcli.video.headers.h264_parameters import PictureParameters, SequenceParameters, parse_pps, parse_sps
from ppvcli.video.headers.h264_slices import IDR_SLICE, I, parse_slice_headers
from ppvcli.video.headers.order import CodedOrder, UntrustedError, reorder_depth
from ppvcli.video.headers.units import unescaped, units_by_length, units_by_start_code

SLICE, SEI, SPS, PPS, DELIMITER, FILLER = 1, 6, 7, 8, 9, 12
SEI_RECOVERY_POINT, SEI_DISPLAY_ORIENTATION = 6, 47
_SLICE_CHUNK = 8192


class H264Scan:
    """A `HeaderScan` of H.264, with lengths (mp4, mkv, flv) or start codes (ts, avi) before its units."""

    def __init__(self, extradata: bytes | None) -> None:
        self._length_bytes = 0
        self._sps: bytes | None = None
        self._pps: dict[bytes, PictureParameters] = {}
        self._headers: list[bytes] = []
        self._unit_bytes: list[int] = []
        """The first byte of each slice's unit: importance and kind."""
        self._slice_packets: list[int] = []
        self._is_recovery: list[bool] = []
        self._parameters: SequenceParameters | None = None
        if extradata:
            self._read_extradata(extradata)

    def feed(self, data: memoryview) -> None:
        packet = len(self._is_recovery)
        self._is_recovery.append(False)
        whole = None if self._length_bytes else bytes(data)
        num_pictures = 0
        for start, end in self._units(data) if whole is None else units_by_start_code(whole):
            kind = data[start] & 0x1F
            if kind in (SLICE, IDR_SLICE):
                if end - start < 3 or data[start] & 0x80:
                    raise UntrustedError("a damaged unit")
                if data[start + 1] & 0x80:  # begins with macroblock 0
                    num_pictures += 1
                elif not num_pictures:
                    raise UntrustedError("a picture without its first slice")
                self._headers.append(unescaped(bytes(data[start + 1 : min(end, start + 1 + HEADER_BYTES)])))
                self._unit_bytes.append(data[start])
                self._slice_packets.append(packet)
            elif kind == SEI:
                self._is_recovery[packet] |= _has_recovery_point(bytes(data[start + 1 : end]))
            elif kind in (SPS, PPS):
                self._take_parameters(bytes(data[start:end]))
            elif kind not in (DELIMITER, FILLER):
                raise UntrustedError(f"a unit of kind {kind}")
        if num_pictures != 1:
            raise UntrustedError(f"{num_pictures} pictures in a packet")

    def finish(self) -> CodedOrder:
        if self._parameters is None or not self._headers:
            raise UntrustedError("no parameter set")
        slices = [
            self._parse_slices(slice(start, start + _SLICE_CHUNK))
            for start in range(0, len(self._headers), _SLICE_CHUNK)
        ]
        fields = {name: np.concatenate([chunk[name] for chunk in slices]) for name in slices[0]}
        packets = np.array(self._slice_packets)
        is_first = np.diff(packets, prepend=-1) > 0
        for name in ("unit", "frame_num", "poc_lsb"):
            if (fields[name] != fields[name][is_first][packets]).any():
                raise UntrustedError("slices of one picture contradict each other")
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

    def _units(self, data: memoryview) -> list[tuple[int, int]]:
        if len(data) > 4 and data[0] == 1:
            raise UntrustedError("a packet that looks like a header")
        return units_by_length(data, width=self._length_bytes, least=2)

    def _take_parameters(self, unit: bytes) -> None:
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
                if self._headers:
                    raise UntrustedError("parameters that change")
                self._pps[unit] = parse_pps(unescaped(unit[1:]))
        except BitsEndError as error:
            raise UntrustedError("a damaged parameter set") from error

    def _parse_slices(self, part: slice) -> dict[str, npt.NDArray[np.int64]]:
        sets = list(self._pps.values())
        numbers = [one.pps_id for one in sets]
        if len(set(numbers)) != len(numbers) or not sets or self._parameters is None:
            raise UntrustedError("parameters that change")
        if any(one.sps_id != self._parameters.sps_id for one in sets):
            raise UntrustedError("several parameter sets")
        rows = HeaderRows(self._headers[part])
        units = np.array(self._unit_bytes[part])
        fields = parse_slice_headers(
            rows, units=units, sps=self._parameters, sets=dict(zip(numbers, sets, strict=True))
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
            pocs = _picture_order_counts(pictures["poc_lsb"], is_start, is_reference, bits=sps.poc_lsb_bits)
            period = np.cumsum(is_start)
            order = np.lexsort((pocs, period))
            same_period = np.diff(period[order]) == 0
            is_first = np.diff(period[order], prepend=0) > 0
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
    data = payload.replace(b"\0\0\3", b"\0\0")
    place, found = 0, False
    while place + 2 < len(data):
        kind = size = 0
        while place < len(data) and data[place] == 0xFF:
            kind, place = kind + 255, place + 1
        kind, place = kind + (data[place] if place < len(data) else 0), place + 1
        while place < len(data) and data[place] == 0xFF:
            size, place = size + 255, place + 1
        size, place = size + (data[place] if place < len(data) else 0), place + 1
        if kind == SEI_DISPLAY_ORIENTATION:
            raise UntrustedError("turned within the stream")
        found |= kind == SEI_RECOVERY_POINT
        place += size
    return found


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


def _picture_order_counts(
    lsb: npt.NDArray[np.int64],
    is_start: npt.NDArray[np.bool_],
    is_reference: npt.NDArray[np.bool_],
    *,
    bits: int,
) -> npt.NDArray[np.int64]:
    """Picture order counts from their lowest bits, each relative to the last reference before it (8.2.1.1)."""
    size = 1 << bits
    last = np.maximum.accumulate(np.where(is_reference, np.arange(len(lsb)), 0))
    previous = np.concatenate([[0], last[:-1]])
    step = lsb - lsb[previous]
    step += size * (step <= -size // 2) - size * (step > size // 2)
    step[is_start] = 0
    chain = np.cumsum(np.where(is_reference, step, 0))
    counts = np.where(is_reference, chain, chain[previous] + step)
    period = np.maximum.accumulate(np.where(is_start, np.arange(len(lsb)), 0))
    return counts - chain[period]
