"""The processor under this process: how many cores it may use, and what a compiled program depends on."""

from __future__ import annotations

import hashlib
import math
import os
import platform
from functools import cache
from numbers import Integral
from pathlib import Path

from ppvcli.errors import UsageError

MAX_THREADS = 1024
_CGROUPS = Path("/sys/fs/cgroup")


def resolve_threads(threads: int | None) -> int:
    """`threads`, but for None, or more than this process may use, the number of cores that it may use.

    More threads than cores wait for each other: a clip takes minutes with a thousand of them.

    Raises: UsageError for what is no whole number from 1 to 1024.
    """
    if threads is None:
        return usable_cores()
    if not isinstance(threads, Integral) or not 1 <= threads <= MAX_THREADS:
        raise UsageError(
            f"threads must be between 1 and {MAX_THREADS}, got {threads!r}", hint="leave it out to use every core"
        )
    return min(threads, usable_cores())


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and the time its control groups give it, rounded up."""
    # not on every system
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    quota = cgroup_cores(_CGROUPS, Path("/proc/self/cgroup"))
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def cgroup_cores(root: Path, membership: Path) -> float | None:
    """The tightest CPU quota, in cores, of a process's control groups (v1 or v2) and their parents; None without one.

    `root` is where the groups are mounted, `membership` the file that names those of the process. A container often
    sees its own group as the root whatever the name says, so names that are not there count from their parents on.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    quotas = []
    for line in lines:
        number, controllers, name = line.split(":", 2)
        if number == "0" and not controllers:
            mounts, read = (root, root / "unified"), _quota_v2
        elif "cpu" in controllers.split(","):
            mounts, read = (root / "cpu", root / controllers), _quota_v1
        else:
            continue
        for mount in mounts:
            group = mount / name.lstrip("/")
            for folder in (group, *group.parents):
                quotas.append(read(folder))
                if folder == mount:
                    break
    return min((quota for quota in quotas if quota is not None), default=None)


def _quota_v2(group: Path) -> float | None:
    """Of `cpu.max`, such as `150000 100000` or `max 100000`."""
    try:
        quota, period = (group / "cpu.max").read_text(encoding="utf-8").split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(group: Path) -> float | None:
    try:
        quota, period = (
            int((group / f"cpu.cfs_{name}_us").read_text(encoding="utf-8")) for name in ("quota", "period")
        )
        return quota / period if quota > 0 else None
    except (OSError, ValueError, ZeroDivisionError):
        return None


@cache
def cpu_features() -> str:
    """A short text that differs between processors for which engines compile different programs."""
    facts = [platform.system(), platform.machine()]
    try:
        wanted = ("model name", "flags", "Features")
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if not line.strip():
                    break  # the first core stands for all
                if line.startswith(wanted):
                    facts.append(" ".join(line.split()))
    except OSError:
        facts.append(platform.processor())
    return hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
