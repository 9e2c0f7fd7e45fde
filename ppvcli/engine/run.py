"""`train` and `resume`: from a config to a run folder."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import paddle

from ppvcli.arguments import as_names
from ppvcli.configs.load import Change, Source, dump_config, load_source
from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.annotations import Split
from ppvcli.datasets.catalog import check_sides, describe_split, open_split
from ppvcli.datasets.split_file import describe_newer, find_changes, read_split, write_split
from ppvcli.engine import inputs
from ppvcli.engine.checkpoint import (
    CONFIG_FILE,
    LOG_FILE,
    SPLIT_FILE,
    START_FILE,
    num_finished_epochs,
    read_result,
)
from ppvcli.engine.checks import check_config, check_data_exists
from ppvcli.engine.curves import CURVES_FILE, write_curves
from ppvcli.engine.distributed import is_main_process, join_world, local_device
from ppvcli.engine.launch import Cluster, launch
from ppvcli.engine.log import RunLog
from ppvcli.engine.objectives import Distillation, MutualLearning, Objective, Supervised
from ppvcli.engine.progress import TrainObserver
from ppvcli.engine.run_folder import check_new_run, check_not_held, holding_run, remove_begun_run
from ppvcli.engine.start import fetch_weights, starting_network
from ppvcli.engine.trainer import Trainer
from ppvcli.engine.writers import check_writers, open_writers
from ppvcli.errors import ConfigError, DatasetError, RankError, UsageError, WeightsNotFoundError
from ppvcli.files import write_text
from ppvcli.models.backbones import list_weights
from ppvcli.models.device import find_device, select_device
from ppvcli.models.recognizer import open_recognizer
from ppvcli.models.zoo import get_model_row
from ppvcli.results import StartReport, TrainResult
from ppvcli.weights.download import Report
from ppvcli.weights.formats import LAST_CHECKPOINT


def train(
    config: TrainConfig | str | Path,
    run_dir: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    cluster: Cluster | None = None,
    writers: str | Sequence[str] = (),
    observer: TrainObserver | None = None,
    progress: Report | None = None,
    source: Source | None = None,
    note: Callable[[str], None] | None = None,
) -> TrainResult:
    """Trains what `config` (or the config of that name or file) says, into `run_dir`.

    The run folder holds `config.yaml`, `split.jsonl`, `log.jsonl`, `curves.png`, `last/checkpoint.safetensors` with the
    report of its evaluation, and `best/weights.safetensors`; it stands for a model wherever weights are asked for. With
    `resume` the run in `run_dir`, if there is one, goes on after its last finished epoch with the clips it began with,
    and ends with the weights of a run that was never interrupted (same machine, CPU); one that has done all its epochs
    is not evaluated again. `cluster` spreads it over several processes, each with `batch_size` clips; on several
    machines `run_dir` is a folder that all of them see. `writers` are `tensorboard` and `visualdl`. `progress` is told
    how far published weights are fetched. `source` is where the config was read from, for messages about it. `note` is
    told how many classes and clips there are, which classes have none on a side, and of clips that a resumed run leaves
    out.

    Raises: ConfigError, DatasetError, WeightsError, DeviceError, DivergedError; RankError for a process that failed;
    UsageError where `run_dir` holds anything, or is among the class folders, and `resume` is off, or where another
    process is training there.
    """
    run_dir = Path(run_dir)
    resume = resume and (run_dir / CONFIG_FILE).exists()
    if isinstance(config, (str, Path)):
        source = Source(str(config))
        config = load_source(source)
    source = source or Source(str(run_dir / CONFIG_FILE))
    writers = as_names(writers)
    check_writers(writers)
    if cluster is not None and cluster.size == 1 and cluster.gpus:
        device = f"gpu:{cluster.gpus[0]}"  # no launcher will give it to this process
    leads = is_main_process() and (cluster is None or cluster.num_nodes == 1)  # of machines, the first process of all
    if leads:
        check_not_held(run_dir)
    if resume and num_finished_epochs(run_dir) >= config.epochs:
        return _finish(config, run_dir, writers=writers)
    check_config(config, source=source, device=find_device(device), resumes=resume)
    check_data_exists(config.data)
    if not resume and not _began_elsewhere(config, run_dir, cluster=cluster):
        check_new_run(run_dir, config.data)
    split = _resumed_split(config, run_dir, note=note) if resume else open_split(config.data, seed=config.seed)
    if not resume:
        check_sides(split, config.data)
    if note is not None:
        for line in describe_split(split):
            note(line)
    starts = not (resume and (run_dir / LAST_CHECKPOINT).exists())  # a run that never finished an epoch starts anew
    fetch_weights(config, starts=starts, progress=progress)
    if cluster is not None and cluster.size > 1:
        with _own_run(config, run_dir, resume=resume) if leads else contextlib.nullcontext():
            _write_request(config, split, run_dir=run_dir, resume=resume)
        place = ["--gpu" if cluster.gpus else "--cpu", *(f"--writer={name}" for name in writers)]
        try:
            launch(["train", "--resume", str(run_dir), *place], run_dir, cluster=cluster, observer=observer)
        except RankError as error:
            if leads and not resume and not (run_dir / LAST_CHECKPOINT).exists():
                remove_begun_run(run_dir, writers)
                error.hint = "the same command starts the run anew, once the cause is gone"
            raise
        return read_result(run_dir, model=config.model.name)
    select_device(local_device(device))
    with _own_run(config, run_dir, resume=resume) if leads else contextlib.nullcontext():
        return _train_here(
            config,
            split,
            run_dir=run_dir,
            resume=resume,
            starts=starts,
            source=source,
            writers=writers,
            observer=observer,
        )


def resume(
    run_dir: str | Path,
    *,
    data: str | Path | None = None,
    device: str = "auto",
    cluster: Cluster | None = None,
    writers: Sequence[str] = (),
    observer: TrainObserver | None = None,
    progress: Report | None = None,
    note: Callable[[str], None] | None = None,
) -> TrainResult:
    """Goes on with the run in `run_dir`; `data` is where its clips lie now, if they were moved.

    Raises: WeightsNotFoundError where there is no run; otherwise as `train`.
    """
    path = Path(run_dir) / CONFIG_FILE
    if not path.is_file():
        raise WeightsNotFoundError(
            f"no run in {run_dir}: {CONFIG_FILE} is missing",
            hint="--resume RUN_DIR, the folder that ppv train wrote its run to, such as runs/mine",
        )
    moved = () if data is None else (Change(key="data.root", value=str(data), typed=f"--data {data}"),)
    source = Source(str(path), moved)
    return train(
        load_source(source),
        run_dir,
        resume=True,
        device=device,
        cluster=cluster,
        writers=writers,
        observer=observer,
        progress=progress,
        source=source,
        note=note,
    )


def _train_here(
    config: TrainConfig,
    split: Split,
    *,
    run_dir: Path,
    resume: bool,
    starts: bool,
    source: Source,
    writers: Sequence[str],
    observer: TrainObserver | None,
) -> TrainResult:
    """Trains in this process, alone or as one of several."""
    trainer, start = _open_trainer(config, split, run_dir=run_dir, starts=starts, source=source)
    if trainer.world.is_main:
        _write_request(config, split, run_dir=run_dir, resume=resume)
        log = RunLog(run_dir / LOG_FILE, interval=config.log_interval)
        log.open(trainer.state.epochs)
        trainer.observers = [log, *open_writers(writers, run_dir), *([] if observer is None else [observer])]
        if start is not None:
            write_text(run_dir / START_FILE, json.dumps(start.to_dict(), indent=2) + "\n")
            for each in trainer.observers:
                each.on_start(start)
    try:
        return trainer.run()
    except DatasetError:
        if not resume and trainer.world.is_main and not (run_dir / LAST_CHECKPOINT).exists():
            remove_begun_run(run_dir, writers)  # it would be in the way of the next attempt
        raise


@contextlib.contextmanager
def _own_run(config: TrainConfig, run_dir: Path, *, resume: bool) -> Iterator[None]:
    """`holding_run`; of a new run, after a second look at its folder: fetching weights may have taken a while."""
    with holding_run(run_dir):
        if not resume:
            check_new_run(run_dir, config.data)
        yield


def _resumed_split(config: TrainConfig, run_dir: Path, *, note: Callable[[str], None] | None) -> Split:
    """The clips that the run began with; of a run that wrote none down, those that the config draws now.

    Raises: DatasetError where they are gone.
    """
    root = config.data.root
    split = read_split(run_dir / SPLIT_FILE, Path(root))
    if split is None:
        return open_split(config.data, seed=config.seed)
    changes = find_changes(split, config.data)
    if changes.gone:
        total = len(split.train) + len(split.val)
        raise DatasetError(
            f"{len(changes.gone)} of the {total} clips of {run_dir} are gone; first: {changes.gone[0]}",
            hint="put them back, or --data DIR if they were moved; without them, start a new run with another --out",
        )
    if changes.newer and note is not None:
        note(describe_newer(len(changes.newer), root))
    return split


def _open_trainer(
    config: TrainConfig, split: Split, *, run_dir: Path, starts: bool, source: Source
) -> tuple[Trainer, StartReport | None]:
    """The trainer before its first step, or as the checkpoint left it, and where its first weights come from."""
    world = join_world()
    paddle.seed(config.seed)
    network, start = starting_network(config, labels=split.labels, starts=starts)
    objective = _objective(config, split, source=source)
    trainer = Trainer(network, split, config=config, objective=objective, run_dir=run_dir, world=world)
    if starts:
        world.copy_from_main(network)
    else:
        trainer.resume()
    return trainer, start


def _finish(config: TrainConfig, run_dir: Path, *, writers: Sequence[str]) -> TrainResult:
    """The result of a run that has done all its epochs; what the disk refused at its end is written."""
    result = read_result(run_dir, model=config.model.name)
    RunLog(run_dir / LOG_FILE, interval=config.log_interval).open(result.epochs)
    open_writers(writers, run_dir)
    write_curves(result.epochs, run_dir / CURVES_FILE)
    return result


def _began_elsewhere(config: TrainConfig, run_dir: Path, *, cluster: Cluster | None) -> bool:
    """Whether the run in `run_dir` is this one, which another of several machines has just written down."""
    path = run_dir / CONFIG_FILE
    if cluster is None or cluster.num_nodes == 1 or (run_dir / LAST_CHECKPOINT).exists() or not path.exists():
        return False
    return path.read_text(encoding="utf-8") == _dump_request(config)


def _dump_request(config: TrainConfig) -> str:
    """The config of a run. Paths are in full: it may be resumed and evaluated from any folder."""
    data = config.data.model_copy(update={"root": str(Path(config.data.root).absolute())})
    model, teacher = config.model, config.teacher
    if model.pretrained is not None:
        model = model.model_copy(update={"pretrained": _in_full(model.pretrained)})
    if teacher is not None:
        teacher = teacher.model_copy(update={"weights": _in_full(teacher.weights)})
    return dump_config(config.model_copy(update={"model": model, "data": data, "teacher": teacher}))


def _in_full(weights: str) -> str:
    """The path of weights from the root on; a name as it is."""
    path = Path(weights).expanduser()
    is_name = weights in ("imagenet", *list_weights()) or not path.exists()
    return weights if is_name else str(path.absolute())


def _write_request(config: TrainConfig, split: Split, *, run_dir: Path, resume: bool) -> None:
    """Writes down what the run was asked for."""
    try:
        run_dir.mkdir(parents=True, exist_ok=True)
        write_text(run_dir / CONFIG_FILE, _dump_request(config))  # first: it is what makes the folder that of a run
        if not resume or not (run_dir / SPLIT_FILE).exists():
            write_split(run_dir / SPLIT_FILE, split, root=Path(config.data.root))
    except OSError as error:
        raise UsageError(f"can't write a run to {run_dir}: {error.strerror or error}", hint="another --out") from error


def _objective(config: TrainConfig, split: Split, *, source: Source) -> Objective:
    if get_model_row(config.model.name).network.teacher is not None:
        return MutualLearning(label_smoothing=config.label_smoothing)
    if config.teacher is None:
        return Supervised(label_smoothing=config.label_smoothing)
    path = config.teacher.weights
    teacher = open_recognizer(path) if path in list_weights() else open_recognizer(None, weights=path)
    if teacher.labels != split.labels:
        what = f"{path} knows other classes than the data set: {_first_difference(teacher.labels, split.labels)}"
        raise ConfigError(
            source.fault("teacher.weights", what), hint="train a teacher on these classes, in the order of the data set"
        )
    num_segments = inputs.train_preprocess(config).sampling.num_segments
    if teacher.network.num_segments not in (None, num_segments):
        what = f"{path} looks at {teacher.network.num_segments} frames, the student at {num_segments}"
        raise ConfigError(
            source.fault("teacher.weights", what),
            hint=f"--set input.num_segments={teacher.network.num_segments}",
        )
    return Distillation(
        teacher.network,
        student_preprocess=inputs.train_preprocess(config),
        teacher_preprocess=teacher.preprocess,
        weight=config.teacher.weight,
        temperature=config.teacher.temperature,
        label_smoothing=config.label_smoothing,
    )


def _first_difference(teacher: Sequence[str], data: Sequence[str]) -> str:
    """Where two lists of classes part, from class 0 on."""
    number = next((i for i, (one, other) in enumerate(zip(teacher, data, strict=False)) if one != other), None)
    counts = f"it has {len(teacher)}, the data set {len(data)}"
    if number is None:
        number = min(len(teacher), len(data))
        return f"{counts}; up to class {number - 1} they are the same"
    return f"class {number} is '{teacher[number]}' for it and '{data[number]}' in the data set ({counts})"
