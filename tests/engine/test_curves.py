from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppvcli.engine import curves
from ppvcli.engine.curves import TRAIN, VAL, write_curves
from ppvcli.errors import LogError
from tests.engine.run_entries import epoch_result


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def count_of(image: np.ndarray, colour: str) -> int:
    """Pixels of exactly that colour."""
    return int((image == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(axis=-1).sum())


@pytest.mark.parametrize("num_epochs", [1, 2, 15, 120])
def test_curves_show_both_lines(tmp_path: Path, num_epochs: int) -> None:
    pytest.importorskip("matplotlib")
    assert write_curves([epoch_result(i + 1) for i in range(num_epochs)], tmp_path / "curves.png")
    image = pixels(tmp_path / "curves.png")
    assert count_of(image, TRAIN) > 10
    assert count_of(image, VAL) > 10
    assert [path.name for path in tmp_path.iterdir()] == ["curves.png"]


def test_curves_change_with_the_run(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    epochs = [epoch_result(1), epoch_result(2)]
    write_curves(epochs, tmp_path / "a.png")
    write_curves([*epochs, epoch_result(3)], tmp_path / "b.png")
    write_curves([*epochs[:1], epoch_result(2, val_loss=9.0)], tmp_path / "c.png")
    images = [pixels(tmp_path / name) for name in ("a.png", "b.png", "c.png")]
    assert not (images[0] == images[1]).all()
    assert not (images[0] == images[2]).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.filterwarnings("error")
def test_curves_leave_a_gap_where_there_is_no_number(tmp_path: Path, value: float) -> None:
    pytest.importorskip("matplotlib")
    assert write_curves([epoch_result(1, val_loss=value)], tmp_path / "one.png")
    assert write_curves([epoch_result(1), epoch_result(2, val_loss=value), epoch_result(3)], tmp_path / "three.png")


def test_curves_without_matplotlib_are_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert not write_curves([epoch_result(1)], tmp_path / "curves.png")
    assert list(tmp_path.iterdir()) == []


def test_curves_that_cannot_be_written_name_file_and_way_on(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with pytest.raises(LogError, match=r"can't write .*curves\.png: No such file") as caught:
        write_curves([epoch_result(1)], tmp_path / "gone" / "curves.png")
    assert "--resume" in (caught.value.hint or "")


def test_curves_of_a_long_run_cost_less_than_a_second(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    epochs = [epoch_result(i + 1) for i in range(120)]
    write_curves(epochs, tmp_path / "curves.png")  # loads fonts
    start = time.process_time()
    write_curves(epochs, tmp_path / "curves.png")
    assert time.process_time() - start < 1.0


def test_curves_leave_pyplot_alone(tmp_path: Path) -> None:
    """It would choose a backend, and a window, for the whole process."""
    pytest.importorskip("matplotlib")
    code = (
        "import pathlib, sys; from tests.engine.run_entries import epoch_result\n"
        "from ppvcli.engine.curves import write_curves\n"
        f"assert write_curves([epoch_result(1)], pathlib.Path({str(tmp_path / 'curves.png')!r}))\n"
        "assert 'matplotlib.figure' in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    root = Path(curves.__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
