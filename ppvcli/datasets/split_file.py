"""`split.jsonl`: the clips of a run, written down when it starts, so that clips added later change no side."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ppvcli.configs.schema import DataConfig
from ppvcli.datasets.annotations import Sample, Split
from ppvcli.datasets.catalog import list_clips
from ppvcli.errors import DatasetError, counted
from ppvcli.files import write_text


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What happened to a data set since its split was written down."""

    newer: tuple[Path, ...]
    """Clips that came later."""
    gone: tuple[Path, ...]
    """Clips of class folders that are there no more; a list may name clips that never were."""


def write_split(path: Path, split: Split, *, root: Path) -> None:
    """A line with the class names, then one for each clip, its path relative to `root`. Raises: OSError."""
    rows: list[dict[str, Any]] = [{"labels": split.labels}]
    for side, samples in (("train", split.train), ("val", split.val)):
        for sample in samples:
            inside = sample.path.relative_to(root) if sample.path.is_relative_to(root) else sample.path
            row = {"path": inside.as_posix(), "label": split.labels[sample.label], "split": side}
            rows.append(row if sample.num_frames is None else {**row, "num_frames": sample.num_frames})
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_split(path: Path, root: Path) -> Split | None:
    """The split of `write_split`, in its order, with the clips below `root`; None where there is no file.

    Raises: DatasetError for a damaged file.
    """
    try:
        header, *rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        labels = tuple(header["labels"])
        index = {label: i for i, label in enumerate(labels)}
        sides: dict[str, list[Sample]] = {"train": [], "val": []}
        for row in rows:
            sides[row["split"]].append(Sample(root / row["path"], index[row["label"]], row.get("num_frames")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DatasetError(
            f"can't read {path}, the clips of the run: {getattr(error, 'strerror', None) or error}",
            hint="without this file the clips are divided anew, as they are now",
        ) from error
    return Split(train=tuple(sides["train"]), val=tuple(sides["val"]), labels=labels)


def find_changes(split: Split, config: DataConfig) -> Changes:
    """How the data set differs from its recorded split. Raises: DatasetError where its folder is not there."""
    recorded = {sample.path: None for sample in (*split.train, *split.val)}
    try:
        present = {sample.path: None for sample in list_clips(config)}
    except DatasetError:  # a class folder that is empty, a list that was changed: of no account to the recorded clips
        if not Path(config.root).is_dir():
            raise
        present = {path: None for path in recorded if path.exists()}
    is_listed = config.csv is not None or config.train_list is not None
    return Changes(
        newer=tuple(path for path in present if path not in recorded),
        gone=() if is_listed else tuple(path for path in recorded if path not in present),
    )


def describe_newer(num_newer: int, source: str) -> str:
    """The note about clips that came later."""
    verb = "is" if num_newer == 1 else "are"
    return f"{source}: {counted(num_newer, 'clip')} {verb} newer than the run and not in it"
