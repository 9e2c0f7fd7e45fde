"""What a config asks for and can't have: pairs of settings that only the model, the device or the disk rules out.

Wrong types and pairs that a config rules out by itself are found when it is read (`configs/schema.py`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ppvcli.configs.load import Source
from ppvcli.configs.schema import DataConfig, TrainConfig
from ppvcli.engine import inputs
from ppvcli.errors import ConfigError, DatasetError, nearest
from ppvcli.models.backbones import BACKBONES, imagenet_backbone, list_weights
from ppvcli.models.build import MIN_SEGMENTS
from ppvcli.models.facts import has_trained_weights
from ppvcli.models.tsm_efflite0 import STAGES
from ppvcli.models.zoo import ALIASES, ZOO, ModelRow, get_model_row
from ppvcli.specs import NetworkSpec

_PREPARED = re.compile(r"train_split([123])_(videos|frames)\.txt")
"""Lists that `ppv prepare-ucf101-66` writes."""

_HINTS = {
    "amp": "leave it out, or train with --gpu",
    "model.name": "ppv download-weights --list names the models",
    "model.pretrained": "ppv download-weights --list names the weights; a run folder or a weight file is named by path",
    "teacher.weights": "ppv download-weights --list names the weights; a run folder or a weight file is named by path",
}
_HINT = "--print-config in place of the training shows every setting"

Fault = tuple[str, str]
"""The key and what is wrong with it."""


def check_config(config: TrainConfig, *, source: Source, device: str, resumes: bool) -> None:
    """Raises: ConfigError with every fault, each with who said it.

    `device` is the full name of the one to train on, `cpu` or `gpu:N`. A run that `resumes` needs its first weights no
    more.
    """
    if config.model.name not in ZOO and config.model.name not in ALIASES:
        faults = [("model.name", _unknown(config.model.name, [*ZOO, *ALIASES]))]
    else:
        row = get_model_row(config.model.name)
        faults = [*_model_faults(config, row), *_input_faults(config, row), *_step_faults(config, device=device)]
        if not resumes:
            faults += _start_faults(config, row)
    if faults:
        hints = dict.fromkeys(_HINTS.get(key, _HINT) for key, _ in faults)
        raise ConfigError("\n".join(source.fault(*fault) for fault in faults), hint="; ".join(hints))


def check_data_exists(config: DataConfig) -> None:
    """Raises: DatasetError where the data set is not there at all, with the command that makes it."""
    root = Path(config.root)
    lists = [name for name in (config.train_list, config.val_list, config.labels, config.csv) if name is not None]
    missing = [str(root / name) for name in lists if not (root / name).is_file()]
    if root.is_dir() and not missing:
        return
    prepared = _PREPARED.fullmatch(config.train_list or "")
    hint = "--data DIR, where the clips lie"
    if root.is_file():
        hint = "--data takes a folder with a sub-folder of clips for each class, or a file NAME.csv"
    if prepared is not None:
        split = "" if prepared[1] == "1" else f" --split {prepared[1]}"
        hint = f"ppv prepare-ucf101-66 --format {prepared[2]}{split} --out {config.root}"
        if not root.name.endswith("66"):
            hint += ", with --classes FILE for other classes than the 65 sports"
    what = f"no {', '.join(missing)}" if root.is_dir() else f"no folder {root}"
    raise DatasetError(f"the data set is not there: {what}", hint=hint)


# --- the model --------------------------------------------------------------------------------------------------------


def _model_faults(config: TrainConfig, row: ModelRow) -> Iterator[Fault]:
    model, network = config.model, row.network
    is_lite = network.architecture == "tsm_efflite0"
    if not model.temporal_shift and not is_lite:
        yield "model.temporal_shift", f"that of {row.name} can't be switched off; that of tsm_efflite0 can"
    if model.frozen_stages and not is_lite:
        yield "model.frozen_stages", f"{row.name} has no stages that can be frozen; tsm_efflite0 has"
    elif model.frozen_stages > len(STAGES):
        yield "model.frozen_stages", f"{row.name} has {len(STAGES)} stages, got {model.frozen_stages}"
    if config.teacher is not None:
        if network.teacher is not None:
            yield "teacher", f"{row.name} is a pair of networks that teach each other; it takes no other teacher"
        yield from _name_faults("teacher.weights", config.teacher.weights, [*ZOO, *ALIASES])


def _start_faults(config: TrainConfig, row: ModelRow) -> Iterator[Fault]:
    name = config.model.pretrained
    if name is None:
        return
    if name == "imagenet":
        parts = [row.network] if row.network.teacher is None else [row.network, row.network.teacher]
        if any(imagenet_backbone(part) is None for part in parts):
            yield "model.pretrained", f"no ImageNet weights are published for {row.name}"
    elif name in BACKBONES:
        backbone = BACKBONES[name]
        own = imagenet_backbone(row.network)
        if row.network.teacher is not None:
            yield "model.pretrained", f"{name} is one network and {row.name} a pair; imagenet has weights for both"
        elif own is not None and own.name != name:
            fitting = f"{' and '.join(backbone.architectures)} of depth {backbone.depth}"
            yield "model.pretrained", f"{name} is for {fitting}, not for {row.name}, which takes {own.name}"
    elif name in ZOO or name in ALIASES:
        other = get_model_row(name)
        if not has_trained_weights(other):
            yield "model.pretrained", f"{name} has no weights of its own; imagenet is what it starts from"
        elif _family(other.network) != _family(row.network):
            yield "model.pretrained", f"{name} is another network than {row.name}"
    else:
        yield from _name_faults("model.pretrained", name, ["imagenet", *list_weights()])


def _family(spec: NetworkSpec) -> tuple[object, ...]:
    """Networks of one family have the same convolutions."""
    backbone = imagenet_backbone(spec)
    teacher = spec.teacher and imagenet_backbone(spec.teacher)
    return (backbone and backbone.name, teacher and teacher.name)


def _name_faults(key: str, name: str, known: list[str]) -> Iterator[Fault]:
    """A name, or a path to something."""
    if name not in known and not Path(name).expanduser().exists():
        yield key, f"{_unknown(name, known)}, and nothing stands at this path"


def _unknown(name: str, known: list[str]) -> str:
    return f"unknown name '{name}'{nearest(name, known)}"


# --- what it is shown -------------------------------------------------------------------------------------------------


def _input_faults(config: TrainConfig, row: ModelRow) -> Iterator[Fault]:
    chosen, network = config.input, row.network
    num_segments = chosen.num_segments or row.preprocess.sampling.num_segments
    if network.num_segments is not None and num_segments < MIN_SEGMENTS:
        yield (
            "input.num_segments",
            f"{num_segments}, but {row.name} shifts features over time and needs {MIN_SEGMENTS} or more",
        )
    if network.num_segments not in (None, num_segments) and chosen.test == "published":
        yield (
            "input.test",
            f"published looks at {network.num_segments} frames, but input.num_segments is {num_segments}; "
            "say validated",
        )
    modes = {"input.train_sampling": chosen.train_sampling, "input.val_sampling": chosen.val_sampling}
    dense = {other.network.architecture for other in ZOO.values() if other.preprocess.sampling.mode == "dense"}
    for key, mode in modes.items():
        if mode == "dense" and network.architecture not in dense:
            yield key, f"{row.name} has no dense form; {', '.join(sorted(dense))} has"
    published = row.preprocess.sampling
    has_window = "window" in [mode or published.mode for mode in modes.values()]
    if has_window and not (chosen.frame_interval or published.frame_interval):
        yield "input.frame_interval", "window sampling needs one"
    if chosen.frame_interval and not has_window:
        yield "input.frame_interval", "can't take effect without window sampling"
    yield from _size_faults(config, row)


def _size_faults(config: TrainConfig, row: ModelRow) -> Iterator[Fault]:
    chosen, multi_scale = config.input, config.augment.multi_scale
    preprocess = inputs.val_preprocess(config)
    short_side = preprocess.resize.short_side
    if preprocess.crop.kind == "none":
        for key, value in (("crop_size", chosen.crop_size), ("crop_rounding", chosen.crop_rounding)):
            if value is not None:
                yield f"input.{key}", "can't take effect, because resize.size_hw takes the whole frame"
    elif short_side is not None and preprocess.crop.size > short_side:
        yield "input.crop_size", f"{preprocess.crop.size} pixels out of frames with a short side of {short_side}"
    if multi_scale is not None and multi_scale.size < max(preprocess.input_hw):
        yield (
            "augment.multi_scale.size",
            f"{multi_scale.size} pixels, less than the {max(preprocess.input_hw)} that {row.name} is shown",
        )


# --- the steps --------------------------------------------------------------------------------------------------------


def _step_faults(config: TrainConfig, *, device: str) -> Iterator[Fault]:
    if config.amp is not None and device == "cpu":
        yield (
            "amp",
            f"{config.amp} needs a GPU: on a CPU Paddle computes in float32 without a word",
        )
    if config.augment.mixup_alpha is not None and config.batch_size == 1:
        yield (
            "augment.mixup_alpha",
            "can't take effect with batch_size 1, because a clip is mixed with one of its batch",
        )
    if config.precise_bn is not None:
        if config.model.freeze_batchnorm:
            yield "precise_bn", "can't take effect, because model.freeze_batchnorm keeps the stored statistics"
        if config.ema_decay is not None:
            yield "precise_bn", "would measure the weights of the last step, but ema_decay keeps their average"
