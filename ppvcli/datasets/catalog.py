"""DataConfig -> the clips to train on and the clips to hold out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ppvcli.configs.schema import DataConfig
from ppvcli.datasets.annotations import Sample, Split, read_labels, read_list
from ppvcli.datasets.csv_files import read_csv
from ppvcli.datasets.folder import scan_class_folders, split_by_group, split_by_ratio
from ppvcli.errors import DatasetError


def open_split(config: DataConfig, *, seed: int) -> Split:
    """The data set that `config` describes; the same seed gives the same split. Raises: DatasetError."""
    root = Path(config.root)
    labels = None if config.labels is None else read_labels(root / config.labels)
    if config.train_list and config.val_list and labels:
        train, val = (
            read_list(root / name, root, num_classes=len(labels), format=config.format, suffix=config.suffix)
            for name in (config.train_list, config.val_list)
        )
        return Split(train=train, val=val, labels=labels)
    if config.csv is not None:
        return _open_csv(config, root, labels=labels, seed=seed)
    samples, labels = scan_class_folders(root, format=config.format)
    train, val = _divide(config, samples, seed=seed)
    return Split(train=train, val=val, labels=labels)


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
            hint=f"{' '.join(f'--set data.{key}=null' for key in told)}, or remove the column",
        )
    train, val = table.side("train"), table.side("val")
    if not train or not val:
        raise DatasetError(f"{path}: the column split leaves one side empty: {len(train)} train, {len(val)} val")
    return Split(train=train, val=val, labels=table.labels)


def _divide(config: DataConfig, samples: Sequence[Sample], *, seed: int) -> tuple[tuple[Sample, ...], ...]:
    if config.group_pattern:
        return split_by_group(
            samples, config.group_pattern, val_groups=config.val_groups, val_ratio=config.val_ratio, seed=seed
        )
    return split_by_ratio(samples, config.val_ratio or 0.0, seed=seed)
