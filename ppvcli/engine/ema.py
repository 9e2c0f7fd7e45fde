"""An exponential moving average of a network's weights, which is validated and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import paddle


class WeightAverage:
    """average = d * average + (1 - d) * weights after every step; BatchNorm's statistics are averaged too.

    In float32 whatever the weights are in. d is `decay`, but no more than (1 + n) / (10 + n) in step n = 0, 1, ..: the
    weights that a run begins with, an untrained classifier among them, would else stay in the average for thousands of
    steps. Source of this warm-up: TensorFlow's `ExponentialMovingAverage(num_updates)`.
    """

    def __init__(self, network: paddle.nn.Layer, *, decay: float) -> None:
        self.decay = decay
        self.network = network
        self.num_updates = 0
        self.tensors = {key: _wide(tensor).clone() for key, tensor in network.state_dict().items()}

    @paddle.no_grad()
    def update(self) -> None:
        """Takes the network's weights as they are now into the average."""
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        for key, tensor in self.network.state_dict().items():
            average = self.tensors[key]
            average.set_value(decay * average + (1.0 - decay) * _wide(tensor))
        self.num_updates += 1

    def state_dict(self) -> dict[str, paddle.Tensor]:
        """The average, by the keys of the network's state dict."""
        return self.tensors

    def load(self, arrays: Mapping[str, np.ndarray], *, num_updates: int) -> None:
        """The averages of a checkpoint, by state-dict key, and how many steps are in them."""
        for key, average in self.tensors.items():
            average.set_value(arrays[key])
        self.num_updates = num_updates

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The average stands in the network while the context is open, then the weights are back."""
        state = self.network.state_dict()
        weights = {key: tensor.clone().detach() for key, tensor in state.items()}
        for key, tensor in state.items():
            tensor.set_value(self.tensors[key].astype(tensor.dtype))
        try:
            yield
        finally:
            for key, tensor in state.items():
                tensor.set_value(weights[key])


def _wide(tensor: paddle.Tensor) -> paddle.Tensor:
    tensor = tensor.detach()
    return tensor.astype("float32") if tensor.dtype == paddle.float16 else tensor
