from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest
from paddle import nn

from ppvcli.configs.schema import OptimizerConfig
from ppvcli.engine.checkpoint import RunState, restore_checkpoint, save_checkpoint
from ppvcli.engine.ema import WeightAverage
from ppvcli.engine.optim import build_optimizer
from ppvcli.weights.formats import WeightsMetadata, read_weights

OPTIMIZER = OptimizerConfig(name="momentum", learning_rate=0.1)


def small_network() -> nn.Layer:
    paddle.seed(7)
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1D(3))


def set_all(network: nn.Layer, value: float) -> None:
    for tensor in network.state_dict().values():
        tensor.set_value(np.full(tensor.shape, value, np.float32))


def test_average_follows_the_formula_with_its_warm_up() -> None:
    network = small_network()
    set_all(network, 100.0)
    average = WeightAverage(network, decay=0.2)
    expected = 100.0
    for n, value in enumerate((1.0, 2.0, 3.0, 4.0)):
        set_all(network, value)
        average.update()
        decay = min(0.2, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * value
        for tensor in average.state_dict().values():
            np.testing.assert_allclose(tensor.numpy(), expected, rtol=1e-6)
    assert average.num_updates == 4


def test_weights_of_the_start_fade_whatever_the_decay() -> None:
    network = small_network()
    set_all(network, 100.0)
    average = WeightAverage(network, decay=0.9999)
    set_all(network, 1.0)
    for _ in range(50):
        average.update()
    # with 0.9999 from the first step on, 99.5 of the 100 would be left
    assert all(float(tensor.max()) < 1.01 for tensor in average.state_dict().values())


def test_average_stands_in_the_network_while_applied_only() -> None:
    network = small_network()
    average = WeightAverage(network, decay=0.5)
    set_all(network, 3.0)
    average.update()
    with pytest.raises(KeyError), average.applied():
        for key, tensor in network.state_dict().items():
            np.testing.assert_array_equal(tensor.numpy(), average.state_dict()[key].numpy())
        raise KeyError
    assert all(np.all(tensor.numpy() == 3.0) for tensor in network.state_dict().values())


def test_checkpoint_restores_weights_average_and_the_place_in_the_warm_up(tmp_path: Path) -> None:
    network = small_network()
    optimizer = build_optimizer(network, OPTIMIZER, classifier=())
    average = WeightAverage(network, decay=0.999)
    for value in (1.0, 2.0):
        set_all(network, value)
        average.update()
    save_checkpoint(
        tmp_path, network, optimizer, state=RunState(epochs=()), metadata=WeightsMetadata(), average=average
    )
    # the file stands for the model: its weights are the average
    file = read_weights(tmp_path)
    np.testing.assert_array_equal(file.tensors["0.weight"], average.state_dict()["0.weight"].numpy())

    other = small_network()
    resumed = WeightAverage(other, decay=0.999)
    restore_checkpoint(tmp_path, other, build_optimizer(other, OPTIMIZER, classifier=()), average=resumed)
    for one, two in ((network, other), (average, resumed)):
        for key, tensor in one.state_dict().items():
            np.testing.assert_array_equal(two.state_dict()[key].numpy(), tensor.numpy(), err_msg=key)
    for current, ongoing in ((network, average), (other, resumed)):
        set_all(current, 5.0)
        ongoing.update()
    np.testing.assert_array_equal(resumed.state_dict()["0.bias"].numpy(), average.state_dict()["0.bias"].numpy())


def test_float16_weights_are_averaged_in_float32() -> None:
    network = small_network()
    network[0].to(dtype="float16")
    average = WeightAverage(network, decay=0.999)
    assert average.state_dict()["0.weight"].dtype == paddle.float32
    average.update()
    with average.applied():
        assert network[0].weight.dtype == paddle.float16
