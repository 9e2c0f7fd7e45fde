"""Files and folders that are complete or not there."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

LOCK_NAME = ".lock"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A name beside `path`, with its suffix, for what shall become `path`: moved there when the block ends well.

    An exception of any kind (Ctrl-C and a full disk too) leaves `path` as it was and removes what was written.

    Raises: OSError of the block, of flushing to disk or of the move.
    """
    temporary = _name_beside(path)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """A new folder beside `path` for the files that shall be in `path`: takes its place when the block ends well.

    An exception of any kind leaves `path` as it was and removes what was written. Missing parents are made.

    Raises: OSError of the block, of flushing to disk or of the move.
    """
    temporary = _name_beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            _flush(file)
        if not path.exists():
            temporary.rename(path)
            return
        old = _name_beside(path)
        path.rename(old)
        try:
            temporary.rename(path)
        except OSError:
            old.rename(path)
            raise
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def holding(folder: Path, *, wait: bool) -> Iterator[None]:
    """`folder`, made if it is missing, is held against all who hold it too, until the block or the process ends.

    Its file LOCK_NAME stays. On a disk without locks, as some network drives are, nothing is held.

    Raises: filelock.Timeout without `wait`, where another process holds it; other OSErrors of the disk.
    """
    import filelock

    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK_NAME)
    with contextlib.suppress(NotImplementedError):
        lock.acquire(blocking=wait)
    try:
        yield
    finally:
        lock.release()


def check_writable(folder: Path) -> None:
    """Passes if a file can be made in a folder or, where it does not exist, in the nearest one above it that does.

    Nothing stays of it. Raises: OSError.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    with tempfile.TemporaryFile(dir=place):
        pass


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file by `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _name_beside(path: Path) -> Path:
    return path.with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{path.name}")


def _flush(path: Path) -> None:
    with path.open("r+b") as file:  # Windows flushes only what may be written
        os.fsync(file.fileno())
