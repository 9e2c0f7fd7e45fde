"""What `ppv train` is told by `--config`, `--model`, other flags and `--set`, as one config."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ppvcli.errors import UsageError

if TYPE_CHECKING:
    from ppvcli.configs.load import Change, Source
    from ppvcli.configs.schema import TrainConfig

_SPLITS = ("data.train_list", "data.val_list", "data.val_groups")
"""Settings that say which clips are held out."""
_VAL_RATIO = "data.val_ratio"
"""Every recipe for class folders has one; it gives way to another split that is said on the command line."""


def choose_settings(
    config: str | None,
    model: str | None,
    *,
    finetune: str | None,
    data: Path | None,
    flags: Mapping[tuple[str, str], object],
    overrides: Sequence[str],
) -> tuple[Source, TrainConfig]:
    """The config and where it comes from. `flags` are the values of (flag, key), None where a flag is not given.

    Raises: UsageError for flags that exclude or contradict each other; as `load_source`.
    """
    from ppvcli.configs.load import Change, Source, load_source, parse_override
    from ppvcli.datasets.catalog import csv_says_split

    name, start = _choose_config(config, model, finetune=finetune)
    typed = [*_data_changes(data)]
    typed += [
        Change(key=key, value=value, typed=f"{flag} {value}")
        for (flag, key), value in {**flags, ("--finetune", "model.pretrained"): finetune}.items()
        if value is not None
    ]
    sets = [parse_override(override) for override in overrides]
    _check_contradictions(typed, sets)
    changes = [*typed, *sets]
    if start is not None:
        changes.insert(0, Change(key="model.pretrained", value=start, typed=f"--model {model}"))
    split = next((change for change in changes if change.key in _SPLITS), None)
    ratio_is_typed = any(change.key == _VAL_RATIO for change in changes)
    if split is not None and not ratio_is_typed:
        changes.insert(0, Change(key=_VAL_RATIO, value=None, typed=split.typed))
    source = Source(name, tuple(changes))
    settings = load_source(source)
    csv = next((change for change in changes if change.key == "data.csv"), None)
    if csv is not None and settings.data.val_ratio is not None and not ratio_is_typed and csv_says_split(settings.data):
        source = Source(name, (*changes, Change(key=_VAL_RATIO, value=None, typed=csv.typed)))
        settings = load_source(source)
    return source, settings


def _data_changes(data: Path | None) -> list[Change]:
    """A folder, or a CSV file in it."""
    from ppvcli.configs.load import Change

    if data is None:
        return []
    typed = f"--data {data}"
    if data.suffix.lower() == ".csv" and not data.is_dir():
        values = {"data.root": str(data.parent), "data.csv": data.name}
    else:
        values = {"data.root": str(data)}
    return [Change(key=key, value=value, typed=typed) for key, value in values.items()]


def _check_contradictions(flags: Sequence[Change], sets: Sequence[Change]) -> None:
    """Raises: UsageError where `--set` has another value for what a flag says."""
    for flag in flags:
        for change in sets:
            is_other = change.key == flag.key and change.value != flag.value
            if is_other or flag.key.startswith(f"{change.key}."):  # a whole section, which would replace it
                raise UsageError(f"{flag.typed} and {change.typed} contradict each other", hint="keep one of them")


def _choose_config(config: str | None, model: str | None, *, finetune: str | None) -> tuple[str, str | None]:
    """The config, and the model whose weights it is to start from in place of its own."""
    if config is not None and model is not None:
        raise UsageError("--config and --model both say what to train", hint="keep one of them")
    if config is not None:
        return config, None
    if model is None and finetune is None:
        raise UsageError("say what to train: --config or --model", hint="ppv train --model tsm_efflite0 --data DIR")
    name, start = _choose_recipe(model or _model_of(str(finetune)), finetune=finetune)
    return name, start if finetune is None else None


def _model_of(weights: str) -> str:
    """The model that weights are of: by name, or as a run folder or a weight file of our own says."""
    from ppvcli.models.backbones import BACKBONES
    from ppvcli.models.zoo import ALIASES, ZOO
    from ppvcli.weights.formats import read_metadata

    if weights in ZOO or weights in ALIASES:
        return weights
    metadata = None if weights in (*BACKBONES, "imagenet") else read_metadata(weights)
    if metadata is None or metadata.model is None:
        raise UsageError(
            f"--finetune {weights} does not say what to train, as a run folder or a model's name would",
            hint=f"ppv train --model NAME --finetune {shlex.quote(weights)} --data DIR",
        )
    return metadata.model


def _choose_recipe(model: str, *, finetune: str | None) -> tuple[str, str | None]:
    """The recipe that fine-tunes a model on a folder; where it is that of an equal network, the model as its start."""
    from ppvcli.configs.load import list_configs
    from ppvcli.models.zoo import get_model_row

    row = get_model_row(model)
    recipes = {name.removesuffix("_folder"): name for name in list_configs() if name.endswith("_folder")}
    if row.name in recipes:
        return recipes[row.name], None
    has_weights = row.bundled or row.url is not None
    kin = []
    for other in map(get_model_row, recipes):
        if has_weights and (other.network, other.preprocess) == (row.network, row.preprocess):
            return recipes[other.name], row.name
        if (other.network.architecture, other.network.depth) == (row.network.architecture, row.network.depth):
            kin.append(other.name)
    refusal = f"no recipe to fine-tune {model} on a folder"
    if not kin:
        raise UsageError(refusal, hint="--config FILE with one of your own; ppv train --list-configs shows the shipped")
    weights = finetune or (row.name if has_weights else None)
    start = "" if weights is None else f" --finetune {shlex.quote(weights)}"
    raise UsageError(f"{refusal}; there is one for: {', '.join(kin)}", hint=f"ppv train --model {kin[0]}{start} ...")
