"""Mixed precision. Written by the book of Paddle's AMP; not yet run on a GPU.

Source: the reference's settings (SPEC 3.2): gradient scaling from 2^16, doubled every 2,000 good steps, halved after a
bad one; means and 3D convolutions stay in float32.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from typing import Any, Literal

import numpy as np
import paddle

from ppvcli.errors import DeviceError

BLACK_LIST = ("reduce_mean", "conv3d")
CUDNN_FLAGS = {
    "FLAGS_conv_workspace_size_limit": 800,
    "FLAGS_cudnn_exhaustive_search": True,
    "FLAGS_cudnn_batchnorm_spatial_persistent": True,
}
"""What the reference's documentation exports for mixed precision; one that stands in the environment is left alone."""


class Precision:
    """How a step computes: float32 for `level` None, else float16 where it is safe (`O1`) or nearly all (`O2`).

    With O2 the network's own weights become float16, BatchNorm excepted; the optimizer holds them in float32.
    """

    def __init__(
        self, network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, *, level: Literal["O1", "O2"] | None
    ) -> None:
        self.level = level
        self.scaler = None
        if level is None:
            return
        if paddle.device.get_device() == "cpu":
            raise DeviceError(
                f"amp {level} needs a GPU: on a CPU Paddle ignores mixed precision without a word",
                hint="--set amp=null, or --gpu",
            )
        paddle.set_flags({key: value for key, value in CUDNN_FLAGS.items() if key not in os.environ})
        paddle.amp.decorate(models=network, optimizers=optimizer, level=level, master_weight=True)
        self.scaler = paddle.amp.GradScaler(
            init_loss_scaling=2.0**16, incr_every_n_steps=2000, decr_every_n_nan_or_inf=1
        )
        _flatten_scale(self.scaler)

    def autocast(self) -> AbstractContextManager[Any]:
        """Wraps every forward pass, in evaluation too: with O2 the weights fit no other input."""
        if self.level is None:
            return nullcontext()
        return paddle.amp.auto_cast(custom_black_list=set(BLACK_LIST), level=self.level)

    def backward(self, loss: paddle.Tensor) -> None:
        """Gradients of a loss; scaled, so that small ones survive in float16."""
        (loss if self.scaler is None else self.scaler.scale(loss)).backward()

    def step(self, optimizer: paddle.optimizer.Optimizer) -> None:
        """The optimizer's step on the gradients in their true size; left out where a scaled one overflowed."""
        if self.scaler is None:
            optimizer.step()
            return
        with redirect_stdout(sys.stderr):  # Paddle prints when it halves the scale
            self.scaler.step(optimizer)
            self.scaler.update()

    def state(self) -> dict[str, Any] | None:
        """Of the scaler, ready for JSON; None in float32."""
        if self.scaler is None:
            return None
        return {
            key: value.tolist() if isinstance(value, np.ndarray) else value
            for key, value in self.scaler.state_dict().items()
        }

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """The reverse of `state`; a run that changed to mixed precision begins with a fresh scaler."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict({**state, "scale": np.array([state["scale"]], np.float32)})
            _flatten_scale(self.scaler)


def _flatten_scale(scaler: paddle.amp.GradScaler) -> None:
    """Paddle 3.3 keeps the scale as [1] and prints it through float(), which NumPy 2.4 refuses at an overflow."""
    scaler._scale = scaler._scale.reshape([])
