"""Labelled clips from list files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ppvcli.errors import DatasetError


@dataclass(frozen=True)
class Sample:
    """One clip of a data set."""

    path: Path
    label: int
    """Class index, 0-based."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A data set as training sees it; `labels[sample.label]` is a sample's class name."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    labels: tuple[str, ...]


def read_list(list_path: Path, root: Path, *, num_classes: int) -> tuple[Sample, ...]:
    """The clips of a list file, rows `path label`, paths relative to `root` (a path may hold spaces).

    Raises: DatasetError for an unreadable file, a malformed row or a label outside 0..num_classes-1, with the line.
    """
    samples = []
    for number, line in enumerate(_read_lines(list_path), start=1):
        if not line.strip():
            continue
        path, _, label = line.strip().rpartition(" ")
        if not path or not label.isdecimal():
            raise DatasetError(f"{list_path}:{number}: expected 'path label', got '{line.strip()}'")
        if int(label) >= num_classes:
            raise DatasetError(f"{list_path}:{number}: label {label}, but there are {num_classes} classes (0-based)")
        samples.append(Sample(root / path.strip(), int(label)))
    if not samples:
        raise DatasetError(f"{list_path}: no clips listed")
    return tuple(samples)


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in index order, one a line; a line may open with its own index (`5 archery`).

    Raises: DatasetError for an unreadable or empty file, or a name that stands there twice.
    """
    lines = [line.strip() for line in _read_lines(path) if line.strip()]
    numbered = all(line.split(" ", 1)[0] == str(i) and " " in line for i, line in enumerate(lines))
    names = [line.split(" ", 1)[1].strip() if numbered else line for line in lines]
    if not names:
        raise DatasetError(f"{path}: no class names")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(f"{path}: class names stand twice: {', '.join(twice)}")
    return tuple(names)


def _read_lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"can't read {path}: {error}", hint="check data.root and the list names") from error
