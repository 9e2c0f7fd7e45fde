"""The command `ppv`: a table of commands, one file each, and the frame around them."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, TextIO

import typer

from ppvcli import __version__
from ppvcli.cli import output
from ppvcli.cli.bench_decode import bench_decode
from ppvcli.cli.download_weights import download_weights
from ppvcli.cli.eval import evaluate
from ppvcli.cli.export import export
from ppvcli.cli.predict import predict
from ppvcli.cli.prepare_ucf101_66 import prepare_ucf101_66
from ppvcli.cli.quick import parse_plain
from ppvcli.cli.train import train
from ppvcli.errors import UsageError

COMMANDS: dict[str, Callable[..., None]] = {
    "predict": predict,
    "train": train,
    "eval": evaluate,
    "export": export,
    "download-weights": download_weights,
    "prepare-ucf101-66": prepare_ucf101_66,
    "bench-decode": bench_decode,
}
"""Every command, in the order of the help."""


def main(args: Sequence[str] | None = None) -> int:
    """Runs `ppv` with the arguments (None: those of the process) and returns the exit code.

    SIGTERM, and SIGHUP of a terminal that is closed, end a command as Ctrl-C does, in order.
    """
    sys.stdout = sys.stdout or _nowhere()  # None where the shell has closed it: >&-
    sys.stderr = sys.stderr or _nowhere()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names that are not valid in the encoding
    received = _end_on_signals()
    words = list(sys.argv[1:] if args is None else args) or ["--help"]
    try:
        exit_code = _run(words)
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        return output.report_error(error, usage_hint=_usage_hint(words), ended_by=next(iter(received), None))
    except SystemExit as end:
        if isinstance(end.__context__, BrokenPipeError):  # Typer has turned it into exit code 1
            return output.report_error(end.__context__)
        raise
    if exit_code == output.INTERRUPTED:  # Typer has turned Ctrl-C into an exit code
        return output.report_error(KeyboardInterrupt(), ended_by=next(iter(received), None))
    return exit_code or 0


def _nowhere() -> TextIO:
    return Path(os.devnull).open("w", encoding="utf-8")


def _end_on_signals() -> list[int]:
    """From now on the signals that end a process raise KeyboardInterrupt, the first of them; it is in the list then."""
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        received.append(number)
        for each in ending:
            signal.signal(each, signal.SIG_IGN)  # `timeout` sends two, and cleaning up takes its time
        raise KeyboardInterrupt

    ending = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as of nohup
        ending.append(signal.SIGHUP)
    for each in ending:
        signal.signal(each, interrupt)
    return received


def _usage_hint(words: Sequence[str]) -> str:
    """What may help with a line that Typer can't read."""
    for word in words:
        if word.startswith("-") and Path(word).exists():
            return f"./{word} names the file"
    return f"ppv {words[0]} --help" if words[0] in COMMANDS else "ppv --help"


def _check_empty(words: Sequence[str]) -> None:
    """Raises: UsageError for an empty word or value; as a path it would be the working directory."""
    for before, word in zip(("", *words), words, strict=False):
        name, equals, value = word.partition("=")
        if word and not (name.startswith("--") and equals and not value):
            continue
        what = name or (before if before.startswith("-") else "an argument")
        raise UsageError(f"{what} is empty", hint="a variable in the command may be empty")


def _run(args: Sequence[str]) -> int | None:
    _check_empty(args)
    plain = parse_plain(predict, args[1:]) if args[0] == "predict" else None
    if plain is not None:
        try:
            predict(**plain)
        except typer.Exit as done:
            return done.exit_code
        return 0
    command = typer.main.get_command(build_app())
    exit_code: int | None = command.main(args=args, prog_name="ppv", standalone_mode=False)
    return exit_code


def build_app() -> typer.Typer:
    app = typer.Typer(
        name="ppv",
        help="Recognise what people do in videos: predict, train, evaluate, export.",
        epilog="Start with: ppv predict --demo",
        rich_markup_mode=None,  # rich costs more start-up time than everything else
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_common)
    for name, function in COMMANDS.items():
        app.command(name, context_settings={"help_option_names": ["-h", "--help"]})(function)
    return app


def _show_version(value: bool) -> None:
    if value:
        output.print_line(f"ppv {__version__}")
        raise typer.Exit


def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass
