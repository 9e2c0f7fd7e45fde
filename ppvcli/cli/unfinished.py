"""What to say about the weights of a training run that has not done all its epochs."""

from __future__ import annotations

import json
import re
from pathlib import Path

from ppvcli.cli import output
from ppvcli.errors import WeightsNotFoundError


def tell_unfinished(weights: str | Path | None) -> None:
    """One line on stderr where `weights` are of a run that is not finished, or goes on right now."""
    text = None if weights is None else describe_unfinished(weights)
    if text is not None:
        output.show_warning(text)


def describe_unfinished(weights: str | Path) -> str | None:
    """Such as `runs/mine is not finished: weights of epoch 3 of 15`; None for other weights, and where it is unclear.

    The run's config and log say it.
    """
    from ppvcli.results import rank_epoch
    from ppvcli.weights.formats import BEST_WEIGHTS, resolve_weights_path

    try:
        path = resolve_weights_path(weights)
        run_dir = path.parent.parent
        config = (run_dir / "config.yaml").read_text(encoding="utf-8")
        epochs = re.search(r"^epochs: ([0-9]+)$", config, re.MULTILINE)  # no YAML parser: predicting starts fast
        lines = (run_dir / "log.jsonl").read_text(encoding="utf-8").splitlines()
        done = [line for line in map(json.loads, lines) if line["kind"] == "epoch"]
        if epochs is None or not 0 < len(done) < int(epochs[1]):
            return None
        best = min(done, key=lambda line: rank_epoch(line["val_top1"], line["val_loss"]))
        epoch = (best if path.name == BEST_WEIGHTS.name else done[-1])["epoch"]
    except (WeightsNotFoundError, OSError, ValueError, KeyError, TypeError):
        return None
    return f"{run_dir} is not finished: weights of epoch {epoch} of {epochs[1]}"
