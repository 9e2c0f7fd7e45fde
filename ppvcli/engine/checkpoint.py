"""A training run on disk: everything needed to go on lies in one file, written beside and moved."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import safetensors

from ppvcli.engine.ema import WeightAverage
from ppvcli.errors import WeightsFormatError, WeightsMismatchError
from ppvcli.results import EpochResult, EvalReport, TrainResult, rank_epoch
from ppvcli.weights.formats import (
    CHECKPOINT_MODEL_PREFIX,
    CHECKPOINT_OPTIMIZER_PREFIX,
    CHECKPOINT_RAW_PREFIX,
    LAST_CHECKPOINT,
    WeightsMetadata,
    read_metadata,
    read_weights,
    write_safetensors,
)

CONFIG_FILE = "config.yaml"
SPLIT_FILE = "split.jsonl"
"""The clips of the run, see `datasets/split_file.py`."""
LOG_FILE = "log.jsonl"
START_FILE = "start.json"
"""Which tensors the first weights filled, see `StartReport`."""
REPORT_FILE = Path("last") / "report.json"
"""What the evaluation after the last epoch found."""
_EMA_UPDATES = "ema_updates"
_MASTER = "master_weight"
_ANEW = "start the run anew with another --out"


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run needs besides tensors. All randomness follows from the config's seed and the epoch."""

    epochs: tuple[EpochResult, ...]
    """The epochs that are done."""
    scaler: dict[str, Any] | None = None
    """Of the gradients in mixed precision."""

    def to_json(self) -> str:
        """Of clips that fail in many epochs each is written once: the header of a weight file has room for 100 MB."""
        failures = dict.fromkeys(failure for epoch in self.epochs for failure in epoch.failures)
        place = {failure: i for i, failure in enumerate(failures)}
        epochs = [
            {**asdict(replace(epoch, failures=())), "failures": [place[failure] for failure in epoch.failures]}
            for epoch in self.epochs
        ]
        tree = {"epochs": epochs, "failures": list(failures), "scaler": self.scaler}
        return json.dumps(tree, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> RunState:
        tree = json.loads(text)
        clips = tree.get("failures")  # not in early checkpoints, where each epoch has its own
        epochs = tuple(_epoch_result(epoch, clips) for epoch in tree["epochs"])
        return cls(epochs=epochs, scaler=tree.get("scaler"))


def save_checkpoint(
    run_dir: Path,
    network: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    *,
    state: RunState,
    metadata: WeightsMetadata,
    average: WeightAverage | None = None,
) -> None:
    """Writes `last/checkpoint.safetensors`; an interruption at any moment leaves the one before or the new one.

    What stands for the model, here and wherever a run is loaded, is the `average` where there is one.
    """
    weights = network.state_dict()
    tensors = {CHECKPOINT_MODEL_PREFIX + key: value.numpy() for key, value in (average or network).state_dict().items()}
    if average is not None:
        tensors |= {CHECKPOINT_RAW_PREFIX + key: value.numpy() for key, value in weights.items()}
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
            network=metadata.network,
            extra={"state": state.to_json()} | ({} if average is None else {_EMA_UPDATES: str(average.num_updates)}),
        ),
    )


def restore_checkpoint(
    run_dir: Path,
    network: paddle.nn.Layer,
    optimizer: paddle.optimizer.Optimizer,
    *,
    average: WeightAverage | None = None,
) -> RunState:
    """Puts the last checkpoint's tensors into `network`, `optimizer` and `average`; returns where the run stood.

    Raises: WeightsNotFoundError, WeightsFormatError; WeightsMismatchError where the file belongs to another network, or
    to a run with an `average` and this is none, or the reverse.
    """
    path = run_dir / LAST_CHECKPOINT
    file = read_weights(path)
    if file.form != "checkpoint" or file.metadata is None or "state" not in file.metadata.extra:
        raise WeightsFormatError(f"{path}: not a checkpoint of ppv train", hint=_ANEW)
    if (average is not None) != (_EMA_UPDATES in file.metadata.extra):
        state = "on" if average is not None else "off"
        raise WeightsMismatchError(f"{path}: ema_decay was switched {state} after this checkpoint", hint=_ANEW)
    accumulators = _read_prefixed(path, CHECKPOINT_OPTIMIZER_PREFIX)
    weights = file.tensors
    if average is not None:
        weights = _read_prefixed(path, CHECKPOINT_RAW_PREFIX)
        average.load(file.tensors, num_updates=int(file.metadata.extra[_EMA_UPDATES]))
    own = network.state_dict()
    wrong = sorted(set(own) ^ set(weights)) or [key for key in own if list(weights[key].shape) != own[key].shape]
    if wrong:
        raise WeightsMismatchError(f"{path}: tensors of another network: {', '.join(wrong)}")
    for key, tensor in own.items():
        tensor.set_value(paddle.to_tensor(weights[key]).astype(tensor.dtype))  # float16 comes from files as float32
    restore_optimizer(network, optimizer, accumulators)
    return RunState.from_json(file.metadata.extra["state"])


def num_finished_epochs(run_dir: Path) -> int:
    """How many epochs of a run are in its checkpoint. Raises: WeightsFormatError where that is damaged."""
    return len(_read_state(run_dir).epochs) if (run_dir / LAST_CHECKPOINT).exists() else 0


def read_result(run_dir: Path, *, model: str) -> TrainResult:
    """What a finished run wrote. Raises: WeightsNotFoundError, WeightsFormatError where it is absent or damaged."""
    state = _read_state(run_dir)
    try:
        report = EvalReport.from_dict(json.loads((run_dir / REPORT_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WeightsFormatError(
            f"can't read {run_dir / REPORT_FILE}, the last evaluation of the run: "
            f"{getattr(error, 'strerror', None) or error}",
            hint=f"ppv eval --weights {shlex.quote(str(run_dir / 'last'))} evaluates again",
        ) from error
    return train_result(run_dir, state, model=model, val=report)


def _read_state(run_dir: Path) -> RunState:
    path = run_dir / LAST_CHECKPOINT
    metadata = read_metadata(path)
    try:
        return RunState.from_json((metadata or WeightsMetadata()).extra["state"])
    except (ValueError, LookupError, TypeError) as error:
        raise WeightsFormatError(f"{path}: not a checkpoint of ppv train", hint=_ANEW) from error


def train_result(run_dir: Path, state: RunState, *, model: str, val: EvalReport) -> TrainResult:
    """The result of a run that has done all its epochs."""
    best = best_epoch(state.epochs)
    return TrainResult(run_dir=str(run_dir), model=model, epochs=state.epochs, best_epoch=best, val=val)


def best_epoch(epochs: Sequence[EpochResult]) -> int:
    """The number of the best epoch by `rank_epoch`; of equal ones the first."""
    return min(epochs, key=lambda result: rank_epoch(result.val_top1, result.val_loss)).epoch


def _read_prefixed(path: Path, prefix: str) -> dict[str, np.ndarray]:
    with safetensors.safe_open(path, framework="numpy") as raw:
        return {key.removeprefix(prefix): raw.get_tensor(key) for key in raw.keys() if key.startswith(prefix)}  # noqa: SIM118


def optimizer_tensors(network: paddle.nn.Layer, optimizer: paddle.optimizer.Optimizer) -> dict[str, np.ndarray]:
    """The optimizer's accumulators as `<state-dict key>/<accumulator>`.

    Paddle names them after a counter that depends on what else was built in the process; ours hold across processes.
    The float32 weights behind float16 ones count among them.
    """
    state = optimizer.state_dict()
    masters = state.pop("master_weights", {})
    tensors = {}
    for key, parameter in network.named_parameters():
        if parameter.name in masters:
            tensors[f"{key}/{_MASTER}"] = masters[parameter.name].numpy()
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
    state: dict[str, Any] = {}
    masters = {}
    for entry, value in tensors.items():
        key, _, accumulator = entry.rpartition("/")
        if key not in names:
            raise WeightsMismatchError(f"optimizer state for '{key}', which the network does not have")
        if accumulator == _MASTER:
            masters[names[key]] = paddle.to_tensor(value)
        else:
            state[f"{names[key]}_{accumulator}"] = paddle.to_tensor(value)
    if masters:
        state["master_weights"] = masters
    optimizer.set_state_dict(state)


def _epoch_result(tree: dict[str, Any], clips: Sequence[Sequence[str]] | None) -> EpochResult:
    failures = tree["failures"] if clips is None else [clips[i] for i in tree["failures"]]
    return EpochResult(**{**tree, "failures": tuple((path, error) for path, error in failures)})
