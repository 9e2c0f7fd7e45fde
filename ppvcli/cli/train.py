"""`ppv train`: a config, or a model and a folder of clips, to a run folder."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.cli import output
from ppvcli.cli.options import (
    CpuOption,
    DeviceOption,
    GpuOption,
    ThreadsOption,
    choose_device,
    complete_config,
    complete_model,
)
from ppvcli.cli.train_check import check_clips
from ppvcli.cli.train_configs import show_configs
from ppvcli.cli.train_progress import open_watcher
from ppvcli.errors import InterruptedRunError, UsageError

if TYPE_CHECKING:
    from ppvcli.configs.load import Change, Source
    from ppvcli.configs.schema import TrainConfig
    from ppvcli.engine.launch import Cluster
    from ppvcli.results import TrainResult


SPLITS = ("data.train_list", "data.val_list", "data.val_groups")
"""Settings that say which clips are held out."""


def train(
    config: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A shipped config or a YAML file.", autocompletion=complete_config),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Fine-tune this model on --data.", autocompletion=complete_model),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder of clips, one sub-folder per class.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Run folder to write.  [default: runs/NAME]")] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN_DIR", help="Go on with an interrupted run.")] = None,
    finetune: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|RUN_DIR", help="Start from these weights, with a classifier for the classes of --data."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: optimizer.learning_rate=1e-4."),
    ] = None,
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the training clips.")] = None,
    val_ratio: Annotated[
        float | None, typer.Option(metavar="R", help="Share of the clips to hold out.", show_default=False)
    ] = None,
    group_pattern: Annotated[
        str | None,
        typer.Option(metavar="REGEX", help="Clips whose names share this (group) stay on one side of the split."),
    ] = None,
    amp: Annotated[str | None, typer.Option(metavar="O1|O2", help="Train in mixed precision, on a GPU.")] = None,
    gpus: Annotated[
        str | None, typer.Option(metavar="0,1,..", help="Train on these GPUs, with a process for each.")
    ] = None,
    nproc: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=256, help="Train on the CPU with N processes.")
    ] = None,
    nnodes: Annotated[int, typer.Option(metavar="N", min=1, max=1024, help="Machines that train together.")] = 1,
    master: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="Address of the first of them, the same on all.")
    ] = None,
    writers: Annotated[
        list[str] | None,
        typer.Option("--writer", metavar="NAME", help="Log to tensorboard or visualdl as well.  [repeatable]"),
    ] = None,
    threads: ThreadsOption = None,
    cpu: CpuOption = False,
    gpu: GpuOption = False,
    device: DeviceOption = None,
    check_data: Annotated[
        bool,
        typer.Option("--check-data", help="Decode every clip, list all that is wrong (--out FILE keeps it), and stop."),
    ] = False,
    print_config: Annotated[bool, typer.Option("--print-config", help="Show the complete config and stop.")] = False,
    list_configs: Annotated[bool, typer.Option("--list-configs", help="Show the shipped configs and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train or fine-tune a model."""
    from ppvcli.configs import load

    if list_configs:
        show_configs(as_json=as_json)
        return
    cluster = _choose_cluster(gpus, nproc, nnodes=nnodes, master=master)
    place = _choose_place(cluster, cpu=cpu, gpu=gpu, device=device)
    run = _Run(cluster=cluster, device=place, writers=tuple(writers or ()), threads=threads, as_json=as_json)
    if resume is not None:
        others = (config, model, out, epochs, val_ratio, group_pattern, finetune, amp)
        if overrides or any(value is not None for value in others):
            raise UsageError(
                "--resume goes on with the run's own config; other settings than --data can't take effect",
                hint=f"ppv train --finetune {resume} ... starts a new run from its weights",
            )
        run.start(None, resume, data=data)
        return
    name, weights = _choose_config(config, model)
    flags = {
        ("--data", "data.root"): None if data is None else str(data),
        ("--epochs", "epochs"): epochs,
        ("--val-ratio", "data.val_ratio"): val_ratio,
        ("--group-pattern", "data.group_pattern"): group_pattern,
        ("--model", "model.pretrained"): weights if finetune is None else None,
        ("--finetune", "model.pretrained"): finetune,
        ("--amp", "amp"): amp,
    }
    source = load.Source(name, tuple(_changes(flags, overrides or [])))
    settings = load.load_source(source)
    if print_config and as_json:
        output.print_json(settings.model_dump(mode="json"))
    elif print_config:
        output.print_line(load.dump_config(settings).rstrip())
    elif check_data:
        check_clips(settings, out=out, as_json=as_json)
    else:
        run.start(settings, out or Path("runs") / Path(name).stem, source=source)


def _changes(flags: Mapping[tuple[str, str], object], overrides: Sequence[str]) -> list[Change]:
    """What flags (with the key that each stands for) and `--set` change in a config, in this order."""
    from ppvcli.configs.load import Change, parse_override

    given = {flag: value for flag, value in flags.items() if value is not None}
    changes = [Change(key=key, value=value, typed=f"{flag} {value}") for (flag, key), value in given.items()]
    changes += [parse_override(override) for override in overrides]
    split = next((change for change in changes if change.key in SPLITS), None)
    if split is not None and ("--val-ratio", "data.val_ratio") not in given:  # a recipe for class folders has one
        changes.insert(0, Change(key="data.val_ratio", value=None, typed=split.typed))
    return changes


def _choose_cluster(gpus: str | None, nproc: int | None, *, nnodes: int, master: str | None) -> Cluster | None:
    """The processes that `--gpus`, `--nproc`, `--nnodes` and `--master` ask for; None for this one alone."""
    if gpus is not None and nproc is not None:
        raise UsageError("--gpus and --nproc exclude each other: --nproc is for CPUs", hint="keep one of them")
    if gpus is None and nproc is None:
        if nnodes > 1 or master is not None:
            raise UsageError("--nnodes and --master need to know the processes of each machine", hint="--gpus 0,1,2,3")
        return None
    from ppvcli.models.device import load_paddle

    load_paddle()  # comes with the next import; the environment is still set in time for the processes that compute
    from ppvcli.engine.launch import Cluster

    if gpus is None:
        return Cluster(num_processes=nproc or 1, num_nodes=nnodes, master=master)
    numbers = gpus.split(",")
    if not all(number.isdecimal() for number in numbers) or len(set(numbers)) != len(numbers):
        raise UsageError(f"--gpus {gpus}: expected different numbers", hint="--gpus 0,1")
    return Cluster(
        num_processes=len(numbers), gpus=tuple(int(number) for number in numbers), num_nodes=nnodes, master=master
    )


def _choose_place(cluster: Cluster | None, *, cpu: bool, gpu: bool, device: str | None) -> str:
    place = choose_device(cpu=cpu, gpu=gpu, device=device)
    if cluster is None:
        return place
    kind = "gpu" if cluster.gpus else "cpu"
    if place not in ("auto", kind):
        raise UsageError(f"--{'gpus' if cluster.gpus else 'nproc'} trains on {kind.upper()}s, not on {place}")
    return kind


def _choose_config(config: str | None, model: str | None) -> tuple[str, str | None]:
    """The config, and the model whose weights it is to start from in place of its own."""
    if config is None and model is None:
        raise UsageError("say what to train: --config or --model", hint="ppv train --model tsm_efflite0 --data DIR")
    if config is not None and model is not None:
        raise UsageError("--config and --model both say what to train", hint="keep one of them")
    return (config, None) if config is not None else _choose_recipe(model or "")


def _choose_recipe(model: str) -> tuple[str, str | None]:
    """The recipe that fine-tunes a model on a folder; where it is that of an equal network, the model as its start."""
    from ppvcli.configs.load import list_configs
    from ppvcli.models.zoo import get_model_row

    row = get_model_row(model)
    recipes = {name.removesuffix("_folder"): name for name in list_configs() if name.endswith("_folder")}
    if row.name in recipes:
        return recipes[row.name], None
    has_weights = row.bundled or row.url is not None
    kin = []
    for other in map(get_model_row, recipes):
        if has_weights and (other.network, other.preprocess) == (row.network, row.preprocess):
            return recipes[other.name], row.name
        if (other.network.architecture, other.network.depth) == (row.network.architecture, row.network.depth):
            kin.append(other.name)
    refusal = f"no recipe to fine-tune {model} on a folder"
    if not kin:
        raise UsageError(refusal, hint="--config FILE with one of your own; ppv train --list-configs shows the shipped")
    start = f" --finetune {row.name}" if has_weights else ""
    raise UsageError(f"{refusal}; there is one for: {', '.join(kin)}", hint=f"ppv train --model {kin[0]}{start} ...")


@dataclass(frozen=True, kw_only=True)
class _Run:
    """How to carry out a run, whatever it trains."""

    cluster: Cluster | None
    device: str
    writers: tuple[str, ...]
    threads: int | None
    as_json: bool

    def start(
        self, settings: TrainConfig | None, run_dir: Path, *, source: Source | None = None, data: Path | None = None
    ) -> None:
        """Trains into `run_dir`, or goes on with what is there, and the clips in `data`, where `settings` is None."""
        from ppvcli.deploy.machine import usable_cores
        from ppvcli.engine.cpu import set_threads, tune_math_library
        from ppvcli.models.device import load_paddle

        # before Paddle is imported, and for this process and those it starts alone
        tune_math_library(os.environ)
        num_processes = 1 if self.cluster is None else self.cluster.num_processes
        set_threads(os.environ, self.threads, default=max(1, usable_cores() // num_processes))
        load_paddle()
        from ppvcli.datasets.catalog import describe_leftovers
        from ppvcli.engine.checkpoint import CONFIG_FILE, num_finished_epochs
        from ppvcli.engine.curves import CURVES_FILE
        from ppvcli.engine.run import resume, train

        for remark in () if settings is None else describe_leftovers(settings.data):
            output.show_warning(remark)
        num_before = num_finished_epochs(run_dir)
        try:
            with open_watcher() as watcher:
                if settings is None:
                    start = partial(resume, run_dir, data=data, note=output.show_note)
                else:
                    start = partial(train, settings, run_dir, source=source)
                result = start(
                    device=self.device,
                    cluster=self.cluster,
                    writers=self.writers,
                    observer=watcher,
                    progress=watcher.on_download,
                )
        except KeyboardInterrupt:
            begun = (run_dir / CONFIG_FILE).exists()  # not yet while weights are fetched
            hint = f"ppv train --resume {run_dir}" if begun else "the same command starts the run anew"
            raise InterruptedRunError("interrupted", hint=hint) from None
        if not (run_dir / CURVES_FILE).exists():
            output.show_warning(f"no {CURVES_FILE}: it needs matplotlib; pip install 'ppvcli[plot]'")
        if len(result.epochs) == num_before:
            output.show_note(f"{run_dir} is finished: nothing is left to train after epoch {num_before}")
        if self.as_json:
            output.print_json({**asdict(result), "val": result.val.to_dict()})
        else:
            _show_result(result)


def _show_result(result: TrainResult) -> None:
    last, best = result.epochs[-1], result.epochs[result.best_epoch - 1]
    run_dir = Path(result.run_dir)
    for epoch, name, path in (
        (last, "last", run_dir / "last" / "checkpoint.safetensors"),
        (best, "best", run_dir / "best" / "weights.safetensors"),
    ):
        output.print_line(
            f"{name}  epoch {epoch.epoch:>3}  val top-1 {epoch.val_top1:6.1%}  top-5 {epoch.val_top5:6.1%}  {path}"
        )
    skipped = sorted({failure for epoch in result.epochs for failure in epoch.failures})
    for failures, fate in ((skipped, "skipped in training"), (result.val.failures, "counted as wrong")):
        for clip, reason in failures:
            output.show_warning(f"{output.with_path(clip, reason)} ({fate})")
    if output.is_terminal(sys.stderr):
        output.show_hint(f"ppv predict CLIP --weights {result.run_dir}")
