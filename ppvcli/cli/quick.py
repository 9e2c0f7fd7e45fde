"""Plain command lines read without Typer's machinery, which takes pydantic in: 0.1 s of a second's answer.

The options are those that the command's signature declares for Typer, so they are written down once. Whatever is not
plain (an unknown word, a value that does not fit, a request for help) is left to Typer, which also knows how to say
what is wrong.
"""

from __future__ import annotations

import inspect
import os
import re
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from typer.models import ArgumentInfo, OptionInfo


def parse_plain(function: Callable[..., None], args: Sequence[str]) -> dict[str, Any] | None:
    """The arguments with which Typer would call the function of a command; None where Typer has to look itself."""
    if "_PPV_COMPLETE" in os.environ or os.name == "nt":  # completion; file patterns are for Typer to expand
        return None
    parameters = _parameters(function)
    if parameters is None:
        return None
    options = {name: parameter for parameter in parameters for name in parameter.names}
    positional = next((parameter for parameter in parameters if not parameter.names), None)
    given: dict[str, Any] = {}
    words: list[str] = []
    rest = list(args)
    while rest:
        word = rest.pop(0)
        if word == "--":
            words += rest
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        option = options.get(name)
        if option is None or option.name in given or (equals and not name.startswith("--")):
            return None
        if option.kind is bool:
            if equals:
                return None
            given[option.name] = True
            continue
        if not equals:
            if not rest or rest[0].startswith("-"):
                return None
            value = rest.pop(0)
        converted = option.convert(value)
        if converted is None:
            return None
        given[option.name] = converted
    if words and positional is None:
        return None
    if words and positional is not None:
        given[positional.name] = words
    return {parameter.name: given.get(parameter.name, parameter.default) for parameter in parameters}


@dataclass(frozen=True, kw_only=True)
class _Parameter:
    """One parameter of a command."""

    name: str
    names: tuple[str, ...]
    """`--top-k`, `-k`; none for the positional one."""
    kind: type
    default: Any
    minimum: float | None = None
    maximum: float | None = None

    def convert(self, value: str) -> str | float | None:
        """None where Typer would refuse the value, or might."""
        if self.kind is str:
            return value
        if not re.fullmatch(r"[0-9]{1,15}" if self.kind is int else r"[0-9]{1,15}(\.[0-9]{1,15})?", value):
            return None
        number = self.kind(value)
        too_small = self.minimum is not None and number < self.minimum
        too_large = self.maximum is not None and number > self.maximum
        result: float = number
        return None if too_small or too_large else result


def _parameters(function: Callable[..., None]) -> list[_Parameter] | None:
    """None where the signature has something that `parse_plain` does not know."""
    hints = typing.get_type_hints(function, include_extras=True)
    result = []
    for name, parameter in inspect.signature(function).parameters.items():
        kind, info = typing.get_args(hints[name])[:2]
        if typing.get_origin(kind) in (types.UnionType, typing.Union):
            kind = next(one for one in typing.get_args(kind) if one is not type(None))
        if isinstance(info, ArgumentInfo) and kind == list[str]:
            result.append(_Parameter(name=name, names=(), kind=list, default=parameter.default))
            continue
        if not isinstance(info, OptionInfo) or kind not in (str, int, float, bool) or info.callback or info.envvar:
            return None
        # Typer takes the first name for a default, until it sees that the default is elsewhere
        names = ((info.default,) if isinstance(info.default, str) else ()) + tuple(info.param_decls or ())
        if any("/" in one for one in names) or (kind is bool and not names):
            return None  # a pair of flags
        result.append(
            _Parameter(
                name=name,
                names=names or (f"--{name.replace('_', '-')}",),
                kind=kind,
                default=parameter.default,
                minimum=info.min,
                maximum=info.max,
            )
        )
    return result
