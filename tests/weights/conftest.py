"""The store of a test, a server for it, and small published files."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ppvcli.weights.store import WeightSource
from tests.weights.file_server import FileServer


def weight_file(seed: int, *, num_rows: int = 64) -> bytes:
    """A `.pdparams` file of 5 kB a row; 64 rows are nine of the chunks that a transfer is received in."""
    rng = np.random.default_rng(seed)
    tensors = {"backbone.conv.weight": rng.random((num_rows, 1152)), "head.fc.bias": rng.random(400)}
    return pickle.dumps({key: tensor.astype("float32") for key, tensor in tensors.items()}, protocol=2)


PUBLISHED = weight_file(1)


@pytest.fixture
def store_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The (not yet existing) folder of the test's own store."""
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("PPV_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return tmp_path / "home" / "weights"


@pytest.fixture
def server() -> Iterator[FileServer]:
    with FileServer(PUBLISHED) as running:
        yield running


@pytest.fixture
def source(server: FileServer, store_dir: Path) -> WeightSource:
    return WeightSource(name="some_model", url=f"{server.base}/release/TSM/some.pdparams")
