"""The reference's random crops: against a plain composition of Pillow and OpenCV, that one against its hashes."""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from ppvcli.errors import UsageError
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.decoding import read_frames
from ppvcli.video.multi_scale import MultiScale, crop_places, crop_sizes, draw_box
from ppvcli.video.transforms import Augment, normalize, scaled_size
from tests.video.pictures import augmented, noise

Frames = npt.NDArray[np.uint8]

TSN = (
    Resize(backend="cv2", short_side=256, rounding="round"),
    MultiScale(size=224, num_points=5),
)
PPTSN = (TSN[0], MultiScale(size=224, num_points=13))
TSM = (Resize(short_side=256), MultiScale(size=224, num_points=13, scale_first=False))
PPTSM = (Resize(short_side=256, aspect="4:3"), MultiScale(size=256, num_points=13, repeat_places=False))
RECIPES = {"tsn": TSN, "pptsn": PPTSN, "tsm": TSM, "pptsm": PPTSM}


def preprocess_of(resize: Resize) -> Preprocess:
    return Preprocess(sampling=Sampling(mode="uniform", num_segments=8), resize=resize, crop=Crop(kind="center"))


def plain_resize(frame: Frames, width: int, height: int, *, backend: str) -> Frames:
    if backend == "cv2":
        return cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR))


def plain_clip(frames: Frames, resize: Resize, multi_scale: MultiScale, *, choices: Any) -> Frames:
    """The reference's steps, frame by frame; `choices` draws sides, place, and where the last crop is."""
    if multi_scale.scale_first:
        height, width = scaled_size(*frames.shape[1:3], resize=resize)
        frames = np.stack([plain_resize(frame, width, height, backend=resize.backend) for frame in frames])
    height, width = frames.shape[1:3]
    sides = [int(min(height, width) * scale) for scale in multi_scale.scales]
    sides = [multi_scale.size if abs(side - multi_scale.size) < 3 else side for side in sides]
    pairs = [(h, w) for i, h in enumerate(sides) for j, w in enumerate(sides) if abs(i - j) <= 1]
    crop_h, crop_w = choices.pick(pairs)
    step_y, step_x = (height - crop_h) / 4, (width - crop_w) / 4
    places = [(0, 0)]
    for y, x in ((0, 4), (4, 0), (4, 4), (2, 2)):
        moved = (y == 0 or step_y > 0) and (x == 0 or step_x > 0)
        if multi_scale.repeat_places or moved or ((y, x) == (2, 2) and (step_y or step_x)):
            places.append((y, x))
    if multi_scale.num_points == 13:
        places += [(2, 0), (2, 4), (4, 2), (0, 2), (1, 1), (1, 3), (3, 1), (3, 3)]
    y, x = choices.pick(places)
    top, left = y * step_y, x * step_x
    clip = []
    for frame in frames:
        cut = np.asarray(Image.fromarray(frame).crop((left, top, left + crop_w, top + crop_h)))
        clip.append(plain_resize(cut, multi_scale.size, multi_scale.size, backend=resize.backend))
    left, top = choices.offset(multi_scale.size - 224), choices.offset(multi_scale.size - 224)
    result = np.stack(clip)[:, top : top + 224, left : left + 224]
    return result[:, :, ::-1] if choices.mirror() else result


class NumpyChoices:
    """Draws in the order in which the package does."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def pick(self, options: list[Any]) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def offset(self, margin: int) -> int:
        return int(self.rng.integers(margin + 1))

    def mirror(self) -> bool:
        return self.rng.random() < 0.5


@pytest.mark.parametrize(("width", "height"), [(320, 240), (240, 320), (426, 240), (641, 359), (256, 256)])
@pytest.mark.parametrize("recipe", RECIPES)
def test_clip_equals_a_plain_composition_of_the_steps(recipe: str, width: int, height: int) -> None:
    frames = noise(2, width=width, height=height)
    resize, multi_scale = RECIPES[recipe]
    for seed in range(6):
        augment = Augment(flip_ratio=0.5, multi_scale=multi_scale)
        clip = augmented(frames, preprocess_of(resize), augment, rng=np.random.default_rng(seed))
        expected = plain_clip(frames, resize, multi_scale, choices=NumpyChoices(seed))
        assert clip.shape == (2, 224, 224, 3)
        assert np.array_equal(clip, expected)


class ReferenceChoices:
    """Python's generator, in the order in which the reference asks it."""

    def __init__(self, *, mirror: bool) -> None:
        self._mirror = mirror

    def pick(self, options: list[Any]) -> Any:
        return random.choice(options)

    def offset(self, margin: int) -> int:
        return random.randint(0, margin) if margin else 0

    def mirror(self) -> bool:
        return self._mirror


GOLDENS = {
    "train_tsn__example_avi__decord": (TSN, True, lambda: None),
    "train_tsm__example_avi__decord": (TSM, False, lambda: None),
    "train_pptsm_uniform__example_avi__decord": (PPTSM, True, lambda: [random.randint(0, 15) for _ in range(8)]),
    "train_pptsmv2_16f__example_avi__decord": (PPTSM, True, lambda: [random.randint(0, 7) for _ in range(16)]),
}
"""Recipe, whether the draw mirrors, and what the reference's sampler drew before the crop."""


@pytest.mark.parametrize("job", GOLDENS)
def test_composition_with_the_draws_of_the_reference_has_its_hash(job: str, shared_dir: Path) -> None:
    expected = json.loads((shared_dir / "reference" / "data" / "data_golden.json").read_text())[job]
    (resize, multi_scale), mirror, draw_frames = GOLDENS[job]
    frames = read_frames(shared_dir / "data" / "clips" / "example.avi", expected["trace"][1][1])
    random.seed(0)
    draw_frames()
    clip = plain_clip(frames, resize, multi_scale, choices=ReferenceChoices(mirror=mirror))
    tensor = normalize(clip, preprocess_of(resize))
    assert hashlib.sha256(np.ascontiguousarray(tensor).tobytes()).hexdigest() == expected["sha256_f32"]


def test_sides_are_equal_or_neighbouring_shares() -> None:
    sizes = crop_sizes(240, MultiScale(size=224))
    assert sorted(set(sizes)) == [
        (158, 158), (158, 180), (180, 158), (180, 180), (180, 210), (210, 180), (210, 210), (210, 240), (240, 210),
        (240, 240),
    ]  # fmt: skip


@pytest.mark.parametrize(("short_side", "largest"), [(221, 221), (222, 222), (226, 224), (227, 227), (224, 224)])
def test_side_within_two_pixels_of_the_target_becomes_it_unless_the_frame_is_smaller(
    short_side: int, largest: int
) -> None:
    assert max(crop_sizes(short_side, MultiScale(size=224))) == (largest, largest)


def test_places_are_quarters_of_the_margins() -> None:
    five = crop_places(8, 40, MultiScale(size=224, num_points=5))
    assert five == [(0, 0), (0, 40), (8, 0), (8, 40), (4, 20)]
    thirteen = crop_places(8, 40, MultiScale(size=224, num_points=13))
    assert len(set(thirteen)) == 13
    assert set(thirteen) - set(five) == {
        (4, 0), (4, 40), (8, 20), (0, 20), (2, 10), (2, 30), (6, 10), (6, 30),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("margins", "repeated", "expected"),
    [
        ((0, 40), True, {(0, 0): 2, (0, 40): 2, (0, 20): 1}),
        ((0, 40), False, {(0, 0): 1, (0, 40): 1, (0, 20): 1}),
        ((0, 0), True, {(0, 0): 5}),
        ((0, 0), False, {(0, 0): 1}),
    ],
)
def test_corners_that_fall_together_are_drawn_apiece_if_asked(
    margins: tuple[int, int], repeated: bool, expected: dict[tuple[int, int], int]
) -> None:
    places = crop_places(*margins, MultiScale(size=224, num_points=5, repeat_places=repeated))
    assert Counter(places) == expected


def test_every_size_and_place_is_drawn_about_equally_often() -> None:
    multi_scale, rng = MultiScale(size=224, scales=(0.75, 0.5), num_points=5), np.random.default_rng(0)
    boxes = Counter(draw_box((240, 320), multi_scale, rng=rng) for _ in range(20000))
    assert len(boxes) == 4 * 5
    assert min(boxes.values()) > 850  # 1000 expected, standard deviation 31
    assert max(boxes.values()) < 1150


def test_all_frames_of_a_clip_have_the_same_crop() -> None:
    frames = np.repeat(noise(1, width=320, height=240), 4, axis=0)
    for resize, multi_scale in RECIPES.values():
        clip = augmented(frames, preprocess_of(resize), Augment(multi_scale=multi_scale), rng=np.random.default_rng(3))
        assert np.all(clip == clip[:1])


def test_crop_that_is_scaled_to_less_than_the_input_is_refused() -> None:
    augment = Augment(multi_scale=MultiScale(size=160))
    with pytest.raises(UsageError, match="smaller than the network's input of 224x224"):
        augmented(noise(1, width=320, height=240), preprocess_of(TSM[0]), augment, rng=np.random.default_rng(0))
