"""A process that is to end with another one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="ends processes on POSIX only")

WORKER = """
import os, sys, time
from ppvcli.processes import end_with
if "without pidfd" in sys.argv:
    del os.pidfd_open
end_with(int(sys.argv[1]))
print("works", flush=True)
time.sleep(60)
"""


def start(*arguments: str) -> subprocess.Popen[str]:
    worker = subprocess.Popen([sys.executable, "-c", WORKER, *arguments], stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    assert worker.stdout.readline() == "works\n"
    return worker


@pytest.fixture
def master() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], text=True)


def test_worker_ends_when_its_master_is_killed_even_if_nobody_asks_for_the_exit_code(
    master: subprocess.Popen[str],
) -> None:
    worker = start(str(master.pid))
    time.sleep(0.3)
    assert worker.poll() is None
    master.kill()  # and stays a zombie
    assert worker.wait(10) == 1
    master.wait()


def test_worker_without_pidfd_looks_from_time_to_time(master: subprocess.Popen[str]) -> None:
    worker = start(str(master.pid), "without pidfd")
    time.sleep(0.3)
    assert worker.poll() is None
    master.send_signal(signal.SIGTERM)
    master.wait()
    assert worker.wait(10) == 1


def test_worker_ends_when_its_master_had_ended_before(master: subprocess.Popen[str]) -> None:
    master.kill()
    master.wait()
    worker = subprocess.Popen([sys.executable, "-c", WORKER, str(master.pid)], stdout=subprocess.DEVNULL)
    assert worker.wait(10) == 1
