"""What processes add up, with a second process that is made up: it has the same as the first."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from ppvcli.engine import distributed
from ppvcli.engine.distributed import World


def test_gradients_of_two_precisions_are_added_up_in_a_message_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `amp: O2` has them: BatchNorm's in float32 between those of the rest in float16."""
    sent: list[tuple[paddle.dtype, int]] = []

    def all_reduce(tensor: paddle.Tensor) -> None:
        sent.append((tensor.dtype, tensor.size))
        tensor.set_value(2 * tensor.numpy())  # by NumPy: Paddle adds no float16 on a CPU

    monkeypatch.setattr(distributed.dist, "all_reduce", all_reduce)
    parameters = [
        paddle.create_parameter(shape, dtype)
        for shape, dtype in (([2, 3], "float16"), ([4], "float32"), ([5], "float16"), ([1], "float32"))
    ]
    for i, parameter in enumerate(parameters[:3], start=1):
        parameter.grad = paddle.to_tensor(np.full(parameter.shape, i), parameter.dtype)
    expected = [(2 * parameter.grad.numpy()).tolist() for parameter in parameters[:3]]
    World(size=2).sum_gradients(parameters)
    assert [parameter.grad.numpy().tolist() for parameter in parameters[:3]] == expected
    assert [parameter.grad.dtype for parameter in parameters[:3]] == [p.dtype for p in parameters[:3]]
    assert parameters[3].grad is None
    assert sent == [(paddle.float64, 4), (paddle.float16, 11), (paddle.float32, 4)]
