"""The child of the check: when it ends. What it finds is in the tests of those who ask it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ppvcli.deploy import check
from ppvcli.deploy.check import check_program
from ppvcli.deploy.runtimes import EngineSettings
from ppvcli.errors import RuntimeFailedError
from tests.small_model import PREPROCESS


@pytest.mark.skipif(os.name != "posix", reason="ends processes on POSIX only")
def test_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    os.mkfifo(tmp_path / "clips.npy")  # nobody writes: the child waits for ever
    child = subprocess.Popen(
        [sys.executable, "-c", "from ppvcli.deploy.check import main; main()"], stdin=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    request = {"parent": parent.pid, "runtime": "onnxruntime", "program": "none", "clips": str(tmp_path / "clips.npy")}
    child.stdin.write(json.dumps(request))
    child.stdin.close()
    try:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(1)
        parent.kill()
        assert child.wait(20) == 1
    finally:
        child.kill()
        child.wait()
        parent.wait()


@pytest.mark.parametrize(("num_clips", "timeout_s"), [(2, 320), (1000, 10_300)])
def test_child_knows_its_parent_and_has_more_time_for_more_clips(
    num_clips: int, timeout_s: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(args: object, *, input: str, timeout: float, **settings: object) -> object:
        assert json.loads(input)["parent"] == os.getpid()
        raise subprocess.TimeoutExpired("it", timeout)

    monkeypatch.setattr(check.subprocess, "run", run)
    with pytest.raises(RuntimeFailedError, match=f"gives no answer to .* in {timeout_s} s"):
        check_program(
            "onnxruntime",
            tmp_path / "inference.onnx",
            clips_path=tmp_path / "clips.npy",
            logits_nk=np.zeros((num_clips, 3), np.float32),
            preprocess=PREPROCESS,
            settings=EngineSettings(threads=1),
        )


def test_child_starts_where_the_import_path_holds_more_than_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path, None])
    with pytest.raises(RuntimeFailedError, match=r"clips\.npy"):  # it got as far as looking for its clips
        check_program(
            "onnxruntime",
            tmp_path / "inference.onnx",
            clips_path=tmp_path / "clips.npy",
            logits_nk=np.zeros((1, 3), np.float32),
            preprocess=PREPROCESS,
            settings=EngineSettings(threads=1),
        )
