"""`ppv train`: a config, or a model and a folder of clips, to a run folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ppvcli.cli import output
from ppvcli.cli.options import CpuOption, DeviceOption, GpuOption, choose_device, complete_config, complete_model
from ppvcli.errors import InterruptedRunError, UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from ppvcli.engine.trainer import StepReport
    from ppvcli.results import EpochResult, TrainResult


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
    cpu: CpuOption = False,
    gpu: GpuOption = False,
    device: DeviceOption = None,
    print_config: Annotated[bool, typer.Option("--print-config", help="Show the complete config and stop.")] = False,
    list_configs: Annotated[bool, typer.Option("--list-configs", help="Show the shipped configs and stop.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Train or fine-tune a model."""
    from ppvcli.configs import load

    if list_configs:
        for name in load.list_configs():
            output.print_line(name)
        return
    place = choose_device(cpu=cpu, gpu=gpu, device=device)
    if resume is not None:
        if (
            any(value is not None for value in (config, model, data, out, epochs, val_ratio, group_pattern))
            or overrides
        ):
            raise UsageError("--resume goes on with the run's own config; other settings can't take effect")
        _run(None, resume, device=place, as_json=as_json)
        return
    name = _config_name(config, model)
    changes = {"data.root": data, "epochs": epochs, "data.val_ratio": val_ratio, "data.group_pattern": group_pattern}
    flags = [f"{key}={json.dumps(str(v) if isinstance(v, Path) else v)}" for key, v in changes.items() if v is not None]
    settings = load.load_config(name, [*flags, *(overrides or [])])
    if print_config:
        output.print_line(load.dump_config(settings).rstrip())
        return
    _run(settings, out or Path("runs") / Path(name).stem, device=place, as_json=as_json)


def _config_name(config: str | None, model: str | None) -> str:
    from ppvcli.configs.load import list_configs
    from ppvcli.models.zoo import get_model_row

    if (config is None) == (model is None):
        raise UsageError(
            "say what to train: either --config or --model", hint="ppv train --model tsm_efflite0 --data DIR"
        )
    if config is not None:
        return config
    name = f"{get_model_row(model or '').name}_folder"
    if name not in list_configs():
        known = ", ".join(known.removesuffix("_folder") for known in list_configs() if known.endswith("_folder"))
        raise UsageError(
            f"no recipe to fine-tune {model} on a folder; there is one for: {known}", hint="or use --config"
        )
    return name


def _run(settings: object, run_dir: Path, *, device: str, as_json: bool) -> None:
    from ppvcli.engine.cpu import tune_math_library

    tune_math_library(os.environ)  # before Paddle is imported, and for this process alone
    from ppvcli.configs.schema import TrainConfig
    from ppvcli.engine.run import resume, train

    watcher = _TerminalWatcher() if output.is_terminal(sys.stderr) else _LineWatcher()
    try:
        with watcher:
            if isinstance(settings, TrainConfig):
                result = train(settings, run_dir, device=device, observer=watcher)
            else:
                result = resume(run_dir, device=device, observer=watcher)
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted", hint=f"ppv train --resume {run_dir}") from None
    if as_json:
        from dataclasses import asdict

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
    for clip, reason in (*skipped, *result.val.failures):
        output.show_warning(f"{clip}: {reason}")
    if output.is_terminal(sys.stderr):
        print(f"hint: ppv predict CLIP --weights {result.run_dir}", file=sys.stderr)


def _epoch_line(result: EpochResult) -> str:
    return (
        f"epoch {result.epoch}: loss {result.train_loss:.3f}, top-1 {result.train_top1:.1%}, "
        f"val loss {result.val_loss:.3f}, val top-1 {result.val_top1:.1%}, lr {result.learning_rate:.2e}, "
        f"{result.train_s + result.eval_s:.0f} s, {result.data_wait_ratio:.0%} waiting for data"
    )


class _LineWatcher:
    """One line an epoch on stderr, for logs."""

    def __enter__(self) -> _LineWatcher:
        return self

    def __exit__(self, *exception: object) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        pass

    def on_eval_clip(self, done: int, total: int) -> None:
        pass

    def on_epoch(self, result: EpochResult) -> None:
        print(_epoch_line(result), file=sys.stderr, flush=True)


class _TerminalWatcher:
    """A live bar over all epochs, and a line for each one that is done."""

    def __enter__(self) -> _TerminalWatcher:
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f}%"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}"),
            console=output.stderr_console(),
            transient=True,
            speed_estimate_period=300,
        )
        self._task = self._progress.add_task("starting", total=None, detail="")
        self._progress.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._progress.stop()

    def on_step(self, report: StepReport) -> None:
        self._progress.update(
            self._task,
            description=f"epoch {report.epoch}/{report.num_epochs}",
            total=report.num_epochs * report.num_steps,
            completed=(report.epoch - 1) * report.num_steps + report.step,
            detail=(
                f"loss {report.loss:.3f}  top-1 {report.top1:.1%}  lr {report.learning_rate:.1e}  "
                f"{report.images_per_s:.0f} img/s  {report.data_wait_ratio:.0%} waiting"
            ),
        )

    def on_eval_clip(self, done: int, total: int) -> None:
        self._progress.update(self._task, detail=f"evaluating clip {done} of {total}")

    def on_epoch(self, result: EpochResult) -> None:
        self._progress.console.print(_epoch_line(result))
