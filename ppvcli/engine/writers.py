"""Copies of a run's log for the web pages of TensorBoard and VisualDL."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from ppvcli.engine.checkpoint import LOG_FILE
from ppvcli.engine.log import Entry, LogFollower, cannot_write
from ppvcli.engine.progress import StepReport, TrainObserver
from ppvcli.errors import MissingPackageError, UnknownNameError
from ppvcli.results import EpochResult, StartReport

PACKAGES = {"tensorboard": "tensorboardX", "visualdl": "visualdl"}
"""Every writer, and the package that it takes."""


class ScalarFile(Protocol):
    """What takes the numbers."""

    def add(self, tag: str, value: float, *, step: int) -> None: ...

    def flush(self) -> None: ...


class LogCopy:
    """The observer that copies each new line of the run's log into a `ScalarFile`.

    The log is what counts: a resumed run writes the copy anew, from the lines that its log has kept, so no step is in
    it twice and none is missing, whatever the run died of. An error of the disk is raised at the end of the epoch, when
    its checkpoint is written.

    Raises: LogError where the disk refuses to write.
    """

    def __init__(self, scalars: ScalarFile, run_dir: Path, *, folder: Path) -> None:
        self.scalars = scalars
        self.folder = folder
        self._log = LogFollower(run_dir / LOG_FILE)
        self._epoch = self._steps_before = self._num_steps = 0
        self._error: OSError | None = None
        self._copy()
        self._raise_error()

    def on_start(self, report: StartReport) -> None:
        """Nothing."""

    def on_step(self, report: StepReport) -> None:
        self._copy()

    def on_eval_clip(self, done: int, total: int) -> None:
        """Nothing."""

    def on_epoch(self, result: EpochResult) -> None:
        """Raises: LogError where something could not be written since the epoch began."""
        self._copy()
        self._raise_error()

    def _copy(self) -> None:
        if self._error is not None:
            return
        try:
            entries = self._log.poll()
            for entry in entries:
                self._add(entry)
            if entries:
                self.scalars.flush()
        except OSError as error:
            self._error = error

    def _raise_error(self) -> None:
        if self._error is not None:
            raise cannot_write(self.folder, self._error) from self._error

    def _add(self, entry: Entry) -> None:
        if isinstance(entry, EpochResult):
            for name in ("loss", "top1", "top5"):
                self.scalars.add(f"val/{name}", getattr(entry, f"val_{name}"), step=entry.epoch)
            return
        if entry.epoch != self._epoch:  # counted up, because a run may be resumed on more processes, with fewer steps
            self._steps_before += self._num_steps
            self._epoch, self._num_steps = entry.epoch, entry.num_steps
        for name in ("loss", "top1", "top5", "learning_rate", "images_per_s", "data_wait_ratio"):
            self.scalars.add(f"train/{name}", getattr(entry, name), step=self._steps_before + entry.step)


class TensorBoardFile:
    """An event file in `folder`, in place of those of an earlier part of the run."""

    def __init__(self, folder: Path) -> None:
        # its SummaryWriter hands events to a thread that ends at the first error of the disk, and then waits for it
        # forever; this class below it writes at once
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        _remove(folder, "events.out.tfevents.*")
        self._event = Event
        self._writer = EventsWriter(str(folder / "events"))
        # a TensorBoard that is open meanwhile forgets what it has read
        self._writer.write_event(Event(step=0, session_log=SessionLog(status=SessionLog.START)))

    def add(self, tag: str, value: float, *, step: int) -> None:
        from tensorboardX.summary import scalar

        self._writer.write_event(self._event(wall_time=time.time(), step=step, summary=scalar(tag, value)))

    def flush(self) -> None:
        self._writer.flush()


class VisualDLFile:
    """A record file in `folder`, in place of those of an earlier part of the run: VisualDL shows only one of them."""

    def __init__(self, folder: Path) -> None:
        from visualdl import LogWriter

        _remove(folder, "vdlrecords.*")
        self._writer = LogWriter(logdir=str(folder))

    def add(self, tag: str, value: float, *, step: int) -> None:
        self._writer.add_scalar(tag=tag, value=value, step=step)

    def flush(self) -> None:
        self._writer.flush()


def open_writers(names: Sequence[str], run_dir: Path) -> list[TrainObserver]:
    """An observer for each of `names` (keys of `PACKAGES`), which writes into a folder of that name in `run_dir`.

    They read the run's log: it must be open, and come before them among the observers.

    Raises: LogError where the disk refuses to write; as `check_writers`.
    """
    check_writers(names)
    return [_open_writer(name, run_dir) for name in dict.fromkeys(names)]


def check_writers(names: Sequence[str]) -> None:
    """Raises: UnknownNameError, MissingPackageError."""
    for name in names:
        if name not in PACKAGES:
            raise UnknownNameError("writer", name, PACKAGES, hint=f"--writer {' or --writer '.join(PACKAGES)}")
        if importlib.util.find_spec(PACKAGES[name]) is None:
            raise MissingPackageError(
                f"the {name} writer needs {PACKAGES[name]}, which is not installed",
                hint=f"pip install 'ppvcli[{name}]'",
            )


def _open_writer(name: str, run_dir: Path) -> LogCopy:
    folder = run_dir / name
    try:
        scalars: ScalarFile = TensorBoardFile(folder) if name == "tensorboard" else VisualDLFile(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    return LogCopy(scalars, run_dir, folder=folder)


def _remove(folder: Path, pattern: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob(pattern):
        path.unlink()
