"""`ppv train`: a config, or a model and a folder of clips, to a run folder."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
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
from ppvcli.cli.train_run import Run
from ppvcli.cli.train_settings import choose_settings
from ppvcli.errors import UsageError

if TYPE_CHECKING:
    from ppvcli.configs.schema import TrainConfig
    from ppvcli.engine.launch import Cluster


_SETTINGS = (
    *("--config", "--model", "--data", "--finetune", "--set"),
    *("--epochs", "--val-ratio", "--group-pattern", "--amp"),
)
_READ = {
    "--list-configs": ("--json",),
    "--check-data": (*_SETTINGS, "--json", "--out", "--threads"),
}
_MODES = ("--resume", "--list-configs", "--print-config", "--check-data")
"""What is done in place of a new training; for some, above, the flags that can take effect then. `--print-config` goes
with all of them: it is put behind a whole command to look before it runs."""


def train(
    context: typer.Context,
    config: Annotated[
        str | None,
        typer.Option(metavar="NAME|FILE", help="A shipped config or a YAML file.", autocompletion=complete_config),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Fine-tune this model on --data.", autocompletion=complete_model),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="DIR|CSV", help="Folder of clips, one sub-folder per class; or a CSV file.")
    ] = None,
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
    _check_modes(_flags_of(context), resume)
    if list_configs:
        show_configs(as_json=as_json)
        return
    cluster = _choose_cluster(gpus, nproc, nnodes=nnodes, master=master)
    place = _choose_place(cluster, cpu=cpu, gpu=gpu, device=device)
    run = Run(cluster=cluster, device=place, writers=tuple(writers or ()), threads=threads, as_json=as_json)
    flags: dict[tuple[str, str], object] = {
        ("--epochs", "epochs"): epochs,
        ("--val-ratio", "data.val_ratio"): val_ratio,
        ("--group-pattern", "data.group_pattern"): group_pattern,
        ("--amp", "amp"): amp,
    }
    if resume is not None:
        start = {"--config": config, "--model": model, "--finetune": finetune, "--out": out}
        changes = [f"{flag} {shlex.quote(str(value))}" for (flag, _), value in flags.items() if value is not None]
        changes += [f"--set {shlex.quote(override)}" for override in overrides or []]
        _check_resume(resume, data, start=[name for name, value in start.items() if value is not None], changes=changes)
        run.start(None, resume, data=data)
        return
    source, settings = choose_settings(
        config, model, finetune=finetune, data=data, flags=flags, overrides=overrides or []
    )
    if print_config:
        _show_config(settings, as_json=as_json)
    elif check_data:
        check_clips(settings, out=out, threads=threads, as_json=as_json)
    else:
        run.start(settings, out or Path("runs") / Path(source.name).stem, source=source)


def _show_config(settings: TrainConfig, *, as_json: bool) -> None:
    from ppvcli.configs.load import dump_config

    if as_json:
        output.print_json(settings.model_dump(mode="json"))
    else:
        output.print_line(dump_config(settings).rstrip())


def _flags_of(context: typer.Context) -> list[str]:
    """Those that are on the command line."""
    sources = {one.opts[0]: context.get_parameter_source(one.name or "") for one in context.command.params}
    return [flag for flag, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def _check_modes(flags: Sequence[str], resume: Path | None) -> None:
    """Raises: UsageError where more than one of the flags says what to do, or one can't take effect."""
    modes = [flag for flag in _MODES if flag in flags]
    if len(modes) > 1:
        hint = "keep one of them"
        if resume is not None and modes[1] != "--list-configs":
            hint = f"ppv train --config {shlex.quote(str(resume / 'config.yaml'))} {modes[1]}"
        raise UsageError(f"{' and '.join(modes)} exclude each other", hint=hint)
    for mode in modes:
        idle = [flag for flag in flags if flag not in (mode, *_READ.get(mode, flags))]
        if idle:
            names = ", ".join(idle)
            raise UsageError(f"{names} can't take effect with {mode}", hint=f"leave {names} out")


def _check_resume(run_dir: Path, data: Path | None, *, start: Sequence[str], changes: Sequence[str]) -> None:
    """Raises: UsageError for what can't be said of a run that goes on: its `start`, and `changes` of its settings."""
    if start or changes:
        what = ", ".join([*start, *changes])
        new = " ".join(["ppv train --finetune", shlex.quote(str(run_dir)), "--data DIR --out NEW_RUN_DIR", *changes])
        raise UsageError(
            f"--resume goes on with the run's own config: {what} can't take effect; "
            "only --data, --writer and where it runs can be said anew",
            hint=f"{new} starts a new run from its weights",
        )
    if data is not None and data.is_file():
        raise UsageError(
            f"--data {data}: with --resume it is the folder that the run's clips were moved to",
            hint=f"--data {shlex.quote(str(data.parent))}, or no --data where they are in their place",
        )


def _choose_cluster(gpus: str | None, nproc: int | None, *, nnodes: int, master: str | None) -> Cluster | None:
    """The processes that `--gpus`, `--nproc`, `--nnodes` and `--master` ask for; None for this one alone."""
    if gpus is not None and nproc is not None:
        raise UsageError("--gpus and --nproc exclude each other: --nproc is for CPUs", hint="keep one of them")
    if gpus is None and nproc is None:
        if nnodes > 1 or master is not None:
            raise UsageError("--nnodes and --master need to know the processes of each machine", hint="--gpus 0,1,2,3")
        return None
    from ppvcli.models.device import load_paddle

    load_paddle(num_processes=nproc or len((gpus or "").split(",")))  # comes with the next import
    from ppvcli.engine.launch import Cluster

    if gpus is None:
        return Cluster(num_processes=nproc or 1, num_nodes=nnodes, master=master)
    numbers = gpus.split(",")
    if not all(number.isdecimal() for number in numbers) or len(set(numbers)) != len(numbers):
        raise UsageError(f"--gpus {gpus}: expected the numbers of GPUs, each once", hint="--gpus 0,1")
    return Cluster(
        num_processes=len(numbers), gpus=tuple(int(number) for number in numbers), num_nodes=nnodes, master=master
    )


def _choose_place(cluster: Cluster | None, *, cpu: bool, gpu: bool, device: str | None) -> str:
    place = choose_device(cpu=cpu, gpu=gpu, device=device)
    if cluster is None:
        return place
    kind = "gpu" if cluster.gpus else "cpu"
    if place not in ("auto", kind):
        hint = "leave --gpus out, or the other flag" if cluster.gpus else "--gpus 0,1 in place of --nproc, or no GPU"
        raise UsageError(
            f"--{'gpus' if cluster.gpus else 'nproc'} trains on {kind.upper()}s, not on {place}", hint=hint
        )
    return kind
