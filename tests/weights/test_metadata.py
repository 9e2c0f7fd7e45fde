"""What a weight file says about itself: there and back, foreign, and hostile."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pytest

from ppvcli.models.zoo import ZOO
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.weights.metadata import MetadataError, WeightsMetadata, preprocess_from_json, preprocess_to_json

WINDOW = Preprocess(
    sampling=Sampling(mode="window", num_segments=8, frame_interval=4),
    resize=Resize(size_hw=(160, 192)),
    crop=Crop(kind="none"),
    mean=(0.5, 0.25, 0),
)


def test_metadata_through_a_header_comes_back_equal() -> None:
    metadata = WeightsMetadata(
        model="tsm_efflite0", labels=("wave", "saut \u00e0 la corde"), preprocess=WINDOW, extra={"source": "https://x"}
    )
    header = metadata.to_header()
    assert header["format"] == "ppvcli/1"
    assert all(isinstance(value, str) for value in header.values())
    assert WeightsMetadata.from_header(header) == metadata


def test_metadata_of_nothing_comes_back_equal() -> None:
    assert WeightsMetadata.from_header(WeightsMetadata().to_header()) == WeightsMetadata()


@pytest.mark.parametrize("header", [None, {}, {"format": "pt"}, {"format": "np", "labels": "not json"}])
def test_metadata_of_another_program_is_none(header: dict[str, str] | None) -> None:
    assert WeightsMetadata.from_header(header) is None


@pytest.mark.parametrize("name", ZOO)
def test_preprocess_of_every_model_comes_back_equal(name: str) -> None:
    preprocess = ZOO[name].preprocess
    assert preprocess_from_json(preprocess_to_json(preprocess)) == preprocess


def test_preprocess_without_the_fields_that_have_defaults_takes_them() -> None:
    tree = {
        "sampling": {"mode": "uniform", "num_segments": 8},
        "resize": {"short_side": 256},
        "crop": {"kind": "center"},
    }
    assert preprocess_from_json(json.dumps(tree)) == Preprocess(
        sampling=Sampling(mode="uniform", num_segments=8), resize=Resize(short_side=256), crop=Crop(kind="center")
    )


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    *parents, last = path.split(".")

    def change(tree: dict[str, Any]) -> None:
        for parent in parents:
            tree = tree[parent]
        tree[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("sampling.mode", "random", "is none of uniform"),
        ("sampling.mode", 1, "is none of"),
        ("sampling.mode", "uniform", "frame_interval 4 with mode uniform"),
        ("sampling.num_segments", "8", "no int"),
        ("sampling.num_segments", 8.0, "no int"),
        ("sampling.num_segments", True, "no int"),
        ("sampling.num_segments", None, "no int"),
        ("sampling.num_segments", 0, "not between 1 and"),
        ("sampling.num_segments", 10**12, "not between 1 and"),
        ("sampling.num_clips", 3, "3 clips with mode window"),
        ("sampling.frame_interval", None, "frame_interval None"),
        ("sampling.speed", 1, "unknown fields speed"),
        ("sampling", [], "expected an object"),
        ("resize.size_hw", [160], "list of 2"),
        ("resize.size_hw", [160, 10**9], "not between 1 and"),
        ("resize.size_hw", "16", "list of 2"),
        ("resize.short_side", 256, "either short_side or size_hw"),
        ("resize.size_hw", None, "either short_side or size_hw"),
        ("resize.backend", "eval", "is none of pillow"),
        ("crop.kind", "ten", r"224 x 224 pixels .* from a frame of 160 x 192"),
        ("crop", {"kind": "ten", "size_hw": [150, 193]}, r"150 x 193 pixels .* from a frame of 160 x 192"),
        ("crop", {"kind": "none", "size_hw": [0, 192]}, "not between 1 and"),
        ("crop", {"kind": "none", "size_hw": [192]}, "list of 2"),
        ("mean", [0.5, 0.5], "list of 3"),
        ("mean", [0.5, 0.5, "0.5"], "no float"),
        ("mean", [0.5, 0.5, float("nan")], "finite"),
        ("mean", [10**400, 0.5, 0.5], "too large"),
        ("std", [0.5, 0.5, 0], "above 0"),
        ("std", [0.5, 0.5, float("inf")], "finite"),
        ("code", "import os", "unknown fields code"),
    ],
)
def test_preprocess_with_a_wrong_field_raises_and_names_it(path: str, value: object, said: str) -> None:
    tree = dataclasses.asdict(WINDOW)
    _set(path, value)(tree)
    with pytest.raises(MetadataError, match=said) as caught:
        preprocess_from_json(json.dumps(tree))
    assert str(caught.value).startswith("preprocess")


@pytest.mark.parametrize("text", ["", "{", "[]", "1", "null", "[" * 100_000, "\x00", '{"sampling": {}}', "9" * 10_000])
def test_preprocess_that_is_no_such_object_raises(text: str) -> None:
    with pytest.raises(MetadataError):
        preprocess_from_json(text)


@pytest.mark.parametrize(
    "labels", ["", '["\\u001b[2J"]', "{}", "[]", "[1]", '[""]', '["a", null]', '"ab"', json.dumps(["x"] * 100_001)]
)
def test_labels_that_are_no_list_of_names_raise(labels: str) -> None:
    with pytest.raises(MetadataError, match="labels"):
        WeightsMetadata.from_header({"format": "ppvcli/1", "labels": labels})


@pytest.mark.parametrize("label", ["", "0\twalk", "new\nline", "caf\udce9"])
def test_labels_that_could_not_be_read_back_are_not_written(label: str) -> None:
    with pytest.raises(MetadataError, match="labels: expected names in UTF-8"):
        WeightsMetadata(labels=("walk", label)).to_header()


@pytest.mark.parametrize(
    ("num_segments", "num_clips", "crop", "fits"),
    [
        (25, 1, Crop(kind="ten"), True),
        (32, 10, Crop(kind="three", size=256), True),
        (1024, 1024, Crop(kind="ten", size=8192), False),
        (1024, 1, Crop(kind="center", size=2048), False),
    ],
)
def test_preprocess_of_more_pixels_than_memory_raises(
    num_segments: int, num_clips: int, crop: Crop, fits: bool
) -> None:
    tree = {
        "sampling": {"mode": "dense", "num_segments": num_segments, "num_clips": num_clips},
        "resize": {"short_side": 8192},
        "crop": {"kind": crop.kind, "size": crop.size},
    }
    if fits:
        assert preprocess_from_json(json.dumps(tree)).crop == crop
    else:
        with pytest.raises(MetadataError, match="pixels for each video, at most"):
            preprocess_from_json(json.dumps(tree))
