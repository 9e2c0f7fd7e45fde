"""Where a run starts: the network with its first weights, and a report of what these were.

Source: SPEC 3.4. A backbone's file gives what it has and the rest begins as initialised; in difference to the reference
the report says so, and a file of another network, whose convolutions do not fit, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import paddle

from ppvcli.configs.schema import TrainConfig
from ppvcli.engine.inputs import network_spec
from ppvcli.errors import DownloadError, WeightsMismatchError
from ppvcli.models.backbones import (
    BACKBONES,
    Backbone,
    imagenet_backbone,
    list_weights,
    published_url,
    store_name,
    weight_source,
    weights_of,
)
from ppvcli.models.build import build_network, classifier_keys
from ppvcli.models.tsm_efflite0 import imagenet_state
from ppvcli.models.zoo import get_model_row, load_labels
from ppvcli.results import StartReport
from ppvcli.specs import NetworkSpec
from ppvcli.weights.download import WITHOUT_NETWORK as PREDICT_WITHOUT_NETWORK
from ppvcli.weights.download import Report
from ppvcli.weights.fetch import download_weights
from ppvcli.weights.formats import read_metadata, read_weights
from ppvcli.weights.matching import canonical_keys
from ppvcli.weights.torch_legacy import read_torch_legacy

_UNUSED = re.compile(r"\.dw_conv\.weight$")
"""Of PP-LCNetV2: a convolution that only a re-parameterised network uses; an ImageNet file may lack it."""
WITHOUT_NETWORK = "without network, this works: ppv train --model tsm_efflite0 --data DIR"
_TEACHER = "Teacher."
MAX_NAMES = 5
"""Classes that a report names."""


def fetch_weights(config: TrainConfig, *, starts: bool, progress: Report | None) -> None:
    """Fetches the published weights that a run needs into the store: its teacher's and, where it `starts`, its first.

    Raises: OfflineError, DownloadError, with a hint that names a training without network; VerificationError.
    """
    names = [] if config.teacher is None else [config.teacher.weights]
    if starts and config.model.pretrained == "imagenet":
        names += [backbone.name for _, backbone in _imagenet_backbones(network_spec(config))]
    elif starts and config.model.pretrained is not None:
        names.append(config.model.pretrained)
    stored = dict.fromkeys(store_name(name) for name in names if name in list_weights())
    try:
        download_weights([weight_source(name) for name in stored if published_url(name) is not None], progress=progress)
    except DownloadError as error:
        error.hint = None if error.hint is None else error.hint.replace(PREDICT_WITHOUT_NETWORK, WITHOUT_NETWORK)
        raise


def starting_network(
    config: TrainConfig, *, labels: Sequence[str], starts: bool
) -> tuple[paddle.nn.Layer, StartReport | None]:
    """The network before its first step, for the classes `labels`, and where its weights come from.

    Where the run does not start (a checkpoint will replace them), and with `model.pretrained` null, all weights are as
    initialised and there is no report.

    Raises: WeightsNotFoundError, WeightsFormatError, OfflineError, DownloadError, VerificationError;
    WeightsMismatchError for the weights of another network.
    """
    spec, pretrained = network_spec(config), config.model.pretrained
    network = build_network(spec, len(labels), dropout=config.model.dropout)
    report = None
    if starts and pretrained is not None:
        tensors = _read_start(pretrained, spec)
        foreign = _other_classes(pretrained, labels)
        classifier = set(canonical_keys(classifier_keys(spec)).values()) if foreign is not None else set()
        report = _take_weights(
            network,
            {key: tensor for key, tensor in tensors.items() if key not in classifier},
            source=pretrained,
            model=config.model.name,
        )
        left = [(key, f"of other classes: {foreign}") for key in tensors if key in classifier]
        report = replace(report, skipped=(*report.skipped, *left))
    if config.model.frozen_stages:
        network.backbone.freeze_stages(config.model.frozen_stages)
    return network, report


def _read_start(pretrained: str, spec: NetworkSpec) -> dict[str, np.ndarray]:
    """The tensors to start from, by canonical key."""
    if pretrained != "imagenet":
        return _read_canonical(pretrained)
    tensors: dict[str, np.ndarray] = {}
    for prefix, backbone in _imagenet_backbones(spec):
        own = _read_canonical(backbone.name)
        tensors |= {prefix + key.removeprefix("backbone."): tensor for key, tensor in own.items()}
    return tensors


def _imagenet_backbones(spec: NetworkSpec) -> list[tuple[str, Backbone]]:
    """What a network begins with, a pair with two, and where in it."""
    parts = (("backbone.", spec), ("Teacher.0.", spec.teacher))
    found = [(prefix, None if part is None else imagenet_backbone(part)) for prefix, part in parts]
    return [(prefix, backbone) for prefix, backbone in found if backbone is not None]


def _other_classes(name_or_file: str, labels: Sequence[str]) -> str | None:
    """The classes of a model, or of a file that says them, where they are others: equal in number is not equal."""
    if name_or_file == "imagenet" or name_or_file in BACKBONES:
        return None
    if name_or_file in list_weights():
        known: tuple[str, ...] | None = load_labels(get_model_row(name_or_file).labels)
    else:
        metadata = read_metadata(name_or_file)
        known = None if metadata is None else metadata.labels
    if known is None or known == tuple(labels):
        return None
    names = [repr(name) for name in known[:MAX_NAMES]]
    return ", ".join([*names, "..."] if len(known) > MAX_NAMES else names)


def _read_canonical(name_or_file: str) -> dict[str, np.ndarray]:
    path = weights_of(name_or_file) if name_or_file in list_weights() else name_or_file
    if name_or_file in BACKBONES and BACKBONES[name_or_file].url is None:
        return imagenet_state(read_torch_legacy(weights_of(name_or_file)))
    tensors = read_weights(path).tensors
    return {canonical: tensors[key] for key, canonical in canonical_keys(tensors).items()}


def _take_weights(
    network: paddle.nn.Layer, tensors: Mapping[str, np.ndarray], *, source: str, model: str
) -> StartReport:
    """Puts what fits of `tensors` into the network. Raises: WeightsMismatchError where a convolution does not."""
    own = network.state_dict()
    keys = {canonical: key for key, canonical in canonical_keys(own).items()}
    shapes = {canonical: list(own[key].shape) for canonical, key in keys.items()}
    skipped = {key: why for key, tensor in tensors.items() if (why := _misfit(key, tensor, shapes)) is not None}
    loaded = [key for key in tensors if key not in skipped]
    missing = [key for key, shape in shapes.items() if _is_convolution(key, shape) and key not in loaded]
    foreign = [key for key in skipped if _is_convolution(key, tensors[key].shape) and not key.startswith(_TEACHER)]
    if missing or foreign:
        total = sum(_is_convolution(key, shape) for key, shape in shapes.items())
        example = f"{foreign[0]}: {skipped[foreign[0]]}" if foreign else f"it lacks {keys[missing[0]]}"
        raise WeightsMismatchError(
            f"{source} is of another network than {model}: it has {total - len(missing)} of its {total} convolutions, "
            f"and {len(foreign)} others; first, {example}",
            hint="--set model.pretrained=imagenet takes the weights that the network is meant to start from",
        )
    for key in loaded:
        own[keys[key]].set_value(tensors[key].astype(np.float32))
    return StartReport(
        weights=source,
        num_loaded=len(loaded),
        skipped=tuple(skipped.items()),
        new=tuple(keys[canonical] for canonical in keys if canonical not in loaded),
    )


def _misfit(key: str, tensor: np.ndarray, shapes: Mapping[str, list[int]]) -> str | None:
    """Why a tensor of a file is not taken; None where it is."""
    if key not in shapes:
        return "of the pair's teacher" if key.startswith(_TEACHER) else "the network has none of this name"
    if tensor.dtype.kind != "f":
        return f"holds {tensor.dtype}"
    if list(tensor.shape) != shapes[key]:
        return f"has shape {list(tensor.shape)}, the network's has {shapes[key]}"
    return None


def _is_convolution(key: str, shape: tuple[int, ...] | list[int]) -> bool:
    return len(shape) == 4 and not _UNUSED.search(key)
