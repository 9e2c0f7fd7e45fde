"""A model ready for use: its network with the preprocessing and the class names that belong to these very weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from paddle import nn

from ppvcli.models.facts import choose_row, known_labels, untrained_error
from ppvcli.models.load import load_model
from ppvcli.models.zoo import load_labels
from ppvcli.specs import Preprocess
from ppvcli.weights.formats import resolve_weights_path


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


def open_recognizer(model: str | None, *, weights: str | Path | None = None) -> Recognizer:
    """The recognizer of a model, with published weights (fetched if they are not in the store) or with `weights`.

    `model` None is the model that the weight file says it is of (every run folder does). Preprocessing and labels that
    the weight file carries come before the published ones.

    Raises: UnknownNameError; UsageError where model and file are of different architectures or no model is named at
    all; WeightsNotFoundError for a model whose classifier nothing has trained; otherwise as `load_model`.
    """
    path = None if weights is None else resolve_weights_path(weights)
    row = choose_row(model, path, default=None)
    network = load_model(row.name, weights=path)
    report = network.load_report
    if report.reinitialized:
        raise untrained_error(row)
    return Recognizer(
        model=row.name,
        network=network,
        preprocess=report.preprocess or row.preprocess,
        labels=known_labels(report.labels, load_labels(row.labels), num_classes=report.num_classes),
    )
