"""A file that is still being transferred, in a state from which the next attempt, or the next run, can go on."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Version:
    """What a server says about the file it sends: enough to notice that another one took its place."""

    url: str
    etag: str | None
    last_modified: str | None
    size_bytes: int | None
    """None where the server does not say."""

    @property
    def validator(self) -> str | None:
        """The value for an `If-Range` header, which takes no weak ETag; None: the transfer can't be resumed safely."""
        if self.etag and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def continues_in(self, other: Version) -> bool:
        """Whether another response is about the same content."""
        return self.validator == other.validator and self.size_bytes in (other.size_bytes, None)


class PartialFile:
    """`<path>` with the bytes received so far, and `<path>.json` with the version they are of."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._version_path = path.with_name(path.name + ".json")

    @property
    def size_bytes(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def version(self, url: str) -> Version | None:
        """The version of the bytes that are there, or None if they are of no use for this address."""
        if not self.size_bytes:
            return None
        try:
            version = Version(**json.loads(self._version_path.read_text(encoding="utf-8")))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return version if version.url == url and version.validator else None

    def begin(self, version: Version) -> None:
        """Starts from zero. The old bytes go first: they must never meet the new version, even after a crash."""
        self.path.write_bytes(b"")
        self._version_path.write_text(json.dumps(dataclasses.asdict(version)) + "\n", encoding="utf-8")

    def discard(self) -> None:
        """Deletes both files."""
        self.path.unlink(missing_ok=True)
        self._version_path.unlink(missing_ok=True)
