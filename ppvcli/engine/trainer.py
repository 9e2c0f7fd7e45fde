"""The training loop: steps, an evaluation after every epoch, a checkpoint after every evaluation."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import paddle

from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.annotations import Split
from ppvcli.datasets.loader import Batch, ClipLoader
from ppvcli.engine import inputs
from ppvcli.engine.amp import Precision
from ppvcli.engine.checkpoint import (
    REPORT_FILE,
    RunState,
    best_epoch,
    restore_checkpoint,
    save_checkpoint,
    train_result,
)
from ppvcli.engine.curves import CURVES_FILE, write_curves
from ppvcli.engine.distributed import ALONE, World
from ppvcli.engine.ema import WeightAverage
from ppvcli.engine.evaluator import build_report, check_answered, evaluate_logits
from ppvcli.engine.log import cannot_write
from ppvcli.engine.losses import Targets
from ppvcli.engine.mixup import mix_clips
from ppvcli.engine.objectives import Objective
from ppvcli.engine.optim import build_optimizer, learning_rate
from ppvcli.engine.precise_bn import BATCH_NORMS, recompute_batch_norm
from ppvcli.engine.progress import Meter, StepReport, TrainObserver
from ppvcli.engine.step import optimizer_step
from ppvcli.errors import DatasetError, DivergedError
from ppvcli.files import write_text
from ppvcli.models.build import classifier_keys
from ppvcli.models.zoo import get_model_row
from ppvcli.results import EpochResult, EvalReport, TrainResult
from ppvcli.specs import NetworkSpec
from ppvcli.video.limits import DecodeLimits
from ppvcli.video.transforms import normalize
from ppvcli.weights.formats import BEST_WEIGHTS, LAST_CHECKPOINT, WeightsMetadata, write_safetensors


class Trainer:
    """Trains `network` (on its device, weights and frozen stages in place) as `config` says, into `run_dir`."""

    def __init__(
        self,
        network: paddle.nn.Layer,
        split: Split,
        *,
        config: TrainConfig,
        objective: Objective,
        run_dir: Path,
        observers: Sequence[TrainObserver] = (),
        world: World = ALONE,
    ) -> None:
        self.network = network
        self.split = split
        self.config = config
        self.objective = objective
        self.run_dir = run_dir
        self.observers = observers
        self.world = world
        self.spec = inputs.network_spec(config)
        self.optimizer = build_optimizer(network, config.optimizer, classifier=classifier_keys(self.spec))
        self.precision = Precision(network, self.optimizer, level=config.amp)
        self.average = None if config.ema_decay is None else WeightAverage(network, decay=config.ema_decay)
        self.limits = DecodeLimits(timeout_s=config.data.decode_timeout_s, max_pixels=config.data.max_pixels)
        self.preprocess = inputs.train_preprocess(config)
        self.loader = ClipLoader(
            split.train,
            self.preprocess,
            batch_size=config.batch_size,
            num_workers=config.data.num_workers,
            augment=inputs.augment(config),
            seed=config.seed,
            limits=self.limits,
            rank=world.rank,
            world_size=world.size,
        )
        self.rate_factor = inputs.learning_rate_factor(config, world_size=world.size)
        self.num_steps = -(-len(self.loader) // config.accumulate_steps)
        self.state = RunState(epochs=())

    def resume(self) -> None:
        """Goes on from the last checkpoint of `run_dir`, as if the run had never stopped."""
        self.state = restore_checkpoint(self.run_dir, self.network, self.optimizer, average=self.average)
        self.precision.load_state(self.state.scaler)

    def run(self) -> TrainResult:
        """Trains what is left of the epochs. Raises: DatasetError where no clip of an epoch can be decoded."""
        report = None
        for epoch in range(len(self.state.epochs), self.config.epochs):
            report = self._run_epoch(epoch)
        return train_result(self.run_dir, self.state, model=self.config.model.name, val=report or self.evaluate())

    def _run_epoch(self, epoch: int) -> EvalReport:
        meter, failures, rate = self.train_epoch(epoch)
        self._measure_batch_norm(epoch)
        for holder in (self.network, *([] if self.average is None else [self.average])):
            self.world.average_statistics(holder.state_dict())
        train_s = meter.elapsed_s
        start = time.perf_counter()
        report = self.evaluate()
        result = EpochResult(
            epoch=epoch + 1,
            train_loss=meter.loss_sum / meter.num_clips,
            train_top1=meter.top1_sum / meter.num_clips,
            train_top5=meter.top5_sum / meter.num_clips,
            val_loss=report.loss,
            val_top1=report.top1,
            val_top5=report.top5,
            learning_rate=rate,
            train_s=train_s,
            eval_s=time.perf_counter() - start,
            images_per_s=meter.num_clips * self.preprocess.sampling.num_segments / train_s,
            data_wait_ratio=meter.wait_s / train_s,
            failures=failures,
        )
        is_best = best_epoch((*self.state.epochs, result)) == result.epoch
        self.state = RunState(epochs=(*self.state.epochs, result), scaler=self.precision.state())
        if self.world.is_main:
            self.save(report, is_best=is_best)
        for observer in self.observers:
            observer.on_epoch(result)
        return report

    def train_epoch(self, epoch: int) -> tuple[Meter, tuple[tuple[str, str], ...], float]:
        """One pass over the training clips: sums and skipped clips of all processes, and the last learning rate.

        Raises: DatasetError where no clip can be decoded, DivergedError where the loss is no number any more.
        """
        set_train_mode(self.network, freeze_batchnorm=self.config.model.freeze_batchnorm)
        # the only draws from Paddle's generator are dropout masks: a seed per epoch makes a resumed run equal
        paddle.seed(int(self._seeds(epoch).generate_state(1)[0]))
        meter = Meter()
        failures: list[tuple[str, str]] = []
        rate = 0.0
        batches = meter.timed(self.loader.epoch(epoch))
        for step in range(self.num_steps):
            group = list(islice(batches, self.config.accumulate_steps))
            failures.extend((failure.path, failure.error) for batch in group for failure in batch.failures)
            rate = self.rate_factor * learning_rate(
                self.config.optimizer.learning_rate,
                self.config.schedule,
                epoch=epoch + step / self.num_steps,
                num_epochs=self.config.epochs,
                num_steps=self.config.epochs * self.num_steps,
            )
            self._step([batch for batch in group if len(batch.labels)], epoch, step, rate=rate, meter=meter)
            self._report_step(epoch, step, rate, meter=meter)
        failures = [failure for share in self.world.gather(failures) for failure in share]
        meter.take_totals(self.world.total)
        if meter.num_clips == 0:
            path, error = failures[0]
            raise DatasetError(
                f"not one of the {len(failures)} training clips can be decoded; first: "
                f"{error if path in error else f'{path}: {error}'}",
                hint="the same command with --check-data in place of --out lists what is wrong with each",
            )
        return meter, tuple(failures), rate

    def _step(self, batches: list[Batch], epoch: int, step: int, *, rate: float, meter: Meter) -> None:
        (num_clips,) = self.world.total([sum(len(batch.labels) for batch in batches)])
        if num_clips == 0:
            return
        rng = np.random.default_rng(self._seeds(epoch, step))
        optimizer_step(
            self.network,
            (self._mixed(batch, rng) for batch in batches),
            num_clips=int(num_clips),
            objective=self.objective,
            optimizer=self.optimizer,
            precision=self.precision,
            rate=rate,
            meter=meter,
            world=self.world,
        )
        if self.average is not None:
            self.average.update()
        if not math.isfinite(meter.loss_sum):
            hint = "a smaller optimizer.learning_rate or a longer warm-up, in a new run, with another --out"
            if (self.run_dir / LAST_CHECKPOINT).exists():
                hint += f"; {self.run_dir}/last is the epoch before"
            raise DivergedError(
                f"the loss is {meter.loss_sum} at step {step + 1} of epoch {epoch + 1} (learning rate {rate:.2e})",
                hint=hint,
            )

    def evaluate(self) -> EvalReport:
        """The held-out clips, each once whatever the number of processes, looked at as the config says.

        Raises: DatasetError where no clip can be decoded.
        """
        self.network.eval()
        indices = range(self.world.rank, len(self.split.val), self.world.size)
        done = iter(range(1, len(indices) + 1))

        def on_clip() -> None:
            number = next(done)
            for observer in self.observers:
                observer.on_eval_clip(number, len(indices))

        averaged = nullcontext() if self.average is None else self.average.applied()
        with averaged, self.precision.autocast():
            rows = evaluate_logits(
                self.network,
                self.split.val,
                inputs.val_preprocess(self.config),
                indices=indices,
                batch_size=1 if paddle.device.get_device() == "cpu" else self.config.batch_size,
                num_workers=self.config.data.num_workers,
                limits=self.limits,
                on_clip=on_clip,
            )
        answers = [row for share in self.world.gather(rows) for row in share]
        check_answered(self.split.val, answers)
        return build_report(self.split.val, answers, labels=self.split.labels, model=self.config.model.name)

    def save(self, report: EvalReport, *, is_best: bool) -> None:
        """The checkpoint after what must be there: a run that stops before it repeats the epoch and writes the same.

        Only the picture comes later: a disk without room for it costs no epoch.
        """
        row = get_model_row(self.config.model.name)
        metadata = WeightsMetadata(
            model=row.name,
            labels=self.split.labels,
            preprocess=inputs.final_preprocess(self.config),
            network=None if self.spec == row.network else self.spec,
        )
        if is_best:
            path = self.run_dir / BEST_WEIGHTS
            path.parent.mkdir(parents=True, exist_ok=True)
            state = (self.average or self.network).state_dict()
            tensors = {key: value.numpy() for key, value in state.items()}
            if self.spec.teacher is None:
                write_safetensors(path, tensors, metadata=metadata)
            else:
                write_safetensors(path, _student_tensors(tensors), metadata=_student_metadata(metadata, self.spec))
        try:
            (self.run_dir / REPORT_FILE).parent.mkdir(parents=True, exist_ok=True)
            write_text(self.run_dir / REPORT_FILE, json.dumps(report.to_dict()) + "\n")
        except OSError as error:
            raise cannot_write(self.run_dir / REPORT_FILE, error) from error
        save_checkpoint(
            self.run_dir, self.network, self.optimizer, state=self.state, metadata=metadata, average=self.average
        )
        write_curves(self.state.epochs, self.run_dir / CURVES_FILE)

    def _mixed(self, batch: Batch, rng: np.random.Generator) -> tuple[np.ndarray, Targets]:
        clips = normalize(batch.frames_nvthwc[:, 0], self.preprocess)
        alpha = self.config.augment.mixup_alpha
        if alpha is None:
            return clips, Targets(labels=batch.labels)
        return mix_clips(clips, batch.labels, alpha=alpha, rng=rng)

    def _measure_batch_norm(self, epoch: int) -> None:
        chosen = self.config.precise_bn
        if chosen is None or (epoch % chosen.every_epochs and epoch + 1 < self.config.epochs):
            return
        batches = (batch.frames_nvthwc[:, 0] for batch in self.loader.epoch(epoch) if len(batch.labels))
        clips = (paddle.to_tensor(normalize(frames, self.preprocess)) for frames in batches)
        with self.precision.autocast():
            recompute_batch_norm(self.network, islice(clips, chosen.num_batches))

    def _seeds(self, *place: int) -> np.random.SeedSequence:
        """Of an epoch or step; every process has its own, the main one that of a process alone."""
        rank = [self.world.rank] if self.world.rank else []
        return np.random.SeedSequence([self.config.seed, *place, *rank])

    def _report_step(self, epoch: int, step: int, rate: float, *, meter: Meter) -> None:
        if not self.observers or meter.num_clips == 0:
            return
        elapsed = meter.elapsed_s
        report = StepReport(
            epoch=epoch + 1,
            step=step + 1,
            num_steps=self.num_steps,
            num_epochs=self.config.epochs,
            loss=meter.loss_sum / meter.num_clips,
            top1=meter.top1_sum / meter.num_clips,
            top5=meter.top5_sum / meter.num_clips,
            learning_rate=rate,
            images_per_s=self.world.size * meter.num_clips * self.preprocess.sampling.num_segments / elapsed,
            data_wait_ratio=meter.wait_s / elapsed,
        )
        for observer in self.observers:
            observer.on_step(report)


def set_train_mode(network: paddle.nn.Layer, *, freeze_batchnorm: bool) -> None:
    """Train mode, with BatchNorm on its stored statistics where these are frozen."""
    network.train()
    if freeze_batchnorm:
        for layer in network.sublayers():
            if isinstance(layer, BATCH_NORMS):
                layer.eval()


def _student_tensors(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The student of a pair, under the keys of the network alone."""
    prefix = "Student.0."
    return {"backbone." + key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _student_metadata(metadata: WeightsMetadata, spec: NetworkSpec) -> WeightsMetadata:
    row, alone = get_model_row(f"{metadata.model}_student"), replace(spec, teacher=None)
    return replace(metadata, model=row.name, network=None if alone == row.network else alone)
