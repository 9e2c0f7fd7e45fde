"""Settings of the math library for training on a CPU; they must stand in the environment before Paddle is imported."""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from pathlib import Path


def tune_math_library(environ: MutableMapping[str, str]) -> None:
    """Writes the best settings for this processor into `environ`, keeping what the user has set.

    MKL takes its AVX2 kernels on AMD processors only when told so; a training step then takes about 0.8 of the time
    (docs/concepts/training.md has the measurement).
    """
    if sys.platform == "linux" and _is_amd(Path("/proc/cpuinfo")):
        environ.setdefault("MKL_DEBUG_CPU_TYPE", "5")


def _is_amd(cpuinfo: Path) -> bool:
    try:
        return "AuthenticAMD" in cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
