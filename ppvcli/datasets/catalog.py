"""DataConfig -> the clips to train on and the clips to hold out."""

from __future__ import annotations

from pathlib import Path

from ppvcli.configs.schema import DataConfig
from ppvcli.datasets.annotations import Split, read_labels, read_list
from ppvcli.datasets.folder import scan_class_folders, split_by_group, split_by_ratio


def open_split(config: DataConfig, *, seed: int) -> Split:
    """The data set that `config` describes; the same seed gives the same split. Raises: DatasetError."""
    root = Path(config.root)
    if config.train_list and config.val_list and config.labels:
        labels = read_labels(root / config.labels)
        train, val = (
            read_list(root / name, root, num_classes=len(labels)) for name in (config.train_list, config.val_list)
        )
        return Split(train=train, val=val, labels=labels)
    samples, labels = scan_class_folders(root)
    if config.group_pattern:
        train, val = split_by_group(
            samples, config.group_pattern, val_groups=config.val_groups, val_ratio=config.val_ratio, seed=seed
        )
    else:
        train, val = split_by_ratio(samples, config.val_ratio or 0.0, seed=seed)
    return Split(train=train, val=val, labels=labels)
