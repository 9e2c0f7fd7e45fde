"""A small UCF101 to prepare, and some of its classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.datasets.fake_ucf101 import SELECTED, write_source


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_source(tmp_path_factory.mktemp("source"))


@pytest.fixture
def classes(tmp_path: Path) -> Path:
    path = tmp_path / "classes.txt"
    path.write_text("".join(f"{name}\n" for name in SELECTED))
    return path
