"""`log.jsonl`: what a run appends while it trains, how a resumed run goes on with it, and how it is read."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shlex
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from ppvcli.engine.progress import StepReport
from ppvcli.errors import LogError
from ppvcli.files import write_text
from ppvcli.results import EpochResult, StartReport

Entry = StepReport | EpochResult
"""What a line holds."""
_KINDS: dict[str, type[StepReport] | type[EpochResult]] = {"step": StepReport, "epoch": EpochResult}


class RunLog:
    """The observer that writes `path`: a line at every `interval`-th step and the last of an epoch, and one an epoch.

    A disk that is full during an epoch costs no training: lines that can't be written are kept, and written with a
    later one. `on_epoch` raises if they still can't; the epoch is in its checkpoint by then.
    """

    def __init__(self, path: Path, *, interval: int) -> None:
        self.path = path
        self.interval = interval
        self._unwritten: list[str] = []

    def open(self, epochs: Sequence[EpochResult]) -> None:
        """Starts the file, or takes it up after `epochs`, those in the checkpoint: their lines stay, later ones go.

        The checkpoint has the last word: a line of an epoch that a kill has kept from the file is written now.

        Raises: LogError where the disk refuses to write.
        """
        lines = []
        try:
            steps = [] if not epochs else read_log(self.path)[0]
            for epoch in epochs:
                lines += [_to_line(step) for step in steps if step.epoch == epoch.epoch]
                lines.append(_to_line(epoch))
            write_text(self.path, "".join(lines))
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def on_start(self, report: StartReport) -> None:
        """Nothing; the report has a file of its own."""

    def on_step(self, report: StepReport) -> None:
        if report.step % self.interval == 0 or report.step == report.num_steps:
            with contextlib.suppress(OSError):
                self._append(report)

    def on_eval_clip(self, done: int, total: int) -> None:
        """Nothing."""

    def on_epoch(self, result: EpochResult) -> None:
        """Raises: LogError where this line, or one before it, can't be written."""
        try:
            self._append(result)
        except OSError as error:
            raise cannot_write(self.path, error) from error

    def _append(self, entry: Entry) -> None:
        self._unwritten.append(_to_line(entry))
        with self.path.open("ab", buffering=0) as file:
            size = file.tell()
            data = "".join(self._unwritten).encode()
            try:
                while data:  # an almost full disk takes a part
                    data = data[file.write(data) :]
            except OSError:
                file.truncate(size)
                raise
        self._unwritten.clear()


class LogFollower:
    """Reads a log while another process writes it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file_id: int | None = None
        self._offset = 0
        self._seen: set[bytes] = set()

    def poll(self) -> list[Entry]:
        """What was written since the last call, in order; nothing while there is no file.

        A line is given once it is complete, and only once: a resumed run replaces the file, and the lines that it
        carries over are no news. Lines that are damaged or of another version are left out.
        """
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            return []
        with file:
            status = os.fstat(file.fileno())
            if status.st_ino != self._file_id or status.st_size < self._offset:
                self._file_id, self._offset = status.st_ino, 0
            file.seek(self._offset)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        self._offset += len(complete)
        lines = [line for line in complete.splitlines() if line not in self._seen]
        self._seen.update(lines)
        return [entry for line in lines if (entry := _from_line(line)) is not None]


def read_log(path: Path) -> tuple[list[StepReport], list[EpochResult]]:
    """The steps and the epochs of a log, in order; none where there is no file. A last line cut short is left out."""
    entries = LogFollower(path).poll()
    steps = [entry for entry in entries if isinstance(entry, StepReport)]
    return steps, [entry for entry in entries if isinstance(entry, EpochResult)]


def cannot_write(path: Path, error: OSError) -> LogError:
    """The error about a file in a run folder that the run can do without, but should not."""
    run = shlex.quote(str(path.parent))
    return LogError(
        f"can't write {path}: {error.strerror or error}",
        hint=f"free some space, then ppv train --resume {run} goes on after the last finished epoch",
    )


def _to_line(entry: Entry) -> str:
    """JSON has no NaN and no infinity: both become null."""
    kind = "step" if isinstance(entry, StepReport) else "epoch"
    values = {key: null_if_not_finite(value) for key, value in asdict(entry).items()}
    return json.dumps({"kind": kind, **values}, allow_nan=False) + "\n"


def null_if_not_finite(value: Any) -> Any:
    """A value as JSON can have it."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _from_line(line: bytes) -> Entry | None:
    """None for a line that is damaged or of another version."""
    try:
        values = json.loads(line)
        kind = _KINDS[values.pop("kind")]
        for each in fields(kind):
            if each.type == "float" and values.get(each.name, 0.0) is None:
                values[each.name] = math.nan
        if "failures" in values:
            values["failures"] = tuple((path, error) for path, error in values["failures"])
        return kind(**values)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
