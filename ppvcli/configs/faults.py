"""What is wrong with a tree of settings, in the words of this package."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ValidationError

from ppvcli.configs.schema import TrainConfig
from ppvcli.errors import nearest

_EXPECTED = {
    "bool_type": "true or false",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "{ge:g} or more",
    "int_type": "a whole number",
    "invalid_key": "a key of letters",
    "less_than": "less than {lt:g}",
    "less_than_equal": "{le:g} or less",
    "literal_error": "{expected}",
    "model_type": "a section of `key: value`",
    "string_type": "text",
    "too_long": "a list of {max_length} at the most",
    "too_short": "a list of {min_length} or more",
    "tuple_type": "a list",
}
"""What pydantic missed, by the type of its error."""
_MAX_SHOWN = 60


def describe_faults(error: ValidationError) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of each fault; the key is empty where it is about the whole config."""
    for fault in error.errors():
        location, kind = fault["loc"], fault["type"]
        what = fault["msg"].removeprefix("Value error, ")
        if kind == "extra_forbidden":
            what = _unknown(str(location[-1]), _field_names(location[:-1]))
        elif kind == "missing" and isinstance(location[-1], int):  # of a list of fixed length
            what = f"entry {location[-1] + 1} is missing, got {_shown(fault['input'])}"
            location = location[:-1]
        elif kind == "missing":  # the section's fault
            location, what = location[:-1], f"{location[-1]} is missing, and has no default"
        elif kind in _EXPECTED:
            what = f"expected {_EXPECTED[kind].format_map(fault.get('ctx', {}))}, got {_shown(fault['input'])}"
            if kind == "string_type" and not isinstance(fault["input"], (dict, list, type(None))):
                what += "; in quotes it is text"
        elif not isinstance(fault["input"], dict):
            what += f", got {_shown(fault['input'])}"
        yield ".".join(str(part) for part in location), what


def _unknown(key: str, known: list[str]) -> str:
    return "unknown key" + (nearest(key, known) or f"; known: {', '.join(known)}")


def _shown(value: Any) -> str:
    """A value as it could stand in YAML, cut where it is long."""
    words = {None: "null", True: "true", False: "false"}
    text = words[value] if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]} ..."


def _field_names(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = TrainConfig
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        kinds = (annotation, *typing.get_args(annotation))  # a section that may be null is a union
        model = next(kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel))
    return list(model.model_fields)
