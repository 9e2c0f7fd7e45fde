"""Fixtures shared by all tests. Videos are rendered here; real clips are used only where `../shared` is present."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import pytest

from ppvcli.cli.app import main
from ppvcli.models.cpu import tune_math_library

REPO = Path(__file__).resolve().parents[1]

# networks of full size cost minutes: MKL gets the setting that `ppv train` gives it, before anything uses MKL
tune_math_library(os.environ)


class Answer(NamedTuple):
    """What a run of `ppv` left behind."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def ppv(capsys: pytest.CaptureFixture[str]) -> Callable[..., Answer]:
    """Runs `ppv ARGS` in this process; what it sets in its environment goes with it."""

    def run(*args: object) -> Answer:
        capsys.readouterr()
        with mock.patch.dict(os.environ):
            exit_code = main([str(arg) for arg in args])
        return Answer(exit_code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache of the test run's own, where each model is compiled once."""
    before = os.environ.get("PPV_HOME")
    home = tmp_path_factory.mktemp("home")
    os.environ["PPV_HOME"] = str(home)
    yield home
    if before is None:
        del os.environ["PPV_HOME"]
    else:
        os.environ["PPV_HOME"] = before


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
