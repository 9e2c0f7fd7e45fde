"""Carries out a run of `ppv train` and shows what came of it."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppvcli.cli import output
from ppvcli.cli.eval import show_damaged
from ppvcli.cli.train_progress import open_watcher
from ppvcli.errors import InterruptedRunError

if TYPE_CHECKING:
    from ppvcli.configs.load import Source
    from ppvcli.configs.schema import TrainConfig
    from ppvcli.engine.launch import Cluster
    from ppvcli.results import TrainResult


@dataclass(frozen=True, kw_only=True)
class Run:
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
        from ppvcli.models.device import load_paddle

        load_paddle(self.threads, num_processes=1 if self.cluster is None else self.cluster.num_processes)
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
                    start = partial(resume, run_dir, data=data)
                else:
                    start = partial(train, settings, run_dir, source=source)
                result = start(
                    note=output.show_note,
                    device=self.device,
                    cluster=self.cluster,
                    writers=self.writers,
                    observer=watcher,
                    progress=watcher.on_download,
                )
        except KeyboardInterrupt:
            begun = (run_dir / CONFIG_FILE).exists()  # not yet while weights are fetched
            resume_it = f"ppv train --resume {shlex.quote(str(run_dir))}"
            hint = resume_it if begun else "the same command starts the run anew"
            raise InterruptedRunError("interrupted", hint=hint) from None
        if not (run_dir / CURVES_FILE).exists():
            output.show_warning(f"no {CURVES_FILE}: it needs matplotlib; pip install 'ppvcli[plot]'")
        if len(result.epochs) == num_before:
            output.show_note(f"{run_dir} is finished: nothing is left to train after epoch {num_before}")
        if self.as_json:
            output.print_json(to_json(result))
        else:
            show_result(result)


def to_json(result: TrainResult) -> dict[str, Any]:
    """The result, JSON-ready: a loss that is no number is None."""
    from ppvcli.engine.log import null_if_not_finite

    tree = {**asdict(result), "val": result.val.to_dict()}
    tree["epochs"] = [{key: null_if_not_finite(value) for key, value in each.items()} for each in tree["epochs"]]
    return tree


def show_result(result: TrainResult) -> None:
    """The two epochs whose weights are kept, the clips that were left out, and what to do next."""
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
    show_damaged(result.val)
    weights = shlex.quote(result.run_dir)
    output.show_hint(f"ppv eval --weights {weights}, or ppv predict CLIP --weights {weights}")
