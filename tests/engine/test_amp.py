"""Mixed precision as far as a CPU can show it: the order of scaling, clipping and stepping, and the state on disk.

Paddle turns its scaler off on a CPU. Here it is told that it stands on a GPU; all it then does runs in float32.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import paddle
import pytest
from paddle import nn

from ppvcli.configs.schema import OptimizerConfig
from ppvcli.engine.amp import CUDNN_FLAGS, Precision
from ppvcli.engine.checkpoint import RunState, optimizer_tensors, restore_checkpoint, save_checkpoint
from ppvcli.engine.optim import build_optimizer
from ppvcli.errors import DeviceError
from ppvcli.weights.formats import WeightsMetadata

OPTIMIZER = OptimizerConfig(name="momentum", learning_rate=0.1, weight_decay=0.01, clip_grad_norm=0.5)


@pytest.fixture
def flags(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, object]]:
    """A CPU that Paddle's scaler takes for a GPU; what was handed to `paddle.set_flags`."""
    place = SimpleNamespace(is_gpu_place=lambda: True)
    given: dict[str, object] = {}
    monkeypatch.setattr(paddle.device, "get_device", lambda: "gpu:0")
    monkeypatch.setattr(
        sys.modules["paddle.amp.grad_scaler"], "_dygraph_tracer", lambda: SimpleNamespace(_expected_place=place)
    )
    monkeypatch.setattr(paddle, "set_flags", given.update)
    with paddle.amp.auto_cast(enable=False):  # leaves float16 as the type that the scaler asks for
        pass
    yield given


def small_network() -> nn.Layer:
    paddle.seed(7)
    return nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))


def loss_of(network: nn.Layer) -> paddle.Tensor:
    return network(paddle.to_tensor([[1.0, -2.0, 3.0, 0.5]])).square().sum()


def weights_of(network: nn.Layer) -> dict[str, np.ndarray]:
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}


def test_scaled_step_equals_the_plain_one_because_clipping_sees_true_gradients(flags: dict[str, object]) -> None:
    results = []
    for level in (None, "O1"):
        network = small_network()
        optimizer = build_optimizer(network, OPTIMIZER, classifier=())
        precision = Precision(network, optimizer, level=level)  # type: ignore[arg-type]
        for _ in range(2):
            with precision.autocast() if level is None else paddle.amp.auto_cast(enable=False):
                loss = loss_of(network)
            for part in (0.25, 0.75):
                precision.backward(part * loss) if part == 0.75 else precision.backward(part * loss_of(network))
            if level is not None:
                scale = float(precision.scaler._scale)  # type: ignore[attr-defined]
                assert scale == 2.0**16
            precision.step(optimizer)
            optimizer.clear_grad()
        results.append(weights_of(network))
    for key, weights in results[0].items():
        np.testing.assert_allclose(results[1][key], weights, rtol=1e-5, atol=1e-7, err_msg=key)


def test_overflow_leaves_the_step_out_and_halves_the_scale(
    flags: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    network = small_network()
    optimizer = build_optimizer(network, OPTIMIZER, classifier=())
    precision = Precision(network, optimizer, level="O1")
    before = weights_of(network)
    precision.backward(loss_of(network) * float("inf"))
    precision.step(optimizer)
    optimizer.clear_grad()
    assert all(np.array_equal(before[key], weights) for key, weights in weights_of(network).items())
    state = precision.state()
    assert state is not None
    assert state["scale"] == 2.0**15
    assert capsys.readouterr().out == ""  # what Paddle prints about it is no data
    precision.backward(loss_of(network))
    precision.step(optimizer)
    assert not np.array_equal(before["0.weight"], network[0].weight.numpy())


def test_scaler_state_goes_through_json(flags: dict[str, object]) -> None:
    network = small_network()
    optimizer = build_optimizer(network, OPTIMIZER, classifier=())
    first, second = (Precision(network, optimizer, level="O1") for _ in range(2))
    first.backward(loss_of(network) * float("inf"))
    first.step(optimizer)
    optimizer.clear_grad()
    first.backward(loss_of(network))
    first.step(optimizer)
    state = RunState(epochs=(), scaler=first.state())
    second.load_state(RunState.from_json(state.to_json()).scaler)
    assert second.state() == first.state()
    assert json.loads(json.dumps(first.state()))["incr_count"] == 1


def test_documented_settings_are_used(flags: dict[str, object], monkeypatch: pytest.MonkeyPatch) -> None:
    network = small_network()
    optimizer = build_optimizer(network, OPTIMIZER, classifier=())
    monkeypatch.setenv("FLAGS_conv_workspace_size_limit", "4000")
    decorated: list[dict[str, object]] = []
    monkeypatch.setattr(paddle.amp, "decorate", lambda **options: decorated.append(options))
    precision = Precision(network, optimizer, level="O2")
    assert flags == {key: value for key, value in CUDNN_FLAGS.items() if key != "FLAGS_conv_workspace_size_limit"}
    assert decorated == [{"models": network, "optimizers": optimizer, "level": "O2", "master_weight": True}]
    state = precision.state()
    assert state is not None
    assert (state["scale"], state["incr_every_n_steps"], state["decr_every_n_nan_or_inf"]) == (2.0**16, 2000, 1)
    assert (state["incr_ratio"], state["decr_ratio"]) == (2.0, 0.5)


def test_cpu_is_refused_and_float32_needs_nothing() -> None:
    network = small_network()
    optimizer = build_optimizer(network, OPTIMIZER, classifier=())
    with pytest.raises(DeviceError, match="amp O1 needs a GPU"):
        Precision(network, optimizer, level="O1")
    assert Precision(network, optimizer, level=None).state() is None


def test_checkpoint_keeps_the_float32_weights_behind_float16_ones(tmp_path: Path) -> None:
    def o2_network() -> tuple[nn.Layer, paddle.optimizer.Optimizer]:
        network = small_network()
        optimizer = build_optimizer(network, OPTIMIZER, classifier=())
        network.to(dtype="float16")
        optimizer._multi_precision = True
        block = paddle.static.default_main_program().global_block()
        optimizer._create_accumulators(block, optimizer._parameter_list)
        return network, optimizer

    network, optimizer = o2_network()
    for number, master in enumerate(optimizer._master_weights.values()):
        master.set_value(np.full(master.shape, 1.0 + number + 2.0**-20, np.float32))  # more than float16 holds
    save_checkpoint(tmp_path, network, optimizer, state=RunState(epochs=()), metadata=WeightsMetadata())
    other, restored = o2_network()
    restore_checkpoint(tmp_path, other, restored)
    assert other[0].weight.dtype == paddle.float16
    expected, got = optimizer_tensors(network, optimizer), optimizer_tensors(other, restored)
    masters = [key for key in expected if key.endswith("/master_weight")]
    assert len(masters) == 4
    for key in masters:
        np.testing.assert_array_equal(got[key], expected[key], err_msg=key)
