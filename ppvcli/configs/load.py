"""Config name or file, with overrides -> TrainConfig; every fault at once, each with file, key and value."""

from __future__ import annotations

import difflib
import re
import typing
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from ppvcli.configs.schema import TrainConfig
from ppvcli.errors import ConfigError, UnknownNameError


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string; here it is the number that everybody means."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def list_configs() -> list[str]:
    """Names of the shipped configs."""
    files = resources.files("ppvcli.configs").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_config(name_or_file: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The config of that name, or in that file, with `a.b=value` overrides applied in order.

    Raises: UnknownNameError for a name that is neither; ConfigError with all faults of the content.
    """
    source, text = _read_text(name_or_file)
    try:
        # safe: _Loader is a SafeLoader
        tree = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ConfigError(f"{source}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{source}: expected a mapping of settings, got {type(tree).__name__}")
    for override in overrides:
        _apply_override(tree, override)
    return parse_config(tree, source=source)


def parse_config(tree: dict[str, Any], *, source: str) -> TrainConfig:
    """A plain tree of settings, checked. Raises: ConfigError with all faults, each `source: key: what`."""
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        faults = [_describe(fault, source) for fault in error.errors()]
        raise ConfigError("\n".join(faults), hint="docs/reference/config.md lists every key") from error


def dump_config(config: TrainConfig) -> str:
    """YAML that `load_config` reads back to an equal config."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def _read_text(name_or_file: str) -> tuple[str, str]:
    path = Path(name_or_file)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        try:
            return str(path), path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"can't read config {path}: {error}", hint="ppv train --list-configs") from error
    if name_or_file not in list_configs():
        raise UnknownNameError("config", name_or_file, list_configs(), hint="ppv train --list-configs")
    name = f"{name_or_file}.yaml"
    return name, resources.files("ppvcli.configs").joinpath(name).read_text(encoding="utf-8")


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"--set {override}: expected key=value, for example optimizer.learning_rate=1e-4")
    try:
        value = yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override}: the value is not valid YAML") from error
    *parents, last = key.split(".")
    node = tree
    for parent in parents:
        child = node.setdefault(parent, {})
        if not isinstance(child, dict):
            raise ConfigError(f"--set {override}: {parent} holds a value, not settings")
        node = child
    node[last] = value


def _describe(fault: Any, source: str) -> str:
    place = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(fault["loc"][-1]), _field_names(fault["loc"][:-1]), n=1, cutoff=0.4)
        return f"{source}: {place}: unknown key{f'; nearest: {near[0]}' if near else ''}"
    if fault["type"] == "missing":
        return f"{source}: {place}: missing"
    message = fault["msg"].removeprefix("Value error, ")
    shown = "" if isinstance(fault["input"], dict) else f", got {fault['input']!r}"
    return f"{source}: {place + ': ' if place else ''}{message}{shown}"


def _field_names(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = TrainConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        kinds = (annotation, *typing.get_args(annotation))  # a section that may be null is a union
        models = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]
        if not models:
            return []
        model = models[0]
    return list(model.model_fields)
