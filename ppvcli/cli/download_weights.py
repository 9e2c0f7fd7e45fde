"""`ppv download-weights`: published weights into the store, what the store holds, and whether it is sound."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ppvcli.cli import options, output
from ppvcli.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from ppvcli.models.zoo import ModelRow
    from ppvcli.weights.download import DownloadProgress, Report

_EXCLUSIONS = {
    "NAME": ("--all", "--list"),
    "--all": ("--list",),
    "--list": ("--verify", "--mirror", "--offline", "--force"),
    "--verify": ("--mirror", "--offline", "--force"),
}
"""Words that can't take effect together."""


def download_weights(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="NAME", help="Models or aliases.", show_default=False, autocompletion=options.complete_model
        ),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="Every published model.", show_default=False)] = False,
    list_: Annotated[
        bool, typer.Option("--list", help="Show all models and what is in the store.", show_default=False)
    ] = False,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.", show_default=False)] = False,
    mirror: Annotated[
        str | None,
        typer.Option(
            metavar="URL_OR_FOLDER",
            help="Where to look instead of the published addresses: for their path below it, then for the bare file "
            "name.  [env: PPV_WEIGHTS_MIRROR]",
            show_default=False,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Open no connection; a mirror folder works.", show_default=False)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Download again what is in the store.", show_default=False)
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Download nothing; hash what is stored (all, or NAMEs).", show_default=False),
    ] = False,
) -> None:
    """Download published weights into the local store."""
    _check_usage(names=names or [], all_=all_, list_=list_, verify=verify, mirror=mirror, offline=offline, force=force)
    if list_:
        _show_list(as_json=json_)
        return
    answers = []
    for row in _select_rows(names or [], all_=all_, verify=verify):
        if row.bundled:
            answer = _Answer(name=row.name, text="part of the package, nothing to download")
        else:
            answer = _verify(row) if verify else _fetch(row, mirror=mirror, offline=offline, force=force)
        if answer.error is not None:
            output.show_error(answer.error.message, hint=answer.error.hint)
        elif not json_:
            output.print_line(f"{answer.name}: {answer.text}")
        answers.append(answer)
    if json_:
        output.print_json([answer.to_dict() for answer in answers])
    if any(answer.error is not None for answer in answers):
        raise typer.Exit(1)


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What happened to one model."""

    name: str
    text: str = ""
    path: str | None = None
    size_bytes: int | None = None
    error: WeightsError | None = None

    def to_dict(self) -> dict[str, Any]:
        if self.error is not None:
            return {"name": self.name, "error": self.error.message}
        return {"name": self.name, "path": self.path, "size_bytes": self.size_bytes}


def _check_usage(
    *, names: Sequence[str], all_: bool, list_: bool, verify: bool, mirror: str | None, offline: bool, force: bool
) -> None:
    settings = {"NAME": names, "--all": all_, "--list": list_, "--verify": verify}
    settings |= {"--mirror": mirror, "--offline": offline, "--force": force}
    for word, others in _EXCLUSIONS.items():
        clash = [other for other in others if settings[other]]
        if settings[word] and clash:
            raise UsageError(f"{word} and {clash[0]} exclude each other", hint=f"leave one of them out, such as {word}")
    if not (names or all_ or list_ or verify):
        raise UsageError("no model named", hint="ppv download-weights pptsmv2, or --all, or --list to see them")


def _select_rows(names: Sequence[str], *, all_: bool, verify: bool) -> list[ModelRow]:
    from ppvcli.models.zoo import ZOO, get_model_row
    from ppvcli.weights import store

    if names:
        return list(dict.fromkeys(get_model_row(name) for name in names))
    if verify:
        return [ZOO[name] for name in store.list_names() if name in ZOO]
    assert all_
    return [row for row in ZOO.values() if row.url is not None]


def _fetch(row: ModelRow, *, mirror: str | None, offline: bool, force: bool) -> _Answer:
    from ppvcli import api
    from ppvcli.weights import store

    try:
        with _shown_progress() as progress:
            (record,) = api.download_weights([row.name], mirror=mirror, offline=offline, force=force, progress=progress)
    except WeightsError as error:
        return _Answer(name=row.name, error=error)
    path = str(store.weights_path(row.name))
    return _Answer(name=row.name, text=f"{path} ({_size(record.size_bytes)})", path=path, size_bytes=record.size_bytes)


def fetch_weights(name: str) -> None:
    """Fetches a model's published weights, showing progress, unless they are in the store; for commands that need them.

    Raises: UnknownNameError, OfflineError, DownloadError.
    """
    from ppvcli.models.zoo import get_model_row
    from ppvcli.weights import store

    row = get_model_row(name)
    if row.url is None or store.state(row.name) != "absent":
        return
    from ppvcli import api

    with _shown_progress() as progress:
        api.download_weights([row.name], progress=progress)


def _verify(row: ModelRow) -> _Answer:
    from ppvcli.weights import store

    try:
        record = store.verify(row.name)
    except WeightsError as error:
        return _Answer(name=row.name, error=error)
    path = str(store.weights_path(row.name))
    text = f"ok, as downloaded on {record.downloaded_at}"
    return _Answer(name=row.name, text=text, path=path, size_bytes=record.size_bytes)


# --- the list ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _ListRow:
    """A model and its place in the store."""

    row: ModelRow
    aliases: tuple[str, ...]
    weights: str
    """`stored`, `damaged`, `not stored`, `in the package` or `none published`."""
    size_bytes: int | None

    def cells(self) -> tuple[str, ...]:
        name = f"{self.row.name} ({', '.join(self.aliases)})" if self.aliases else self.row.name
        top1 = "" if self.row.claimed_top1 is None else f"{self.row.claimed_top1:.2f} {self.row.claimed_on}"
        size = "" if self.size_bytes is None else _size(self.size_bytes)
        return (name, self.row.protocol, top1, self.weights, size)

    def to_dict(self) -> dict[str, Any]:
        row = self.row
        return {
            "name": row.name,
            "aliases": list(self.aliases),
            "num_segments": row.preprocess.sampling.num_segments,
            "num_views": row.preprocess.num_views,
            "protocol": row.protocol,
            "claimed_top1": row.claimed_top1,
            "claimed_on": row.claimed_on,
            "labels": row.labels,
            "url": row.url,
            "weights": self.weights,
            "size_bytes": self.size_bytes,
            "note": row.note,
        }


_HEADINGS = ("model", "one video is", "top-1 %", "weights", "size")


def _show_list(*, as_json: bool) -> None:
    from ppvcli.models.zoo import ALIASES, ZOO

    rows = [_list_row(row, aliases=tuple(a for a, name in ALIASES.items() if name == row.name)) for row in ZOO.values()]
    if as_json:
        output.print_json([row.to_dict() for row in rows])
        return
    cells = [row.cells() for row in rows]
    if output.is_terminal(sys.stdout):
        from rich.table import Table

        table = Table(*_HEADINGS, box=None, header_style="bold")
        for line in cells:
            table.add_row(*line)
        output.stdout_console().print(table)
        return
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *cells, strict=True)]
    for line in (_HEADINGS, *cells):
        output.print_line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _list_row(row: ModelRow, *, aliases: tuple[str, ...]) -> _ListRow:
    from ppvcli.weights import store

    state = store.state(row.name)
    size_bytes = None if state == "absent" else store.weights_path(row.name).stat().st_size
    if row.bundled:
        weights = "in the package"
    elif state != "absent":
        weights = state
    else:
        weights = "none published" if row.url is None else "not stored"
    return _ListRow(row=row, aliases=aliases, weights=weights, size_bytes=size_bytes)


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e6:.1f} MB"


# --- progress ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _shown_progress() -> Iterator[Report]:
    """A function that shows progress on stderr: a bar with speed and time left for a person, else a line per event."""
    if not output.is_terminal(sys.stderr):
        yield _PlainProgress().report
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(
        *columns, TransferSpeedColumn(), TimeRemainingColumn(), console=output.stderr_console(), transient=True
    ) as bar:
        task = bar.add_task("", start=False, visible=False)

        def report(event: DownloadProgress) -> None:
            if event.stage in ("wait", "retry"):
                bar.console.print(f"{event.name}: {event.message}", markup=False)
            elif event.stage == "transfer":
                if not bar.tasks[0].started:
                    # a resumed transfer begins here; its first bytes must not count as speed
                    bar.reset(task, description=event.name, visible=True, completed=event.received_bytes)
                bar.update(task, completed=event.received_bytes, total=event.total_bytes)
            elif event.stage == "convert":
                bar.update(task, description=f"{event.name}: checking")

        yield report


class _PlainProgress:
    """A line when a transfer begins and when something is in its way."""

    def __init__(self) -> None:
        self._last_stage = ""

    def report(self, event: DownloadProgress) -> None:
        if event.stage == "transfer" and self._last_stage != "transfer":
            size = "" if event.total_bytes is None else f", {_size(event.total_bytes)}"
            start = f", from {_size(event.received_bytes)} on" if event.received_bytes else ""
            typer.echo(f"{event.name}: fetching {event.message}{size}{start}", err=True)
        elif event.stage in ("wait", "retry"):
            typer.echo(f"{event.name}: {event.message}", err=True)
        self._last_stage = event.stage
