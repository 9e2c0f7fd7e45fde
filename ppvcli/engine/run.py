"""`train` and `evaluate`: from names and paths to a run folder and a report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import paddle

from ppvcli.configs.load import dump_config, load_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.annotations import Sample, Split, read_list
from ppvcli.datasets.catalog import open_split
from ppvcli.datasets.folder import scan_class_folders
from ppvcli.engine.checkpoint import CONFIG_FILE
from ppvcli.engine.evaluator import evaluate_network
from ppvcli.engine.trainer import Trainer, TrainObserver
from ppvcli.errors import ConfigError, DatasetError, UsageError, WeightsNotFoundError
from ppvcli.files import write_text
from ppvcli.models.build import build_network
from ppvcli.models.device import select_device
from ppvcli.models.load import load_model
from ppvcli.models.recognizer import open_recognizer
from ppvcli.models.tsm_efflite0 import STAGES
from ppvcli.models.zoo import ModelRow, get_model_row, list_models
from ppvcli.results import EvalReport, TrainResult
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits
from ppvcli.weights.formats import LAST_CHECKPOINT


def train(
    config: TrainConfig | str,
    run_dir: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    observer: TrainObserver | None = None,
) -> TrainResult:
    """Trains what `config` (or the config of that name or file) says, into `run_dir`.

    The run folder holds `config.yaml`, `log.jsonl`, `last/checkpoint.safetensors` and `best/weights.safetensors`, and
    stands for a model wherever weights are asked for. With `resume` the run in `run_dir` goes on after its last
    finished epoch and ends with the weights of a run that was never interrupted (same machine, CPU).

    Raises: ConfigError, DatasetError, WeightsError, DeviceError; UsageError where `run_dir` already holds a run and
    `resume` is off.
    """
    if isinstance(config, str):
        config = load_config(config)
    row = get_model_row(config.model.name)
    _check_model(config, row)
    run_dir = Path(run_dir)
    if not resume and (run_dir / CONFIG_FILE).exists():
        raise UsageError(f"{run_dir} already holds a run", hint=f"ppv train --resume {run_dir}, or another --out")
    split = open_split(config.data, seed=config.seed)
    select_device(device)
    paddle.seed(config.seed)
    resume = resume and (run_dir / LAST_CHECKPOINT).exists()  # a run that never finished an epoch starts anew
    network = _starting_network(config, row, split, fetch=not resume)
    trainer = Trainer(network, split, config=config, preprocess=row.preprocess, run_dir=run_dir, observer=observer)
    if resume:
        trainer.resume()
    run_dir.mkdir(parents=True, exist_ok=True)
    write_text(run_dir / CONFIG_FILE, dump_config(config))
    return trainer.run()


def resume(run_dir: str | Path, *, device: str = "auto", observer: TrainObserver | None = None) -> TrainResult:
    """Goes on with the run in `run_dir`. Raises: WeightsNotFoundError where there is none."""
    path = Path(run_dir) / CONFIG_FILE
    if not path.is_file():
        raise WeightsNotFoundError(f"no run in {run_dir}: {CONFIG_FILE} is missing")
    return train(load_config(str(path)), run_dir, resume=True, device=device, observer=observer)


def evaluate(
    model: str | None = None,
    *,
    weights: str | Path | None = None,
    data: str | Path | None = None,
    list_file: str | None = None,
    num_workers: int = 1,
    device: str = "auto",
    limits: DecodeLimits = DEFAULT_LIMITS,
    on_clip: Callable[[int, int], None] | None = None,
) -> EvalReport:
    """Accuracy of a model on labelled clips, with its published eval preprocessing.

    `data` is a folder with one sub-folder per class, whose names must be the model's labels; with `list_file` it is
    the root of the paths in that list (rows `path label`). Without `data`, `weights` must be a run folder, and the
    clips are those its own config holds out. `limits` say what one file may cost. `on_clip(done, total)` is called
    after each clip.

    Raises: DatasetError, WeightsError, UsageError.
    """
    select_device(device)
    recognizer = open_recognizer(model, weights=weights)
    samples = _eval_samples(data, list_file, labels=recognizer.labels, run_config=_run_config(weights))
    count = iter(range(1, len(samples) + 1))

    def on_one() -> None:
        if on_clip is not None:
            on_clip(next(count), len(samples))

    return evaluate_network(
        recognizer.network,
        samples,
        recognizer.preprocess,
        labels=recognizer.labels,
        model=recognizer.model,
        num_workers=num_workers,
        limits=limits,
        on_clip=on_one,
    )


def _check_model(config: TrainConfig, row: ModelRow) -> None:
    """Raises: ConfigError with every pair of settings that the model can't honour."""
    faults = []
    own_backbone = row.network.architecture == "tsm_efflite0"
    if config.model.pretrained in list_models() and get_model_row(config.model.pretrained).network != row.network:
        faults.append(f"model.pretrained: {config.model.pretrained} is another network than {row.name}")
    if config.model.pretrained == "imagenet" and not own_backbone:
        faults.append(f"model.pretrained: there is no ImageNet backbone in pip for {row.name}")
    if config.model.frozen_stages and not own_backbone:
        faults.append(f"model.frozen_stages: {row.network.architecture} has no stages that can be frozen")
    if own_backbone and config.model.frozen_stages > len(STAGES):
        faults.append(f"model.frozen_stages: {config.model.frozen_stages}, but there are {len(STAGES)}")
    if row.network.teacher is not None:
        faults.append(f"model.name: {row.name} is a pair of networks; training such a pair is not there yet")
    if faults:
        raise ConfigError("\n".join(faults))


def _starting_network(config: TrainConfig, row: ModelRow, split: Split, *, fetch: bool) -> paddle.nn.Layer:
    """The network before its first step; without `fetch` (a checkpoint will replace them) no weights are loaded."""
    num_classes, pretrained = len(split.labels), config.model.pretrained
    network = build_network(row.network, num_classes, dropout=config.model.dropout)
    if fetch and pretrained is not None:
        if pretrained == "imagenet":
            start = load_model(row.name, num_classes=num_classes)
        elif pretrained in list_models():
            start = load_model(pretrained, num_classes=num_classes)
        else:
            start = load_model(row.name, weights=pretrained, num_classes=num_classes)
        network.set_state_dict(start.state_dict())
    if config.model.frozen_stages:
        network.backbone.freeze_stages(config.model.frozen_stages)
    return network


def _run_config(weights: str | Path | None) -> TrainConfig | None:
    """The config of the run folder that `weights` is, or lies in."""
    if weights is None:
        return None
    path = Path(weights)
    for folder in (path, path.parent, path.parent.parent):
        if (folder / CONFIG_FILE).is_file():
            return load_config(str(folder / CONFIG_FILE))
    return None


def _eval_samples(
    data: str | Path | None, list_file: str | None, *, labels: tuple[str, ...], run_config: TrainConfig | None
) -> tuple[Sample, ...]:
    if data is None:
        if run_config is None:
            raise UsageError("no clips to evaluate on", hint="--data DIR, with one sub-folder of clips per class")
        split = open_split(run_config.data, seed=run_config.seed)
        if split.labels != labels:
            raise DatasetError(f"{run_config.data.root} no longer has the classes the run was trained on")
        return split.val
    root = Path(data)
    if list_file is not None:
        return read_list(root / list_file, root, num_classes=len(labels))
    samples, folders = scan_class_folders(root)
    unknown = sorted(set(folders) - set(labels))
    if unknown:
        raise DatasetError(f"{root}: folders that are no class of the model: {', '.join(unknown)}")
    return tuple(Sample(sample.path, labels.index(folders[sample.label])) for sample in samples)
