"""Config name or file, with changes from the command line -> TrainConfig; every fault at once, with who said it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ppvcli.configs.faults import describe_faults
from ppvcli.configs.schema import TrainConfig
from ppvcli.configs.yaml_text import YamlFaultError, read_yaml, write_yaml
from ppvcli.errors import ConfigError, UnknownNameError

_HINT = "ppv train --config tsm_efflite0_folder --print-config shows a complete config"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A setting that was said on the command line."""

    key: str
    """`optimizer.learning_rate`."""
    value: object
    typed: str
    """What was typed, for messages: `--set optimizer.learning_rate=1e-4`."""


@dataclass(frozen=True)
class Source:
    """Where the settings of a config come from."""

    name: str
    """Of a shipped config, or a file."""
    changes: tuple[Change, ...] = ()
    """In the order in which they are made."""

    def fault(self, key: str, what: str) -> str:
        """A line about a setting that is wrong: who said it, the key, what is wrong."""
        for change in reversed(self.changes):
            if key == change.key:
                return f"{change.typed}: {what}"
            if key.startswith(f"{change.key}."):
                return f"{change.typed}: {key}: {what}"
        inside = [change.typed for change in self.changes if not key or change.key.startswith(f"{key}.")]
        who = " ".join([self.name, "with", *dict.fromkeys(inside)]) if inside else self.name
        return f"{who}: {key}: {what}" if key else f"{who}: {what}"


def list_configs() -> list[str]:
    """Names of the shipped configs."""
    files = resources.files("ppvcli.configs").iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def load_config(name_or_file: str, overrides: Sequence[str] = ()) -> TrainConfig:
    """The config of that name, or in that file, with `a.b=value` overrides applied in order.

    Raises: UnknownNameError for a name that is neither; ConfigError with all faults of the content.
    """
    return load_source(Source(name_or_file, tuple(parse_override(override) for override in overrides)))


def load_source(source: Source) -> TrainConfig:
    """The config of a source. Raises: as `load_config`."""
    try:
        tree = read_yaml(_read_text(source.name))
    except YamlFaultError as error:
        line = "" if error.line is None else f"line {error.line}: "
        raise ConfigError(f"{source.name}: {line}{error.reason}", hint=_HINT) from error
    if not isinstance(tree, dict):
        what = "is empty" if tree is None else f"holds a {'list' if isinstance(tree, list) else 'single value'}"
        raise ConfigError(f"{source.name} {what}; expected settings, as `key: value`", hint=_HINT)
    for change in source.changes:
        _apply(change, tree)
    return _validate(tree, source)


def parse_override(text: str) -> Change:
    """What `--set` was given. Raises: ConfigError where it is not `key=value`."""
    key, equals, value = text.partition("=")
    typed = f"--set {text}"
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{typed}: expected key=value", hint="--set optimizer.learning_rate=1e-4")
    try:
        return Change(key=key, value=read_yaml(value), typed=typed)
    except YamlFaultError as error:
        raise ConfigError(f"{typed}: {error.reason}", hint=f"""as text: --set '{key}="{value}"'""") from error


def parse_config(tree: dict[str, Any], *, source: str) -> TrainConfig:
    """A plain tree of settings, checked. Raises: ConfigError with all faults, each `source: key: what`."""
    return _validate(tree, Source(source))


def dump_config(config: TrainConfig) -> str:
    """YAML that `load_config` reads back to an equal config."""
    return write_yaml(config.model_dump(mode="json"))


def _validate(tree: dict[str, Any], source: Source) -> TrainConfig:
    try:
        return TrainConfig.model_validate(tree)
    except ValidationError as error:
        faults = [source.fault(key, what) for key, what in describe_faults(error)]
        raise ConfigError("\n".join(faults), hint=_HINT) from error


def _read_text(name_or_file: str) -> str:
    path = Path(name_or_file)
    if not path.is_file() and name_or_file in list_configs():
        return resources.files("ppvcli.configs").joinpath(f"{name_or_file}.yaml").read_text(encoding="utf-8")
    if path.is_dir():
        hint = f"--config {path / 'config.yaml'}" if (path / "config.yaml").is_file() else "ppv train --list-configs"
        raise ConfigError(f"{path} is a folder, not a config", hint=hint)
    if not path.is_file() and path.suffix not in {".yaml", ".yml"}:
        raise UnknownNameError("config", name_or_file, list_configs(), hint="ppv train --list-configs")
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        hint = f"--config {path.stem}" if path.stem in list_configs() else "ppv train --list-configs"
        raise ConfigError(f"no config file {path}", hint=hint) from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a text in UTF-8", hint="save it as UTF-8") from error
    except OSError as error:
        raise ConfigError(f"can't read config {path}: {error.strerror or error}") from error


def _apply(change: Change, tree: dict[str, Any]) -> None:
    *parents, last = change.key.split(".")
    node = tree
    for parent in parents:
        if node.get(parent) is None:  # absent, or a section that is null
            node[parent] = {}
        child = node[parent]
        if not isinstance(child, dict):
            raise ConfigError(f"{change.typed}: {parent} is a single value and has no '{last}'", hint=_HINT)
        node = child
    node[last] = change.value
