"""Which stream gets what, and the one table that turns errors into `error:` and `hint:` lines and exit codes.

Data goes to stdout, everything else to stderr. rich is imported only where something is drawn.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import typer

from ppvcli.errors import PpvError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import ProgressColumn

INTERRUPTED = 130
BAR_WIDTH = 24
_PYDANTIC = (
    ("Input should be greater than or equal to", "expected at least"),
    ("Input should be less than or equal to", "expected at most"),
    ("Input should be", "expected"),
)
"""What Typer passes on about a value, and how we say it."""


class Report(NamedTuple):
    """What a person reads about an error, and the exit code of the process."""

    message: str | None
    """None: say nothing."""
    hint: str | None
    exit_code: int


def describe_error(error: BaseException, *, usage_hint: str = "ppv --help") -> Report:
    """The report of any exception that can leave a command; `usage_hint` helps with a line that Typer can't read."""
    if isinstance(error, PpvError):
        return Report(error.message, error.hint, error.exit_code)
    if isinstance(error, typer.TyperException):
        return Report(_sentence(error.format_message()), usage_hint, error.exit_code)
    if isinstance(error, (KeyboardInterrupt, typer.Abort)):
        return Report("interrupted", None, INTERRUPTED)
    if isinstance(error, BrokenPipeError):
        return Report(None, None, 0)  # such as `| head`, which has all it wants
    if isinstance(error, OSError) and _is_full(error):
        message = f"can't write {error.filename or 'the output'}: {error.strerror}"
        return Report(message, "free some space, or write to another place", 1)
    text = str(error).strip().splitlines()
    message = f"{type(error).__name__}: {text[0]}" if text else type(error).__name__
    return Report(message, None if _debug() else "PPV_DEBUG=1 shows the traceback", 1)


def report_error(error: BaseException, *, usage_hint: str = "ppv --help", ended_by: int | None = None) -> int:
    """Tells the user about an error on stderr and returns the exit code; `ended_by` is the signal that caused it."""
    report = describe_error(error, usage_hint=usage_hint)
    if ended_by is not None and report.exit_code == INTERRUPTED:
        report = report._replace(message="terminated", exit_code=128 + ended_by)
    if _debug() and report.message is not None:
        traceback.print_exception(error)
    if report.message is not None:
        show_error(report.message, hint=report.hint)
    if isinstance(error, BrokenPipeError) or _is_full(error):
        _silence_stdout()
    return report.exit_code


def show_error(message: str, *, hint: str | None = None) -> None:
    """One `error:` line (more where the message lists faults) and, where there is one, a `hint:` line on stderr."""
    _show("error", message, colour="1;31")
    if hint:
        show_hint(hint)


def show_hint(text: str) -> None:
    """One `hint:` line on stderr: the next command or edit to try."""
    _show("hint", text, colour="1;36")


def show_warning(message: str) -> None:
    """One `warning:` line on stderr."""
    _show("warning", message, colour="1;33")


def show_note(message: str) -> None:
    """One line on stderr for a person who waits."""
    print(printable(message), file=sys.stderr)


def print_line(text: str) -> None:
    """One line of data on stdout."""
    print(text, flush=True)  # a reader at the other end of a pipe gets each answer as soon as it is known


def with_path(path: str, error: str) -> str:
    """What is wrong with a file, with its path once: most errors name it."""
    return error if path in error else f"{path}: {error}"


def format_size(size_bytes: int) -> str:
    """Megabytes."""
    return f"{size_bytes / 1e6:.1f} MB"


def printable(text: str) -> str:
    """Text from outside (a file name, a label of a weight file) with control characters shown, not obeyed."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def print_json(value: Any) -> None:
    """A value as indented JSON on stdout; ASCII only, so that any pipe and any file name can be written."""
    print_line(json.dumps(value, indent=2))


@contextlib.contextmanager
def open_json_array() -> Iterator[Callable[[Any], None]]:
    """Prints an indented JSON array on stdout, each item as soon as it is added; closed whatever ends the block."""
    before = "\n"

    def add(value: Any) -> None:
        nonlocal before
        print(before + textwrap.indent(json.dumps(value, indent=2), "  "), end="", flush=True)
        before = ",\n"

    print("[", end="", flush=True)
    try:
        yield add
    finally:
        print_line("\n]")


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Rows of cells on stdout, with columns that stand below each other, under headings where some have a text.

    Where a terminal is too narrow for that, each name (the first cell) has a line of its own, with the rest below it:
    names are there to be copied, so that none may be broken.
    """
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    terminal = shutil.get_terminal_size().columns
    if is_terminal(sys.stdout) and sum(widths) + 2 * (len(widths) - 1) > terminal:
        below = textwrap.TextWrapper(
            terminal, initial_indent="    ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
        )
        for name, *cells in rows:
            facts = [f"{heading} {cell}".strip() for heading, cell in zip(headings[1:], cells, strict=True) if cell]
            print_line("\n".join((name, *below.wrap("; ".join(facts)))))
        return
    for row in (headings, *rows) if any(headings) else rows:
        print_line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def is_terminal(stream: TextIO) -> bool:
    """Whether a person looks at the stream."""
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def stdout_console() -> Console:
    """A rich console for tables on stdout; without colour where NO_COLOR is set or stdout is no terminal."""
    from rich.console import Console

    return Console(highlight=False)


def stderr_console() -> Console:
    """A rich console for progress and notes on stderr."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


@contextlib.contextmanager
def open_bar(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr that is moved by calling it with (done, total); None without a terminal."""
    if not is_terminal(sys.stderr):
        yield None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
    from rich.table import Column

    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=BAR_WIDTH),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        *time_columns(),
        console=stderr_console(),
        transient=True,
        redirect_stdout=False,
        speed_estimate_period=300,
    )
    with progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def time_columns() -> tuple[ProgressColumn, ...]:
    """How long a bar's task has taken and will take, which a narrow terminal shows in full: the bar gives way."""
    from rich.progress import TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.table import Column

    passed = TimeElapsedColumn(table_column=Column(no_wrap=True))
    left = TimeRemainingColumn(table_column=Column(no_wrap=True))
    return passed, TextColumn("passed,"), left, TextColumn("left")


def _show(word: str, message: str, *, colour: str) -> None:
    prefix = (
        f"\033[{colour}m{word}:\033[0m" if is_terminal(sys.stderr) and not os.environ.get("NO_COLOR") else f"{word}:"
    )
    print(prefix, "\n".join(printable(line) for line in message.split("\n")), file=sys.stderr)


def _sentence(message: str) -> str:
    """Typer's wording in the style of ours: no capital, no full stop."""
    message = " ".join(message.split()).rstrip(".")
    for theirs, ours in _PYDANTIC:
        message = message.replace(theirs, ours)
    return message[:1].lower() + message[1:]


def _is_full(error: BaseException) -> bool:
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)


def _silence_stdout() -> None:
    """Points stdout at nothing, so that the flush at exit does not complain a second time."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _debug() -> bool:
    return os.environ.get("PPV_DEBUG", "") not in ("", "0")
