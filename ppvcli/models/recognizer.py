"""A model ready for use: its network with the preprocessing and the class names that belong to these very weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle import nn

from ppvcli.errors import UsageError, WeightsNotFoundError
from ppvcli.models.load import load_model
from ppvcli.models.zoo import ModelRow, get_model_row, load_labels
from ppvcli.specs import Preprocess
from ppvcli.weights.formats import read_metadata, resolve_weights_path


@dataclass(frozen=True, kw_only=True)
class Recognizer:
    """What prediction and evaluation need of a model."""

    model: str
    """Name of its row in the zoo."""
    network: nn.Layer
    """In eval mode."""
    preprocess: Preprocess
    labels: tuple[str, ...]
    """Class names in the order of the logits; `class_0`, `class_1`, ... where nothing names them."""


def open_recognizer(
    model: str | None,
    *,
    default: str | None = None,
    weights: str | Path | None = None,
) -> Recognizer:
    """The recognizer of a model, with published weights (fetched if they are not in the store) or with `weights`.

    `model` None is the model that the weight file says it is of (every run folder does), else `default`. Preprocessing
    and labels that the weight file carries come before the published ones.

    Raises: UnknownNameError; UsageError where model and file are of different architectures or no model is named at
    all; WeightsNotFoundError for a model whose classifier nothing has trained; otherwise as `load_model`.
    """
    path = None if weights is None else resolve_weights_path(weights)
    row = _choose_row(model, path, default=default)
    network = load_model(row.name, weights=path)
    report = network.load_report
    if report.reinitialized:
        raise WeightsNotFoundError(
            f"{row.name} is a start for training: nothing has taught its classifier yet",
            hint=f"ppv train --model {row.name} --data FOLDER, then ppv predict FILE --weights RUN_DIR",
        )
    return Recognizer(
        model=row.name,
        network=network,
        preprocess=report.preprocess or row.preprocess,
        labels=_known_labels(report.labels, load_labels(row.labels), num_classes=report.num_classes),
    )


def _choose_row(model: str | None, weights: Path | None, *, default: str | None) -> ModelRow:
    metadata = None if weights is None else read_metadata(weights)
    carried = None if metadata is None else metadata.model
    name = model or carried or default
    if name is None:
        raise UsageError("no model is named", hint="--model NAME, or --weights RUN_DIR")
    row = get_model_row(name)
    # load_model would tell the same tensor by tensor
    if carried is not None and get_model_row(carried).network.architecture != row.network.architecture:
        raise UsageError(f"{weights} holds weights of {carried}, not of {row.name}", hint="leave --model out")
    return row


def _known_labels(carried: tuple[str, ...] | None, published: tuple[str, ...], *, num_classes: int) -> tuple[str, ...]:
    for names in (carried, published):
        if names is not None and len(names) == num_classes:
            return names
    return tuple(f"class_{index}" for index in range(num_classes))
