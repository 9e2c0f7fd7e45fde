"""Several processes that train one network: what they add up, and what one of them tells the others.

Every process holds the whole network and sees its share of each batch. Gradients are added up after the backward
passes of a step, so that a step is the step of one process with all the clips. Processes are started by
`engine/launch.py` through Paddle's launcher, which tells each of them its place in environment variables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle
import paddle.distributed as dist

from ppvcli.processes import end_with

PARENT_VARIABLE = "PPV_LAUNCHED_BY"
"""Environment variable with the process id of the `ppv train` that everything else belongs to."""


@dataclass(frozen=True, kw_only=True)
class World:
    """The processes of a run, and which of them this is. Its methods are called by all of them, in the same order."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes the run's files."""
        return self.rank == 0

    def total(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all processes, in float64."""
        if self.size == 1:
            return list(values)
        tensor = paddle.to_tensor(np.asarray(values, np.float64))
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.numpy()]

    def gather(self, value: Any) -> list[Any]:
        """What every process gave, by rank. For plain values and arrays of our own processes."""
        if self.size == 1:
            return [value]
        values: list[Any] = []
        dist.all_gather_object(values, value)
        return values

    def copy_from_main(self, network: paddle.nn.Layer) -> None:
        """Gives every process the weights and BatchNorm statistics of the main one."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, src=0)

    def sum_gradients(self, parameters: Iterable[paddle.Tensor]) -> None:
        """Adds up the gradients of all processes; a parameter without one in this process has zeros to add."""
        if self.size == 1:
            return
        trained = [parameter for parameter in parameters if not parameter.stop_gradient]
        has_gradient = self.total([float(parameter.grad is not None) for parameter in trained])
        chosen = [parameter for parameter, count in zip(trained, has_gradient, strict=True) if count]
        for dtype in dict.fromkeys(parameter.dtype for parameter in chosen):  # with amp O2 there are two
            _sum_gradients_at_once([parameter for parameter in chosen if parameter.dtype == dtype])

    def average_statistics(self, state: Mapping[str, paddle.Tensor]) -> None:
        """The mean over processes of BatchNorm's moving statistics, so that all evaluate the same network."""
        if self.size == 1:
            return
        for key, statistics in state.items():
            if key.endswith(("._mean", "._variance")):
                dist.all_reduce(statistics)
                statistics.set_value(statistics / self.size)


def _sum_gradients_at_once(parameters: Sequence[paddle.Tensor]) -> None:
    """Of parameters of one dtype, in one message: thousands of small ones would take longer than the step."""
    gradients = [
        paddle.zeros([parameter.size], parameter.dtype) if parameter.grad is None else parameter.grad.flatten()
        for parameter in parameters
    ]
    flat = paddle.concat(gradients)
    dist.all_reduce(flat)
    for parameter, part in zip(parameters, paddle.split(flat, [p.size for p in parameters]), strict=True):
        gradient = part.reshape(parameter.shape)
        if parameter.grad is None:
            parameter.grad = gradient
        else:
            parameter.grad.set_value(gradient)


ALONE = World()


def is_main_process() -> bool:
    """Whether this process will be the main one of its run; known before `join_world`."""
    return int(os.environ.get("PADDLE_TRAINER_ID", "0")) == 0


def join_world() -> World:
    """This process's place among those that Paddle's launcher started; alone without a launcher.

    The processes talk over gloo on CPUs and over nccl on GPUs. Call it after `select_device`.
    """
    size = int(os.environ.get("PADDLE_TRAINERS_NUM", "1"))
    if size == 1:
        return ALONE
    parent = os.environ.get(PARENT_VARIABLE)
    if parent is not None:
        end_with(int(parent))
    dist.init_parallel_env()
    return World(rank=dist.get_rank(), size=size)


def local_device(device: str) -> str:
    """The GPU that the launcher gave to this process, where it started one for each GPU; else `device`."""
    given = os.environ.get("FLAGS_selected_gpus", "")  # noqa: SIM112
    return f"gpu:{given}" if given.isdecimal() and device.startswith("gpu") else device
