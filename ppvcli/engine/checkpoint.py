"""A training run on disk: everything needed to go on lies in one file, written beside and moved."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors

from ppvcli.errors import WeightsFormatError, WeightsMismatchError
from ppvcli.results import EpochResult
from ppvcli.weights.formats import (
    CHECKPOINT_MODEL_PREFIX,
    CHECKPOINT_OPTIMIZER_PREFIX,
    LAST_CHECKPOINT,
    WeightsMetadata,
    read_weights,
    write_safetensors,
)

CONFIG_FILE = "config.yaml"
LOG_FILE = "log.jsonl"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run needs besides tensors. All randomness follows from the config's seed and the epoch."""

    epochs: tuple[EpochResult, ...]
    """The epochs that are done."""

    def to_json(self) -> str:
        return json.dumps({"epochs": [asdict(epoch) for epoch in self.epochs]})

    @classmethod
    def from_json(cls, text: str) -> RunState:
        return cls(epochs=tuple(_epoch_result(epoch) for epoch in json.loads(text)["epochs"]))


def save_checkpoint(
    run_dir: Path,
    network: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    *,
    state: RunState,
    metadata: WeightsMetadata,
) -> None:
    """Writes `last/checkpoint.safetensors`; an interruption at any moment leaves the one before or the new one."""
    tensors = {CHECKPOINT_MODEL_PREFIX + key: value.numpy() for key, value in network.state_dict().items()}
    tensors |= {
        CHECKPOINT_OPTIMIZER_PREFIX + key: value for key, value in optimizer_tensors(network, optimizer).items()
    }
    path = run_dir / LAST_CHECKPOINT
    path.parent.mkdir(parents=True, exist_ok=True)
    write_safetensors(
        path,
        tensors,
        metadata=WeightsMetadata(
            model=metadata.model,
            labels=metadata.labels,
            preprocess=metadata.preprocess,
            extra={"state": state.to_json()},
        ),
    )


def restore_checkpoint(run_dir: Path, network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer) -> RunState:
    """Puts the last checkpoint's tensors into `network` and `optimizer` and returns where the run stood.

    Raises: WeightsNotFoundError, WeightsFormatError; WeightsMismatchError where the file belongs to another network.
    """
    path = run_dir / LAST_CHECKPOINT
    file = read_weights(path)
    if file.form != "checkpoint" or file.metadata is None or "state" not in file.metadata.extra:
        raise WeightsFormatError(f"{path}: not a checkpoint of ppv train", hint="start the run anew with another --out")
    prefix = CHECKPOINT_OPTIMIZER_PREFIX
    with safetensors.safe_open(path, framework="numpy") as raw:
        accumulators = {key.removeprefix(prefix): raw.get_tensor(key) for key in raw.keys() if key.startswith(prefix)}  # noqa: SIM118
    model = file.tensors
    own = network.state_dict()
    wrong = sorted(set(own) ^ set(model)) or [key for key in own if list(model[key].shape) != own[key].shape]
    if wrong:
        raise WeightsMismatchError(f"{path}: tensors of another network: {', '.join(wrong)}")
    network.set_state_dict(model)
    restore_optimizer(network, optimizer, accumulators)
    return RunState.from_json(file.metadata.extra["state"])


def optimizer_tensors(network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer) -> dict[str, np.ndarray]:
    """The optimizer's accumulators as `<state-dict key>/<accumulator>`.

    Paddle names them after a counter that depends on what else was built in the process; ours hold across processes.
    """
    state = optimizer.state_dict()
    tensors = {}
    for key, parameter in network.named_parameters():
        prefix = f"{parameter.name}_"
        for name, value in state.items():
            if name.startswith(prefix):
                tensors[f"{key}/{name.removeprefix(prefix)}"] = value.numpy()
    return tensors


def restore_optimizer(
    network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer, tensors: dict[str, np.ndarray]
) -> None:
    """The reverse of `optimizer_tensors`."""
    names = {key: parameter.name for key, parameter in network.named_parameters()}
    state = {}
    for entry, value in tensors.items():
        key, _, accumulator = entry.rpartition("/")
        if key not in names:
            raise WeightsMismatchError(f"optimizer state for '{key}', which the network does not have")
        state[f"{names[key]}_{accumulator}"] = paddle.to_tensor(value)
    optimizer.set_state_dict(state)


def _epoch_result(tree: dict[str, Any]) -> EpochResult:
    return EpochResult(**{**tree, "failures": tuple((path, error) for path, error in tree["failures"])})
