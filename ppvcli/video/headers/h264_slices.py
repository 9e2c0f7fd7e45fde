"""H.264: slice headers, all of a stream at once, each to its last field.

Source: ITU-T H.264 (08/2021), 7.3.3.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ppvcli.video.headers.bits import HeaderRows, Rows
from ppvcli.video.headers.h264_parameters import PictureParameters, SequenceParameters

IDR_SLICE = 5
"""The kind of unit that a slice of an IDR picture is."""
P, B, I = 0, 1, 2  # noqa: E741 (their names)


def parse_slice_headers(
    rows: HeaderRows,
    *,
    units: npt.NDArray[np.int64],
    sps: SequenceParameters,
    sets: dict[int, PictureParameters],
) -> dict[str, npt.NDArray[np.int64]]:
    """Reads all slice headers to their end; what a decoder would refuse is marked bad."""
    everyone = rows.all
    first_block = rows.ue(everyone)
    slice_type = rows.ue(everyone)
    rows.mark_bad(everyone[(slice_type > 9) | (slice_type % 5 > I)])
    slice_type %= 5
    pps_ids = rows.ue(everyone)
    frame_num = rows.u(everyone, sps.frame_num_bits)
    is_idr = (units & 0x1F) == IDR_SLICE
    rows.ue(everyone[is_idr])
    poc_lsb = rows.u(everyone, sps.poc_lsb_bits) if sps.poc_type == 0 else np.zeros(len(everyone), dtype=np.int64)
    has_set = np.zeros(len(everyone), dtype=bool)
    for number, pps in sets.items():
        is_of_set = pps_ids == number
        has_set |= is_of_set
        chosen = everyone[is_of_set]
        if len(chosen):
            _parse_rest(rows, chosen, pps=pps, sps=sps, slice_type=slice_type, units=units, is_idr=is_idr)
    rows.mark_bad(everyone[~has_set])
    return {
        "unit": units,
        "first_block": first_block,
        "slice_type": slice_type,
        "frame_num": frame_num,
        "poc_lsb": poc_lsb,
    }


def _parse_rest(
    rows: HeaderRows,
    chosen: Rows,
    *,
    pps: PictureParameters,
    sps: SequenceParameters,
    slice_type: npt.NDArray[np.int64],
    units: npt.NDArray[np.int64],
    is_idr: npt.NDArray[np.bool_],
) -> None:
    if sps.poc_type == 0 and pps.has_bottom_poc:
        rows.mark_bad(chosen[rows.se(chosen) < 0])
    if pps.has_redundant_count:
        rows.mark_bad(chosen[rows.ue(chosen) > 0])
    b_slices, inter = chosen[slice_type[chosen] == B], chosen[slice_type[chosen] != I]
    rows.u(b_slices, 1)
    num_refs = _read_num_refs(rows, inter, b_slices, pps=pps)
    _read_reordered_refs(rows, inter, limits=num_refs[0])
    _read_reordered_refs(rows, b_slices, limits=num_refs[1])
    p_slices = inter[slice_type[inter] == P]
    weighted = np.concatenate(
        [p_slices if pps.weighted else p_slices[:0], b_slices if pps.weighted_b else b_slices[:0]]
    )
    if len(weighted):
        _read_weights(rows, weighted, num_refs=num_refs, is_b=slice_type == B, has_chroma=sps.has_chroma)
    _read_marking(rows, chosen[(units[chosen] & 0x60) > 0], is_idr=is_idr)
    if pps.cabac:
        rows.mark_bad(inter[rows.ue(inter) > 2])
    qp = pps.initial_qp + rows.se(chosen)
    rows.mark_bad(chosen[(qp < 0) | (qp > 51)])
    if pps.has_deblocking:
        mode = rows.ue(chosen)
        rows.mark_bad(chosen[mode > 2])
        filtered = chosen[mode != 1]
        for _ in range(2):
            rows.mark_bad(filtered[np.abs(rows.se(filtered)) > 6])


def _read_num_refs(
    rows: HeaderRows, inter: Rows, b_slices: Rows, *, pps: PictureParameters
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The lengths of both lists of references, for every row; 0 where there is none."""
    first = np.zeros(len(rows.all), dtype=np.int64)
    second = np.zeros(len(rows.all), dtype=np.int64)
    first[inter], second[b_slices] = pps.num_refs
    is_b = np.zeros(len(rows.all), dtype=bool)
    is_b[b_slices] = True
    override = inter[rows.flag(inter)]
    first[override] = rows.ue(override) + 1
    override = override[is_b[override]]
    second[override] = rows.ue(override) + 1
    rows.mark_bad(rows.all[np.maximum(first, second) > 16])
    return np.minimum(first, 16), np.minimum(second, 16)


def _read_reordered_refs(rows: HeaderRows, chosen: Rows, *, limits: npt.NDArray[np.int64]) -> None:
    active = chosen[rows.flag(chosen)]
    count = 0
    while len(active):
        kind = rows.ue(active)
        rows.mark_bad(active[(kind > 3) | ((kind != 3) & (count >= limits[active]))])
        active = active[(kind < 3) & (count < limits[active])]
        rows.ue(active)
        count += 1


def _read_weights(
    rows: HeaderRows,
    weighted: Rows,
    *,
    num_refs: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    is_b: npt.NDArray[np.bool_],
    has_chroma: bool,
) -> None:
    for _ in range(2 if has_chroma else 1):
        rows.mark_bad(weighted[rows.ue(weighted) > 7])
    for chosen, lengths in ((weighted, num_refs[0]), (weighted[is_b[weighted]], num_refs[1])):
        for index in range(int(lengths[chosen].max(initial=0))):
            active = chosen[lengths[chosen] > index]
            for num_values in (2, 4) if has_chroma else (2,):
                explicit = active[rows.flag(active)]
                for _ in range(num_values if len(explicit) else 0):
                    value = rows.se(explicit)
                    rows.mark_bad(explicit[(value < -128) | (value > 127)])


def _read_marking(rows: HeaderRows, references: Rows, *, is_idr: npt.NDArray[np.bool_]) -> None:
    starts, others = references[is_idr[references]], references[~is_idr[references]]
    rows.mark_bad(starts[rows.u(starts, 2) > 0])  # drops frames that were not shown yet; a long-term start
    active = others[rows.flag(others)]
    for _ in range(34):
        if not len(active):
            return
        kind = rows.ue(active)
        rows.mark_bad(active[(kind > 6) | (kind == 5)])  # 5 is a start in disguise
        active = active[(kind > 0) & (kind < 7) & (kind != 5)]
        kind = kind[(kind > 0) & (kind < 7) & (kind != 5)]
        rows.ue(active)
        rows.ue(active[kind == 3])
    rows.mark_bad(active)
