"""From a NetworkSpec to a network: the table of architectures, the keys and shapes of their state dicts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

import numpy as np
import paddle
from paddle import nn

from ppvcli.errors import UsageError
from ppvcli.models.distilled import DistilledPair
from ppvcli.models.pptsm import PPTSM
from ppvcli.models.pptsmv2 import PPTSMv2
from ppvcli.models.pptsn import PPTSN
from ppvcli.models.tsm import TSM
from ppvcli.models.tsm_efflite0 import TSMEfficientNetLite0
from ppvcli.models.tsn import TSN
from ppvcli.specs import NetworkSpec

ARCHITECTURES: dict[str, Callable[..., nn.Layer]] = {
    "tsn": TSN,
    "tsm": TSM,
    "pptsn": PPTSN,
    "pptsm": PPTSM,
    "pptsmv2": PPTSMv2,
    "tsm_efflite0": TSMEfficientNetLite0,
}
"""Each takes (spec, num_classes, *, dropout) and maps float32 [N, T, 3, H, W] to logits [N, K]."""

MIN_SEGMENTS = 3
"""Of a shifting network: Paddle's kernel wants the shifted share of the channels, 1/T each way, below one half."""


def build_network(spec: NetworkSpec, num_classes: int, *, dropout: float | None = None) -> nn.Layer:
    """A new network in training mode, initialised as the reference does it; `dropout` None is the family's own.

    Every parameter carries its factor of the learning rate (`optimize_attr`) and, where it has its own weight decay,
    its `regularizer`.

    Raises: UsageError for a spec that no network can have.
    """
    _check(spec)
    # said by Paddle's BatchNorm, of what it always does
    warnings.filterwarnings("ignore", message="When training, we now always track", module=r"paddle\.")
    network = DistilledPair if spec.teacher is not None else ARCHITECTURES[spec.architecture]
    return network(spec, num_classes, dropout=dropout)


def _check(spec: NetworkSpec) -> None:
    if spec.data_format != "NCHW" and spec.architecture != "tsm":
        raise UsageError(f"{spec.architecture} has no {spec.data_format} form; only tsm has")
    if spec.temporal_attention and spec.architecture != "pptsmv2":
        raise UsageError(f"{spec.architecture} has no temporal attention; only pptsmv2 has")
    if not spec.temporal_shift and spec.architecture != "tsm_efflite0":
        raise UsageError(f"the temporal shift of {spec.architecture} can't be switched off; that of tsm_efflite0 can")
    if spec.architecture not in ("tsn", "pptsn") and (spec.num_segments is None or spec.num_segments < MIN_SEGMENTS):
        raise UsageError(
            f"{spec.architecture} shifts features over time and needs num_segments of {MIN_SEGMENTS} or more, "
            f"got {spec.num_segments}"
        )
    if spec.teacher is not None:
        if (spec.architecture, spec.teacher.architecture) != ("pptsmv2", "pptsm"):
            raise UsageError(
                f"a DML pair is a pptsmv2 student with a pptsm teacher, got {spec.architecture} with "
                f"{spec.teacher.architecture}"
            )
        if spec.teacher.num_segments != spec.num_segments:
            raise UsageError(
                f"student and teacher see the same clips, got num_segments {spec.num_segments} and "
                f"{spec.teacher.num_segments}"
            )


def expected_shapes(spec: NetworkSpec, num_classes: int) -> dict[str, tuple[int, ...]]:
    """State-dict key -> shape of the network that `build_network` would give, without allocating its tensors."""
    with paddle.LazyGuard():
        network = build_network(spec, num_classes)
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


def classifier_keys(spec: NetworkSpec) -> tuple[str, ...]:
    """State-dict keys of the layers whose size is the number of classes, each layer's weight before its bias."""
    if spec.teacher is not None:
        layers = ["Teacher.1.fc", "Student.0.fc"]
    else:
        layers = ["backbone.fc" if spec.architecture == "pptsmv2" else "head.fc"]
    return tuple(f"{layer}.{part}" for layer in layers for part in ("weight", "bias"))


def build_with_weights(spec: NetworkSpec, num_classes: int, *, state: Mapping[str, np.ndarray]) -> nn.Layer:
    """A network in eval mode with `state` in it; keys that `state` lacks are initialised as in `build_network`.

    `state` must fit: its keys are some of `expected_shapes` and its arrays have those shapes.
    """
    # tensors that are about to be overwritten are neither allocated nor drawn: 0.03 s instead of 0.5 s for a ResNet-50
    with paddle.LazyGuard():
        network = build_network(spec, num_classes)
    tensors = network.state_dict()
    assert state.keys() <= tensors.keys()
    for key, tensor in tensors.items():
        if key in state:
            tensor.set_value(state[key].astype(np.float32, copy=False))
        else:
            tensor.initialize()
    network.eval()
    return network
