"""Export folders that are complete or not there."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from ppvcli.errors import ExportError, UsageError

EXPORT_FILE = re.compile(r"inference(_[a-z0-9]+)?\.(yml|json|pdmodel|pdiparams|onnx|xml|bin)")
"""The names that files of an export have."""


@contextlib.contextmanager
def publishing(out: Path, *, force: bool) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends well, and is removed if it does not.

    `force` lets it replace an export; a folder with anything else in it is never replaced.

    Raises: UsageError where `out` may not be replaced; ExportError where the disk refuses to write, whatever the block
    was writing then.
    """
    _check_target(out, force=force)
    temporary = out.absolute().with_name(f".tmp-{os.getpid()}-{secrets.token_hex(4)}-{out.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.iterdir():
            with file.open("rb") as written:
                os.fsync(written.fileno())
        _move(temporary, out)
    except OSError as error:
        raise ExportError(
            f"can't write the export {out}: {error.strerror or error}",
            hint="free some space, or choose another --out",
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_target(out: Path, *, force: bool) -> None:
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder for an export", hint="choose another --out")
    others = [path.name for path in out.iterdir() if not (path.is_file() and EXPORT_FILE.fullmatch(path.name))]
    if others:
        raise UsageError(f"{out} holds other things than an export, such as {others[0]}", hint="choose another --out")
    if not force and any(out.iterdir()):
        raise UsageError(f"{out} already holds an export", hint="--force replaces it, or choose another --out")


def _move(temporary: Path, out: Path) -> None:
    if not out.exists():
        temporary.rename(out)
        return
    old = temporary.with_name(temporary.name + "-old")
    out.rename(old)
    try:
        temporary.rename(out)
    except OSError:
        old.rename(out)
        raise
    shutil.rmtree(old, ignore_errors=True)
