"""The cache of compiled programs: `<home>/compiled/<model>-<runtime>-<precision>-<key>/`, a program and its record.

An entry is a folder that appears by one rename, complete. The key is a hash of everything that the program depends on:
weights, package, engine, processor. The record repeats these facts in full and has the sha256 of every file; an entry
that does not match to the last byte counts as absent and is replaced.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ppvcli.errors import CacheError
from ppvcli.files import replacing_folder, write_text
from ppvcli.specs import Preprocess
from ppvcli.weights.metadata import MetadataError, preprocess_from_json, preprocess_to_json
from ppvcli.weights.store import file_sha256, home_dir, home_hint

RECORD = "record.json"
_MAX_RECORD_BYTES = 10_000_000

Facts = Mapping[str, str]
_elsewhere: ContextVar[Path | None] = ContextVar("elsewhere", default=None)


@dataclass(frozen=True, kw_only=True)
class CheckResult:
    """How a compiled program compared with its network."""

    max_diff: float
    """Largest absolute difference of logits over the checked clips."""
    top1_agrees: bool
    """On every checked clip."""
    num_clips: int
    """Checked."""
    num_agree: int
    """Clips whose best class is the network's."""
    time_ms: float
    """Shortest wall time of one clip."""
    threads: int
    """That `time_ms` was measured with."""
    num_correct: int | None = None
    """Clips whose best class is the one that the caller knows to be right, where it does."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """What an entry says about itself."""

    facts: dict[str, str]
    """Everything that the program depends on."""
    program: str
    """Name of the program's first file."""
    labels: tuple[str, ...]
    preprocess: Preprocess
    check: CheckResult
    files: dict[str, str] = field(default_factory=dict)
    """File name -> sha256."""

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "preprocess": preprocess_to_json(self.preprocess)}, indent=1)

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Raises: ValueError for anything that `to_json` does not write."""
        try:
            fields = json.loads(text)
            return cls(
                facts=_strings(fields["facts"]),
                program=str(fields["program"]),
                labels=tuple(str(label) for label in fields["labels"]),
                preprocess=preprocess_from_json(fields["preprocess"]),
                check=CheckResult(**fields["check"]),
                files=_strings(fields["files"]),
            )
        except (KeyError, TypeError, MetadataError, RecursionError) as error:
            raise ValueError(f"not a record: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A sound entry of the cache."""

    folder: Path
    record: Record
    unkept: str | None = None
    """Why it lies in a temporary folder, which goes with the process; None for one in the cache."""

    @property
    def program(self) -> Path:
        return self.folder / self.record.program


def cache_dir() -> Path:
    """The folder of compiled programs; it may not exist yet."""
    return _elsewhere.get() or home_dir() / "compiled"


@contextlib.contextmanager
def elsewhere(folder: Path) -> Iterator[None]:
    """Within the block, `folder` is the cache."""
    token = _elsewhere.set(folder)
    try:
        yield
    finally:
        _elsewhere.reset(token)


def entry_dir(facts: Facts) -> Path:
    """Where the entry of these facts is, or would be; `facts` has a model, a runtime and a precision."""
    return cache_dir() / f"{facts['model']}-{facts['runtime']}-{facts['precision']}-{_key(facts)}"


def find(facts: Facts) -> Entry | None:
    """The entry of these facts, every byte of it compared with its record; None if there is no sound one."""
    folder = entry_dir(facts)
    try:
        record = Record.from_json(_read(folder / RECORD))
        if record.facts != dict(facts) or record.program not in record.files or not record.labels:
            return None
        for name, sha256 in record.files.items():
            if Path(name).name != name or file_sha256(folder / name) != sha256:
                return None
    except (OSError, ValueError):
        return None
    return Entry(folder=folder, record=record)


@contextlib.contextmanager
def locked(facts: Facts) -> Iterator[None]:
    """Keeps other processes from writing the entry of these facts; waits for one that does.

    Raises: CacheError where the cache can't be written.
    """
    import filelock

    folder = entry_dir(facts)
    with _reported(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder.with_name(f"{folder.name}.lock"))
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def writing(facts: Facts) -> Iterator[Path]:
    """A new folder for the files of the entry, which it becomes at the end of the block; `seal` it before that.

    The caller holds the lock. Whatever is raised, nothing of the folder stays.

    Raises: CacheError for an OSError of the block (a full disk, no right to write).
    """
    folder = entry_dir(facts)
    with _reported(folder), replacing_folder(folder) as temporary:
        yield temporary


def seal(folder: Path, record: Record) -> Entry:
    """Adds the record to a folder of `writing`, and returns the entry that it becomes. Raises: OSError."""
    names = sorted(path.name for path in folder.iterdir())
    record = replace(record, files={name: file_sha256(folder / name) for name in names})
    (folder / RECORD).write_text(record.to_json(), encoding="utf-8")
    return Entry(folder=entry_dir(record.facts), record=record)


def read_choice(facts: Facts) -> dict[str, Any] | None:
    """What `write_choice` has written for these facts, or None."""
    try:
        value = json.loads(_read(_choice_path(facts)))
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and value.get("facts") == dict(facts) else None


def write_choice(facts: Facts, runtime: str, *, measured: Mapping[str, object]) -> None:
    """Notes the runtime that `auto` stands for, and what was measured of each. Raises: CacheError."""
    path = _choice_path(facts)
    with _reported(path):
        text = json.dumps({"facts": dict(facts), "runtime": runtime, "measured": measured}, indent=1)
        write_text(path, text + "\n")


def _choice_path(facts: Facts) -> Path:
    return entry_dir(facts).with_suffix(".json")


def _key(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()[:16]


def _read(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(_MAX_RECORD_BYTES + 1)
    if len(content) > _MAX_RECORD_BYTES:
        raise ValueError(f"{path} is too long for a record")
    return content.decode("utf-8")


def _strings(value: object) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(one, str) for pair in value.items() for one in pair):
        raise ValueError("expected names and texts")
    return value


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CacheError(
            f"can't write the compiled program to {path}: {error.strerror or error}",
            hint=home_hint(error),
        ) from error
