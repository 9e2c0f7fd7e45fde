"""HEVC: what the headers of all packets say of the order of frames, without decoding.

Every slice header of the stream is parsed to its end, and the set of pictures that it tells the decoder to keep is
followed through the stream as the decoder would: no picture may be missing from it, none may be shown out of order.
A key picture is a start if none of these sets reaches back over it.

Source: ITU-T H.265 (08/2021), 7.3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ppvcli.video.headers.bits import BitsEndError, HeaderRows
from ppvcli.video.headers.hevc_order import Pictures, coded_order
from ppvcli.video.headers.hevc_parameters import PictureParameters, SequenceParameters, parse_pps, parse_sps, parse_vps
from ppvcli.video.headers.hevc_slices import CRA, IDR, SliceHeaders, parse_slice_headers
from ppvcli.video.headers.order import CodedOrder, UntrustedError
from ppvcli.video.headers.units import (
    HEADER_BYTES,
    MOST_HEADER_BYTES,
    Units,
    begins_run,
    check_pictures,
    messages,
    split_units,
    unescaped,
    units_by_start_code,
)

SLICES = (*range(10), *IDR, CRA)
VPS, SPS, PPS, DELIMITER, FILLER, PREFIX_SEI, SUFFIX_SEI, DOLBY_VISION = 32, 33, 34, 35, 38, 39, 40, 62
ROW_BYTES = 4
"""What a slice header needs at most to say where a row of blocks begins, if it does."""

SEI_FRAME_TIMING, SEI_REGISTERED = 1, 4
HARMLESS_SEI = {0, SEI_FRAME_TIMING, SEI_REGISTERED, 5, 6, 45, 128, 129, 130, 132, 136, 137, 144, 148}
"""Kinds of messages that change no pixel and no order: times, users' data, hashes, brightness; and points to recover
from, which FFmpeg heeds only where a stream does not begin with a key picture."""
HARMLESS_REGISTERED = (b"\xb5\x00\x3c", b"\xb5\x00\x31")
"""Beginnings of registered messages: brightness (HDR10+), captions."""


class HevcScan:
    """A `HeaderScan` of HEVC, with lengths (mp4, mkv) or start codes (ts) before its units."""

    def __init__(self, extradata: bytes | None) -> None:
        self._length_bytes = 0
        self._parameter_units: dict[int, set[bytes]] = {VPS: set(), SPS: set(), PPS: set()}
        self._vps: tuple[int, int] | None = None
        self._sps: SequenceParameters | None = None
        self._pps: dict[int, PictureParameters] = {}
        self._header_bytes = HEADER_BYTES
        self._slices: list[dict[str, npt.NDArray[np.int64]]] = []
        """What the slices of some packets say, one row a slice."""
        self._num_packets = 0
        if extradata:
            self._read_extradata(extradata)

    def feed(self, packets: Sequence[bytes]) -> None:
        units = split_units(packets, width=self._length_bytes, least=3)
        heads = np.stack([units.data[units.starts], units.data[units.starts + 1]], axis=1)
        kinds = _unit_kinds(heads)
        is_slice = np.isin(kinds, SLICES)
        slices = np.flatnonzero(is_slice)
        first_slice = slices.min(initial=len(kinds))
        for number in np.flatnonzero(~is_slice).tolist():
            self._take_unit(
                int(kinds[number]), units.content(number), is_late=bool(self._slices) or number > first_slice
            )
        begins_picture = units.data[units.starts[slices] + 2] >= 0x80
        check_pictures(units.packets[slices], begins_picture, num_packets=len(packets))
        fields = vars(self._parse_slices(units, slices, kinds=kinds[slices]))
        del fields["used"]  # memory: a stream may have a million slices
        self._slices.append(
            {
                **fields,
                "packet": self._num_packets + units.packets[slices],
                "kind": kinds[slices],
                "layer": heads[slices, 1].astype(np.int64) - 1,
            }
        )
        self._num_packets += len(packets)

    def finish(self) -> CodedOrder:
        if self._sps is None or not self._slices:
            raise UntrustedError("no parameter set")
        slices = {name: np.concatenate([part[name] for part in self._slices]) for name in self._slices[0]}
        packets = slices["packet"]
        is_first = begins_run(packets)
        slices["poc_lsb"] = np.where(slices["is_dependent"], slices["poc_lsb"][is_first][packets], slices["poc_lsb"])
        for name in ("kind", "layer", "pps_ids", "poc_lsb"):
            if (slices[name] != slices[name][is_first][packets]).any():
                raise UntrustedError("slices of one picture contradict each other")
        if (slices["is_first"] != is_first).any() or (np.diff(slices["addresses"])[~is_first[1:]] <= 0).any():
            raise UntrustedError("a picture without its first slice, or with slices out of order")
        pictures = Pictures(
            packets=packets[is_first],
            kinds=slices["kind"][is_first],
            layers=slices["layer"][is_first],
            poc_lsb=slices["poc_lsb"][is_first],
            distances=slices["distances"][is_first],
            last_blocks=_last_blocks(slices["addresses"], is_first, sps=self._sps),
        )
        return coded_order(pictures.without_skipped(), sps=self._sps, num_packets=self._num_packets)

    def _read_extradata(self, extradata: bytes) -> None:
        if len(extradata) < 23 or extradata[0] != 1:
            for start, end in units_by_start_code(extradata):
                self._take_unit(_unit_kind(extradata[start:end]), extradata[start:end])
            return
        self._length_bytes = (extradata[21] & 3) + 1
        if self._length_bytes == 3:  # the standard has none
            raise UntrustedError("a damaged header")
        place = 23
        for _ in range(extradata[22]):
            kind, count = extradata[place : place + 1], int.from_bytes(extradata[place + 1 : place + 3], "big")
            place += 3
            for _ in range(count):
                start, place = place + 2, place + 2 + int.from_bytes(extradata[place : place + 2], "big")
                unit = extradata[start:place]
                if place > len(extradata) or _unit_kind(unit) != kind[0] & 0x3F or b"\0\0\1" in unit:
                    raise UntrustedError("a damaged header")
                self._take_unit(kind[0] & 0x3F, unit)
        if place != len(extradata):
            raise UntrustedError("a damaged header")

    def _take_unit(self, kind: int, unit: bytes, *, is_late: bool = False) -> None:
        """Takes what is no slice; `is_late` says that a slice came before."""
        if kind in (VPS, SPS, PPS):
            self._take_parameters(kind, unit.rstrip(b"\0"), is_late=is_late)
        elif kind == PREFIX_SEI:
            self._check_messages(unit[2:])
        elif kind not in (SUFFIX_SEI, DELIMITER, FILLER, DOLBY_VISION):
            raise UntrustedError(f"a unit of kind {kind}")

    def _take_parameters(self, kind: int, unit: bytes, *, is_late: bool) -> None:
        known = self._parameter_units[kind]
        if unit in known:
            return
        if is_late or (known and kind != PPS):
            raise UntrustedError("parameters that change")
        known.add(unit)
        try:
            if kind == VPS:
                self._vps = parse_vps(unescaped(unit[2:]))
            elif kind == SPS:
                self._sps = parse_sps(unescaped(unit[2:]))
                if self._vps is None or self._sps.vps_id != self._vps[0] or self._sps.num_sub_layers > self._vps[1]:
                    raise UntrustedError("parameters that don't belong together")
            else:
                pps = parse_pps(unescaped(unit[2:]))
                if pps.pps_id in self._pps or self._sps is None or pps.sps_id != self._sps.sps_id:
                    raise UntrustedError("parameters that don't belong together")
                self._pps[pps.pps_id] = pps
                if pps.has_tiles or pps.has_wavefronts:
                    num_rows = self._sps.num_blocks // self._sps.num_columns
                    self._header_bytes = min(HEADER_BYTES + ROW_BYTES * num_rows, MOST_HEADER_BYTES)
        except BitsEndError as error:
            raise UntrustedError("a damaged parameter set") from error

    def _check_messages(self, payload: bytes) -> None:
        """Passes if no message changes how frames are shown."""
        for kind, content in messages(payload):
            if kind not in HARMLESS_SEI:
                raise UntrustedError(f"a message of kind {kind}")
            if kind == SEI_REGISTERED and not content.startswith(HARMLESS_REGISTERED):
                raise UntrustedError("a message that is not read here")
            if kind == SEI_FRAME_TIMING and content[:1] >= b"\x10" and self._sps and self._sps.has_field_info:
                raise UntrustedError("interlaced")

    def _parse_slices(
        self, units: Units, slices: npt.NDArray[np.int64], *, kinds: npt.NDArray[np.int64]
    ) -> SliceHeaders:
        if self._sps is None:
            raise UntrustedError("no parameter set")
        headers, sizes = units.headers(slices, skip=2, num_bytes=self._header_bytes)
        # a whole unit has at least one byte more than its header
        for row in np.flatnonzero(units.ends[slices] - units.starts[slices] - 2 <= self._header_bytes).tolist():
            sizes[row] = max(len(headers[row, : sizes[row]].tobytes().rstrip(b"\0")) - 1, 0)
        rows = HeaderRows(headers, sizes)
        found = parse_slice_headers(rows, kinds=kinds, sps=self._sps, sets=self._pps)
        if rows.bad.any():
            raise UntrustedError("a damaged slice header")
        return found


def _unit_kind(head: bytes) -> int:
    """The kind of a unit. Raises: UntrustedError for another layer, and for what can't be a unit."""
    if len(head) < 2:
        raise UntrustedError("a damaged unit")
    return int(_unit_kinds(np.frombuffer(head[:2], dtype=np.uint8)[np.newaxis])[0])


def _unit_kinds(heads: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """The kinds of units from their first two bytes, uint8 [N, 2]. Raises: as `_unit_kind`."""
    first, second = heads[:, 0], heads[:, 1]
    if (first & 0x81).any() or (second & 0xF8).any() or not (second & 7).all():
        raise UntrustedError("several layers, or a damaged unit")
    return (first >> 1).astype(np.int64)


def _last_blocks(
    addresses: npt.NDArray[np.int64], is_first: npt.NDArray[np.bool_], *, sps: SequenceParameters
) -> npt.NDArray[np.object_]:
    """For each picture the (left, top) of the last block of each of its slices."""
    numbers = (np.append(addresses[1:], 0) - 1) % sps.num_blocks  # the first slice of the next picture begins with 0
    places = [
        (number % sps.num_columns * sps.block_size, number // sps.num_columns * sps.block_size)
        for number in numbers.tolist()
    ]
    bounds = [*np.flatnonzero(is_first).tolist(), len(places)]
    pictures = np.empty(len(bounds) - 1, dtype=np.object_)
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        pictures[number] = tuple(places[start:end])
    return pictures
