"""Training on several processes: starts Paddle's launcher, follows the main one's log, reports one that fails.

The launcher runs `ppv train` once for each process, which finds its place in the environment (`engine/distributed.py`).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ppvcli.engine.checkpoint import LOG_FILE, START_FILE
from ppvcli.engine.distributed import PARENT_VARIABLE
from ppvcli.engine.log import LogFollower
from ppvcli.engine.progress import StepReport, TrainObserver
from ppvcli.errors import RankError, UsageError
from ppvcli.results import StartReport

POLL_S = 0.5
LAST_LINES = 15
GRACE_S = 10.0
"""Between asking the launcher to stop and killing it."""
_NOISE = re.compile(r"^(LAUNCH |I\d{4} |=+( |$)|FLAGS\(|-{5,})|ccache|warnings\.warn|^\s*$")
"""What Paddle says at every start."""
_PEER_LOST = re.compile(r"gloo|nccl|by peer", re.IGNORECASE)
"""In the error of a process whose partner is gone."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The processes that one run is spread over."""

    num_processes: int
    """On this machine; with GPUs, one for each."""
    gpus: tuple[int, ...] = ()
    """Their numbers on this machine; empty on CPUs."""
    num_nodes: int = 1
    master: str | None = None
    """`host:port` of the first machine, the same on all of them; needed with more than one."""

    def __post_init__(self) -> None:
        if self.num_nodes > 1 and self.master is None:
            raise UsageError(
                f"{self.num_nodes} machines need to find each other",
                hint="--master HOST:PORT, the address of the first machine, the same on all",
            )
        if self.master is not None and not re.fullmatch(r"[^\s:]+:\d{1,5}", self.master):
            raise UsageError(f"--master {self.master}: expected HOST:PORT", hint="--master 192.168.0.10:49178")

    @property
    def size(self) -> int:
        """Processes on all machines."""
        return self.num_processes * self.num_nodes


def launch(arguments: Sequence[str], run_dir: Path, *, cluster: Cluster, observer: TrainObserver | None = None) -> None:
    """Runs `ppv ARGUMENTS` as the processes of `cluster` until all are done; the run is written into `run_dir`.

    Raises: RankError where a process fails, with its last lines. KeyboardInterrupt stops all processes first.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ppv-ranks-") as log_dir:
        command = [sys.executable, *_launcher(cluster, Path(log_dir)), sys.executable, "-m", "ppvcli", *arguments]
        follower = LogFollower(run_dir / LOG_FILE)
        follower.poll()  # what an earlier part of the run wrote is no news
        started = (run_dir / START_FILE).exists()
        with (Path(log_dir) / "launch.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
            )
            try:
                while process.poll() is None:
                    started = started or _show_start(run_dir, observer)
                    _show(follower, observer)
                    time.sleep(POLL_S)
            finally:
                _stop(process)
        _show(follower, observer)
        if process.returncode != 0:
            raise describe_failure(Path(log_dir), process.returncode, run_dir)


def _launcher(cluster: Cluster, log_dir: Path) -> list[str]:
    options = ["-m", "paddle.distributed.launch", f"--log_dir={log_dir}", "--max_restart=0"]
    if cluster.gpus:
        options.append(f"--devices={','.join(map(str, cluster.gpus))}")
    else:
        options.append(f"--nproc_per_node={cluster.num_processes}")
    if cluster.num_nodes > 1:
        options += [f"--nnodes={cluster.num_nodes}", f"--master={cluster.master}"]
    return options


def _show_start(run_dir: Path, observer: TrainObserver | None) -> bool:
    """Whether the main process has written what it begins with; the observer is then told."""
    try:
        report = StartReport.from_dict(json.loads((run_dir / START_FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return False
    if observer is not None:
        observer.on_start(report)
    return True


def _show(follower: LogFollower, observer: TrainObserver | None) -> None:
    for entry in follower.poll():
        if observer is None:
            continue
        if isinstance(entry, StepReport):
            observer.on_step(entry)
        else:
            observer.on_epoch(entry)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends the launcher and everything it started, if it still runs."""
    if process.poll() is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def describe_failure(log_dir: Path, code: int, run_dir: Path) -> RankError:
    """The error of the process that failed first: the others then lose their connection to it, and fail as well."""
    launch_log = (log_dir / "launch.log").read_text(encoding="utf-8", errors="replace")
    named = re.search(r"Container rank (\d+) status failed .*code (-?\d+)", launch_log)
    logs = {int(path.suffix[1:]): _last_lines(path) for path in log_dir.glob("workerlog.*")}
    first = [rank for rank in sorted(logs) if not any(_PEER_LOST.search(line) for line in logs[rank])]
    if named is None or int(named[1]) not in logs:
        who, lines = f"Paddle's launcher ended with code {code}", _last_lines(log_dir / "launch.log")
    elif int(named[1]) in first or len(first) != 1:
        who, lines = f"process {named[1]} ended with code {named[2]}", logs[int(named[1])]
    else:
        who, lines = f"process {first[0]} ended without a word, killed perhaps", logs[first[0]]
    run = shlex.quote(str(run_dir))
    return RankError(
        "\n".join([f"{who}; its last lines:", *(f"  {line}" for line in lines)]),
        hint=f"ppv train --resume {run} goes on after the last finished epoch, once the cause is gone",
    )


def _last_lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8", errors="replace")
    return [line for line in text.splitlines() if not _NOISE.search(line)][-LAST_LINES:]
