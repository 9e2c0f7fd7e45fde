"""Four optimizer steps of the shipped recipes against the reference's, in float64; and what a step is made of.

The goldens (`tests/goldens/train`) hold norms of all tensors of the reference under the weights of `tests/recipe.py`.
Both sides run Paddle's float64 kernels, so 1e-6 asks for the same arithmetic; 3e-8 was measured.
"""

from __future__ import annotations

import gc
import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ppvcli.configs.load import load_config
from ppvcli.configs.schema import OptimizerConfig, TrainConfig
from ppvcli.engine import inputs
from ppvcli.engine.amp import Precision
from ppvcli.engine.checkpoint import optimizer_tensors
from ppvcli.engine.losses import Targets
from ppvcli.engine.objectives import MutualLearning, Objective, Supervised
from ppvcli.engine.optim import build_optimizer, learning_rate
from ppvcli.engine.progress import Meter
from ppvcli.engine.step import optimizer_step
from ppvcli.models.build import build_network, classifier_keys
from tests.recipe import fill

STEPS_PER_EPOCH = 8
TOLERANCE = 1e-6
CONFIGS = {
    "tsn_k400_3seg": "tsn_k400_frames",
    "tsm_k400": "tsm_k400_frames",
    "pptsm_r50_k400_uniform": "pptsm_k400_frames_uniform",
    "pptsmv2_k400_16f": "pptsmv2_k400_16frames_uniform",
    "pptsmv2_k400_16f_lta": "pptsmv2_k400_16frames_uniform",
    "pptsmv2_k400_8f_dml": "pptsmv2_k400_8frames_uniform_dml",
}
GOLDENS_DIR = Path(__file__).parents[1] / "goldens" / "train"
QUICK = ("tsn_k400_3seg.plain.wd", "tsm_k400.plain.lr1", "pptsmv2_k400_16f_lta.plain.lr1")
"""Of these the first step alone, in the default run; a step takes seconds."""


@pytest.fixture
def float64() -> Iterator[None]:
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")
    gc.collect()  # networks refer to themselves; several at once in float64 would fill the memory


def recipe_config(path: Path, settings: dict[str, Any]) -> TrainConfig:
    """The shipped config, with the learning rate and the weight decay that this golden was recorded with."""
    name, changes = CONFIGS[settings["variant"]], [f"model.name={settings['variant']}"]
    rate = load_config(name).optimizer.learning_rate * settings["lr_scale"]
    changes.append(f"optimizer.learning_rate={rate!r}")
    if ".wd." in path.name:
        changes.append("optimizer.weight_decay=0.05")
    return load_config(name, changes)


class Recorded:
    """A network with recipe weights, and the norms of what happens to it."""

    def __init__(self, config: TrainConfig, *, num_classes: int) -> None:
        spec = inputs.network_spec(config)
        self.network = build_network(spec, num_classes, dropout=0.0)
        self.start = {}
        for key, tensor in self.network.state_dict().items():
            self.start[key] = fill(key, tuple(tensor.shape)).astype(np.float64)
            tensor.set_value(self.start[key])
        self.optimizer = build_optimizer(self.network, config.optimizer, classifier=classifier_keys(spec))
        self.objective: Objective = (Supervised if spec.teacher is None else MutualLearning)(
            label_smoothing=config.label_smoothing
        )
        self.gradients: dict[str, float] = {}
        self._step, self.optimizer.step = self.optimizer.step, self._recorded_step

    def _recorded_step(self) -> None:
        self.gradients = {
            key: norm(parameter.grad)
            for key, parameter in self.network.named_parameters()
            if parameter.grad is not None
        }
        self._step()

    def moved(self) -> dict[str, float]:
        return {key: norm(tensor.numpy() - self.start[key]) for key, tensor in self.network.state_dict().items()}


def norm(values: Any) -> float:
    return float(np.linalg.norm(np.asarray(values)))


def total(norms: Any) -> float:
    return float(np.sqrt(sum(value**2 for value in norms)))


def is_statistic(key: str) -> bool:
    return key.endswith(("._mean", "._variance"))


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("name", QUICK)
def test_first_step_equals_the_reference(name: str) -> None:
    check_steps(GOLDENS_DIR / f"{name}.json.gz", num_steps=1)


@pytest.mark.slow
@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("path", sorted(GOLDENS_DIR.glob("*.json.gz")), ids=lambda path: path.name.split(".json")[0])
def test_all_steps_equal_the_reference(path: Path) -> None:
    check_steps(path, num_steps=4)


def check_steps(path: Path, *, num_steps: int) -> None:
    golden = json.loads(gzip.decompress(path.read_bytes()))
    settings = golden["settings"]
    config = recipe_config(path, settings)
    run = Recorded(config, num_classes=settings["num_classes"])
    clips = np.random.default_rng(11).standard_normal((2, settings["T"], 3, 64, 64)).astype(np.float32)
    mixed, targets = clips, Targets(labels=np.array([3, 7]))
    if settings["mode"] == "mix03":
        mixed = 0.3 * clips + 0.7 * clips[[1, 0]]
        targets = Targets(labels=np.array([3, 7]), other_labels=np.array([7, 3]), share=float(np.float32(0.3)))
    run.network.train()

    steps = golden["steps"][:num_steps]
    for i, expected in enumerate(steps):
        rate = _rate(config, i)
        meter = Meter()
        optimizer_step(
            run.network,
            [(mixed.astype(np.float64), targets)],
            num_clips=2,
            objective=run.objective,
            optimizer=run.optimizer,
            precision=Precision(run.network, run.optimizer, level=None),
            rate=rate,
            meter=meter,
        )
        moved = run.moved()
        measured = {
            "loss": meter.loss_sum / 2,
            "lr": rate,
            "grad_norm": total(run.gradients.values()),
            "top1": meter.top1_sum / 2,
            "top5": meter.top5_sum / 2,
            "delta_l2": total(value for key, value in moved.items() if not is_statistic(key)),
            "stat_delta_l2": total(value for key, value in moved.items() if is_statistic(key)),
        }
        for name, value in measured.items():
            assert value == pytest.approx(expected[name], rel=TOLERANCE, abs=1e-12), f"{name} of step {i + 1}"
        if i == 0:
            _check_tensors(golden["all"], "g1", run.gradients)
            _check_tensors(golden["all"], "d1", moved)

    if len(steps) == len(golden["steps"]):
        _check_end(golden, config, run, clips)


def _check_end(golden: dict[str, Any], config: TrainConfig, run: Recorded, clips: np.ndarray) -> None:
    """After the last step."""
    moved = run.moved()
    _check_tensors(golden["all"], "d4", moved)
    velocity = {
        key.split("/")[0]: norm(value)
        for key, value in optimizer_tensors(run.network, run.optimizer).items()
        if "velocity" in key
    }
    _check_tensors(golden["all"], "v4", velocity)
    assert _rate(config, len(golden["steps"])) == pytest.approx(golden["lr_next"], rel=TOLERANCE)
    assert all(key not in run.gradients and moved[key] == 0.0 for key in golden["settings"].get("no_grad_keys", ()))
    run.network.eval()
    with paddle.no_grad():
        logits = run.network(paddle.to_tensor(clips.astype(np.float64))).numpy()
    assert np.abs(logits[:, :8] - golden["eval"]["head8"]).max() < 2 * TOLERANCE * golden["eval"]["std"]


def _rate(config: TrainConfig, step: int) -> float:
    return learning_rate(
        config.optimizer.learning_rate,
        config.schedule,
        epoch=step / STEPS_PER_EPOCH,
        num_epochs=config.epochs,
        num_steps=config.epochs * STEPS_PER_EPOCH,
    )


def _check_tensors(golden: dict[str, dict[str, float]], name: str, measured: dict[str, float]) -> None:
    """Key by key: gradients (g1), changes (d1, d4), velocities (v4); a tensor without one has 0."""
    faults = [
        f"{key}: {measured.get(key, 0.0)} instead of {facts[name]}"
        for key, facts in golden.items()
        if name in facts and measured.get(key, 0.0) != pytest.approx(facts[name], rel=TOLERANCE, abs=1e-12)
    ]
    assert not faults, f"{name}: " + "; ".join(faults[:5])


# --- accumulation -----------------------------------------------------------------------------------------------------


class Mean(paddle.nn.Layer):
    """Clips to logits through one linear layer: no BatchNorm, so parts of a batch are independent."""

    def __init__(self) -> None:
        super().__init__()
        paddle.seed(5)
        self.fc = paddle.nn.Linear(3, 4)

    def forward(self, clips_ntchw: paddle.Tensor) -> paddle.Tensor:
        return self.fc(clips_ntchw.mean(axis=[1, 3, 4]))


@pytest.mark.parametrize("sizes", [(4,), (2, 2), (3, 1), (1, 1, 1, 1)])
def test_step_of_parts_equals_the_step_of_the_whole(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    clips, labels = rng.standard_normal((4, 2, 3, 4, 4)).astype(np.float32), np.array([0, 1, 2, 3])
    network = Mean()
    optimizer = build_optimizer(
        network, OptimizerConfig(name="momentum", learning_rate=0.5, clip_grad_norm=0.1), classifier=()
    )
    ends = np.cumsum(sizes)
    parts = [
        (clips[end - size : end], Targets(labels=labels[end - size : end]))
        for size, end in zip(sizes, ends, strict=True)
    ]
    meter = Meter()
    optimizer_step(
        network,
        parts,
        num_clips=4,
        objective=Supervised(label_smoothing=0.0),
        optimizer=optimizer,
        precision=Precision(network, optimizer, level=None),
        rate=0.5,
        meter=meter,
    )
    logits = clips.astype(np.float64).mean(axis=(1, 3, 4)) @ Mean().fc.weight.numpy() + Mean().fc.bias.numpy()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (shares - np.eye(4)[labels]) / 4
    gradients = clips.mean(axis=(1, 3, 4)).T @ error, error.sum(axis=0)
    factor = 0.5 * min(1.0, 0.1 / total([norm(g) for g in gradients]))
    np.testing.assert_allclose(network.fc.weight.numpy(), Mean().fc.weight.numpy() - factor * gradients[0], atol=1e-6)
    np.testing.assert_allclose(network.fc.bias.numpy(), Mean().fc.bias.numpy() - factor * gradients[1], atol=1e-6)
    assert meter.num_clips == 4
    assert meter.loss_sum / 4 == pytest.approx(-np.log(shares[np.arange(4), labels]).mean(), rel=1e-5)
    assert all(parameter.grad is None or not parameter.grad.numpy().any() for parameter in network.parameters())
