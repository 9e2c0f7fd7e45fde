"""DataConfig -> the clips to train on and the clips to hold out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ppvcli.configs.schema import DataConfig
from ppvcli.datasets.annotations import Sample, Split, read_labels, read_list
from ppvcli.datasets.csv_files import read_csv
from ppvcli.datasets.folder import (
    describe_unused,
    folders_with_clips,
    scan_class_folders,
    split_by_group,
    split_by_ratio,
)
from ppvcli.errors import DatasetError, counted
from ppvcli.weights.metadata import MetadataError, check_labels

MAX_NAMES = 10
"""Classes that a line names."""


def open_split(config: DataConfig, *, seed: int) -> Split:
    """The data set that `config` describes; the same seed gives the same split.

    Raises: DatasetError, also where all clips are of one class, or a weight file can't carry the name of a class.
    """
    split = _read_split(config, seed=seed)
    try:
        check_labels(split.labels)
    except MetadataError as error:
        raise DatasetError(
            f"{_source(config)}: {error}", hint="give that class another name: its folder, or where the labels stand"
        ) from error
    present = {sample.label for sample in (*split.train, *split.val)}
    if len(present) == 1:
        raise _one_class_error(config, split.labels[present.pop()])
    return split


def check_sides(split: Split, config: DataConfig) -> None:
    """Passes where a clip is held out that is not trained on. Raises: DatasetError."""
    if _count_on_both_sides(split) == len(split.val):
        raise DatasetError(
            f"{_source(config)}: all {len(split.val)} held-out clips are also trained on",
            hint="hold out clips that the network does not see, such as those of another list",
        )


def describe_split(split: Split) -> tuple[str, ...]:
    """How many classes and clips there are, in a line; one more about clips on both sides and classes not on both."""
    lines = [
        f"data: {len(split.labels)} classes ({_some(split.labels)}), {counted(len(split.train), 'clip')} to train on, "
        f"{len(split.val)} held out"
    ]
    if on_both := _count_on_both_sides(split):
        lines.append(f"data: held-out clips that are also trained on: {on_both}")
    for what, samples in (("to train on", split.train), ("held out", split.val)):
        present = {sample.label for sample in samples}
        absent = [name for i, name in enumerate(split.labels) if i not in present]
        if absent:
            lines.append(f"data: classes without a clip {what}: {len(absent)} ({_some(absent)})")
    return tuple(lines)


def _some(names: Sequence[str]) -> str:
    """The first of the names."""
    return ", ".join([*names[:MAX_NAMES], "..."] if len(names) > MAX_NAMES else names)


def _count_on_both_sides(split: Split) -> int:
    """Held-out clips that are trained on under the same path; `check_data` finds copies as well."""
    trained = {sample.path for sample in split.train}
    return sum(sample.path in trained for sample in split.val)


def _source(config: DataConfig) -> str:
    """Where the clips are named."""
    root = Path(config.root)
    if config.train_list is not None:
        return f"{root / config.train_list} and {root / str(config.val_list)}"
    return str(root if config.csv is None else root / config.csv)


def _one_class_error(config: DataConfig, name: str) -> DatasetError:
    root, hint = Path(config.root), "name clips of other classes as well"
    if config.train_list is None and config.csv is None:
        deeper = folders_with_clips(root / name, format=config.format)
        hint = "--data DIR, with a sub-folder of clips for each class"
        if len(deeper) > 1:
            hint = f"did you mean --data {root / name}? Its classes would be: {_some([path.name for path in deeper])}"
    what = f"{_source(config)}: all clips are of one class, '{name}'; a classifier needs two or more"
    return DatasetError(what, hint=hint)


def _read_split(config: DataConfig, *, seed: int) -> Split:
    root = Path(config.root)
    labels = None if config.labels is None else read_labels(root / config.labels)
    if labels and config.csv is None:
        train, val = _read_lists(config, num_classes=len(labels))
        return Split(train=train, val=val, labels=labels)
    if config.csv is not None:
        return _open_csv(config, root, labels=labels, seed=seed)
    samples, labels = scan_class_folders(root, format=config.format)
    train, val = _divide(config, samples, seed=seed)
    return Split(train=train, val=val, labels=labels)


def list_clips(config: DataConfig) -> tuple[Sample, ...]:
    """Every clip of the data set that `config` describes, to whichever side it belongs. Raises: DatasetError."""
    root = Path(config.root)
    if config.csv is not None:
        return read_csv(root / config.csv, root, format=config.format).samples
    if config.labels is not None:
        train, val = _read_lists(config, num_classes=len(read_labels(root / config.labels)))
        return (*train, *val)
    return scan_class_folders(root, format=config.format)[0]


def csv_says_split(config: DataConfig) -> bool:
    """Whether the clips stand in a CSV file with a column `split`. Raises: DatasetError for a file with faults."""
    path = Path(config.root) / str(config.csv)
    return config.csv is not None and path.is_file() and read_csv(path, path.parent).sides is not None


def _read_lists(config: DataConfig, *, num_classes: int) -> tuple[tuple[Sample, ...], ...]:
    """(train, val)"""
    root = Path(config.root)
    return tuple(
        read_list(root / str(name), root, num_classes=num_classes, format=config.format, suffix=config.suffix)
        for name in (config.train_list, config.val_list)
    )


def describe_leftovers(config: DataConfig) -> tuple[str, ...]:
    """What `open_split` passes over in silence, a line each; of class folders of videos, which say nothing else."""
    root = Path(config.root)
    if config.csv is not None or config.train_list is not None or config.format != "videos" or not root.is_dir():
        return ()
    return describe_unused(root)


def _open_csv(config: DataConfig, root: Path, *, labels: Sequence[str] | None, seed: int) -> Split:
    path = root / str(config.csv)
    table = read_csv(path, root, labels=labels, format=config.format)
    told = [key for key in ("val_ratio", "val_groups", "group_pattern") if getattr(config, key) is not None]
    if table.sides is None:
        if config.val_ratio is None and config.val_groups is None:
            raise DatasetError(
                f"{path} has no column 'split', and nothing else says which clips to hold out",
                hint="--val-ratio 0.2, or a column split with train and val",
            )
        train, val = _divide(config, table.samples, seed=seed)
        return Split(train=train, val=val, labels=table.labels)
    if told:
        raise DatasetError(
            f"{path} has a column 'split', so that {' and '.join(f'data.{key}' for key in told)} can't take effect",
            hint=f"leave that out, or remove the column; where a config says it: "
            f"{' '.join(f'--set data.{key}=null' for key in told)}",
        )
    train, val = table.side("train"), table.side("val")
    if not train or not val:
        raise DatasetError(
            f"{path}: the column split leaves one side empty: {len(train)} train, {len(val)} val",
            hint="give some rows the other word, train or val; or remove the column and say --val-ratio 0.2",
        )
    return Split(train=train, val=val, labels=table.labels)


def _divide(config: DataConfig, samples: Sequence[Sample], *, seed: int) -> tuple[tuple[Sample, ...], ...]:
    if config.group_pattern:
        return split_by_group(
            samples, config.group_pattern, val_groups=config.val_groups, val_ratio=config.val_ratio, seed=seed
        )
    return split_by_ratio(samples, config.val_ratio or 0.0, seed=seed)
