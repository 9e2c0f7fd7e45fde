"""The trainer on clips of moving blocks, red to the right and blue to the left; the real network, 32x32 pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ppvcli.configs.load import parse_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.annotations import Sample, Split
from ppvcli.engine.checkpoint import read_result
from ppvcli.engine.evaluator import ClipRow, build_report, evaluate_logits
from ppvcli.engine.objectives import Supervised
from ppvcli.engine.progress import StepReport
from ppvcli.engine.trainer import Trainer, set_train_mode
from ppvcli.errors import DatasetError, DivergedError, PpvError, WeightsMismatchError
from ppvcli.models.build import build_network
from ppvcli.models.zoo import get_model_row
from ppvcli.results import EpochResult, EvalReport, StartReport
from ppvcli.specs import Resize, Sampling
from ppvcli.video.render import write_video
from ppvcli.weights.formats import read_metadata, read_weights

PREPROCESS = replace(
    get_model_row("tsm_efflite0").preprocess,
    sampling=Sampling(mode="window", num_segments=8, frame_interval=1),
    resize=Resize(size_hw=(32, 32)),
)
LABELS = ("left", "right")


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    folder = tmp_path_factory.mktemp("blocks")
    samples = []
    for i in range(8):
        path = folder / f"{i}.mp4"
        write_video(path, block_video(right=bool(i % 2), top=6 * i))
        samples.append(Sample(path, i % 2))
    return Split(train=tuple(samples[:6]), val=tuple(samples[6:]), labels=LABELS)


def block_video(*, right: bool, top: int) -> np.ndarray:
    frames = np.full((12, 72, 80, 3), 40, np.uint8)
    for t in range(12):
        x = 5 * t if right else 60 - 5 * t
        frames[t, top : top + 20, x : x + 20] = (230, 60, 40) if right else (40, 60, 230)
    return frames


def make_config(**changes: object) -> TrainConfig:
    tree: dict[str, object] = {
        "model": {"name": "tsm_efflite0", "dropout": 0.3},
        "data": {"root": "unused", "val_ratio": 0.5, "num_workers": 0},
        "input": {"resize": {"size_hw": [32, 32]}, "frame_interval": 1},
        "augment": {"min_area_ratio": 0.8},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3, "weight_decay": 0.01},
        "epochs": 2,
        "batch_size": 4,
        "seed": 5,
    }
    return parse_config({**tree, **changes}, source="test")


def make_trainer(split: Split, run_dir: Path, *, observer: object = None, **changes: object) -> Trainer:
    config = make_config(**changes)
    paddle.seed(config.seed)
    network = build_network(get_model_row("tsm_efflite0").network, 2, dropout=config.model.dropout)
    observers = [] if observer is None else [observer]
    return Trainer(
        network,
        split,
        config=config,
        objective=Supervised(label_smoothing=config.label_smoothing),
        run_dir=run_dir,
        observers=observers,  # type: ignore[arg-type]
    )


class Watcher:
    def __init__(self, stop_at: tuple[int, int] | None = None) -> None:
        self.steps: list[StepReport] = []
        self.epochs: list[EpochResult] = []
        self.stop_at = stop_at

    def on_start(self, report: StartReport) -> None:
        raise AssertionError("a trainer is given its network; where that starts is told by train()")

    def on_step(self, report: StepReport) -> None:
        self.steps.append(report)
        if (report.epoch, report.step) == self.stop_at:
            raise KeyboardInterrupt

    def on_eval_clip(self, done: int, total: int) -> None:
        assert done <= total

    def on_epoch(self, result: EpochResult) -> None:
        self.epochs.append(result)


def test_run_writes_a_folder_that_holds_what_it_says(split: Split, tmp_path: Path) -> None:
    watcher = Watcher()
    result = make_trainer(split, tmp_path, observer=watcher).run()
    assert [(s.epoch, s.step, s.num_steps) for s in watcher.steps] == [(1, 1, 2), (1, 2, 2), (2, 1, 2), (2, 2, 2)]
    assert tuple(watcher.epochs) == result.epochs
    assert result.epochs[1].val_top1 == result.val.top1
    assert read_result(tmp_path, model="tsm_efflite0") == result
    metadata = read_metadata(tmp_path)
    assert metadata is not None
    assert (metadata.model, metadata.labels, metadata.preprocess) == ("tsm_efflite0", LABELS, PREPROCESS)
    assert not list(tmp_path.rglob(".tmp-*"))


def test_interrupted_and_resumed_run_ends_with_the_same_weights(split: Split, tmp_path: Path) -> None:
    straight = make_trainer(split, tmp_path / "a").run()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(split, tmp_path / "b", observer=Watcher(stop_at=(2, 1))).run()
    paddle.randn([7])  # other draws between the two sessions
    trainer = make_trainer(split, tmp_path / "b", seed=5)
    trainer.resume()
    resumed = trainer.run()
    assert resumed.epochs[0].train_loss == straight.epochs[0].train_loss
    expected, got = (read_weights(tmp_path / run / "last").tensors for run in "ab")
    assert expected.keys() == got.keys()
    for key, tensor in expected.items():
        assert np.array_equal(tensor, got[key]), key


def test_training_lowers_the_loss_on_its_own_clips(split: Split, tmp_path: Path) -> None:
    result = make_trainer(split, tmp_path, epochs=6, model={"name": "tsm_efflite0", "dropout": 0.0}).run()
    assert result.epochs[-1].train_loss < 0.5 * result.epochs[0].train_loss


def test_frozen_parts_do_not_move(split: Split, tmp_path: Path) -> None:
    model = {"name": "tsm_efflite0", "frozen_stages": 4, "freeze_batchnorm": True}
    trainer = make_trainer(split, tmp_path, epochs=1, model=model)
    trainer.network.backbone.freeze_stages(4)
    before = {key: value.numpy() for key, value in trainer.network.state_dict().items()}
    trainer.run()
    moved = {
        key for key, value in trainer.network.state_dict().items() if not np.array_equal(value.numpy(), before[key])
    }
    assert moved
    assert not [key for key in moved if key.endswith(("_mean", "_variance"))]
    frozen = ("backbone.stem.", *(f"backbone.stages.{i}." for i in range(4)))
    assert not [key for key in moved if key.startswith(frozen)]
    assert "head.fc.weight" in moved


def test_batchnorm_modes() -> None:
    network = build_network(get_model_row("tsm_efflite0").network, 2)
    norms = [layer for layer in network.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    set_train_mode(network, freeze_batchnorm=True)
    assert network.head.dropout.training
    assert not any(norm.training for norm in norms)
    set_train_mode(network, freeze_batchnorm=False)
    assert all(norm.training for norm in norms)


def test_broken_training_clip_is_skipped_and_named(split: Split, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    damaged = Split(train=(*split.train, Sample(tmp_path / "broken.mp4", 0)), val=split.val, labels=LABELS)
    trainer = make_trainer(damaged, tmp_path / "run")
    meter, failures, _ = trainer.train_epoch(0)
    assert meter.num_clips == 6
    assert [Path(path).name for path, _ in failures] == ["broken.mp4"]


def test_all_clips_broken_is_an_error(split: Split, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    damaged = Split(train=(Sample(tmp_path / "broken.mp4", 0),), val=split.val, labels=LABELS)
    with pytest.raises(DatasetError, match="not one of the 1 training clips") as caught:
        make_trainer(damaged, tmp_path / "run").run()
    assert "--check-data" in str(caught.value.hint)
    assert caught.value.message.count("broken.mp4") == 1


def test_best_weights_of_equal_top1_are_those_of_the_lowest_loss(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losses are played; a run that is interrupted in between keeps the same bytes."""
    losses, evaluate = (1.25, 0.75, 0.5, 0.75), Trainer.evaluate

    def played(trainer: Trainer) -> EvalReport:
        return replace(evaluate(trainer), num_correct=1, loss=losses[len(trainer.state.epochs)])

    monkeypatch.setattr(Trainer, "evaluate", played)
    result = make_trainer(split, tmp_path / "a", epochs=4).run()
    assert result.best_epoch == 3
    with pytest.raises(KeyboardInterrupt):
        make_trainer(split, tmp_path / "b", epochs=4, observer=Watcher(stop_at=(3, 1))).run()
    second = (tmp_path / "b" / "best" / "weights.safetensors").read_bytes()
    trainer = make_trainer(split, tmp_path / "b", epochs=4)
    trainer.resume()
    assert trainer.run().best_epoch == 3
    best = [(tmp_path / run / "best" / "weights.safetensors").read_bytes() for run in "ab"]
    assert best[0] == best[1] != second
    last = read_weights(tmp_path / "a" / "last").tensors
    assert not np.array_equal(read_weights(tmp_path / "a").tensors["head.fc.weight"], last["head.fc.weight"])


def test_broken_clip_counts_as_wrong_in_evaluation(split: Split, tmp_path: Path) -> None:
    class RightAlways(paddle.nn.Layer):
        """Says "right" for every clip."""

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return paddle.to_tensor([[0.0, 2.0]]).tile([x.shape[0], 1])

    (tmp_path / "broken.mp4").write_bytes(b"no video")
    samples = [*split.train, Sample(tmp_path / "broken.mp4", 1)]
    rows = evaluate_logits(RightAlways(), samples, PREPROCESS, num_workers=0)
    report = build_report(samples, rows, labels=LABELS, model="constant")
    assert (report.num_clips, report.num_correct, report.num_correct_top5) == (7, 3, 6)
    assert [(c.label, c.num_clips, c.num_correct) for c in report.classes] == [("left", 3, 0), ("right", 4, 3)]
    assert [Path(path).name for path, _ in report.failures] == ["broken.mp4"]
    assert {(label, predicted) for _, label, predicted in report.wrong} == {("left", "right")}
    expected_loss = (3 * np.log1p(np.exp(2.0)) + 3 * np.log1p(np.exp(-2.0))) / 6
    assert report.loss == pytest.approx(expected_loss, rel=1e-6)


def test_full_disk_keeps_the_checkpoint_before(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(split, tmp_path, epochs=1)
    trainer.run()
    before = (tmp_path / "last" / "checkpoint.safetensors").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(PpvError, match="No space left"):
        trainer.save(trainer.evaluate(), is_best=False)
    assert (tmp_path / "last" / "checkpoint.safetensors").read_bytes() == before
    assert not list(tmp_path.rglob(".tmp-*"))


def test_checkpoint_of_another_network_is_refused(split: Split, tmp_path: Path) -> None:
    make_trainer(split, tmp_path, epochs=1).run()
    other = build_network(get_model_row("tsm_efflite0").network, 3)
    objective = Supervised(label_smoothing=0.0)
    trainer = Trainer(other, split, config=make_config(), objective=objective, run_dir=tmp_path)
    with pytest.raises(WeightsMismatchError, match=r"head\.fc\.bias"):
        trainer.resume()


def test_average_of_weights_resumes(split: Split, tmp_path: Path) -> None:
    straight = make_trainer(split, tmp_path / "a", ema_decay=0.5).run()
    trainer = make_trainer(split, tmp_path / "b", ema_decay=0.5, observer=Watcher(stop_at=(2, 1)))
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    resumed = make_trainer(split, tmp_path / "b", ema_decay=0.5)
    resumed.resume()
    assert resumed.run().epochs[1].val_loss == straight.epochs[1].val_loss
    expected, got = (read_weights(tmp_path / run / "last").tensors for run in "ab")
    for key, tensor in expected.items():
        assert np.array_equal(tensor, got[key]), key


def test_average_of_weights_is_what_a_run_offers(split: Split, tmp_path: Path) -> None:
    trainer = make_trainer(split, tmp_path, ema_decay=0.5, epochs=1)
    trainer.run()
    assert trainer.average is not None
    kept, average = read_weights(tmp_path / "last").tensors, trainer.average.state_dict()
    assert all(np.array_equal(kept[key], average[key].numpy()) for key in kept)
    assert not np.array_equal(kept["head.fc.weight"], trainer.network.state_dict()["head.fc.weight"].numpy())


def test_accumulated_steps_are_steps_of_the_whole_batch_where_batchnorm_is_frozen(split: Split, tmp_path: Path) -> None:
    frozen = {"name": "tsm_efflite0", "dropout": 0.0, "freeze_batchnorm": True}
    whole = make_trainer(split, tmp_path / "a", model=frozen, epochs=1)
    parts = make_trainer(split, tmp_path / "b", model=frozen, epochs=1, batch_size=2, accumulate_steps=2)
    assert parts.num_steps == whole.num_steps == 2
    results = [trainer.train_epoch(0)[0] for trainer in (whole, parts)]
    assert results[0].loss_sum == pytest.approx(results[1].loss_sum, rel=1e-5)
    for (key, one), other in zip(whole.network.state_dict().items(), parts.network.state_dict().values(), strict=True):
        # AdamW divides by the gradient's own size: round-off of tiny gradients shows as a share of the rate of 1e-3
        np.testing.assert_allclose(one.numpy(), other.numpy(), atol=2e-4, err_msg=key)


def test_learning_rates_are_scaled_to_the_clips_of_a_step(split: Split, tmp_path: Path) -> None:
    optimizer = {"name": "momentum", "learning_rate": 0.1, "learning_rate_batch_size": 16}
    trainer = make_trainer(split, tmp_path, optimizer=optimizer, batch_size=2, accumulate_steps=2, epochs=1)
    _, _, rate = trainer.train_epoch(0)
    assert trainer.rate_factor == 0.25
    assert rate == pytest.approx(0.25 * 0.1 * (1 + np.cos(np.pi * 0.5)) / 2)


@pytest.mark.parametrize("has_checkpoint", [False, True], ids=["first_epoch", "later"])
def test_diverging_loss_is_an_error_that_names_the_weights_before(
    has_checkpoint: bool, split: Split, tmp_path: Path
) -> None:
    trainer = make_trainer(split, tmp_path, optimizer={"name": "momentum", "learning_rate": 1e30})
    if has_checkpoint:
        (tmp_path / "last").mkdir()
        (tmp_path / "last" / "checkpoint.safetensors").touch()
    with pytest.raises(DivergedError, match=r"step 2 of epoch 1 \(learning rate") as caught:
        trainer.train_epoch(0)
    assert "in a new run, with another --out" in str(caught.value.hint)
    assert (f"{tmp_path}/last" in str(caught.value.hint)) == has_checkpoint


@pytest.mark.parametrize(("device", "batch_size"), [("cpu", 1), ("gpu:0", 4)])
def test_validation_takes_batches_on_a_gpu(
    device: str, batch_size: int, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No GPU is needed: only the device's name is another one."""
    sizes: list[object] = []

    def note(*args: Any, **settings: Any) -> tuple[ClipRow, ...]:
        sizes.append(settings["batch_size"])
        return evaluate_logits(*args, **settings)

    monkeypatch.setattr("ppvcli.engine.trainer.evaluate_logits", note)
    trainer = make_trainer(split, tmp_path)
    monkeypatch.setattr(paddle.device, "get_device", lambda: device)
    assert trainer.evaluate().num_clips == 2
    assert sizes == [batch_size]
