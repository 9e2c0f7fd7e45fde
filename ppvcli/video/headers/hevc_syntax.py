"""HEVC: the parts that parameter sets are made of. What neither slice headers nor the order of output need is skipped.

Source: ITU-T H.265 (08/2021), 7.3.2.3, 7.3.3, 7.3.4, 7.3.7, E.2.1 and E.2.2.
"""

from __future__ import annotations

from ppvcli.video.headers.bits import Bits
from ppvcli.video.headers.order import UntrustedError
from ppvcli.video.headers.units import skip_display

READ_PROFILES = (1, 2, 3, 4)
"""Main, Main 10, Main Still Picture, Range Extensions."""

ReferenceSet = tuple[tuple[int, bool], ...]
"""The pictures to keep: (distance in the order of output, whether the picture itself may refer to it)."""


def check_end(bits: Bits) -> None:
    """Passes if nothing but a 1 and zeros is left, as at the end of every parameter set."""
    if not bits.flag() or bits.u(bits.left):
        raise UntrustedError("a damaged parameter set")


def skip_profile(bits: Bits, *, num_sub_layers: int) -> None:
    bits.skip(3)
    if bits.u(5) not in READ_PROFILES or num_sub_layers > 7:
        raise UntrustedError("a profile that is not read here")
    bits.skip(88)
    if num_sub_layers == 1:
        return
    present = [(bits.flag(), bits.flag()) for _ in range(8)]
    for has_profile, has_level in present[: num_sub_layers - 1]:
        bits.skip(88 * has_profile + 8 * has_level)


def read_buffering(bits: Bits, *, num_sub_layers: int) -> tuple[int, int]:
    """How many pictures a decoder keeps at most, and how many it holds back, if it decodes all layers."""
    num_buffered = num_reorder = 0
    for _ in range(num_sub_layers if bits.flag() else 1):
        num_buffered, num_reorder = bits.ue() + 1, bits.ue()
        bits.ue()
        if num_buffered > 16 or num_reorder >= num_buffered:
            raise UntrustedError("a damaged parameter set")
    return num_buffered, num_reorder


def read_picture_format(bits: Bits) -> tuple[int, int, int, int]:
    """How chroma is sampled, width, height, and bits of a sample."""
    chroma = bits.ue()
    if chroma > 3 or (chroma == 3 and bits.flag()):
        raise UntrustedError("separate colour planes")
    width, height = bits.ue(), bits.ue()
    if bits.flag():
        shift_x, shift_y = int(chroma in (1, 2)), int(chroma == 1)
        left, right, top, bottom = (bits.ue() for _ in range(4))
        if left or top or right << shift_x >= width or bottom << shift_y >= height:
            raise UntrustedError("a picture that is cut off at the left or the top, or a damaged parameter set")
    depth, chroma_depth = bits.ue() + 8, bits.ue() + 8
    if depth not in (8, 9, 10, 12) or (chroma and chroma_depth != depth):
        raise UntrustedError("a damaged parameter set")
    return chroma, width, height, depth


def read_block_sizes(bits: Bits, *, width: int, height: int) -> int:
    """How many samples wide and high a coding tree block is."""
    smallest = bits.ue() + 3
    block = smallest + bits.ue()
    smallest_transform = bits.ue() + 2
    transform = smallest_transform + bits.ue()
    depths = (bits.ue(), bits.ue())
    if not 4 <= block <= 6 or smallest_transform >= smallest or transform > min(block, 5):
        raise UntrustedError("a damaged parameter set")
    if not width or not height or (width | height) % (1 << smallest) or max(depths) > block - smallest_transform:
        raise UntrustedError("a damaged parameter set")
    return 1 << block


def skip_scaling_lists(bits: Bits) -> None:
    for size in range(4):
        for matrix in range(0, 6, 3 if size == 3 else 1):
            if not bits.flag():
                if bits.ue() * (3 if size == 3 else 1) > matrix:
                    raise UntrustedError("a damaged parameter set")
                continue
            if size > 1 and not -7 <= bits.se() <= 247:
                raise UntrustedError("a damaged parameter set")
            for _ in range(16 if size == 0 else 64):
                bits.se()


def skip_uncoded_blocks(bits: Bits, *, depth: int) -> None:
    """How blocks look that are not coded but sample by sample."""
    if max(bits.u(4), bits.u(4)) + 1 > depth:
        raise UntrustedError("a damaged parameter set")
    bits.ue()
    bits.ue()
    bits.skip(1)


def read_reference_sets(bits: Bits) -> tuple[ReferenceSet, ...]:
    """All sets of a sequence parameter set."""
    count = bits.ue()
    if count > 64:
        raise UntrustedError("a damaged parameter set")
    sets: list[ReferenceSet] = []
    for _ in range(count):
        sets.append(_read_reference_set(bits, known=sets))
    return tuple(sets)


def _read_reference_set(bits: Bits, *, known: list[ReferenceSet]) -> ReferenceSet:
    """One set, the nearest pictures first: those before, then those after."""
    entries: list[tuple[int, bool]] = []
    if known and bits.flag():
        sign, step = bits.u(1), bits.ue() + 1
        step = -step if sign else step
        for distance in [*(entry[0] for entry in known[-1]), 0]:
            is_used = bits.flag()
            if is_used or bits.flag():
                entries.append((distance + step, is_used))
    else:
        for sign, count in ((-1, bits.ue()), (1, bits.ue())):
            if count > 15:
                raise UntrustedError("a damaged parameter set")
            distance = 0
            for _ in range(count):
                distance += sign * (bits.ue() + 1)
                entries.append((distance, bits.flag()))
    if len(entries) > 16 or any(not 0 < abs(entry[0]) <= 1 << 15 for entry in entries):
        raise UntrustedError("a damaged parameter set")
    return tuple(sorted(entries, key=lambda entry: (entry[0] > 0, abs(entry[0]))))


def read_usability(bits: Bits, *, num_sub_layers: int) -> bool:
    """Whether messages say how fields are shown."""
    skip_display(bits)
    bits.skip(1)
    if bits.flag():
        raise UntrustedError("interlaced")
    has_field_info = bits.flag()
    if bits.flag():
        raise UntrustedError("a window to display")  # FFmpeg guesses whether it is one
    if bits.flag():
        bits.skip(64)
        if bits.flag():
            bits.ue()
        if bits.flag():
            skip_hrd(bits, num_sub_layers=num_sub_layers)
    if bits.flag():
        bits.skip(3)
        for _ in range(5):
            bits.ue()
    return has_field_info


def skip_hrd(bits: Bits, *, num_sub_layers: int) -> None:
    """The model of a decoder's buffer."""
    num_models = bits.u(1) + bits.u(1)
    has_parts = False
    if num_models:
        has_parts = bits.flag()
        bits.skip(19 * has_parts + 8 + 4 * has_parts + 15)
    for _ in range(num_sub_layers):
        is_fixed = bits.flag() or bits.flag()
        is_low_delay = False
        if is_fixed:
            bits.ue()
        else:
            is_low_delay = bits.flag()
        count = 1 if is_low_delay else bits.ue() + 1
        if count > 32:
            raise UntrustedError("a damaged parameter set")
        for _ in range(num_models * count):
            for _ in range(4 if has_parts else 2):
                bits.ue()
            bits.skip(1)


def skip_tiles(bits: Bits) -> None:
    """Where the tiles of a picture are."""
    num_columns, num_rows = bits.ue() + 1, bits.ue() + 1
    if not bits.flag():
        for _ in range(num_columns + num_rows - 2):
            bits.ue()
    bits.skip(1)


def read_deblocking(bits: Bits) -> tuple[bool, bool]:
    """Whether slices may say otherwise, and whether the deblocking filter is on."""
    has_override, is_off = bits.flag(), bits.flag()
    if not is_off and max(abs(bits.se()), abs(bits.se())) > 6:
        raise UntrustedError("a damaged parameter set")
    return has_override, not is_off


def read_range_extension(bits: Bits, *, has_transform_skip: bool) -> bool:
    """Whether slices say which offsets of the chroma quantizer they use."""
    if has_transform_skip:
        bits.ue()
    bits.skip(1)
    has_lists = bits.flag()
    if has_lists:
        bits.ue()
        count = bits.ue() + 1
        if count > 6:
            raise UntrustedError("a damaged parameter set")
        for _ in range(2 * count):
            bits.se()
    if bits.ue() > 2 or bits.ue() > 2:
        raise UntrustedError("a damaged parameter set")
    return has_lists
