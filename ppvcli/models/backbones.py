"""The table of ImageNet backbones that training starts from, and which network takes which. Nothing heavy is imported.

Source: the reference's model pages, written down in SPEC section 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppvcli.errors import UnknownNameError, UsageError
from ppvcli.models.facts import published_path
from ppvcli.models.zoo import ALIASES, ZOO, get_model_row
from ppvcli.specs import NetworkSpec
from ppvcli.weights import store
from ppvcli.weights.store import WeightSource


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """An image classifier whose convolutions a video network begins with; its 1000-way classifier is dropped."""

    name: str
    url: str | None
    """Of the published `.pdparams`; None for a file that pip brings."""
    architectures: tuple[str, ...]
    """That begin with it when a config says `pretrained: imagenet` ..."""
    depth: int = 50
    """... and have this depth."""
    note: str = ""


_PRETRAINED = "https://videotag.bj.bcebos.com/PaddleVideo/PretrainModel"

BACKBONES = {
    backbone.name: backbone
    for backbone in (
        Backbone(
            name="resnet50",
            url=f"{_PRETRAINED}/ResNet50_pretrain.pdparams",
            architectures=("tsn", "tsm"),
        ),
        Backbone(
            name="resnet50_vd_ssld_v2",
            url=f"{_PRETRAINED}/ResNet50_vd_ssld_v2_pretrained.pdparams",
            architectures=("pptsn", "pptsm"),
        ),
        Backbone(
            name="resnet101_vd_ssld",
            url="https://videotag.bj.bcebos.com/PaddleVideo-release2.2/ResNet101_vd_ssld_pretrained.pdparams",
            architectures=("pptsn", "pptsm"),
            depth=101,
        ),
        Backbone(
            name="pplcnetv2_base_ssld",
            url="https://paddle-imagenet-models-name.bj.bcebos.com/dygraph/legendary_models/"
            "PPLCNetV2_base_ssld_pretrained.pdparams",
            architectures=("pptsmv2",),
        ),
        Backbone(
            name="efflite0",
            url=None,
            architectures=("tsm_efflite0",),
            note="from pip: ppvcli[efflite0]",
        ),
    )
}


def imagenet_backbone(spec: NetworkSpec) -> Backbone | None:
    """The backbone that one network begins with, of a pair the student's; None where none is published."""
    for backbone in BACKBONES.values():
        if spec.architecture in backbone.architectures and spec.depth == backbone.depth:
            return backbone
    return None


def list_weights() -> list[str]:
    """Every name that stands for weights: models, aliases, backbones."""
    return [*ZOO, *ALIASES, *BACKBONES]


def store_name(name: str) -> str:
    """The name that the weights of a model, alias or backbone have in the store. Raises: UnknownNameError."""
    if name in BACKBONES:
        return name
    if name not in ZOO and name not in ALIASES:
        raise UnknownNameError("model", name, list_weights(), hint="ppv download-weights --list shows every model")
    return get_model_row(name).name


def published_url(name: str) -> str | None:
    """Of the weights that the store has, or would have, under `name`; None where there are none to download."""
    return BACKBONES[name].url if name in BACKBONES else ZOO[name].url


def weight_source(name: str) -> WeightSource:
    """Where the published file of a model, alias or backbone is.

    Raises: UnknownNameError with the nearest names; UsageError for a name without a published file.
    """
    name = store_name(name)
    url = published_url(name)
    if url is None:
        note = BACKBONES[name].note if name in BACKBONES else ZOO[name].note
        raise UsageError(f"there are no weights of {name} to download: {note}", hint="ppv download-weights --list")
    return WeightSource(name=name, url=url, sha256=ZOO[name].sha256 if name in ZOO else None)


def weights_of(name: str) -> Path:
    """The file of a model, alias or backbone, fetched if it is not in the store yet; `efflite0` comes from pip.

    Raises: UnknownNameError; WeightsNotFoundError; OfflineError, DownloadError, VerificationError.
    """
    if name not in BACKBONES:
        return published_path(get_model_row(name))
    if BACKBONES[name].url is None:
        from ppvcli.weights.torch_legacy import find_efflite0_file

        return find_efflite0_file()
    path = store.find(name)
    if path is None:
        from ppvcli.weights import fetch

        fetch.download_weights([weight_source(name)])
        path = store.weights_path(name)
    return path
