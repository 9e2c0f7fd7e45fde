"""`ppv prepare-ucf101-66`: UCF101 to clips or frames, lists and labels that a training config can name."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.cli import output
from ppvcli.errors import InterruptedRunError, counted

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from ppvcli.datasets.progress import PrepareProgress
    from ppvcli.datasets.ucf101 import PreparedDataset

_SENTENCES = {
    "lists": "taking over the split lists",
    "download": "downloading",
    "hash": "hashing",
    "extract": "unpacking",
    "clips": "placing clips",
    "frames": "extracting frames",
    "verify": "comparing clips with their hashes",
}
_LINE_EVERY_S = 10.0


def prepare_ucf101_66(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to prepare.", show_default=False)],
    source: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER_OR_ARCHIVE",
            help="UCF101 as you have it: a folder of clips, or .rar, .tar, .tar.gz, .zip; the split lists in it or "
            "beside it.  [default: the source of the last run, else a download of 6.9 GB]",
        ),
    ] = None,
    split: Annotated[int, typer.Option(metavar="1|2|3", help="The official split.")] = 1,
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="videos|frames",
            help="Lists of clips, or of folders of JPEG files.  [default: that of the folder, else videos]",
        ),
    ] = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Classes to select, one a line.  [default: those of the folder, else the 65 sports of UCF101-66]",
        ),
    ] = None,
    num_workers: Annotated[
        int | None,
        typer.Option(metavar="N", help="Processes that extract frames.  [default: one for each core]"),
    ] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without clips that are absent or broken.")
    ] = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force",
            help="Prepare anew what is there. The old set stays until the new one is complete; downloads are kept.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Prepare the UCF101-66 data set."""
    from ppvcli import api

    watcher = _TerminalWatcher() if output.is_terminal(sys.stderr) else _LineWatcher()
    try:
        with watcher:
            result = api.prepare_ucf101_66(
                out,
                source=source,
                split=split,
                format=format_,
                classes=classes,
                num_workers=num_workers,
                allow_missing=allow_missing,
                force=force,
                progress=watcher.report,
            )
    except KeyboardInterrupt:
        after = "starts over; nothing that was prepared is lost" if force else "goes on from here"
        raise InterruptedRunError("interrupted", hint=f"the same command {after}") from None
    if as_json:
        output.print_json(asdict(result))
    else:
        _show(result)


def _show(result: PreparedDataset) -> None:
    if result.already_prepared:
        print(f"{result.root}: already prepared and unchanged, nothing to do", file=sys.stderr)
    root = Path(result.root)
    output.print_line(f"train   {result.num_train:>5} clips    {root / result.train_list}")
    output.print_line(f"val     {result.num_val:>5} clips    {root / result.val_list}")
    output.print_line(f"labels  {result.num_classes:>5} classes  {root / result.labels}")
    if result.num_missing:
        clips = counted(result.num_missing, "listed clip")
        output.show_warning(f"{clips} left out, see {root / 'missing.txt'}")
    if result.num_damaged:
        clips = f"{result.num_damaged} clip{'s are' if result.num_damaged > 1 else ' is'}"
        output.show_warning(f"{clips} cut off or damaged, but used, see {root / 'damaged.txt'}")
    if result.classes_without_train:
        names = ", ".join(result.classes_without_train)
        number = len(result.classes_without_train)
        output.show_warning(f"no training clip in {number} class{'es' if number > 1 else ''}: {names}")


def _amount(event: PrepareProgress) -> str:
    if event.unit == "bytes":
        done = f"{event.done / 1e6:.1f} MB"
        return done if event.total is None else f"{done} of {event.total / 1e6:.1f} MB"
    return f"{event.done} files" if event.total is None else f"{event.done} of {event.total} files"


class _LineWatcher:
    """A line on stderr when a stage begins, every ten seconds, and when it ends."""

    def __init__(self) -> None:
        self._stage = ("", "")
        self._next_line_s = 0.0

    def __enter__(self) -> _LineWatcher:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def report(self, event: PrepareProgress) -> None:
        now = time.monotonic()
        begins = self._stage != (event.stage, event.name)
        ends = event.done == event.total
        self._stage = (event.stage, event.name)
        if not (begins or ends or event.message or now >= self._next_line_s):
            return
        self._next_line_s = now + _LINE_EVERY_S
        about = f"{_SENTENCES[event.stage]} {event.name}".rstrip()
        print(f"{about}: {event.message or _amount(event)}", file=sys.stderr, flush=True)


class _TerminalWatcher:
    """One live bar for each stage, which stays when the stage is over."""

    def __enter__(self) -> _TerminalWatcher:
        from rich.progress import BarColumn, Progress, TextColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TextColumn("{task.fields[amount]}"),
            *output.time_columns(),
            console=output.stderr_console(),
        )
        self._tasks: dict[tuple[str, str], TaskID] = {}
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def report(self, event: PrepareProgress) -> None:
        key = (event.stage, event.name)
        about = f"{_SENTENCES[event.stage]} {event.name}".rstrip()
        if key not in self._tasks:
            # a resumed transfer begins here; its first bytes must not count as speed
            self._tasks[key] = self._progress.add_task(about, completed=event.done, amount="")
        if event.message:
            self._progress.console.print(f"{about}: {event.message}", markup=False)
        self._progress.update(self._tasks[key], completed=event.done, total=event.total, amount=_amount(event))
