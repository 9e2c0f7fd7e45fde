"""What a weight file of ours says about itself, in the string-to-string header of safetensors.

A header comes with a file from anywhere, so every field is checked for type and range before a video is decoded by it.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from ppvcli.specs import Crop, NetworkSpec, Preprocess, Resize, Sampling

FORMAT = "ppvcli/1"
_FIELDS = ("format", "model", "labels", "preprocess", "network")
_MAX_LABELS = 100_000
_RANGES = {
    "num_segments": 1024,
    "num_clips": 1024,
    "frame_interval": 100_000,
    "short_side": 8192,
    "size": 8192,
    "depth": 101,
}
"""Largest value of an integer field; the smallest is 1."""
_MAX_SIDE = 8192
_MAX_PIXELS = 1 << 30
"""Of all views of a video together: 3 GB. A hostile header must not ask for terabytes."""


_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
"""Characters that could steer a terminal, and what stands for bytes that are no UTF-8."""


class MetadataError(ValueError):
    """A header that claims our format and breaks its rules."""


@dataclass(frozen=True, kw_only=True)
class WeightsMetadata:
    """Which model a file holds, the names of its classes, and how its videos were prepared."""

    model: str | None = None
    labels: tuple[str, ...] | None = None
    """Class names in the order of the logits."""
    preprocess: Preprocess | None = None
    network: NetworkSpec | None = None
    """The network where it is not exactly the model's, such as another number of frames."""
    extra: dict[str, str] = field(default_factory=dict)
    """Other facts, such as where the file came from."""

    def to_header(self) -> dict[str, str]:
        """The header fields of safetensors; `from_header` reads them back.

        Raises: MetadataError for labels that it would refuse.
        """
        assert not set(self.extra) & set(_FIELDS), "extra must not shadow a field"
        header = {"format": FORMAT, **self.extra}
        if self.model is not None:
            header["model"] = self.model
        if self.labels is not None:
            check_labels(self.labels)
            header["labels"] = json.dumps(list(self.labels), ensure_ascii=False)
        if self.preprocess is not None:
            header["preprocess"] = preprocess_to_json(self.preprocess)
        if self.network is not None:
            header["network"] = json.dumps(dataclasses.asdict(self.network))
        return header

    @classmethod
    def from_header(cls, header: Mapping[str, str] | None) -> WeightsMetadata | None:
        """None for a file of another program.

        Raises:
            MetadataError: it names our format and has a field that is malformed or out of range.
        """
        if header is None or header.get("format") != FORMAT:
            return None
        labels, preprocess, network = (header.get(name) for name in ("labels", "preprocess", "network"))
        return cls(
            model=header.get("model"),
            labels=None if labels is None else _labels(labels),
            preprocess=None if preprocess is None else preprocess_from_json(preprocess),
            network=None if network is None else _network(network),
            extra={key: value for key, value in header.items() if key not in _FIELDS},
        )


def check_labels(labels: Sequence[str]) -> None:
    """Passes for class names that a weight file can carry.

    Raises: MetadataError for none or too many, and the first that is empty, holds a control character (a tab, a line
        break) or is not UTF-8, as the name of a folder may be.
    """
    if not 1 <= len(labels) <= _MAX_LABELS:
        raise MetadataError(f"labels: expected a list of 1 to {_MAX_LABELS} names")
    unfit = next((label for label in labels if not label or _UNFIT.search(label)), None)
    if unfit is not None:
        raise MetadataError(
            f"labels: expected names in UTF-8 of at least one character, without control characters; got {unfit!a:.60}"
        )


def preprocess_to_json(preprocess: Preprocess) -> str:
    """JSON text with every field, the nested ones as objects."""
    text = json.dumps(dataclasses.asdict(preprocess))
    assert preprocess_from_json(text) == preprocess, "only what can be read back is written"
    return text


def preprocess_from_json(text: str) -> Preprocess:
    """The `Preprocess` of `preprocess_to_json`; fields with a default may be absent.

    Raises:
        MetadataError: no JSON object, an unknown or missing field, a wrong type, a value out of range or a pair of
            values that exclude each other.
    """
    result = _build(_parse(text, "preprocess"), Preprocess, "preprocess")
    assert isinstance(result, Preprocess)
    _check_sampling(result.sampling)
    _check_resize_and_crop(result.resize, result.crop)
    num_pixels = result.num_views * result.sampling.num_segments * math.prod(result.input_hw)
    if num_pixels > _MAX_PIXELS:
        raise MetadataError(f"preprocess: {num_pixels:,} pixels for each video, at most {_MAX_PIXELS:,} are taken")
    if not all(math.isfinite(value) for value in result.mean):
        raise MetadataError("preprocess.mean: expected finite numbers")
    if not all(math.isfinite(value) and value > 0 for value in result.std):
        raise MetadataError("preprocess.std: expected finite numbers above 0")
    return result


def _network(text: str) -> NetworkSpec:
    result = _build(_parse(text, "network"), NetworkSpec, "network")
    assert isinstance(result, NetworkSpec)
    return result


def _parse(text: str, where: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MetadataError(f"{where}: no JSON ({error})") from None


def _labels(text: str) -> tuple[str, ...]:
    labels = _parse(text, "labels")
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise MetadataError(f"labels: expected a list of 1 to {_MAX_LABELS} names")
    check_labels(labels)
    return tuple(labels)


def _build(value: object, kind: Any, where: str) -> object:
    """`value` of parsed JSON as the annotated type `kind`: a dataclass, Literal, tuple, optional, int or float."""
    if dataclasses.is_dataclass(kind):
        return _build_dataclass(value, kind, where)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        if not any(value == choice and type(value) is type(choice) for choice in args):
            raise MetadataError(f"{where}: {value!r:.60} is none of {', '.join(map(str, args))}")
        return value
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _build(value, args[0], where)
    if origin is tuple:
        if not isinstance(value, list) or len(value) != len(args):
            raise MetadataError(f"{where}: expected a list of {len(args)} values")
        return tuple(
            _build(item, kind, f"{where}[{i}]") for i, (item, kind) in enumerate(zip(value, args, strict=True))
        )
    if kind is bool and type(value) is bool:
        return value
    if kind is float and type(value) in (int, float):
        return _float(value, where)
    if kind is int and type(value) is int:
        return value
    raise MetadataError(f"{where}: {value!r:.60} is no {kind.__name__}")


def _float(value: Any, where: str) -> float:
    try:
        return float(value)
    except OverflowError:
        raise MetadataError(f"{where}: a number too large") from None


def _build_dataclass(value: object, kind: Any, where: str) -> object:
    if not isinstance(value, dict):
        raise MetadataError(f"{where}: expected an object")
    hints = typing.get_type_hints(kind)
    if unknown := sorted(set(value) - set(hints)):
        raise MetadataError(f"{where}: unknown fields {ascii(', '.join(unknown))[1:101]}")
    required = {f.name for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING}
    if missing := sorted(required - set(value)):
        raise MetadataError(f"{where}: missing fields {', '.join(missing)}")
    built = {name: _build(item, hints[name], f"{where}.{name}") for name, item in value.items()}
    for name, item in built.items():
        if type(item) is int and not 1 <= item <= _RANGES[name]:
            raise MetadataError(f"{where}.{name}: {item} is not between 1 and {_RANGES[name]}")
    return kind(**built)


def _check_sampling(sampling: Sampling) -> None:
    if (sampling.frame_interval is not None) != (sampling.mode == "window"):
        raise MetadataError(f"preprocess.sampling: frame_interval {sampling.frame_interval} with mode {sampling.mode}")
    if sampling.num_clips > 1 and sampling.mode != "dense":
        raise MetadataError(f"preprocess.sampling: {sampling.num_clips} clips with mode {sampling.mode}")


def _check_resize_and_crop(resize: Resize, crop: Crop) -> None:
    if (resize.short_side is None) == (resize.size_hw is None):
        raise MetadataError("preprocess.resize: expected either short_side or size_hw")
    if resize.size_hw is not None and not all(1 <= side <= _MAX_SIDE for side in resize.size_hw):
        raise MetadataError(f"preprocess.resize.size_hw: {resize.size_hw} is not between 1 and {_MAX_SIDE}")
    if crop.kind == "none" and resize.size_hw is None:
        raise MetadataError("preprocess.crop: no crop needs resize.size_hw")
    if crop.size_hw is not None and not all(1 <= side <= _MAX_SIDE for side in crop.size_hw):
        raise MetadataError(f"preprocess.crop.size_hw: {crop.size_hw} is not between 1 and {_MAX_SIDE}")
    if crop.kind == "none":
        return
    least_hw = resize.size_hw or (resize.short_side or 0, resize.short_side or 0)
    if crop.hw[0] > least_hw[0] or crop.hw[1] > least_hw[1]:
        crop_hw, frame_hw = (f"{height} x {width}" for height, width in (crop.hw, least_hw))
        raise MetadataError(f"preprocess.crop: {crop_hw} pixels (height x width) from a frame of {frame_hw} or more")
