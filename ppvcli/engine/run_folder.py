"""The folder of a run: where a new one may go, and what is left of one that could not begin."""

from __future__ import annotations

import contextlib
import shlex
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import filelock

from ppvcli.configs.schema import DataConfig
from ppvcli.engine.checkpoint import CONFIG_FILE, LOG_FILE, SPLIT_FILE, START_FILE
from ppvcli.errors import UsageError
from ppvcli.files import LOCK_NAME, holding

MAX_NAMES = 3
"""Files that a message names."""


@contextlib.contextmanager
def holding_run(run_dir: Path) -> Iterator[None]:
    """The run in `run_dir`, a folder made if it is missing, is this process's until the block or the process ends.

    A folder with nothing in it at the end is removed.

    Raises: UsageError where another process trains there, or the disk refuses.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(holding(run_dir, wait=False))
        except filelock.Timeout as error:
            raise UsageError(
                f"another process is training in {run_dir}", hint="wait for it or end it, or another --out"
            ) from error
        except OSError as error:
            raise UsageError(
                f"can't write a run to {run_dir}: {error.strerror or error}", hint="another --out"
            ) from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                if [path.name for path in run_dir.iterdir()] == [LOCK_NAME]:
                    remove_begun_run(run_dir, ())


def check_not_held(run_dir: Path) -> None:
    """Passes where no other process trains in `run_dir`. Raises: UsageError."""
    if (run_dir / LOCK_NAME).exists():
        with holding_run(run_dir):
            pass


def check_new_run(run_dir: Path, data: DataConfig) -> None:
    """Passes where a run may begin: a folder that is empty or not there, and that is not taken for a class of `data`.

    Raises: UsageError.
    """
    if (run_dir / CONFIG_FILE).exists():
        hint = f"ppv train --resume {shlex.quote(str(run_dir))}, or another --out"
        raise UsageError(f"{run_dir} already holds a run", hint=hint)
    root, out = Path(data.root).resolve(), run_dir.resolve()
    if data.csv is None and data.train_list is None and out.is_relative_to(root):
        place = out.relative_to(root).parts
        if not place or not place[0].startswith("."):
            raise UsageError(
                f"a run in {run_dir} would be taken for clips: the folders in {data.root} are the classes",
                hint=f"--out {shlex.quote(str(root.parent / 'runs' / 'mine'))}, or another folder outside of it",
            )
    if run_dir.exists() and not run_dir.is_dir():
        raise UsageError(f"can't write a run into {run_dir}: it is a file", hint="another --out, a new folder")
    names = sorted(path.name for path in run_dir.iterdir() if path.name[0] != ".") if run_dir.is_dir() else []
    if names:
        shown = ", ".join(names[:MAX_NAMES]) + (f", and {len(names) - MAX_NAMES} more" if names[MAX_NAMES:] else "")
        raise UsageError(f"{run_dir} holds something else than a run: {shown}", hint="another --out, a new folder")


def remove_begun_run(run_dir: Path, writers: Sequence[str]) -> None:
    """Removes what a run has written before its first epoch was done; leaves alone what it did not write."""
    for name in (CONFIG_FILE, SPLIT_FILE, START_FILE, LOG_FILE, LOCK_NAME):
        (run_dir / name).unlink(missing_ok=True)
    for name in writers:
        shutil.rmtree(run_dir / name, ignore_errors=True)
    with contextlib.suppress(OSError):  # hidden files of others
        run_dir.rmdir()
