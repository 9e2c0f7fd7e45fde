"""What the preparation of a data set tells whoever watches it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Stage = Literal["lists", "download", "hash", "extract", "clips", "frames", "verify"]

_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class PrepareProgress:
    """How far one stage of the preparation is."""

    stage: Stage
    name: str = ""
    """The file that the stage is about, where it is one."""
    done: int = 0
    total: int | None = None
    """None where nobody knows."""
    unit: Literal["bytes", "files"] = "files"
    message: str = ""
    """Something to tell, such as why a transfer waits."""


Report = Callable[[PrepareProgress], None]


def file_sha256(path: Path, *, report: Report | None = None) -> str:
    """The sha256 of a file in hexadecimal; `report` gets the stage `hash` for every megabyte."""
    digest, done, total = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if report is not None:
                report(PrepareProgress(stage="hash", name=path.name, done=done, total=total, unit="bytes"))
    return digest.hexdigest()
