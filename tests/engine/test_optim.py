from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppvcli.configs.schema import OptimizerConfig, ScheduleConfig
from ppvcli.engine.losses import cross_entropy
from ppvcli.engine.optim import build_optimizer, learning_rate


@pytest.mark.parametrize(
    ("name", "peak", "start", "num_epochs"),
    [
        ("pptsm_uniform", 0.01, 0.005, 80),
        ("pptsm_dense", 0.02, 0.01, 80),
        ("pptsm_dense_r101", 0.02, 0.01, 100),
        ("pptsmv2", 0.01, 0.005, 120),
        ("pptsmv2_dml", 0.005, 0.0025, 120),
        ("pptsn", 0.01, 0.005, 100),
    ],
)
def test_cosine_with_warmup_equals_the_reference(
    name: str, peak: float, start: float, num_epochs: int, goldens_dir: Path
) -> None:
    with gzip.open(goldens_dir / "engine" / "lr.golden.json.gz", "rt", encoding="utf-8") as file:
        golden = json.load(file)[name]
    schedule = ScheduleConfig(warmup_epochs=10.0, warmup_start_ratio=start / peak)
    rates = [
        learning_rate(peak, schedule, epoch=i / golden["num_iters"], num_epochs=num_epochs)
        for i in range(len(golden["values"]))
    ]
    np.testing.assert_allclose(rates, golden["values"], rtol=1e-9, atol=1e-12)


def test_loss_equals_the_reference(goldens_dir: Path) -> None:
    golden = np.load(goldens_dir / "engine" / "losses.golden.npz")
    logits, labels = paddle.to_tensor(golden["scores_student"]), paddle.to_tensor(golden["label_a"][:, 0])
    np.testing.assert_allclose(cross_entropy(logits, labels).item(), golden["ce"], rtol=1e-6)
    np.testing.assert_allclose(
        cross_entropy(logits, labels, label_smoothing=0.1).item(), golden["ls01_loss"], rtol=1e-6
    )


def small_network() -> paddle.nn.Layer:
    paddle.seed(3)
    return paddle.nn.Sequential(paddle.nn.Linear(4, 4), paddle.nn.BatchNorm1D(4), paddle.nn.Linear(4, 2))


def trained(network: paddle.nn.Layer) -> dict[str, paddle.Tensor]:
    """Without BatchNorm's statistics, which Paddle counts among the parameters."""
    return {name: p for name, p in network.named_parameters() if not p.stop_gradient}


def test_adamw_step_equals_the_formula() -> None:
    network = small_network()
    config = OptimizerConfig(name="adamw", learning_rate=0.01, classifier_learning_rate=0.1, weight_decay=0.5)
    optimizer = build_optimizer(network, config, classifier=("2.weight", "2.bias"))
    optimizer.set_lr(0.01)
    before = {name: p.numpy().astype(np.float64) for name, p in trained(network).items()}
    x = paddle.to_tensor(np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32))
    (network(x) ** 2).sum().backward()
    gradients = {name: p.grad.numpy().astype(np.float64) for name, p in trained(network).items()}
    optimizer.step()
    for name, parameter in trained(network).items():
        rate = 0.1 if name.startswith("2.") else 0.01
        decay = 0.5 if before[name].ndim > 1 else 0.0
        # first step: both moments are bias-corrected to the gradient and its square
        update = gradients[name] / (np.abs(gradients[name]) + 1e-8)
        expected = before[name] * (1 - rate * decay) - rate * update
        significant = np.abs(gradients[name]) > 1e-4
        np.testing.assert_allclose(parameter.numpy()[significant], expected[significant], atol=1e-5, err_msg=name)


def test_momentum_step_clips_by_the_global_norm() -> None:
    network = small_network()
    config = OptimizerConfig(name="momentum", learning_rate=0.1, momentum=0.9, clip_grad_norm=0.01)
    optimizer = build_optimizer(network, config, classifier=())
    before = {name: p.numpy() for name, p in trained(network).items()}
    network(paddle.ones([3, 4])).sum().backward()
    optimizer.step()
    moved = [p.numpy() - before[name] for name, p in trained(network).items()]
    np.testing.assert_allclose(np.sqrt(sum((m**2).sum() for m in moved)), 0.1 * 0.01, rtol=1e-3)


def test_frozen_parameters_are_left_out() -> None:
    network = small_network()
    network[0].weight.stop_gradient = True
    optimizer = build_optimizer(
        network, OptimizerConfig(name="adamw", learning_rate=0.1, weight_decay=0.5), classifier=()
    )
    before = network[0].weight.numpy()
    network(paddle.ones([3, 4])).sum().backward()
    optimizer.step()
    assert np.array_equal(network[0].weight.numpy(), before)
