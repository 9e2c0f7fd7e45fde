"""How many cores a process may use: affinity, and control groups of both versions."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ppvcli import machine
from ppvcli.errors import UsageError


def _write(root: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")


@pytest.mark.parametrize(
    ("membership", "files", "cores"),
    [
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b", {"a/cpu.max": "50000 100000", "a/b/cpu.max": "400000 100000"}, 0.5),  # the parent is tighter
        ("0::/not/seen/here", {"cpu.max": "200000 100000"}, 2.0),  # a container sees its own group as the root
        ("0::/", {"unified/cpu.max": "300000 100000"}, 3.0),
        ("0::/", {"cpu.max": "nonsense"}, None),
        ("0::/", {"cpu.max": "1000 0"}, None),
        ("3:cpu,cpuacct:/x", {"cpu/x/cpu.cfs_quota_us": "250000", "cpu/x/cpu.cfs_period_us": "100000"}, 2.5),
        ("3:cpu,cpuacct:/x", {"cpu,cpuacct/cpu.cfs_quota_us": "100000", "cpu,cpuacct/cpu.cfs_period_us": "50000"}, 2.0),
        ("3:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("4:cpuset:/\n9:name=systemd:/", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_cgroup_cores_is_the_tightest_quota(
    membership: str, files: dict[str, str], cores: float | None, tmp_path: Path
) -> None:
    _write(tmp_path, {f"groups/{name}": text for name, text in files.items()} | {"membership": membership})
    assert machine.cgroup_cores(tmp_path / "groups", tmp_path / "membership") == cores


def test_cgroup_cores_without_control_groups_is_none(tmp_path: Path) -> None:
    assert machine.cgroup_cores(tmp_path, tmp_path / "none") is None


@pytest.mark.parametrize(
    ("affinity", "quota", "cores"),
    [({0, 1, 2, 3}, None, 4), ({0, 1, 2, 3}, 1.5, 2), ({0}, 8.0, 1), ({0, 1}, 0.1, 1)],
)
def test_usable_cores_respects_affinity_and_quota(
    affinity: set[int], quota: float | None, cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: affinity, raising=False)
    monkeypatch.setattr(machine, "cgroup_cores", lambda *args: quota)
    assert machine.usable_cores() == cores
    assert machine.resolve_threads(None) == cores


@pytest.mark.parametrize(("threads", "expected"), [(1, 1), (2, 2), (3, 2), (1000, 2)])
def test_threads_are_at_most_the_usable_cores(threads: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "usable_cores", lambda: 2)
    assert machine.resolve_threads(threads) == expected


@pytest.mark.parametrize("threads", [0, -1, 1025, 1.5, "2"])
def test_threads_that_are_no_number_in_range_are_refused(threads: int) -> None:
    with pytest.raises(UsageError, match=f"threads must be between 1 and 1024, got {threads!r}"):
        machine.resolve_threads(threads)


def test_cpu_features_are_a_short_stable_text() -> None:
    assert machine.cpu_features() == machine.cpu_features()
    assert len(machine.cpu_features()) == 16
