"""The random crop of the reference: where it lies and how large it is. Source: Wang et al. 2016; SPEC.md 4.3."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

_SNAP = 3
"""A side that is off the target by fewer pixels becomes the target, so that nothing is scaled by a hair."""


@dataclass(frozen=True, kw_only=True)
class MultiScale:
    """A random crop of the reference: its sides are shares of the short side, its place is one of a few."""

    size: int
    """The crop is scaled to this square; larger than the input, a random crop of the input's size follows."""
    scales: tuple[float, ...] = (1.0, 0.875, 0.75, 0.66)
    num_points: Literal[5, 13] = 5
    """Corners and centre, or 8 more: the middles of the edges, and points halfway between corners and centre."""
    scale_first: bool = True
    """Whether the eval resize comes before the crop."""
    repeat_places: bool = True
    """Whether corners and centre that fall together (the crop is as high or wide as the frame) are still drawn apiece,
    which makes their place likelier."""


def draw_box(
    frame_hw: tuple[int, int], multi_scale: MultiScale, *, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of one random crop, each pair of sides and each place as likely as any other."""
    height, width = frame_hw
    sizes = crop_sizes(min(frame_hw), multi_scale)
    crop_height, crop_width = sizes[int(rng.integers(len(sizes)))]
    places = crop_places(height - crop_height, width - crop_width, multi_scale)
    top, left = places[int(rng.integers(len(places)))]
    # both edges are rounded, half to even, as Pillow does: a crop at half a pixel may be one pixel wider
    return round(left), round(top), round(left + crop_width), round(top + crop_height)


def crop_sizes(short_side: int, multi_scale: MultiScale) -> list[tuple[int, int]]:
    """Height and width of every possible crop: shares of the short side that are the same or neighbours.

    >>> crop_sizes(256, MultiScale(size=224, scales=(1.0, 0.875)))
    [(256, 256), (256, 224), (224, 256), (224, 224)]
    """
    sides = [int(short_side * scale) for scale in multi_scale.scales]
    if multi_scale.size <= short_side:  # the reference would go on, past the edge of the frame, into black
        sides = [multi_scale.size if abs(side - multi_scale.size) < _SNAP else side for side in sides]
    return [(height, width) for i, height in enumerate(sides) for width in sides[max(0, i - 1) : i + 2]]


def crop_places(margin_y: int, margin_x: int, multi_scale: MultiScale) -> list[tuple[float, float]]:
    """Top and left of every possible crop, in quarters of the margins."""
    steps = [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]
    if not multi_scale.repeat_places:
        moves = (bool(margin_y), bool(margin_x))
        needed = {(0, 4): moves[1], (4, 0): moves[0], (4, 4): all(moves), (2, 2): any(moves)}
        steps = [step for step in steps if needed.get(step, True)]
    if multi_scale.num_points == 13:
        steps += [(2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
    return [(y * margin_y / 4, x * margin_x / 4) for y, x in steps]
