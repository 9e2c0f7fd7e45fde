"""Three ways to look at a video when a model is measured, for any model: from its own preprocessing to another one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from ppvcli.errors import UnknownNameError
from ppvcli.specs import Crop, Preprocess, Resize, Sampling


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How many clips and crops of one video are looked at."""

    num_clips: int
    crop: Literal["center", "three", "ten"]
    summary: str


PROTOCOLS = {
    "uniform": Protocol(num_clips=1, crop="center", summary="one clip spread over the video, the centre crop"),
    "dense": Protocol(num_clips=10, crop="three", summary="10 clips x 3 crops"),
    "ten-crop": Protocol(num_clips=1, crop="ten", summary="one clip, 10 crops"),
}

MARGIN = 8 / 7
"""Side of a scaled frame by side of the crops cut from it, for a model that has no crop of its own; as 256 / 224."""


def get_protocol(name: str) -> Protocol:
    """The protocol of that name. Raises: UnknownNameError."""
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS, hint=f"known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def apply_protocol(preprocess: Preprocess, name: str) -> Preprocess:
    """The preprocessing of a model with the clips and crops of a protocol; frames a clip, input size and scaling stay.

    `uniform` samples uniformly. `dense` samples densely, or, for a model that was trained on windows of neighbouring
    frames, spreads 10 of its windows over the video. `ten-crop` keeps the model's own sampling, one clip of it.

    A model that looks at the whole frame keeps doing so under `uniform`. For the others the frame is scaled to MARGIN
    times the input size, the crops are of the input size, and so not square where the input is not.

    Raises: UnknownNameError.
    """
    resize, crop = _resize_and_crop(preprocess, get_protocol(name).crop)
    return replace(preprocess, sampling=_sampling(preprocess.sampling, name), resize=resize, crop=crop)


def _sampling(sampling: Sampling, name: str) -> Sampling:
    num_clips = PROTOCOLS[name].num_clips
    if name == "uniform":
        return replace(sampling, mode="uniform", num_clips=num_clips, frame_interval=None)
    if name == "dense" and sampling.mode != "window":
        return replace(sampling, mode="dense", num_clips=num_clips)
    return replace(sampling, num_clips=num_clips)


def _resize_and_crop(preprocess: Preprocess, kind: Literal["center", "three", "ten"]) -> tuple[Resize, Crop]:
    if preprocess.crop.kind != "none":
        return preprocess.resize, replace(preprocess.crop, kind=kind)
    if kind == "center":
        return preprocess.resize, preprocess.crop
    height, width = preprocess.input_hw
    larger = replace(preprocess.resize, size_hw=(round(height * MARGIN), round(width * MARGIN)))
    return larger, Crop(kind=kind, size_hw=(height, width))
