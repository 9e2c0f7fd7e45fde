"""Settings of the math library for training on a CPU; they must stand in the environment before Paddle is imported."""

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


def _is_amd(cpuinfo: Path) -> bool:
    try:
        return "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
