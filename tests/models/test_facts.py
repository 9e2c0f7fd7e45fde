"""Which model is meant: by name, by what a weight file says, by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppvcli.errors import UnknownNameError, UsageError
from ppvcli.models.facts import choose_row
from ppvcli.weights.formats import WeightsMetadata, write_safetensors


def _file_of(model: str | None, folder: Path) -> Path:
    path = folder / "weights.safetensors"
    write_safetensors(path, {"a": np.zeros(1, np.float32)}, metadata=WeightsMetadata(model=model))
    return path


@pytest.mark.parametrize(
    ("model", "carried", "default", "chosen"),
    [
        ("tsm", None, "tsn", "tsm_k400"),
        ("tsm", "tsm_ucf101", "tsn", "tsm_k400"),
        ("tsm", "of another program", "tsn", "tsm_k400"),
        (None, "tsm_ucf101", "tsn", "tsm_ucf101"),
        (None, None, "tsm_ucf101", "tsm_ucf101"),
    ],
)
def test_model_is_the_named_one_then_that_of_the_file_then_the_default(
    model: str | None, carried: str | None, default: str, chosen: str, tmp_path: Path
) -> None:
    assert choose_row(model, _file_of(carried, tmp_path), default=default).name == chosen


def test_file_of_an_unknown_model_is_named(tmp_path: Path) -> None:
    path = _file_of("tsm_k40", tmp_path)
    with pytest.raises(UsageError, match="says that it is of an unknown model 'tsm_k40'; nearest: tsm_k400") as caught:
        choose_row(None, path, default="tsn")
    assert str(path) in caught.value.message
    assert caught.value.hint == "name it: --model NAME"


def test_model_without_a_name_is_an_unknown_one() -> None:
    with pytest.raises(UnknownNameError, match="unknown model ''"):
        choose_row("", None, default="tsn")
