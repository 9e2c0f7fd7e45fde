from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppvcli.configs.load import load_config
from ppvcli.configs.schema import OptimizerConfig, ScheduleConfig
from ppvcli.engine.optim import build_optimizer, learning_rate

SCHEDULES = {
    "pptsm_uniform": "pptsm_k400_frames_uniform",
    "pptsm_dense": "pptsm_k400_frames_dense",
    "pptsm_dense_r101": "pptsm_k400_frames_dense_r101",
    "pptsmv2": "pptsmv2_k400_16frames_uniform",
    "pptsmv2_dml": "pptsmv2_k400_16frames_uniform_dml",
    "pptsn": "pptsn_k400_videos",
    "tsn": "tsn_k400_frames",
    "tsm": "tsm_k400_videos",
    "tsm_ucf101": "tsm_ucf101_frames",
}
"""Curve of the reference -> the shipped config that has it."""


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rate_of_shipped_config_equals_the_reference(name: str, goldens_dir: Path) -> None:
    with gzip.open(goldens_dir / "engine" / "lr.golden.json.gz", "rt", encoding="utf-8") as file:
        golden = json.load(file)[name]
    config = load_config(SCHEDULES[name])
    steps_per_epoch = golden.get("num_iters", 1)
    assert len(golden["values"]) == config.epochs * steps_per_epoch
    rates = [
        learning_rate(
            config.optimizer.learning_rate,
            config.schedule,
            epoch=i / steps_per_epoch,
            num_epochs=config.epochs,
            num_steps=len(golden["values"]),
        )
        for i in range(len(golden["values"]))
    ]
    np.testing.assert_allclose(rates, golden["values"], rtol=1e-9, atol=1e-12)


def test_steps_come_with_the_first_step_after_the_milestone() -> None:
    schedule = ScheduleConfig(name="step", milestones=(2, 4), factor=0.5)
    epochs = (0.0, 1.99, 2.0, 3.5, 4.0, 5.9)
    rates = [learning_rate(8.0, schedule, epoch=epoch, num_epochs=6, num_steps=600) for epoch in epochs]
    assert rates == [8.0, 8.0, 4.0, 4.0, 2.0, 2.0]


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


def test_nesterov_step_with_weight_decay_equals_the_formula() -> None:
    network = small_network()
    config = OptimizerConfig(name="momentum", learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)
    optimizer = build_optimizer(network, config, classifier=())
    weight, velocity = network[0].weight.numpy().astype(np.float64), 0.0
    for _ in range(2):
        network(paddle.to_tensor([[1.0, 2.0, 0.5, -1.0], [0.0, 1.0, 1.0, 2.0]])).square().sum().backward()
        gradient = network[0].weight.grad.numpy() + 0.01 * weight
        velocity = 0.9 * velocity + gradient
        weight = weight - 0.1 * (gradient + 0.9 * velocity)
        optimizer.step()
        optimizer.clear_grad()
        np.testing.assert_allclose(network[0].weight.numpy(), weight, atol=1e-5)


def test_warmup_of_a_run_that_is_shorter_takes_half_of_it() -> None:
    schedule = ScheduleConfig(warmup_epochs=10.0)
    epochs = (0.0, 0.25, 0.5, 0.75)
    rates = [learning_rate(1.0, schedule, epoch=epoch, num_epochs=1, num_steps=4) for epoch in epochs]
    assert rates == pytest.approx([0.0, 0.25, 0.5, (1 + np.cos(np.pi * 0.75)) / 2])


@pytest.mark.parametrize(("num_steps", "first"), [(1, 1.0), (2, 0.0)])
def test_run_of_a_single_step_has_no_warmup_and_trains(num_steps: int, first: float) -> None:
    schedule = ScheduleConfig(warmup_epochs=1.0)
    assert learning_rate(1.0, schedule, epoch=0.0, num_epochs=1, num_steps=num_steps) == first
