"""Fixtures shared by all tests. Videos are rendered here; real clips are used only where `../shared` is present."""

from __future__ import annotations

from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def goldens_dir() -> Path:
    """Facts of the reference that travel with the repository."""
    return REPO / "tests" / "goldens"


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The folder of real clips and full goldens beside the repository; tests that want it skip where it is absent."""
    path = REPO.parent / "shared"
    if not path.is_dir():
        pytest.skip("needs the folder ../shared with real clips, which is not part of the repository")
    return path
