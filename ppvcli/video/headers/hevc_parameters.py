"""HEVC: the parameter sets that slice headers and the order of output depend on.

Source: ITU-T H.265 (08/2021), 7.3.2.
"""

from __future__ import annotations

from dataclasses import dataclass

from ppvcli.video.headers.bits import Bits
from ppvcli.video.headers.hevc_syntax import (
    ReferenceSet,
    check_end,
    read_block_sizes,
    read_buffering,
    read_deblocking,
    read_picture_format,
    read_range_extension,
    read_reference_sets,
    read_usability,
    skip_profile,
    skip_scaling_lists,
    skip_tiles,
    skip_uncoded_blocks,
)
from ppvcli.video.headers.order import UntrustedError


@dataclass(frozen=True, kw_only=True)
class SequenceParameters:
    """What slice headers and the order of output depend on."""

    sps_id: int
    vps_id: int
    num_sub_layers: int
    has_chroma: bool
    num_blocks: int
    num_columns: int
    block_size: int
    lowest_qp: int
    poc_lsb_bits: int
    num_buffered: int
    num_reorder: int
    has_sao: bool
    reference_sets: tuple[ReferenceSet, ...]
    has_long_term: bool
    has_long_term_list: bool
    has_temporal_mvp: bool
    has_field_info: bool


@dataclass(frozen=True, kw_only=True)
class PictureParameters:
    """The same of a picture parameter set."""

    pps_id: int
    sps_id: int
    has_dependent_slices: bool
    has_output_flag: bool
    num_extra_bits: int
    has_cabac_init: bool
    num_refs: tuple[int, int]
    initial_qp: int
    has_chroma_qp: bool
    weighted: bool
    weighted_b: bool
    has_tiles: bool
    has_wavefronts: bool
    filters_across_slices: bool
    has_deblocking_override: bool
    has_deblocking: bool
    has_list_changes: bool
    has_header_extension: bool
    has_chroma_qp_lists: bool


def parse_vps(data: bytes) -> tuple[int, int]:
    """The number of a video parameter set (`data` is without its first two bytes), and of its layers in time.

    Raises: BitsEndError where it is cut off; UntrustedError for several layers and what we don't read.
    """
    bits = Bits(data)
    vps_id = bits.u(4)
    if bits.u(2) != 3 or bits.u(6):
        raise UntrustedError("several layers")
    num_sub_layers = bits.u(3) + 1
    bits.skip(1)
    if bits.u(16) != 0xFFFF:
        raise UntrustedError("a damaged parameter set")
    skip_profile(bits, num_sub_layers=num_sub_layers)
    read_buffering(bits, num_sub_layers=num_sub_layers)
    if bits.u(6) or bits.ue():
        raise UntrustedError("several layers")
    if bits.flag():
        bits.skip(64)
        if bits.flag():
            bits.ue()
        if bits.ue():
            raise UntrustedError("a parameter set that is not read here")
    if bits.flag():
        raise UntrustedError("several layers")
    check_end(bits)
    return vps_id, num_sub_layers


def parse_sps(data: bytes) -> SequenceParameters:
    """A sequence parameter set (without its first two bytes). Raises: as `parse_vps`, and for interlaced video."""
    bits = Bits(data)
    vps_id = bits.u(4)
    num_sub_layers = bits.u(3) + 1
    bits.skip(1)
    skip_profile(bits, num_sub_layers=num_sub_layers)
    sps_id = bits.ue()
    chroma, width, height, depth = read_picture_format(bits)
    poc_lsb_bits = bits.ue() + 4
    if sps_id > 15 or poc_lsb_bits > 16:
        raise UntrustedError("a damaged parameter set")
    num_buffered, num_reorder = read_buffering(bits, num_sub_layers=num_sub_layers)
    block_size = read_block_sizes(bits, width=width, height=height)
    num_columns, num_rows = -(-width // block_size), -(-height // block_size)
    if bits.flag() and bits.flag():
        skip_scaling_lists(bits)
    bits.skip(1)
    has_sao = bits.flag()
    if bits.flag():
        skip_uncoded_blocks(bits, depth=depth)
    reference_sets = read_reference_sets(bits)
    has_long_term = bits.flag()
    num_long_term = bits.ue() if has_long_term else 0
    if num_long_term > 32:
        raise UntrustedError("a damaged parameter set")
    bits.skip(num_long_term * (poc_lsb_bits + 1))
    has_temporal_mvp = bits.flag()
    bits.skip(1)
    has_field_info = read_usability(bits, num_sub_layers=num_sub_layers) if bits.flag() else False
    if bits.flag():
        has_range = bits.flag()
        if bits.u(7):
            raise UntrustedError("an extension")
        bits.skip(9 if has_range else 0)
    check_end(bits)
    return SequenceParameters(
        sps_id=sps_id,
        vps_id=vps_id,
        num_sub_layers=num_sub_layers,
        has_chroma=chroma > 0,
        num_blocks=num_columns * num_rows,
        num_columns=num_columns,
        block_size=block_size,
        lowest_qp=-6 * (depth - 8),
        poc_lsb_bits=poc_lsb_bits,
        num_buffered=num_buffered,
        num_reorder=num_reorder,
        has_sao=has_sao,
        reference_sets=reference_sets,
        has_long_term=has_long_term,
        has_long_term_list=num_long_term > 0,
        has_temporal_mvp=has_temporal_mvp,
        has_field_info=has_field_info,
    )


def parse_pps(data: bytes) -> PictureParameters:
    """A picture parameter set (without its first two bytes). Raises: as `parse_vps`."""
    bits = Bits(data)
    pps_id, sps_id = bits.ue(), bits.ue()
    has_dependent_slices, has_output_flag = bits.flag(), bits.flag()
    num_extra_bits = bits.u(3)
    bits.skip(1)
    has_cabac_init = bits.flag()
    num_refs = (bits.ue() + 1, bits.ue() + 1)
    initial_qp = 26 + bits.se()
    bits.skip(1)
    has_transform_skip = bits.flag()
    if bits.flag():
        bits.ue()
    chroma_qp = (bits.se(), bits.se())
    if pps_id > 63 or max(num_refs) > 15 or max(map(abs, chroma_qp)) > 12:
        raise UntrustedError("a damaged parameter set")
    has_chroma_qp = bits.flag()
    weighted, weighted_b = bits.flag(), bits.flag()
    bits.skip(1)
    has_tiles, has_wavefronts = bits.flag(), bits.flag()
    if has_tiles:
        skip_tiles(bits)
    filters_across_slices = bits.flag()
    has_override, has_deblocking = read_deblocking(bits) if bits.flag() else (False, True)
    if bits.flag():
        skip_scaling_lists(bits)
    has_list_changes = bits.flag()
    bits.ue()
    has_header_extension = bits.flag()
    has_chroma_qp_lists = False
    if bits.flag():
        has_range = bits.flag()
        if bits.u(7):
            raise UntrustedError("an extension")
        has_chroma_qp_lists = has_range and read_range_extension(bits, has_transform_skip=has_transform_skip)
    check_end(bits)
    return PictureParameters(
        pps_id=pps_id,
        sps_id=sps_id,
        has_dependent_slices=has_dependent_slices,
        has_output_flag=has_output_flag,
        num_extra_bits=num_extra_bits,
        has_cabac_init=has_cabac_init,
        num_refs=num_refs,
        initial_qp=initial_qp,
        has_chroma_qp=has_chroma_qp,
        weighted=weighted,
        weighted_b=weighted_b,
        has_tiles=has_tiles,
        has_wavefronts=has_wavefronts,
        filters_across_slices=filters_across_slices,
        has_deblocking_override=has_override,
        has_deblocking=has_deblocking,
        has_list_changes=has_list_changes,
        has_header_extension=has_header_extension,
        has_chroma_qp_lists=has_chroma_qp_lists,
    )
