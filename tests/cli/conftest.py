"""How the tests of the command line run `ppv` as a process, where the fixture `ppv` is not enough."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


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
