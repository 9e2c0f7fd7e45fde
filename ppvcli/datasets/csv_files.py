"""Labelled clips from a CSV file: a header, then one clip a row, with the name of its class."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppvcli.datasets.annotations import Format, Sample, faults_error, read_text
from ppvcli.errors import DatasetError, nearest
from ppvcli.video.frame_folder import last_frame_number

Side = Literal["train", "val"]

_SIDES: dict[str, Side] = {"train": "train", "val": "val"}
_SEPARATORS = ",;\t"
"""That a header may have; spreadsheets of some languages write semicolons."""


@dataclass(frozen=True, kw_only=True)
class CsvTable:
    """What a CSV file says."""

    samples: tuple[Sample, ...]
    """In the order of the rows."""
    labels: tuple[str, ...]
    sides: tuple[Side, ...] | None
    """Of each sample, where the file has a column `split`."""

    def side(self, name: Side) -> tuple[Sample, ...]:
        """The clips that the file puts on this side."""
        assert self.sides is not None
        return tuple(sample for sample, side in zip(self.samples, self.sides, strict=True) if side == name)


def read_csv(path: Path, root: Path, *, labels: Sequence[str] | None = None, format: Format = "videos") -> CsvTable:
    """The clips of a CSV file with the columns `path` (relative to `root`), `label` and perhaps `split` (train or val).

    `label` holds class names. Their indices are those of `labels`, or, without it, of the sorted names in the file.
    Columns may be in upper case; others are left alone, blank lines skipped, spaces around a value dropped. The header
    shows what separates values: commas, semicolons or tabs. UTF-8, with or without a byte order mark.

    Raises: DatasetError for an unreadable file or, by line and all at once, for what is wrong with its rows.
    """
    faults: list[str] = []
    clips: list[Path] = []
    names: list[str] = []
    sides: list[Side] = []
    for number, clip, name, split in _rows(path, faults):
        if not clip or not name:
            faults.append(f"{path}:{number}: {'path' if not clip else 'label'} is empty")
        elif labels is not None and name not in labels:
            faults.append(f"{path}:{number}: unknown class '{name}'{nearest(name, labels)}")
        elif split is not None and split not in _SIDES:
            faults.append(f"{path}:{number}: split '{split}' is neither train nor val")
        else:
            clips.append(root / clip)
            names.append(name)
            if split is not None:
                sides.append(_SIDES[split])
    if faults:
        raise faults_error(faults, hint="correct these rows; a value that holds the separator stands in double quotes")
    if not clips:
        raise DatasetError(f"{path}: no clips listed", hint="one clip a row, below the header")
    known = tuple(labels) if labels is not None else tuple(sorted(set(names)))
    index = {name: i for i, name in enumerate(known)}
    return CsvTable(
        samples=tuple(
            Sample(clip, index[name], max(1, last_frame_number(clip)) if format == "frames" else None)
            for clip, name in zip(clips, names, strict=True)
        ),
        labels=known,
        sides=tuple(sides) or None,
    )


def _rows(path: Path, faults: list[str]) -> Iterator[tuple[int, str, str, str | None]]:
    """(line, path, label, split) of every row that has as many fields as the header; the others are `faults`."""
    text = read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=_find_separator(text))
    try:
        header = [name.strip() for name in next(reader, [])]
        columns = _find_columns(header, path=path)
        for fields in reader:
            values = [field.strip() for field in fields]
            if not any(values):
                continue
            if len(values) != len(header):
                faults.append(f"{path}:{reader.line_num}: {len(values)} fields, but {len(header)} columns")
                continue
            split = values[columns["split"]] if "split" in columns else None
            yield reader.line_num, values[columns["path"]], values[columns["label"]], split
    except csv.Error as error:
        raise DatasetError(
            f"{path}:{reader.line_num}: {error}", hint="close the quotes; two of them stand for one in a value"
        ) from error


def _find_separator(text: str) -> str:
    """What stands between `path` and `label` in the first line."""
    header = text.partition("\n")[0]
    for separator in _SEPARATORS:
        if {"path", "label"} <= {name.strip(' "\r').lower() for name in header.split(separator)}:
            return separator
    return _SEPARATORS[0]


def _find_columns(header: Sequence[str], *, path: Path) -> dict[str, int]:
    """Where `path`, `label` and perhaps `split` stand, in upper or lower case. Raises: DatasetError."""
    names = [name.lower() for name in header]
    columns: dict[str, int] = {name: names.index(name) for name in ("path", "label", "split") if name in names}
    shown = ", ".join(header) or "(none)"
    if not {"path", "label"} <= columns.keys():
        raise DatasetError(
            f"{path}: the first line names the columns {shown}, but not path and label",
            hint="let the file begin with: path,label",
        )
    if twice := [name for name in columns if names.count(name) > 1]:
        raise DatasetError(
            f"{path}: the first line names the columns {shown}, {' and '.join(twice)} more than once",
            hint="rename the column that is not meant",
        )
    return columns
