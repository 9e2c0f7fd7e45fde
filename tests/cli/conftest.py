"""How the tests of the command line run `ppv`: in this process where they can, as a process where they must."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from ppvcli.cli.app import main

REPO = Path(__file__).resolve().parents[2]


class Answer(NamedTuple):
    """What a run of `ppv` left behind."""

    exit_code: int
    stdout: str
    stderr: str


@pytest.fixture
def ppv(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Answer]:
    """Runs `ppv ARGS` in this process, whose environment is afterwards as it was."""
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(*args: object) -> Answer:
        capsys.readouterr()
        exit_code = main([str(arg) for arg in args])
        return Answer(exit_code, *capsys.readouterr())

    return run


@pytest.fixture
def python_process() -> Callable[..., subprocess.Popen[str]]:
    """Starts `python ARGS` from the repository, as a process of its own session, without anyone's PPV settings."""

    def start(*args: str, **env: str) -> subprocess.Popen[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PPV_") and key != "NO_COLOR"}
        return subprocess.Popen(
            [sys.executable, *args],
            cwd=REPO,
            env={**clean, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    return start
