"""H.264: the parameter sets that slice headers and the order of output depend on.

Source: ITU-T H.264 (08/2021), 7.3.2 and E.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from ppvcli.video.headers.bits import Bits
from ppvcli.video.headers.order import UntrustedError
from ppvcli.video.headers.units import skip_display

HIGH_PROFILES = (100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134)


@dataclass(frozen=True, kw_only=True)
class SequenceParameters:
    """What slice headers and the order of output depend on."""

    sps_id: int
    has_chroma: bool
    frame_num_bits: int
    poc_type: int
    poc_lsb_bits: int
    num_reorder_frames: int | None
    """None where the stream does not say."""


@dataclass(frozen=True, kw_only=True)
class PictureParameters:
    """The same of a picture parameter set."""

    pps_id: int
    sps_id: int
    cabac: bool
    has_bottom_poc: bool
    num_refs: tuple[int, int]
    weighted: bool
    weighted_b: bool
    initial_qp: int
    has_deblocking: bool
    has_redundant_count: bool


def parse_sps(data: bytes) -> SequenceParameters:
    """A sequence parameter set (without its first byte).

    Raises: BitsEndError where it is cut off; UntrustedError for interlaced video and what we don't read.
    """
    bits = Bits(data)
    profile = bits.u(8)
    bits.skip(16)
    sps_id = bits.ue()
    chroma = 1
    if profile in HIGH_PROFILES:
        chroma = bits.ue()
        if chroma == 3 and bits.flag():
            raise UntrustedError("separate colour planes")
        bits.ue()
        bits.ue()
        bits.skip(1)
        if bits.flag():
            _skip_scaling_matrices(bits, count=8 if chroma != 3 else 12)
    frame_num_bits = bits.ue() + 4
    poc_type = bits.ue()
    poc_lsb_bits = bits.ue() + 4 if poc_type == 0 else 0
    if poc_type not in (0, 2) or max(frame_num_bits, poc_lsb_bits) > 16 or chroma > 3:
        raise UntrustedError("an order of frames that is not read here")
    bits.ue()
    if bits.flag():
        raise UntrustedError("gaps between frames")
    bits.ue()
    bits.ue()
    if not bits.flag():
        raise UntrustedError("interlaced")
    bits.skip(1)
    if bits.flag():
        for _ in range(4):
            bits.ue()
    return SequenceParameters(
        sps_id=sps_id,
        has_chroma=chroma > 0,
        frame_num_bits=frame_num_bits,
        poc_type=poc_type,
        poc_lsb_bits=poc_lsb_bits,
        num_reorder_frames=_read_reordering(bits) if bits.flag() else None,
    )


def parse_pps(data: bytes) -> PictureParameters:
    """A picture parameter set (without its first byte). Raises: as `parse_sps`."""
    bits = Bits(data)
    pps_id, sps_id = bits.ue(), bits.ue()
    cabac = bits.flag()
    has_bottom_poc = bits.flag()
    if bits.ue():
        raise UntrustedError("slice groups")
    num_refs = (bits.ue() + 1, bits.ue() + 1)
    weighted, weighted_b = bits.flag(), bits.u(2) == 1
    initial_qp = 26 + bits.se()
    bits.se()
    bits.se()
    has_deblocking = bits.flag()
    bits.skip(1)
    return PictureParameters(
        pps_id=pps_id,
        sps_id=sps_id,
        cabac=cabac,
        has_bottom_poc=has_bottom_poc,
        num_refs=num_refs,
        weighted=weighted,
        weighted_b=weighted_b,
        initial_qp=initial_qp,
        has_deblocking=has_deblocking,
        has_redundant_count=bits.flag(),
    )


def _skip_scaling_matrices(bits: Bits, *, count: int) -> None:
    for index in range(count):
        if not bits.flag():
            continue
        last = scale = 8
        for _ in range(16 if index < 6 else 64):
            if scale:
                scale = (last + bits.se()) % 256
            last = scale or last


def _read_reordering(bits: Bits) -> int | None:
    """How many frames may be held back, from the usability information at the end of a sequence parameter set."""
    skip_display(bits)
    if bits.flag():
        bits.skip(65)
    has_hrd = False
    for _ in range(2):
        if bits.flag():
            has_hrd = True
            count = bits.ue() + 1
            bits.skip(8)
            for _ in range(count):
                bits.ue()
                bits.ue()
                bits.skip(1)
            bits.skip(20)
    if has_hrd:
        bits.skip(1)
    bits.skip(1)
    if not bits.flag():
        return None
    bits.skip(1)
    for _ in range(4):
        bits.ue()
    num_reorder_frames, num_buffered = bits.ue(), bits.ue()
    if num_reorder_frames > 16 or num_buffered < num_reorder_frames:
        raise UntrustedError("a damaged parameter set")
    return num_reorder_frames
