"""The quick reader of plain command lines against Typer: the same arguments, or it leaves the line to Typer."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer

from ppvcli.cli.predict import predict
from ppvcli.cli.quick import parse_plain

PLAIN = [
    [],
    ["a.mp4"],
    ["a.mp4", "b c.mp4", "-"],
    ["a.mp4", "--json"],
    ["--json", "a.mp4", "--model", "tsm", "b.mp4"],
    ["-m", "tsm", "-k", "3", "a.mp4"],
    ["--model=tsm", "--top-k=12", "a.mp4"],
    ["a.mp4", "--weights=x=y", "--labels", "l.txt", "--cpu"],
    ["--demo", "--threads", "2", "--runtime", "openvino", "--precision", "bf16", "--tensorrt", "--gpu"],
    ["--json", "--", "--model", "-x.mp4"],
    ["--device", "gpu:1", "a.mp4"],
]
FOR_TYPER = [
    ["--help"],
    ["-h", "a.mp4"],
    ["a.mp4", "--jsn"],
    ["a.mp4", "--json=1"],
    ["a.mp4", "--top-k"],
    ["a.mp4", "--top-k", "0"],
    ["a.mp4", "--top-k", "x"],
    ["a.mp4", "--top-k", "-1"],
    ["a.mp4", "--threads", "2000"],
    ["a.mp4", "-k3"],
    ["a.mp4", "-k=3"],
    ["a.mp4", "--json", "--json"],
    ["a.mp4", "--model", "a", "--model", "b"],
    ["a.mp4", "--weights", "--json"],
]


def _by_typer(function: Callable[..., None], args: list[str]) -> dict[str, Any] | None:
    """What Typer calls the function with; None where it does not."""
    called: list[dict[str, Any]] = []

    def stand_in(**values: Any) -> None:
        called.append(values)

    hints = typing.get_type_hints(function, include_extras=True)
    signature = inspect.signature(function)
    parameters = [one.replace(annotation=hints[one.name]) for one in signature.parameters.values()]
    stand_in.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    stand_in.__annotations__ = hints
    app = typer.Typer(rich_markup_mode=None)
    app.command()(stand_in)
    try:
        typer.main.get_command(app).main(args=args, prog_name="ppv", standalone_mode=False)
    except (typer.Exit, typer.TyperException):
        return None
    return called[0] if called else None


@pytest.mark.parametrize("args", PLAIN)
def test_plain_line_gives_what_typer_gives(args: list[str]) -> None:
    plain = parse_plain(predict, args)
    assert plain is not None
    assert plain == _by_typer(predict, args)


@pytest.mark.parametrize("args", [*FOR_TYPER, ["--weights", "run", "--no-such-option=1"]])
def test_line_that_is_not_plain_is_left_to_typer(args: list[str]) -> None:
    assert parse_plain(predict, args) is None


def test_completion_is_left_to_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PPV_COMPLETE", "complete_bash")
    assert parse_plain(predict, ["a.mp4"]) is None


def _with_a_pair_of_flags(shout: Annotated[bool, typer.Option("--shout/--whisper")] = False) -> None: ...


def _with_a_path(out: Annotated[Path, typer.Option("--out")] = Path()) -> None: ...


def _with_a_float(speed: Annotated[float | None, typer.Option("--speed", min=0.5)] = None) -> None: ...


def _with_an_environment_variable(name: Annotated[str, typer.Option("--name", envvar="NAME")] = "") -> None: ...


@pytest.mark.parametrize("function", [_with_a_pair_of_flags, _with_a_path, _with_an_environment_variable])
def test_command_with_options_it_does_not_know_is_left_to_typer(function: Callable[..., None]) -> None:
    assert parse_plain(function, []) is None


@pytest.mark.parametrize(("value", "speed"), [("2", 2.0), ("0.5", 0.5), ("10.25", 10.25)])
def test_plain_number_is_the_one_of_typer(value: str, speed: float) -> None:
    assert parse_plain(_with_a_float, ["--speed", value]) == {"speed": speed}
    assert _by_typer(_with_a_float, ["--speed", value]) == {"speed": speed}


@pytest.mark.parametrize("value", ["0.4", "nan", "inf", "1e9", "+1", "1_0", ".5", "", "x"])
def test_number_that_is_not_plain_is_left_to_typer(value: str) -> None:
    assert parse_plain(_with_a_float, ["--speed", value]) is None
