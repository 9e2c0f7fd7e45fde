"""Export folders that are complete or not there."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from ppvcli.errors import ExportError, UsageError
from ppvcli.files import replacing_folder

EXPORT_FILE = re.compile(r"inference(_[a-z0-9]+)?\.(yml|json|pdmodel|pdiparams|onnx|xml|bin)")
"""The names that files of an export have."""


@contextlib.contextmanager
def publishing(out: Path, *, force: bool) -> Iterator[Path]:
    """A folder beside `out` that takes its name when the block ends well, and is removed if it does not.

    `force` lets it replace an export; a folder with anything else in it is never replaced.

    Raises: UsageError where `out` may not be replaced; ExportError where the disk refuses to write, whatever the block
    was writing then.
    """
    check_target(out, force=force)
    try:
        with replacing_folder(out.resolve()) as temporary:  # a link stays, and leads to the new export
            yield temporary
    except OSError as error:
        raise ExportError(
            f"can't write the export {out}: {error.strerror or error}",
            hint="free some space, or choose another --out",
        ) from error


def check_target(out: Path, *, force: bool) -> None:
    """Raises: UsageError where an export may not be written to `out`."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file, not a folder for an export", hint="choose another --out")
    others = [path.name for path in out.iterdir() if not (path.is_file() and EXPORT_FILE.fullmatch(path.name))]
    if others:
        raise UsageError(f"{out} holds other things than an export, such as {others[0]}", hint="choose another --out")
    if not force and any(out.iterdir()):
        raise UsageError(f"{out} already holds an export", hint="--force replaces it, or choose another --out")
