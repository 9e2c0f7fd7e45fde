"""YAML -> plain Python and back, with what is wrong said in words for people who do not know YAML's grammar."""

from __future__ import annotations

import re
from typing import Any

import yaml


class YamlFaultError(Exception):
    """What is wrong with a text; `line`, from 1 on, where it is known."""

    def __init__(self, reason: str, *, line: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


class _RepeatedKeyError(yaml.constructor.ConstructorError):
    """A key that stands twice in a section, where YAML would let the first one go without a word."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads `1e-4` as a string and `2026-11-22` as a date; here they are a number and text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise _RepeatedKeyError(problem=f"key '{key.value}' stands twice", problem_mark=key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that `_Loader` takes for a number."""


for _class in (_Loader, _Dumper):
    _class.add_implicit_resolver(
        "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d[\d_]*)(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
    )


def write_yaml(tree: dict[str, Any]) -> str:
    """A text that `read_yaml` reads as `tree`."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False)


def read_yaml(text: str) -> Any:
    """What the text holds: dicts, lists, strings, numbers, booleans, None. Raises: YamlFaultError."""
    try:
        # safe: _Loader is a SafeLoader
        return yaml.load(text, Loader=_Loader)  # noqa: S506
    except yaml.reader.ReaderError as error:
        raise YamlFaultError(f"the character {chr(error.character)!r} can't stand in YAML") from error
    except yaml.MarkedYAMLError as error:
        raise _fault(error, text) from error
    except ValueError as error:  # of Python: `0x_`
        raise YamlFaultError(f"a number can't be read: {error}") from error


def _fault(error: yaml.MarkedYAMLError, text: str) -> YamlFaultError:
    mark, opened = error.problem_mark, error.context_mark
    if mark is None:
        return YamlFaultError("not written as 'key: value'")
    line = mark.line + 1
    if isinstance(error, _RepeatedKeyError):
        return YamlFaultError(str(error.problem), line=line)
    begin = text.splitlines()[mark.line][: mark.column + 1] if mark.line < len(text.splitlines()) else ""
    if begin.lstrip(" ").startswith("\t"):
        return YamlFaultError("indented with a tab; YAML takes spaces", line=line)
    if "escape" in str(error.problem):
        return YamlFaultError("a backslash in double quotes; single quotes take it as it is", line=line)
    quote = "" if opened is None else text[opened.index : opened.index + 1]
    if opened is not None and quote and quote in "[{\"'" and not isinstance(error, yaml.constructor.ConstructorError):
        return YamlFaultError(f"what {quote} opens is not closed", line=opened.line + 1)
    char = text[mark.index : mark.index + 1]
    if char and char in "@`%*&!|>[]{},":
        return YamlFaultError(f"text that begins with {char} needs quotes", line=line)
    reason = "can't be read: check the indentation, and close what is open; text with ': ' needs quotes"
    return YamlFaultError(reason, line=line)
