"""How many threads Paddle is told to use."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from ppvcli.models.cpu import set_threads


@pytest.mark.parametrize(
    ("environ", "threads", "expected"),
    [
        ({}, None, (4, "4", "4")),
        ({}, 2, (2, "2", "2")),
        ({"OMP_NUM_THREADS": "3"}, None, (3, "3", "3")),
        ({"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "1"}, None, (3, "3", "1")),
        ({"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "1"}, 2, (2, "2", "2")),
        ({"OMP_NUM_THREADS": ""}, None, (4, "4", "4")),
        ({"OMP_NUM_THREADS": "many"}, None, (4, "4", "4")),
    ],
)
def test_threads_come_from_the_request_then_the_user_then_the_default(
    environ: dict[str, str], threads: int | None, expected: tuple[int, str, str]
) -> None:
    number = set_threads(environ, threads, default=4)
    assert (number, environ["OMP_NUM_THREADS"], environ["MKL_NUM_THREADS"]) == expected


def test_paddle_keeps_what_was_set_before_its_import() -> None:
    code = (
        "import os; os.environ.pop('OMP_NUM_THREADS', None); from ppvcli.models.cpu import set_threads\n"
        "set_threads(os.environ, 3, default=1); import paddle; print(os.environ['OMP_NUM_THREADS'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == "3"


@pytest.mark.parametrize(
    ("calls", "threads"),
    [
        ("load_paddle()", "8"),
        ("load_paddle(num_processes=2); load_paddle(num_processes=2)", "4"),
        ("load_paddle(num_processes=2); load_paddle(3)", "3"),  # for the processes that are started
        ("import paddle; load_paddle()", "1"),  # somebody else's choice
    ],
)
def test_load_paddle_takes_the_share_of_the_cores(calls: str, threads: str) -> None:
    code = (
        "import os; from ppvcli.models import device; from ppvcli.models.device import load_paddle\n"
        f"device.usable_cores = device.resolve_threads.__globals__['usable_cores'] = lambda: 8\n{calls}\n"
        "print(os.environ['OMP_NUM_THREADS'])"
    )
    env = {key: value for key, value in os.environ.items() if not key.endswith("_NUM_THREADS")}
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert found.stdout.split()[-1] == threads
