"""The three protocols for every model of the zoo, and what they mean for one that looks at whole frames."""

from __future__ import annotations

import numpy as np
import pytest

from ppvcli.errors import UnknownNameError
from ppvcli.models.zoo import ZOO, get_model_row
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.protocols import PROTOCOLS, apply_protocol
from ppvcli.video.transforms import apply_resize_crop

VIEWS = {"uniform": 1, "dense": 30, "ten-crop": 10}


@pytest.mark.parametrize("name", PROTOCOLS)
@pytest.mark.parametrize("model", ZOO)
def test_protocol_of_every_model_keeps_what_its_network_takes(model: str, name: str) -> None:
    own = get_model_row(model).preprocess
    chosen = apply_protocol(own, name)
    assert chosen.num_views == VIEWS[name]
    assert chosen.input_hw == own.input_hw
    assert chosen.sampling.num_segments == own.sampling.num_segments
    assert (chosen.mean, chosen.std, chosen.resize.backend) == (own.mean, own.std, own.resize.backend)
    assert apply_protocol(chosen, name).num_views == VIEWS[name]


@pytest.mark.parametrize(
    ("model", "name"),
    [("tsn_k400_3seg", "ten-crop"), ("pptsm_r101_k400_dense", "dense"), ("pptsmv2_k400_16f", "uniform")],
)
def test_protocol_that_a_model_was_published_with_is_its_own(model: str, name: str) -> None:
    own = get_model_row(model).preprocess
    assert apply_protocol(own, name) == own


@pytest.mark.parametrize(
    ("name", "sampling", "resize", "crop"),
    [
        ("uniform", Sampling(mode="uniform", num_segments=8), Resize(size_hw=(160, 192)), Crop(kind="none")),
        (
            "dense",
            Sampling(mode="window", num_segments=8, frame_interval=4, num_clips=10),
            Resize(size_hw=(183, 219)),
            Crop(kind="three", size_hw=(160, 192)),
        ),
        (
            "ten-crop",
            Sampling(mode="window", num_segments=8, frame_interval=4),
            Resize(size_hw=(183, 219)),
            Crop(kind="ten", size_hw=(160, 192)),
        ),
    ],
)
def test_model_of_whole_frames_gets_crops_of_its_input_size(
    name: str, sampling: Sampling, resize: Resize, crop: Crop
) -> None:
    own = get_model_row("tsm_efflite0").preprocess
    expected = Preprocess(sampling=sampling, resize=resize, crop=crop, mean=own.mean, std=own.std)
    assert apply_protocol(own, name) == expected


@pytest.mark.parametrize(
    ("kind", "corners"),
    [
        ("center", [(2, 3)]),
        ("three", [(2, 0), (2, 4), (2, 2)]),
        ("ten", [(0, 0), (0, 4), (4, 0), (4, 4), (2, 2)]),
    ],
)
def test_crops_that_are_no_squares_stand_where_squares_would(kind: str, corners: list[tuple[int, int]]) -> None:
    height, width = 9, 13
    frame = np.zeros((1, height, width, 3), np.uint8)
    frame[0, ..., 0], frame[0, ..., 1] = np.indices((height, width))
    preprocess = Preprocess(
        sampling=Sampling(mode="uniform", num_segments=1),
        resize=Resize(size_hw=(height, width)),
        crop=Crop(kind=kind, size_hw=(5, 6)),  # type: ignore[arg-type]
    )
    crops = apply_resize_crop(frame, preprocess)
    assert crops.shape[1:] == (1, 5, 6, 3)
    plain = crops[::2] if kind == "ten" else crops
    assert [tuple(crop[0, 0, 0, :2].tolist()) for crop in plain] == corners
    if kind == "ten":
        assert np.array_equal(crops[1::2], crops[::2][..., ::-1, :])


def test_unknown_protocol_names_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="nearest: dense") as caught:
        apply_protocol(get_model_row("tsm").preprocess, "denze")
    assert caught.value.hint == "known: uniform, dense, ten-crop"
