"""Resize, crop, normalise and augment frames: uint8 RGB in, uint8 RGB out, and float32 only at the very end.

Source: the transforms of the reference as described in SPEC.md 4.3; the goldens hold these to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from ppvcli.errors import FrameTooLargeError, UsageError
from ppvcli.specs import MAX_PIXELS, Crop, Preprocess, Resize
from ppvcli.video.multi_scale import MultiScale, draw_box
from ppvcli.video.sequential import Frames, Transform

Box = tuple[float, float, float, float]
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True, kw_only=True)
class Augment:
    """How a training clip differs from the eval one; the same crop and flip for all frames of a clip."""

    flip_ratio: float = 0.5
    """Share of clips that are mirrored left to right."""
    min_area_ratio: float = 1.0
    """The random crop covers this share to all of the largest region that fits the input's shape."""
    multi_scale: MultiScale | None = None
    """The reference's crops instead."""


def apply_resize_crop(frames_thwc: Frames, preprocess: Preprocess) -> Frames:
    """`crop_frame` of every frame: uint8 [T, H, W, 3] -> [num_crops, T, h, w, 3]."""
    return np.stack([crop_frame(frame_hwc, preprocess) for frame_hwc in frames_thwc], axis=1)


def crop_frame(frame_hwc: Frames, preprocess: Preprocess) -> Frames:
    """A frame resized, and its crops: uint8 [H, W, 3] -> [num_crops, h, w, 3].

    Crops come in the reference's order. `ten`: corners top left, top right, bottom left, bottom right, then centre,
    each followed by its mirror image; `three`: left, right, centre.

    Raises:
        UsageError: the crop is larger than the scaled frame.
        FrameTooLargeError: a long and narrow frame would be scaled to more than `MAX_PIXELS`.
    """
    resize, crop = preprocess.resize, preprocess.crop
    height, width = frame_hwc.shape[:2]
    scaled_hw = scaled_size(height, width, resize=resize)
    if crop.kind == "none":
        return _scale(frame_hwc, scaled_hw, backend=resize.backend)[np.newaxis]
    crop_height, crop_width = crop.hw
    if scaled_hw[0] < crop_height or scaled_hw[1] < crop_width:
        raise UsageError(
            f"frames of {width}x{height} become {scaled_hw[1]}x{scaled_hw[0]}, too small for a crop of "
            f"{crop_width}x{crop_height}",
            hint=f"make the short side {max(crop.hw)} or more",
        )
    if crop.kind == "center":
        return _center_crop(frame_hwc, scaled_hw, crop=crop, backend=resize.backend)[np.newaxis]
    scaled = _scale(frame_hwc, scaled_hw, backend=resize.backend)
    views = [scaled[top : top + crop_height, left : left + crop_width] for top, left in _offsets(crop, scaled_hw)]
    if crop.kind == "ten":
        views = [view for plain in views for view in (plain, plain[:, ::-1])]
    return np.stack(views)


def scaled_size(height: int, width: int, *, resize: Resize) -> tuple[int, int]:
    """Height and width of a whole frame after `resize`, before any crop.

    A frame whose short side has the wanted length already keeps its size, even where 4:3 is asked for.
    """
    if resize.size_hw is not None:
        return resize.size_hw
    if resize.short_side is None:
        raise UsageError("a resize needs a short_side or a size_hw")
    target, short, long = resize.short_side, min(height, width), max(height, width)
    if short == target:
        return height, width
    if resize.aspect == "4:3":
        scaled_long = int(target * 4 / 3)
    elif resize.rounding == "round":
        scaled_long = int(long * (target / short) + 0.5)
    else:
        scaled_long = int(long * target / short)
    return (scaled_long, target) if width < height else (target, scaled_long)


def normalize(frames: Frames, preprocess: Preprocess) -> npt.NDArray[np.float32]:
    """What a network takes: uint8 [..., H, W, 3] -> float32 [..., 3, H, W], (x / 255 - mean) / std per channel.

    In float32 and in the reference's order of operations, so that results are equal bit for bit.
    """
    channels_first = np.moveaxis(frames, -1, -3)
    result = np.empty(channels_first.shape, dtype=np.float32)
    np.copyto(result, channels_first)
    result /= np.float32(255)
    result -= np.array(preprocess.mean, dtype=np.float32).reshape(3, 1, 1)
    result /= np.array(preprocess.std, dtype=np.float32).reshape(3, 1, 1)
    return result


def draw_augment(
    frame_hw: tuple[int, int], preprocess: Preprocess, augment: Augment, *, rng: np.random.Generator
) -> Transform:
    """One random crop, perhaps mirrored, for all frames of a clip: uint8 [H, W, 3] -> [h, w, 3] of the input size.

    Raises: UsageError where a crop of the reference is scaled to less than the input size.
    """
    draw = _draw_area if augment.multi_scale is None else _draw_multi_scale
    cut = draw(frame_hw, preprocess, augment, rng=rng)
    is_mirrored = rng.random() < augment.flip_ratio
    return (lambda frame_hwc: cut(frame_hwc)[:, ::-1]) if is_mirrored else cut


def _draw_area(
    frame_hw: tuple[int, int], preprocess: Preprocess, augment: Augment, *, rng: np.random.Generator
) -> Transform:
    """A crop of the shape that the eval preprocessing looks at, straight from the unscaled frame.

    That is the whole frame's shape where it takes the whole frame, else the region that becomes a square once scaled.
    """
    size_hw = preprocess.input_hw
    scaled_hw = scaled_size(*frame_hw, resize=preprocess.resize)
    largest_hw = scaled_hw if preprocess.crop.kind == "none" else (min(scaled_hw), min(scaled_hw))
    side_ratio = math.sqrt(rng.uniform(augment.min_area_ratio, 1.0))
    crop_hw = (largest_hw[0] * side_ratio, largest_hw[1] * side_ratio)
    top, left = (rng.uniform(0.0, whole - part) for whole, part in zip(scaled_hw, crop_hw, strict=True))
    box = _source_box(top, left, size_hw=crop_hw, scaled_hw=scaled_hw, frame_hw=frame_hw)
    return lambda frame_hwc: _resize_box(frame_hwc, box, size_hw=size_hw)


def _draw_multi_scale(
    frame_hw: tuple[int, int], preprocess: Preprocess, augment: Augment, *, rng: np.random.Generator
) -> Transform:
    """The reference's steps one by one: each rounds to whole grey levels, so none can be left out."""
    multi_scale, backend = augment.multi_scale, preprocess.resize.backend
    assert multi_scale is not None
    scaled_hw = scaled_size(*frame_hw, resize=preprocess.resize) if multi_scale.scale_first else frame_hw
    left, top, right, bottom = draw_box(scaled_hw, multi_scale, rng=rng)
    size, (height, width) = multi_scale.size, preprocess.input_hw
    if size < max(height, width):
        raise UsageError(
            f"crops of {size}x{size} are smaller than the network's input of {width}x{height}",
            hint=f"--set augment.multi_scale.size={max(height, width)}",
        )
    inner_left, inner_top = (int(rng.integers(size - part + 1)) for part in (width, height))

    def cut(frame_hwc: Frames) -> Frames:
        scaled = _scale(frame_hwc, scaled_hw, backend=backend)
        square = _scale(scaled[top:bottom, left:right], (size, size), backend=backend)
        return square[inner_top : inner_top + height, inner_left : inner_left + width]

    return cut


def _center_crop(frame_hwc: Frames, scaled_hw: tuple[int, int], *, crop: Crop, backend: str) -> Frames:
    size_hw = height, width = crop.hw
    top, left = (_half(whole - part, rounding=crop.rounding) for whole, part in zip(scaled_hw, size_hw, strict=True))
    frame_hw = (frame_hwc.shape[0], frame_hwc.shape[1])
    if backend == "cv2" or scaled_hw == frame_hw:
        return _scale(frame_hwc, scaled_hw, backend=backend)[top : top + height, left : left + width]
    if _rows_first(frame_hw, scaled_hw):
        # the whole height: a box's float32 edges tip the many ties of a portrait's middle row, 1 % of a sparse sample
        box = _source_box(0, left, size_hw=(scaled_hw[0], width), scaled_hw=scaled_hw, frame_hw=frame_hw)
        return _resize_box(frame_hwc, box, size_hw=(scaled_hw[0], width), rows_first=True)[top : top + height]
    box = _source_box(top, left, size_hw=size_hw, scaled_hw=scaled_hw, frame_hw=frame_hw)
    return _resize_box(frame_hwc, box, size_hw=size_hw)


def _scale(frame_hwc: Frames, size_hw: tuple[int, int], *, backend: str) -> Frames:
    height, width = frame_hwc.shape[:2]
    if (height, width) == size_hw:
        return frame_hwc
    if size_hw[0] * size_hw[1] > MAX_PIXELS:
        raise FrameTooLargeError(
            f"frames of {width}x{height} become {size_hw[1]}x{size_hw[0]} when scaled, more than {MAX_PIXELS} pixels",
            hint="cut them to a less extreme shape, with ffmpeg for example",
        )
    if backend == "pillow":
        box = (0.0, 0.0, float(width), float(height))
        return _resize_box(frame_hwc, box, size_hw=size_hw, rows_first=_rows_first((height, width), size_hw))
    import cv2

    return cv2.resize(frame_hwc, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_LINEAR)


def _resize_box(frame_hwc: Frames, box: Box, *, size_hw: tuple[int, int], rows_first: bool = False) -> Frames:
    """The region `box` (left, top, right, bottom, in pixels of the frame), scaled to `size_hw`.

    Pillow's bilinear filter, which averages when it scales down (OpenCV's does not). It rounds to whole grey levels
    between its two passes, so their order shows: a quarter of the pixels differ by one. Pillow chooses the order from
    the sizes, by a rule that depends on its version, so the passes are made one by one here.
    """
    height, width = size_hw
    left, top, right, bottom = box
    reach = math.ceil(max(1.0, (bottom - top) / height)) + 1
    first_row = max(0, math.floor(top) - reach)
    last_row = min(frame_hwc.shape[0], math.ceil(bottom) + reach)
    top, bottom = top - first_row, bottom - first_row
    image = Image.fromarray(frame_hwc[first_row:last_row])
    if rows_first:
        image = image.resize((image.width, height), BILINEAR, box=(0, top, image.width, bottom))
        image = image.resize((width, height), BILINEAR, box=(left, 0, right, height))
    else:
        image = image.resize((width, image.height), BILINEAR, box=(left, 0, right, image.height))
        image = image.resize((width, height), BILINEAR, box=(0, top, width, bottom))
    return np.asarray(image)


def _rows_first(frame_hw: tuple[int, int], scaled_hw: tuple[int, int]) -> bool:
    """The order of passes in the goldens: height first, if it shrinks by more than twice what the width does."""
    shrink_y, shrink_x = (whole - scaled for whole, scaled in zip(frame_hw, scaled_hw, strict=True))
    return shrink_y > 0 and shrink_y > 2 * shrink_x


def _source_box(
    top: float, left: float, *, size_hw: tuple[float, float], scaled_hw: tuple[int, int], frame_hw: tuple[int, int]
) -> Box:
    """The region of the unscaled frame that becomes a crop of the scaled one; kept inside the frame when rounding."""
    scale_y, scale_x = frame_hw[0] / scaled_hw[0], frame_hw[1] / scaled_hw[1]
    bottom = min((top + size_hw[0]) * scale_y, float(frame_hw[0]))
    right = min((left + size_hw[1]) * scale_x, float(frame_hw[1]))
    return left * scale_x, top * scale_y, right, bottom


def _half(margin: int, *, rounding: str) -> int:
    return round(margin / 2) if rounding == "round" else margin // 2


def _offsets(crop: Crop, scaled_hw: tuple[int, int]) -> list[tuple[int, int]]:
    """Top and left of each crop: multiples of a quarter of the margin, rounded down, as the reference steps."""
    step_y, step_x = ((whole - part) // 4 for whole, part in zip(scaled_hw, crop.hw, strict=True))
    centre = (2 * step_y, 2 * step_x)
    if crop.kind == "three":
        return [(2 * step_y, 0), (2 * step_y, 4 * step_x), centre]
    return [(0, 0), (0, 4 * step_x), (4 * step_y, 0), (4 * step_y, 4 * step_x), centre]
