"""The official split lists of UCF101: who trains, who is tested, under which class.

`classInd.txt` numbers the 101 classes from 1; `trainlist0N.txt` has rows `Class/v_Class_gNN_cNN.avi label`,
`testlist0N.txt` rows without the label. The class HandstandPushups has files named `v_HandStandPushups_*`: names that
differ in case only are the same here, for classes and for files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppvcli.datasets.annotations import MAX_FAULTS
from ppvcli.errors import DatasetError, UnknownNameError, UsageError, nearest

SPLITS = (1, 2, 3)
NUM_CLIPS = 13_320
"""Clips of UCF101; each split lists every one of them once."""
LIST_NAMES = ("classInd.txt", *(f"{side}list0{split}.txt" for side in ("train", "test") for split in SPLITS))

_CLASS = re.compile(r"\w+")
_CLIP = re.compile(r"([^/\\:]+)/([^/\\:]+\.avi)", re.IGNORECASE)

_OFFICIAL = "take the official lists: leave --source out of it, or put an unchanged ucfTrainTestlist there"


@dataclass(frozen=True, kw_only=True)
class ListedClip:
    """A clip that a list names."""

    class_name: str
    """As `classInd.txt` spells it."""
    file_name: str
    """As the list spells it, with `.avi`."""
    in_train: bool

    @property
    def path(self) -> str:
        """Where the clip stands below a folder of clips."""
        return f"{self.class_name}/{self.file_name}"


@dataclass(frozen=True, kw_only=True)
class SplitLists:
    """One split of the whole data set."""

    class_names: tuple[str, ...]
    clips: tuple[ListedClip, ...]
    """Training clips first, in the order of the lists."""


def read_split_lists(folder: Path, split: int) -> SplitLists:
    """One split, complete and free of contradictions.

    Raises: DatasetError for an unreadable list, a malformed row, a class or label that `classInd.txt` does not have, a
    clip that is listed twice, and for another number of clips than UCF101 has.
    """
    class_names = _read_classes(folder / "classInd.txt")
    labels = {name.casefold(): (name, str(i)) for i, name in enumerate(class_names, start=1)}
    clips = [
        _parse_row(row, labels=labels, in_train=in_train, place=f"{path}:{number}")
        for in_train, path in (
            (True, folder / f"trainlist0{split}.txt"),
            (False, folder / f"testlist0{split}.txt"),
        )
        for number, row in _rows(path)
    ]
    seen: set[str] = set()
    for clip in clips:
        if clip.file_name.casefold() in seen:
            raise DatasetError(f"{folder}: split {split} lists {clip.file_name} twice", hint=_OFFICIAL)
        seen.add(clip.file_name.casefold())
    if len(clips) != NUM_CLIPS:
        raise DatasetError(
            f"{folder}: split {split} lists {len(clips)} clips, expected the {NUM_CLIPS} of UCF101", hint=_OFFICIAL
        )
    return SplitLists(class_names=class_names, clips=tuple(clips))


def check_classes(names: Sequence[str], known: Sequence[str]) -> None:
    """Raises: UnknownNameError for a name that is no class of UCF101, with the nearest; UsageError for several."""
    unknown = [name for name in names if name not in known]
    hint = "spelt as in classInd.txt, one a line"
    if len(unknown) == 1:
        raise UnknownNameError("UCF101 class", unknown[0], known, hint=hint)
    if unknown:
        rows = [f"unknown UCF101 class '{name}'{nearest(name, known)}" for name in unknown[:MAX_FAULTS]]
        more = [f"... and {len(unknown) - MAX_FAULTS} more"] if len(unknown) > MAX_FAULTS else []
        raise UsageError("\n".join([*rows, *more]), hint=hint)


def _read_classes(path: Path) -> tuple[str, ...]:
    names: list[str] = []
    for number, row in _rows(path):
        index, _, name = row.partition(" ")
        if index != str(len(names) + 1) or not _CLASS.fullmatch(name):
            raise DatasetError(f"{path}:{number}: expected '{len(names) + 1} ClassName', got '{row}'", hint=_OFFICIAL)
        names.append(name)
    return tuple(names)


def _parse_row(row: str, *, labels: Mapping[str, tuple[str, str]], in_train: bool, place: str) -> ListedClip:
    """`labels` has name and label of a class by its name in lower case."""
    path, _, label = row.rpartition(" ") if in_train else (row, "", "")
    match = _CLIP.fullmatch(path.rstrip())
    if match is None or not row.isprintable():
        expected = "'Class/clip.avi label'" if in_train else "'Class/clip.avi'"
        raise DatasetError(f"{place}: expected {expected}, got '{row}'", hint=_OFFICIAL)
    folder, file_name = match.groups()
    if folder.casefold() not in labels:
        raise DatasetError(f"{place}: '{folder}' is no class of classInd.txt", hint=_OFFICIAL)
    class_name, expected_label = labels[folder.casefold()]
    if in_train and label != expected_label:
        raise DatasetError(
            f"{place}: label {label}, but classInd.txt says {expected_label} for {folder}", hint=_OFFICIAL
        )
    return ListedClip(class_name=class_name, file_name=file_name, in_train=in_train)


def _rows(path: Path) -> list[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"can't read {path}: {error}", hint=_OFFICIAL) from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]
