"""Labelled clips from list files and class files; `csv_files.py` reads the other form."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppvcli.errors import DatasetError
from ppvcli.specs import VIDEO_SUFFIXES

Format = Literal["videos", "frames"]

MAX_FAULTS = 20
"""Of one file that an error names; it counts the others."""


@dataclass(frozen=True)
class Sample:
    """One clip of a data set."""

    path: Path
    label: int
    """Class index, 0-based."""
    num_frames: int | None = None
    """Set where `path` is a folder of frames: how many are to be used. None for a video file."""


@dataclass(frozen=True, kw_only=True)
class Split:
    """A data set as training sees it; `labels[sample.label]` is a sample's class name."""

    train: tuple[Sample, ...]
    val: tuple[Sample, ...]
    labels: tuple[str, ...]


def read_samples(
    path: Path, root: Path, *, labels: Sequence[str], format: Format = "videos", suffix: str = ""
) -> tuple[Sample, ...]:
    """The clips of a list or, by its suffix, a CSV file, for a network with these classes; paths relative to `root`.

    A list says classes by index, a CSV by name. Of a CSV that divides its clips, the held-out ones (`val`) are taken.

    Raises: DatasetError with all faults of the file, by line.
    """
    if path.suffix.lower() != ".csv":
        return read_list(path, root, num_classes=len(labels), format=format, suffix=suffix)
    from ppvcli.datasets.csv_files import read_csv

    table = read_csv(path, root, labels=labels, format=format)
    if table.sides is not None and "val" not in table.sides:
        raise DatasetError(
            f"{path}: no row has the split 'val'", hint="say val for the clips to evaluate, or remove the column split"
        )
    return table.samples if table.sides is None else table.side("val")


def read_list(
    list_path: Path, root: Path, *, num_classes: int, format: Format = "videos", suffix: str = ""
) -> tuple[Sample, ...]:
    """The clips of a list file, paths relative to `root`; a path may hold spaces, and `suffix` is added to it.

    Rows are `path label` for `videos` and `folder num_frames label` for `frames`.

    Raises: DatasetError for an unreadable file or, by line and all at once, malformed rows and labels outside
    0..num_classes-1.
    """
    samples: list[Sample] = []
    faults: list[str] = []
    for number, line in enumerate(read_lines(list_path), start=1):
        if not line.strip():
            continue
        if format == "videos" and not samples and not faults and _has_count(line.strip(), root, suffix=suffix):
            raise DatasetError(
                f"{list_path}:{number}: no file {root / line.strip().rpartition(' ')[0]}{suffix}; "
                "the rows look like: path num_frames label",
                hint="folders of frames: --set data.format=frames, with ppv eval --format frames; "
                "videos: leave the number of frames out",
            )
        try:
            sample = _read_row(line.strip(), root, format=format, suffix=suffix)
        except ValueError as error:
            faults.append(f"{list_path}:{number}: {error}")
            continue
        if sample.label >= num_classes:
            faults.append(
                f"{list_path}:{number}: label {sample.label}, but there are {num_classes} classes (counted from 0)"
            )
        samples.append(sample)
    row = "path label" if format == "videos" else "folder num_frames label"
    if faults:
        raise faults_error(faults, hint=f"a row is: {row}, where label is the number of the class, counted from 0")
    if not samples:
        raise DatasetError(f"{list_path}: no clips listed", hint=f"one clip a line: {row}")
    return tuple(samples)


def read_labels(path: Path) -> tuple[str, ...]:
    """Class names in index order, one a line; a line may open with its own index and a space or tab (`5 archery`).

    Raises: DatasetError for an unreadable or empty file, a blank line above a name, or a name that stands there twice.
    """
    lines = [line.strip() for line in read_text(path).rstrip().splitlines()]
    if not lines:
        raise DatasetError(f"{path}: no class names", hint="one class name a line")
    if "" in lines:
        raise DatasetError(
            f"{path}:{lines.index('') + 1}: a blank line, though the line says which class a name is",
            hint="remove it, or name the class there",
        )
    fields = [line.split(maxsplit=1) for line in lines]
    numbered = all(len(field) == 2 and field[0] == str(i) for i, field in enumerate(fields))
    names = [field[1] if numbered else line for field, line in zip(fields, lines, strict=True)]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DatasetError(
            f"{path}: class names stand twice: {', '.join(twice)}",
            hint="one class name a line, in the order of the labels",
        )
    return tuple(names)


def read_lines(path: Path) -> list[str]:
    """Of a file as `read_text` takes it. Raises: DatasetError."""
    return read_text(path).splitlines()


def read_text(path: Path) -> str:
    """Of a UTF-8 file, with or without a byte order mark. Raises: DatasetError, also for a video by its ending."""
    if path.suffix.lower() in VIDEO_SUFFIXES:  # before gigabytes are read
        raise DatasetError(
            f"{path} is a video by its ending, not a text",
            hint=f"a folder, list or CSV file names clips; for a single one: ppv predict {shlex.quote(str(path))}",
        )
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DatasetError(f"can't read {path}: {error.strerror or error}", hint="check the path") from error
    except UnicodeDecodeError as error:
        raise DatasetError(
            f"can't read {path}: it is not a text in UTF-8", hint="save it as UTF-8; in a spreadsheet, as CSV UTF-8"
        ) from error


def faults_error(faults: Sequence[str], *, hint: str | None = None) -> DatasetError:
    """One error for all faults of a file, one a line; of very many, the first ones and their number."""
    more = [f"... and {len(faults) - MAX_FAULTS} more faults"] if len(faults) > MAX_FAULTS else []
    return DatasetError("\n".join([*faults[:MAX_FAULTS], *more]), hint=hint)


def _has_count(row: str, root: Path, *, suffix: str) -> bool:
    """Whether the path of a row ends in a number, and is only there without it."""
    path = row.rpartition(" ")[0].rstrip()
    shorter, _, count = path.rpartition(" ")
    if not shorter.strip() or not count.isdecimal():
        return False
    return (root / f"{shorter.strip()}{suffix}").exists() and not (root / f"{path}{suffix}").exists()


def _read_row(row: str, root: Path, *, format: Format, suffix: str) -> Sample:
    """Raises: ValueError that says what is wrong with the row."""
    path, _, label = row.rpartition(" ")
    count: str | None = None
    if format == "frames":
        path, _, count = path.rstrip().rpartition(" ")
    if not path.strip() or not label.isdecimal() or (count is not None and not count.isdecimal()):
        expected = "path label" if count is None else "folder num_frames label"
        raise ValueError(f"expected '{expected}', got '{row}'")
    if count is not None and int(count) == 0:
        raise ValueError("a clip of 0 frames")
    return Sample(root / f"{path.strip()}{suffix}", int(label), None if count is None else int(count))
