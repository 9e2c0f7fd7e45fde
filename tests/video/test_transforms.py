"""Transforms against the reference's goldens on synthetic frames of five sizes, none of them 4:3."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ppvcli.errors import FrameTooLargeError, UsageError
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.transforms import Augment, apply_resize_crop, crop_frame, normalize, scaled_size
from tests.video.pictures import augmented, noise
from tests.video.protocols import IMAGE_JOBS, WHOLE_FRAME

Frames = npt.NDArray[np.uint8]
SIZES = ("426x240", "240x426", "1280x720", "340x256", "256x340")


def synthetic_frames(num_frames: int, *, width: int, height: int) -> Frames:
    """The frames of RECIPE.md, from which the goldens were made."""
    rng = np.random.default_rng(1000 * width + height)
    yy, xx = np.mgrid[0:height, 0:width].astype(np.float64)
    frames = []
    for t in range(num_frames):
        checks = ((xx // 16 + yy // 16 + t) % 2) * 200.0
        stack = np.stack([xx * 255 / max(width - 1, 1), yy * 255 / max(height - 1, 1), checks], axis=-1)
        noisy = 0.7 * stack + 0.3 * rng.integers(0, 256, (height, width, 3))
        frames.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return np.stack(frames)


@pytest.fixture(scope="module")
def golden(goldens_dir: Path) -> dict[str, Any]:
    facts = json.loads((goldens_dir / "data" / "image_golden.json").read_text())
    with np.load(goldens_dir / "data" / "image_golden.npz") as arrays:
        return {key: {**facts[key], "sub": arrays[key], "scaled": arrays[f"{key}.scaled0_sub"]} for key in facts}


@cache
def _frames_of(size: str) -> Frames:
    width, height = (int(length) for length in size.split("x"))
    return synthetic_frames(2, width=width, height=height)


def _whole_frame_crop(frames: Frames, preprocess: Preprocess) -> Frames:
    """The center crop of frames that Pillow scaled as a whole: what the box must come close to."""
    height, width = frames.shape[1:3]
    scaled_h, scaled_w = scaled_size(height, width, resize=preprocess.resize)
    margins = (scaled_h - 224, scaled_w - 224)
    top, left = (round(margin / 2) for margin in margins)
    whole = [np.asarray(Image.fromarray(frame).resize((scaled_w, scaled_h), 2)) for frame in frames]
    return np.stack(whole)[:, top : top + 224, left : left + 224]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("job", IMAGE_JOBS)
def test_transform_of_synthetic_frames_equals_the_reference(job: str, size: str, golden: dict[str, Any]) -> None:
    preprocess, expected = IMAGE_JOBS[job], golden[f"{job}__{size}"]
    crops = apply_resize_crop(_frames_of(size), preprocess)
    tensor = normalize(crops, preprocess).reshape(expected["shape"])
    grey_levels = np.abs(tensor[..., ::8, ::8] - expected["sub"]) * np.reshape(preprocess.std, (3, 1, 1)) * 255
    cropped_by_box = job in ("tsm_test", "pptsm_test")
    if cropped_by_box:
        assert grey_levels.max() < 1.01
        assert grey_levels.mean() < 0.01
        return
    assert grey_levels.max() == 0
    digest = hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest()
    assert digest == expected["sha256_f32"]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("job", IMAGE_JOBS)
def test_scaled_frame_equals_the_reference(job: str, size: str, golden: dict[str, Any]) -> None:
    frames, resize = _frames_of(size)[:1], IMAGE_JOBS[job].resize
    scaled_hw = scaled_size(*frames.shape[1:3], resize=resize)
    whole = Preprocess(
        sampling=WHOLE_FRAME.sampling,
        resize=Resize(backend=resize.backend, size_hw=scaled_hw),
        crop=Crop(kind="none"),
    )
    scaled = apply_resize_crop(frames, whole)[0, 0]
    assert np.array_equal(scaled[::8, ::8], golden[f"{job}__{size}"]["scaled"])


@pytest.mark.parametrize(("width", "height"), [(320, 240), (180, 144), (426, 240), (640, 360), (1280, 720), (100, 80)])
@pytest.mark.parametrize("job", ["tsm_test", "pptsm_test"])
def test_center_crop_by_box_is_within_one_grey_level_of_the_whole_frame(job: str, width: int, height: int) -> None:
    frames = noise(2, width=width, height=height)
    difference = np.abs(
        apply_resize_crop(frames, IMAGE_JOBS[job])[0].astype(int) - _whole_frame_crop(frames, IMAGE_JOBS[job])
    )
    assert difference.max() <= 1
    assert difference.mean() < 0.01


@pytest.mark.parametrize(
    ("resize", "frame_hw", "expected_hw"),
    [
        (Resize(short_side=256, aspect="4:3"), (240, 320), (256, 341)),
        (Resize(short_side=256, aspect="4:3"), (720, 1280), (256, 341)),
        (Resize(short_side=256, aspect="4:3"), (1280, 720), (341, 256)),
        (Resize(short_side=256, aspect="4:3"), (256, 456), (256, 456)),
        (Resize(short_side=256, rounding="floor"), (700, 1280), (256, 468)),
        (Resize(short_side=256, rounding="round"), (698, 1280), (256, 469)),
        (Resize(short_side=256), (1280, 700), (468, 256)),
        (Resize(size_hw=(160, 192)), (144, 180), (160, 192)),
    ],
)
def test_scaled_size_of_a_frame_follows_the_rule(
    resize: Resize, frame_hw: tuple[int, int], expected_hw: tuple[int, int]
) -> None:
    assert scaled_size(*frame_hw, resize=resize) == expected_hw


def _unscaled(kind: str, *, size: int = 4, rounding: str = "floor") -> Preprocess:
    crop = Crop(kind=kind, size=size, rounding=rounding)
    return replace(WHOLE_FRAME, resize=Resize(short_side=8), crop=crop)


def _grid(height: int, width: int) -> Frames:
    """One frame whose pixels hold their own row and column."""
    yy, xx = np.mgrid[0:height, 0:width]
    return np.stack([yy, xx, 0 * xx], axis=-1).astype(np.uint8)[np.newaxis]


def _corners(crops: Frames) -> list[tuple[int, int]]:
    """Row and column of the frame that each crop begins with."""
    return [(int(crop[0, 0, 0, 0]), int(crop[0, 0, 0, 1])) for crop in crops]


def test_ten_crops_of_a_grid_are_corners_and_centre_each_with_its_mirror_image() -> None:
    crops = apply_resize_crop(_grid(8, 17), _unscaled("ten"))
    assert crops.shape == (10, 1, 4, 4, 3)
    assert _corners(crops[::2]) == [(0, 0), (0, 12), (4, 0), (4, 12), (2, 6)]
    assert np.array_equal(crops[1::2], crops[::2, :, :, ::-1])


def test_three_crops_of_a_grid_are_left_right_and_centre() -> None:
    assert _corners(apply_resize_crop(_grid(8, 17), _unscaled("three"))) == [(2, 0), (2, 12), (2, 6)]
    assert _corners(apply_resize_crop(_grid(17, 8), _unscaled("three"))) == [(6, 0), (6, 4), (6, 2)]


@pytest.mark.parametrize(("width", "rounding", "left"), [(15, "floor", 5), (15, "round", 6), (13, "round", 4)])
def test_center_crop_of_an_odd_margin_is_halved_as_asked(width: int, rounding: str, left: int) -> None:
    crops = apply_resize_crop(_grid(8, width), _unscaled("center", rounding=rounding))
    assert _corners(crops) == [(2, left)]


def test_crop_keeps_the_order_of_frames() -> None:
    frames = np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1) * np.ones((1, 8, 8, 3), dtype=np.uint8)
    for kind in ("center", "ten", "three"):
        crops = apply_resize_crop(frames, _unscaled(kind))
        assert np.all(crops[:, :, 0, 0, 0] == np.arange(5))


@pytest.mark.parametrize("kind", ["center", "ten", "three"])
def test_crop_larger_than_the_scaled_frame_raises(kind: str) -> None:
    with pytest.raises(UsageError, match="too small for a crop of 12"):
        apply_resize_crop(_grid(8, 17), _unscaled(kind, size=12))


@pytest.mark.parametrize("backend", ["pillow", "cv2"])
@pytest.mark.parametrize("kind", ["three", "ten", "none"])
@pytest.mark.parametrize("size_hw", [(1, 65535), (65535, 1)])
def test_frame_that_scaling_would_blow_up_raises(size_hw: tuple[int, int], kind: str, backend: str) -> None:
    preprocess = Preprocess(
        sampling=Sampling(mode="uniform", num_segments=1),
        resize=Resize(backend=backend, short_side=256),  # type: ignore[arg-type]
        crop=Crop(kind=kind),  # type: ignore[arg-type]
    )
    with pytest.raises(FrameTooLargeError, match="16776960"):
        crop_frame(np.zeros((*size_hw, 3), dtype=np.uint8), preprocess)


def test_resize_without_a_size_raises() -> None:
    with pytest.raises(UsageError):
        apply_resize_crop(_grid(8, 8), replace(WHOLE_FRAME, resize=Resize(), crop=Crop(kind="center", size=4)))


def test_normalize_of_any_leading_axes_is_the_formula_with_channels_first() -> None:
    frames = noise(6, width=5, height=4).reshape(2, 3, 4, 5, 3)
    before = frames.copy()
    result = normalize(frames, IMAGE_JOBS["tsm_test"])
    mean, std = np.array(IMAGE_JOBS["tsm_test"].mean), np.array(IMAGE_JOBS["tsm_test"].std)
    expected = np.moveaxis((frames / 255.0 - mean) / std, -1, -3)
    assert result.dtype == np.float32
    assert result.shape == (2, 3, 3, 4, 5)
    assert result.flags.c_contiguous
    assert np.allclose(result, expected, atol=1e-6)
    assert np.array_equal(frames, before)


def test_augment_without_crop_or_flip_is_the_eval_transform_of_the_whole_frame() -> None:
    frames = noise(3, width=180, height=144)
    clip = augmented(frames, WHOLE_FRAME, Augment(flip_ratio=0.0), rng=np.random.default_rng(0))
    assert np.array_equal(clip, apply_resize_crop(frames, WHOLE_FRAME)[0])


def test_augment_that_always_flips_mirrors_every_frame() -> None:
    frames = noise(3, width=180, height=144)
    clip = augmented(frames, WHOLE_FRAME, Augment(flip_ratio=1.0), rng=np.random.default_rng(0))
    assert np.array_equal(clip[:, :, ::-1], apply_resize_crop(frames, WHOLE_FRAME)[0])


def test_augment_flips_the_given_share_of_clips() -> None:
    frames = _grid(16, 16)
    rng = np.random.default_rng(0)
    clips = [augmented(frames, WHOLE_FRAME, Augment(flip_ratio=0.3), rng=rng) for _ in range(300)]
    flipped = np.mean([clip[0, 0, 0, 1] > clip[0, 0, -1, 1] for clip in clips])
    assert 0.2 < flipped < 0.4  # 300 draws of 0.3 have a standard deviation of 0.026


def test_augment_crops_all_frames_of_a_clip_alike_and_clips_differently() -> None:
    frames = np.repeat(noise(1, width=180, height=144), 4, axis=0)
    rng = np.random.default_rng(0)
    first, second = (augmented(frames, WHOLE_FRAME, Augment(min_area_ratio=0.5), rng=rng) for _ in range(2))
    assert np.all(first == first[:1])
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 426), (300, 300)])
@pytest.mark.parametrize("job", ["tsm_test", "pptsm_test", "whole"])
def test_augment_crop_has_the_area_asked_for_and_the_shape_that_eval_looks_at(
    job: str, width: int, height: int
) -> None:
    preprocess = {**IMAGE_JOBS, "whole": WHOLE_FRAME}[job]
    yy, xx = np.mgrid[0:height, 0:width]
    ramp = np.stack([yy * 255 / (height - 1), xx * 255 / (width - 1), 0 * xx], axis=-1)
    frames = ramp.astype(np.uint8)[np.newaxis]
    scaled_h, scaled_w = scaled_size(height, width, resize=preprocess.resize)
    rng = np.random.default_rng(3)
    ratios = []
    for _ in range(60):
        clip = augmented(frames, preprocess, Augment(flip_ratio=0.0, min_area_ratio=0.4), rng=rng)
        assert clip.shape == (1, *preprocess.input_hw, 3)
        seen_h = (int(clip[0, -1, 0, 0]) - int(clip[0, 0, 0, 0])) / 255 * scaled_h
        seen_w = (int(clip[0, 0, -1, 1]) - int(clip[0, 0, 0, 1])) / 255 * scaled_w
        if preprocess.crop.kind != "none":
            assert seen_h == pytest.approx(seen_w, rel=0.06)  # a square once scaled, up to the ramp's 256 steps
            ratios.append(seen_h * seen_w / min(scaled_h, scaled_w) ** 2)
        else:
            assert seen_h / scaled_h == pytest.approx(seen_w / scaled_w, rel=0.06)
            ratios.append(seen_h * seen_w / (scaled_h * scaled_w))
    assert 0.36 < min(ratios) < 0.5
    assert 0.85 < max(ratios) < 1.02
