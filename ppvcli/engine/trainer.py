"""The training loop: steps, an evaluation after every epoch, a checkpoint after every evaluation."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import paddle

from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.annotations import Split
from ppvcli.datasets.loader import Batch, ClipLoader
from ppvcli.engine.checkpoint import LOG_FILE, RunState, restore_checkpoint, save_checkpoint
from ppvcli.engine.evaluator import evaluate_network
from ppvcli.engine.losses import cross_entropy
from ppvcli.engine.optim import build_optimizer, learning_rate
from ppvcli.errors import DatasetError
from ppvcli.files import write_text
from ppvcli.models.build import classifier_keys
from ppvcli.models.zoo import get_model_row
from ppvcli.results import EpochResult, EvalReport, TrainResult
from ppvcli.specs import Preprocess
from ppvcli.video.limits import DecodeLimits
from ppvcli.video.transforms import Augment, normalize
from ppvcli.weights.formats import BEST_WEIGHTS, WeightsMetadata, write_safetensors


@dataclass(frozen=True, kw_only=True)
class StepReport:
    """A training step, for whoever watches."""

    epoch: int
    """1-based."""
    step: int
    """1-based, within the epoch."""
    num_steps: int
    num_epochs: int
    loss: float
    """Mean over the epoch so far."""
    top1: float
    learning_rate: float
    images_per_s: float
    data_wait_ratio: float


class TrainObserver(Protocol):
    """Watches a run; the command shows what it sees, the library is silent."""

    def on_step(self, report: StepReport) -> None: ...

    def on_eval_clip(self, done: int, total: int) -> None: ...

    def on_epoch(self, result: EpochResult) -> None: ...


@dataclass
class _Meter:
    """Running sums of an epoch."""

    num_clips: int = 0
    loss_sum: float = 0.0
    num_correct: int = 0
    wait_s: float = 0.0

    def add(self, loss: float, num_correct: int, num_clips: int) -> None:
        self.num_clips += num_clips
        self.loss_sum += loss * num_clips
        self.num_correct += num_correct


class Trainer:
    """Trains `network` (on its device, weights and frozen stages in place) as `config` says, into `run_dir`."""

    def __init__(
        self,
        network: paddle.nn.Layer,
        split: Split,
        *,
        config: TrainConfig,
        preprocess: Preprocess,
        run_dir: Path,
        observer: TrainObserver | None = None,
    ) -> None:
        self.network = network
        self.split = split
        self.config = config
        self.preprocess = preprocess
        self.run_dir = run_dir
        self.observer = observer
        self.optimizer = build_optimizer(
            network, config.optimizer, classifier=classifier_keys(get_model_row(config.model.name).network)
        )
        self.limits = DecodeLimits(timeout_s=config.data.decode_timeout_s, max_pixels=config.data.max_pixels)
        self.loader = ClipLoader(
            split.train,
            preprocess,
            batch_size=config.batch_size,
            num_workers=config.data.num_workers,
            augment=Augment(flip_ratio=config.augment.flip_ratio, min_area_ratio=config.augment.min_area_ratio),
            seed=config.seed,
            limits=self.limits,
        )
        self.state = RunState(epochs=())

    def resume(self) -> None:
        """Goes on from the last checkpoint of `run_dir`, as if the run had never stopped."""
        self.state = restore_checkpoint(self.run_dir, self.network, self.optimizer)

    def run(self) -> TrainResult:
        """Trains what is left of the epochs. Raises: DatasetError where no clip of an epoch can be decoded."""
        report = None
        for epoch in range(len(self.state.epochs), self.config.epochs):
            report = self._run_epoch(epoch)
        epochs = self.state.epochs
        best = max(range(len(epochs)), key=lambda i: (epochs[i].val_top1, -i))
        return TrainResult(
            run_dir=str(self.run_dir),
            model=self.config.model.name,
            epochs=epochs,
            best_epoch=best + 1,
            val=report or self.evaluate(),
        )

    def _run_epoch(self, epoch: int) -> EvalReport:
        start = time.perf_counter()
        meter, failures, rate = self.train_epoch(epoch)
        trained = time.perf_counter()
        report = self.evaluate()
        result = EpochResult(
            epoch=epoch + 1,
            train_loss=meter.loss_sum / meter.num_clips,
            train_top1=meter.num_correct / meter.num_clips,
            val_loss=report.loss,
            val_top1=report.top1,
            val_top5=report.top5,
            learning_rate=rate,
            train_s=trained - start,
            eval_s=time.perf_counter() - trained,
            data_wait_ratio=meter.wait_s / (trained - start),
            failures=failures,
        )
        is_best = all(result.val_top1 > earlier.val_top1 for earlier in self.state.epochs)
        self.state = RunState(epochs=(*self.state.epochs, result))
        self.save(is_best=is_best)
        if self.observer is not None:
            self.observer.on_epoch(result)
        return report

    def train_epoch(self, epoch: int) -> tuple[_Meter, tuple[tuple[str, str], ...], float]:
        """One pass over the training clips: its sums, the clips that were skipped, the last learning rate."""
        set_train_mode(self.network, freeze_batchnorm=self.config.model.freeze_batchnorm)
        # the only draws from Paddle's generator are dropout masks: a seed per epoch makes a resumed run equal
        paddle.seed(int(np.random.SeedSequence([self.config.seed, epoch]).generate_state(1)[0]))
        meter = _Meter()
        failures: list[tuple[str, str]] = []
        rate, start = 0.0, time.perf_counter()
        for step, batch in enumerate(_timed(self.loader.epoch(epoch), meter)):
            failures.extend((failure.path, failure.error) for failure in batch.failures)
            rate = learning_rate(
                self.config.optimizer.learning_rate,
                self.config.schedule,
                epoch=epoch + step / len(self.loader),
                num_epochs=self.config.epochs,
            )
            if len(batch.labels):
                self.train_step(batch, rate, meter=meter)
            if self.observer is not None and meter.num_clips:
                elapsed = time.perf_counter() - start
                self.observer.on_step(
                    StepReport(
                        epoch=epoch + 1,
                        step=step + 1,
                        num_steps=len(self.loader),
                        num_epochs=self.config.epochs,
                        loss=meter.loss_sum / meter.num_clips,
                        top1=meter.num_correct / meter.num_clips,
                        learning_rate=rate,
                        images_per_s=meter.num_clips * self.preprocess.sampling.num_segments / elapsed,
                        data_wait_ratio=meter.wait_s / elapsed,
                    )
                )
        if meter.num_clips == 0:
            path, error = failures[0]
            raise DatasetError(f"not one of the {len(failures)} training clips can be decoded; first: {path}: {error}")
        return meter, tuple(failures), rate

    def train_step(self, batch: Batch, rate: float, *, meter: _Meter) -> None:
        """Forward, backward, update on one batch."""
        self.optimizer.set_lr(rate)
        clips = paddle.to_tensor(normalize(batch.frames_nvthwc[:, 0], self.preprocess))
        logits = self.network(clips)
        loss = cross_entropy(logits, paddle.to_tensor(batch.labels), label_smoothing=self.config.label_smoothing)
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        num_correct = int((logits.numpy().argmax(axis=1) == batch.labels).sum())
        meter.add(float(loss.item()), num_correct, len(batch.labels))

    def evaluate(self) -> EvalReport:
        """The held-out clips with eval preprocessing."""
        self.network.eval()
        done = iter(range(1, len(self.split.val) + 1))

        def on_clip() -> None:
            if self.observer is not None:
                self.observer.on_eval_clip(next(done), len(self.split.val))

        return evaluate_network(
            self.network,
            self.split.val,
            self.preprocess,
            labels=self.split.labels,
            model=self.config.model.name,
            num_workers=self.config.data.num_workers,
            limits=self.limits,
            on_clip=on_clip,
        )

    def save(self, *, is_best: bool) -> None:
        """Best weights first: a run that stops between the files repeats the epoch and writes the same again."""
        metadata = WeightsMetadata(
            model=self.config.model.name, labels=self.split.labels, preprocess=self.preprocess, extra={}
        )
        if is_best:
            path = self.run_dir / BEST_WEIGHTS
            path.parent.mkdir(parents=True, exist_ok=True)
            tensors = {key: value.numpy() for key, value in self.network.state_dict().items()}
            write_safetensors(path, tensors, metadata=metadata)
        save_checkpoint(self.run_dir, self.network, self.optimizer, state=self.state, metadata=metadata)
        lines = [json.dumps(asdict(epoch)) for epoch in self.state.epochs]
        write_text(self.run_dir / LOG_FILE, "\n".join(lines) + "\n")


def set_train_mode(network: paddle.nn.Layer, *, freeze_batchnorm: bool) -> None:
    """Train mode, with BatchNorm on its stored statistics where these are frozen."""
    network.train()
    if freeze_batchnorm:
        for layer in network.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                layer.eval()


def _timed(batches: Iterator[Batch], meter: _Meter) -> Iterator[Batch]:
    """The same batches; the time spent waiting for them goes to `meter.wait_s`."""
    while True:
        start = time.perf_counter()
        batch = next(batches, None)
        meter.wait_s += time.perf_counter() - start
        if batch is None:
            return
        yield batch
