"""HEVC: slice headers, all of a stream at once, each to its last field.

Source: ITU-T H.265 (08/2021), 7.3.6 and 7.4.8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ppvcli.video.headers.bits import HeaderRows, Rows
from ppvcli.video.headers.hevc_parameters import PictureParameters, SequenceParameters

B, P, I = 0, 1, 2  # noqa: E741 (their names)
FIRST_KEY, LAST_KEY = 16, 23
"""The kinds of unit that are slices of a picture where decoding can start (IRAP)."""
RADL_N, RASL, IDR, CRA = 6, (8, 9), (19, 20), 21
MOST_REFS = 16

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class SliceHeaders:
    """What slices say that the order of frames depends on, one row a slice; a dependent slice says nothing."""

    is_first: Flags
    is_dependent: Flags
    pps_ids: npt.NDArray[np.int64]
    addresses: npt.NDArray[np.int64]
    """int64 [N]: the number of the first block."""
    poc_lsb: npt.NDArray[np.int64]
    distances: npt.NDArray[np.int32]
    """int32 [N, 32]: where in the order of output the pictures to keep are, counted from this one; 0 is none."""
    used: Flags
    """bool [N, 32], for the parser alone: whether the picture itself may refer to them."""


def parse_slice_headers(
    rows: HeaderRows,
    *,
    kinds: npt.NDArray[np.int64],
    sps: SequenceParameters,
    sets: dict[int, PictureParameters],
) -> SliceHeaders:
    """Reads all slice headers to their end; what a decoder would refuse is marked bad."""
    everyone = rows.all
    count = len(everyone)
    is_first = rows.flag(everyone)
    keys = everyone[(kinds >= FIRST_KEY) & (kinds <= LAST_KEY)]
    rows.mark_bad(keys[rows.flag(keys)])  # drops frames that were not shown yet
    pps_ids = rows.ue(everyone)
    rows.mark_bad(everyone[~np.isin(pps_ids, list(sets))])
    headers = SliceHeaders(
        is_first=is_first,
        is_dependent=np.zeros(count, dtype=bool),
        pps_ids=pps_ids,
        addresses=np.zeros(count, dtype=np.int64),
        poc_lsb=np.zeros(count, dtype=np.int64),
        distances=np.zeros((count, 2 * MOST_REFS), dtype=np.int32),
        used=np.zeros((count, 2 * MOST_REFS), dtype=bool),
    )
    for number, pps in sets.items():
        chosen = everyone[pps_ids == number]
        if len(chosen):
            _read_address(rows, chosen[~is_first[chosen]], pps=pps, sps=sps, headers=headers)
            _read_whole(rows, chosen[~headers.is_dependent[chosen]], pps=pps, sps=sps, headers=headers, kinds=kinds)
            _read_end(rows, chosen, pps=pps)
    return headers


def _read_address(
    rows: HeaderRows, others: Rows, *, pps: PictureParameters, sps: SequenceParameters, headers: SliceHeaders
) -> None:
    if pps.has_dependent_slices:
        headers.is_dependent[others] = rows.flag(others)
    addresses = rows.u(others, (sps.num_blocks - 1).bit_length())
    # with tiles the block before an address is not that of the number before
    rows.mark_bad(others[(addresses == 0) | (addresses >= sps.num_blocks) | pps.has_tiles])
    headers.addresses[others] = addresses


def _read_whole(
    rows: HeaderRows,
    chosen: Rows,
    *,
    pps: PictureParameters,
    sps: SequenceParameters,
    headers: SliceHeaders,
    kinds: npt.NDArray[np.int64],
) -> None:
    """All that a dependent slice leaves out."""
    count = len(rows.all)
    rows.u(chosen, pps.num_extra_bits)
    slice_type = np.full(count, I)
    slice_type[chosen] = rows.ue(chosen)
    is_key = (kinds >= FIRST_KEY) & (kinds <= LAST_KEY)
    rows.mark_bad(rows.all[(slice_type > I) | (is_key & (slice_type != I))])
    if pps.has_output_flag:
        rows.mark_bad(chosen[~rows.flag(chosen)])  # not shown
    dated = chosen[~np.isin(kinds[chosen], IDR)]
    headers.poc_lsb[dated] = rows.u(dated, sps.poc_lsb_bits)
    _read_references(rows, dated, sps=sps, headers=headers)
    has_motion = np.zeros(count, dtype=bool)
    if sps.has_temporal_mvp:
        has_motion[dated] = rows.flag(dated)
    is_filtered = np.zeros(count, dtype=bool)
    if sps.has_sao:
        for _ in range(2 if sps.has_chroma else 1):
            is_filtered[chosen] |= rows.flag(chosen)
    inter = chosen[slice_type[chosen] != I]
    _read_inter(
        rows,
        inter,
        pps=pps,
        sps=sps,
        num_used=headers.used.sum(axis=1),
        is_b=slice_type == B,
        has_motion=has_motion,
    )
    qp = pps.initial_qp + rows.se(chosen)
    rows.mark_bad(chosen[(qp < sps.lowest_qp) | (qp > 51)])
    if pps.has_chroma_qp:
        for _ in range(2):
            rows.mark_bad(chosen[np.abs(rows.se(chosen)) > 12])
    if pps.has_chroma_qp_lists:
        rows.u(chosen, 1)
    _read_filters(rows, chosen, pps=pps, is_filtered=is_filtered)


def _read_references(rows: HeaderRows, dated: Rows, *, sps: SequenceParameters, headers: SliceHeaders) -> None:
    is_listed = rows.flag(dated)
    listed, explicit = dated[is_listed], dated[~is_listed]
    if sps.reference_sets:
        _take_listed(rows, listed, sps=sps, headers=headers)
        is_predicted = rows.flag(explicit)
        _read_predicted(rows, explicit[is_predicted], sps=sps, headers=headers)
        explicit = explicit[~is_predicted]
    else:
        rows.mark_bad(listed)
    counts = (rows.ue(explicit), rows.ue(explicit))
    for sign, first, lengths in ((-1, 0, counts[0]), (1, MOST_REFS, counts[1])):
        rows.mark_bad(explicit[lengths > MOST_REFS])
        distance = np.zeros(len(explicit), dtype=np.int64)
        for index in range(min(int(lengths.max(initial=0)), MOST_REFS)):
            active = lengths > index
            distance[active] += sign * (rows.ue(explicit[active]) + 1)
            headers.distances[explicit[active], first + index] = distance[active]
            headers.used[explicit[active], first + index] = rows.flag(explicit[active])
    rows.mark_bad(dated[np.count_nonzero(headers.distances[dated], axis=1) > MOST_REFS])
    rows.mark_bad(dated[np.abs(headers.distances[dated]).max(axis=1, initial=0) > 1 << 15])
    if sps.has_long_term_list:
        rows.mark_bad(dated[rows.ue(dated) > 0])
    if sps.has_long_term:
        rows.mark_bad(dated[rows.ue(dated) > 0])


def _take_listed(rows: HeaderRows, listed: Rows, *, sps: SequenceParameters, headers: SliceHeaders) -> None:
    numbers = rows.u(listed, (len(sps.reference_sets) - 1).bit_length())
    rows.mark_bad(listed[numbers >= len(sps.reference_sets)])
    for number, entries in enumerate(sps.reference_sets):
        chosen = listed[numbers == number]
        for place, (distance, is_used) in enumerate(entries):
            headers.distances[chosen, place] = distance
            headers.used[chosen, place] = is_used


def _read_predicted(rows: HeaderRows, predicted: Rows, *, sps: SequenceParameters, headers: SliceHeaders) -> None:
    """Sets that are another one, shifted."""
    numbers = len(sps.reference_sets) - 1 - rows.ue(predicted)
    rows.mark_bad(predicted[numbers < 0])
    sign, steps = rows.flag(predicted), rows.ue(predicted) + 1
    steps = np.where(sign, -steps, steps)
    for number in np.unique(numbers[numbers >= 0]).tolist():
        chosen, shift = predicted[numbers == number], steps[numbers == number]
        distances = [distance for distance, _ in sps.reference_sets[number]]
        for place, distance in enumerate([*distances, 0]):
            is_used = rows.flag(chosen)
            is_kept = is_used.copy()
            is_kept[~is_used] = rows.flag(chosen[~is_used])
            rows.mark_bad(chosen[is_kept & (distance + shift == 0)])
            headers.distances[chosen, place] = np.where(is_kept, distance + shift, 0)
            headers.used[chosen, place] = is_used


def _read_inter(
    rows: HeaderRows,
    inter: Rows,
    *,
    pps: PictureParameters,
    sps: SequenceParameters,
    num_used: npt.NDArray[np.int64],
    is_b: Flags,
    has_motion: Flags,
) -> None:
    b_slices = inter[is_b[inter]]
    lengths = np.zeros((2, len(rows.all)), dtype=np.int64)
    lengths[0, inter], lengths[1, b_slices] = pps.num_refs
    override = inter[rows.flag(inter)]
    lengths[0, override] = rows.ue(override) + 1
    override = override[is_b[override]]
    lengths[1, override] = rows.ue(override) + 1
    rows.mark_bad(inter[(lengths[:, inter].max(axis=0, initial=0) > MOST_REFS - 1) | (num_used[inter] == 0)])
    lengths = np.minimum(lengths, MOST_REFS)
    if pps.has_list_changes:
        several = inter[num_used[inter] > 1]
        for chosen, length in ((several, lengths[0]), (several[is_b[several]], lengths[1])):
            changed = chosen[rows.flag(chosen)]
            bits = np.ceil(np.log2(num_used[changed])).astype(np.int64)
            rows.skip(changed, length[changed] * bits)
    rows.u(b_slices, 1)
    if pps.has_cabac_init:
        rows.u(inter, 1)
    moving = inter[has_motion[inter]]
    is_second = np.zeros(len(rows.all), dtype=bool)
    moving_b = moving[is_b[moving]]
    is_second[moving_b] = ~rows.flag(moving_b)
    length = np.where(is_second, lengths[1], lengths[0])
    choosing = moving[length[moving] > 1]
    rows.mark_bad(choosing[rows.ue(choosing) >= length[choosing]])
    weighted = inter[np.where(is_b[inter], pps.weighted_b, pps.weighted)]
    _read_weights(rows, weighted, lengths=lengths, is_b=is_b, has_chroma=sps.has_chroma)
    rows.mark_bad(inter[rows.ue(inter) > 4])


def _read_weights(
    rows: HeaderRows, weighted: Rows, *, lengths: npt.NDArray[np.int64], is_b: Flags, has_chroma: bool
) -> None:
    scale = rows.ue(weighted)
    rows.mark_bad(weighted[scale > 7])
    if has_chroma:
        scale = scale + rows.se(weighted)
        rows.mark_bad(weighted[(scale < 0) | (scale > 7)])
    for chosen, length in ((weighted, lengths[0]), (weighted[is_b[weighted]], lengths[1])):
        most = int(length[chosen].max(initial=0))
        flags = np.zeros((2, most, len(rows.all)), dtype=bool)
        for part in flags[: 2 if has_chroma else 1]:
            for index in range(most):
                active = chosen[length[chosen] > index]
                part[index, active] = rows.flag(active)
        for index in range(most):
            for part, num_planes in zip(flags, (1, 2), strict=True):
                active = chosen[part[index, chosen]]
                for _ in range(num_planes):
                    weight = rows.se(active)
                    rows.mark_bad(active[(weight < -128) | (weight > 127)])
                    rows.se(active)


def _read_filters(rows: HeaderRows, chosen: Rows, *, pps: PictureParameters, is_filtered: Flags) -> None:
    is_deblocked = np.full(len(rows.all), pps.has_deblocking)
    if pps.has_deblocking_override:
        override = chosen[rows.flag(chosen)]
        is_deblocked[override] = ~rows.flag(override)
        override = override[is_deblocked[override]]
        for _ in range(2):
            rows.mark_bad(override[np.abs(rows.se(override)) > 6])
    if pps.filters_across_slices:
        rows.u(chosen[(is_filtered | is_deblocked)[chosen]], 1)


def _read_end(rows: HeaderRows, chosen: Rows, *, pps: PictureParameters) -> None:
    if pps.has_tiles or pps.has_wavefronts:
        count = rows.ue(chosen)
        divided = chosen[count > 0]
        bits = rows.ue(divided) + 1
        rows.mark_bad(divided[bits > 32])
        rows.skip(divided, count[count > 0] * bits)
    if pps.has_header_extension:
        length = rows.ue(chosen)
        rows.mark_bad(chosen[length > 256])
        rows.skip(chosen, 8 * length)
    rows.mark_bad(chosen[~rows.flag(chosen)])
