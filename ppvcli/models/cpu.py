"""Settings of the math library for work on a CPU; they must stand in the environment before Paddle is imported."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from pathlib import Path


def tune_math_library(environ: MutableMapping[str, str]) -> None:
    """Writes the best settings for this processor into `environ`, keeping what the user has set.

    MKL takes its AVX2 kernels on AMD processors only when told so; without them a training step takes 1.3 to 1.5 times
    as long (docs/concepts/training.md has the measurement).
    """
    if sys.platform == "linux" and _is_amd(Path("/proc/cpuinfo")):
        environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def set_threads(environ: MutableMapping[str, str], threads: int | None, *, default: int) -> int:
    """Writes how many threads Paddle computes with on a CPU into `environ`, and returns it.

    None keeps what the user has set in OMP_NUM_THREADS, else takes `default`. Both variables are needed: Paddle's own
    loops follow OMP_NUM_THREADS, for which it takes 1 when nothing is set, and MKL's follow MKL_NUM_THREADS. Neither
    Paddle's flags nor its API change the number (docs/guides/evaluate.md has the measurement).
    """
    inherited = environ.get("OMP_NUM_THREADS", "")
    if threads is None and inherited.isdecimal() and int(inherited) > 0:
        environ.setdefault("MKL_NUM_THREADS", inherited)
        return int(inherited)
    number = threads or default
    environ.update(OMP_NUM_THREADS=str(number), MKL_NUM_THREADS=str(number))
    return number


def _is_amd(cpuinfo: Path) -> bool:
    try:
        return "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
