"""Which clips an evaluation measures, and where its report goes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ppvcli.configs.load import Source, load_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.annotations import Format, Sample, Split, read_samples
from ppvcli.datasets.catalog import open_split
from ppvcli.datasets.folder import scan_class_folders
from ppvcli.datasets.split_file import find_changes, read_split
from ppvcli.engine.checkpoint import CONFIG_FILE, SPLIT_FILE
from ppvcli.errors import DatasetError, UsageError
from ppvcli.models.recognizer import Recognizer
from ppvcli.weights.formats import BEST_WEIGHTS, LAST_CHECKPOINT, resolve_weights_path

OWN_PROTOCOL = "own"
MAX_NAMES = 10
"""Classes that an error names."""
_DATA_HINT = "--data takes a folder with a sub-folder of clips for each class, a list, or a CSV file"
_OTHER_SETTINGS = ("data.root", "data.num_workers", "data.decode_timeout_s", "data.max_pixels")
"""Of those below `data`, the ones that divide no clips."""


@dataclass(frozen=True, kw_only=True)
class EvalClips:
    """The clips to measure, with the class indices of the model."""

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    root: Path
    """The folder that their paths are relative to."""
    source: str
    """For the report."""
    num_newer: int = 0
    """Clips left out because they came after the run began."""


def find_clips(
    data: str | Path | None,
    list_file: str | None,
    *,
    data_format: Format | None,
    recognizer: Recognizer,
    config: TrainConfig | None,
    source: Source | None,
    weights: str | Path | None,
) -> EvalClips:
    """The clips of `data`, or those that `config` (read from `source`), or else the run of `weights`, holds out.

    Raises: DatasetError; UsageError for arguments that exclude each other.
    """
    run_dir = find_run_dir(weights)
    run_config = None if run_dir is None else load_config(str(run_dir / CONFIG_FILE))
    if data is not None:
        if config is not None:
            raise UsageError("config and data both say which clips to evaluate; say one", hint="--set data.root=DIR")
        found = data_format or ("videos" if run_config is None else run_config.data.format)
        return _clips_of(Path(data), list_file, data_format=found, labels=recognizer.labels)
    if list_file is not None:
        raise _not_named(list_file)
    if config is not None:
        return _held_out(config, *_split_of(config, _run_of(source)), recognizer=recognizer)
    if run_config is None or run_dir is None:
        raise _not_named(list_file)
    root = Path(run_config.data.root)
    if not root.is_dir():
        old, own = shlex.quote(str(run_dir / CONFIG_FILE)), shlex.quote(str(weights))
        raise DatasetError(
            f"the clips of {run_dir} are not there: no folder {root}",
            hint=f"if they were moved to DIR: ppv eval --config {old} --data DIR --weights {own}",
        )
    split, num_newer = _split_of(run_config, run_dir)
    if split.labels != recognizer.labels:
        raise DatasetError(f"{root} no longer has the classes the run was trained on")
    return _held_out(run_config, split, num_newer, recognizer=recognizer)


def check_named(data: Path | None, list_file: str | None) -> None:
    """Checks that clips are named, where neither a config nor a run does it.

    Raises: UsageError, also for a `list_file` that can't take effect; DatasetError where nothing is at `data`.
    """
    if data is None:
        raise _not_named(list_file)
    if not data.exists():
        raise DatasetError(f"nothing is at {data}", hint=_DATA_HINT)
    if list_file is not None and data.is_file():
        raise UsageError(f"--data {data} is a list itself; --list can't take effect", hint="leave --list out")


def count_trained_on(clips: EvalClips, weights: str | Path | None) -> int:
    """How many of the clips the run of `weights` was trained on, as far as it wrote that down.

    A clip is the same where its file is, links followed. Of a run whose clips are gone, as moved ones are, it is the
    same where it has the same place below the new folder.
    """
    run_dir = find_run_dir(weights)
    if run_dir is None:
        return 0
    root = Path(load_config(str(run_dir / CONFIG_FILE)).data.root)
    split = read_split(run_dir / SPLIT_FILE, root if root.is_dir() else clips.root)
    trained = set() if split is None else {os.path.realpath(sample.path) for sample in split.train}
    return sum(os.path.realpath(sample.path) in trained for sample in clips.samples)


def find_run_dir(weights: str | Path | None) -> Path | None:
    """The run folder that `weights` is, or whose best or last weights they are; None for other weights."""
    if weights is None:
        return None
    path = Path(weights).expanduser()
    if path.parts[-2:] in (BEST_WEIGHTS.parts, LAST_CHECKPOINT.parts):
        path = path.parent.parent
    elif path.name in (BEST_WEIGHTS.parent.name, LAST_CHECKPOINT.parent.name):
        path = path.parent
    return path if (path / CONFIG_FILE).is_file() else None


def default_out_dir(
    model: str | None,
    *,
    config: TrainConfig | None,
    weights: str | Path | None,
    data: str | Path | None,
    list_file: str | None,
    protocol: str | None,
) -> Path:
    """Where `ppv eval` writes unless told: a folder for each triple of weights, clips and protocol.

    `RUN_DIR/eval/<clips>-<protocol>` for the weights of a run (`last-<clips>-<protocol>` for those of the last epoch),
    else `eval/<model>-<clips>-<protocol>` in the working directory. `<clips>` is the name of the folder or list,
    `<folder>-held-out` for those that a config holds out, or `held-out` for those of the run.
    """
    if config is not None:
        clips = f"{Path(config.data.root).absolute().name}-held-out"
    else:
        clips = "held-out" if data is None else Path(list_file or Path(data).absolute().name).stem
    name = f"{clips}-{protocol or OWN_PROTOCOL}"
    run_dir = find_run_dir(weights)
    if run_dir is None:
        return Path("eval") / f"{Path(weights).stem if weights is not None else model}-{name}"
    is_last = resolve_weights_path(weights or "").name == LAST_CHECKPOINT.name
    return run_dir / "eval" / (f"last-{name}" if is_last else name)


def _not_named(list_file: str | None) -> UsageError:
    if list_file is not None:
        return UsageError("a list file needs the folder of its clips", hint="--data DIR --list FILE, or --data FILE")
    return UsageError("no clips to evaluate on", hint=_DATA_HINT)


def _clips_of(path: Path, list_file: str | None, *, data_format: Format, labels: tuple[str, ...]) -> EvalClips:
    """All clips of class folders, a list or a CSV file."""
    check_named(path, list_file)
    if list_file is None and not path.is_file():
        found, folders = scan_class_folders(path, format=data_format)
        samples = _by_name(found, folders, labels=labels, source=str(path))
        return EvalClips(samples=samples, labels=labels, root=path, source=str(path))
    table, root = (path, path.parent) if list_file is None else (path / list_file, path)
    samples = read_samples(table, root, labels=labels, format=data_format)
    return EvalClips(samples=samples, labels=labels, root=root, source=str(table))


def _run_of(source: Source | None) -> Path | None:
    """The run folder whose config `source` is, unless it asks for a split of other settings."""
    if source is None or Path(source.name).name != CONFIG_FILE:
        return None
    keys = [change.key for change in source.changes if change.key not in _OTHER_SETTINGS]
    return None if any(key == "seed" or key.split(".")[0] == "data" for key in keys) else Path(source.name).parent


def _split_of(config: TrainConfig, run_dir: Path | None) -> tuple[Split, int]:
    """The split that a run wrote down, and how many clips are newer; else the one that `config` draws now, and 0."""
    split = None if run_dir is None else read_split(run_dir / SPLIT_FILE, Path(config.data.root))
    if split is None:
        return open_split(config.data, seed=config.seed), 0
    return split, len(find_changes(split, config.data).newer)


def _held_out(config: TrainConfig, split: Split, num_newer: int, *, recognizer: Recognizer) -> EvalClips:
    root, labels = config.data.root, recognizer.labels
    if recognizer.network.load_report.labels is None and len(split.labels) == len(labels):
        labels = split.labels  # the file names no classes, the config does
    samples = _by_name(split.val, split.labels, labels=labels, source=root)
    return EvalClips(samples=samples, labels=labels, root=Path(root), source=f"held out of {root}", num_newer=num_newer)


def _by_name(
    samples: tuple[Sample, ...], names: tuple[str, ...], *, labels: tuple[str, ...], source: str
) -> tuple[Sample, ...]:
    """The samples with the class indices of the model, which may know more classes and have them in another order."""
    unknown = sorted(set(names) - set(labels))
    if unknown:
        shown = _quoted(unknown) + (", ..." if len(unknown) > MAX_NAMES else "")
        raise DatasetError(
            f"{source}: classes that the model does not know: {shown}",
            hint=f"it knows {_quoted(labels)}"
            + (f" and {len(labels) - MAX_NAMES} more" if len(labels) > MAX_NAMES else ""),
        )
    return tuple(replace(sample, label=labels.index(names[sample.label])) for sample in samples)


def _quoted(names: Sequence[str]) -> str:
    """The first of the names; quoted, because a name may hold a comma."""
    return ", ".join(f"'{name}'" for name in names[:MAX_NAMES])
