"""Specs that no network can have, and what `build.py` knows about state dicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import paddle
import pytest

from ppvcli.errors import UsageError
from ppvcli.models.build import build_network, build_with_weights, classifier_keys, expected_shapes
from ppvcli.models.zoo import ZOO
from ppvcli.specs import NetworkSpec

TSM = NetworkSpec(architecture="tsm", num_segments=8)
PPTSM = NetworkSpec(architecture="pptsm", num_segments=8)
PPTSMV2 = NetworkSpec(architecture="pptsmv2", num_segments=8)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(PPTSM, data_format="NHWC"), "pptsm has no NHWC form; only tsm has"),
        (replace(TSM, temporal_attention=True), "tsm has no temporal attention; only pptsmv2 has"),
        (replace(TSM, num_segments=None), "tsm shifts .* needs num_segments of 3 or more, got None"),
        (replace(TSM, num_segments=2), "tsm shifts .* needs num_segments of 3 or more, got 2"),
        (replace(PPTSM, teacher=PPTSM), "a pptsmv2 student with a pptsm teacher, got pptsm with pptsm"),
        (replace(PPTSMV2, teacher=TSM), "a pptsmv2 student with a pptsm teacher, got pptsmv2 with tsm"),
        (replace(PPTSMV2, num_segments=16, teacher=PPTSM), "see the same clips, got num_segments 16 and 8"),
    ],
)
def test_spec_that_no_network_can_have_is_refused(spec: NetworkSpec, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_network(spec, 10)


@pytest.mark.parametrize("num_segments", [3, 5])
def test_network_with_few_frames_runs(num_segments: int) -> None:
    network = build_network(replace(PPTSMV2, num_segments=num_segments), 10)
    assert network(paddle.zeros([1, num_segments, 3, 32, 32])).shape == [1, 10]


@pytest.mark.parametrize("name", ZOO)
def test_classifier_keys_are_the_tensors_that_depend_on_the_number_of_classes(name: str) -> None:
    spec = ZOO[name].network
    ten, twelve = expected_shapes(spec, 10), expected_shapes(spec, 12)
    changing = {key for key in ten if ten[key] != twelve[key]}
    assert changing == set(classifier_keys(spec))
    assert {ten[key][-1] for key in changing} == {10}


def test_deep_tsn_names_its_third_stage_as_the_reference() -> None:
    shapes = expected_shapes(NetworkSpec(architecture="tsn", depth=101), 10)
    blocks = dict.fromkeys(key.split(".")[1] for key in shapes if key.startswith("backbone.res"))
    stage = ["res4a", *(f"res4b{i}" for i in range(1, 23))]
    assert list(blocks) == [
        "res2a",
        "res2b",
        "res2c",
        "res3a",
        "res3b",
        "res3c",
        "res3d",
        *stage,
        *("res5a", "res5b", "res5c"),
    ]


def test_network_with_given_weights_draws_only_what_is_missing() -> None:
    shapes = expected_shapes(PPTSMV2, 7)
    state = {
        key: np.full(shape, 0.5, np.float64) for key, shape in shapes.items() if key not in classifier_keys(PPTSMV2)
    }
    network = build_with_weights(PPTSMV2, 7, state=state)
    assert not network.training
    for key, tensor in network.state_dict().items():
        assert tensor.dtype == paddle.float32
        if key in state:
            assert (tensor.numpy() == 0.5).all(), key
    assert network.backbone.fc.weight.numpy().std() > 0
    assert not network.backbone.fc.bias.numpy().any()


def test_network_with_given_weights_can_be_trained() -> None:
    shapes = expected_shapes(PPTSMV2, 7)
    state = build_network(PPTSMV2, 7).state_dict()
    network = build_with_weights(PPTSMV2, 7, state={key: tensor.numpy() for key, tensor in state.items()})
    assert network.state_dict().keys() == shapes.keys()
    network.train()
    optimizer = paddle.optimizer.Momentum(0.1, parameters=network.parameters())
    network(paddle.ones([1, 8, 3, 32, 32])).square().sum().backward()
    optimizer.step()
    for key in ("backbone.stem.0.conv.weight", "backbone.fc.bias", "backbone.stem.0.bn._mean"):
        assert not np.array_equal(network.state_dict()[key].numpy(), state[key].numpy()), key
