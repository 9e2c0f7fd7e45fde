"""Several processes train one network, through Paddle's launcher, on clips of moving blocks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ppvcli.configs.load import dump_config, parse_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.engine import launch
from ppvcli.engine.checkpoint import read_result
from ppvcli.engine.launch import Cluster
from ppvcli.engine.run import train
from ppvcli.errors import UsageError
from ppvcli.video.render import write_video
from ppvcli.weights.formats import read_weights

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
PATIENCE_S = 240.0


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for i in range(9):
        right = bool(i % 2)
        frames = np.full((12, 48, 48, 3), 40, np.uint8)
        for t in range(12):
            x = 2 * t if right else 24 - 2 * t
            frames[t, 3 * i : 3 * i + 14, x : x + 14] = (230, 60, 40) if right else (40, 60, 230)
        path = root / ("right" if right else "left") / f"{'val' if i > 5 else 'train'}_{i}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, frames)
    return root


def make_config(clips: Path, **changes: object) -> TrainConfig:
    tree = {
        # statistics of a batch are those of one process's clips: only without them are runs comparable
        "model": {"name": "tsm_efflite0", "dropout": 0.0, "freeze_batchnorm": True},
        "data": {
            "root": str(clips),
            "group_pattern": "^(train|val)_",
            "val_groups": ["val"],
            "num_workers": 0,
        },
        "input": {"resize": {"size_hw": [32, 32]}, "frame_interval": 1},
        "optimizer": {"name": "momentum", "learning_rate": 0.05},
        "epochs": 2,
        "batch_size": 4,
        "log_interval": 1,
    }
    return parse_config({**tree, **changes}, source="test")


def start_training(config: TrainConfig, folder: Path, *options: str) -> subprocess.Popen[str]:
    """`ppv train` in a process of its own, with the run in `folder/run`."""
    file = folder / "config.yaml"
    file.write_text(dump_config(config), encoding="utf-8")
    command = [sys.executable, "-m", "ppvcli", "train", "--config", str(file), "--out", str(folder / "run"), *options]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.1)


def ranks_of(process: subprocess.Popen[str]) -> dict[int, int]:
    """Rank -> process id of the processes that work for a `ppv train`."""
    mark = f"PPV_LAUNCHED_BY={process.pid}".encode()
    ranks = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            variables = (folder / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        rank = [value.partition(b"=")[2] for value in variables if value.startswith(b"PADDLE_TRAINER_ID=")]
        if mark in variables and rank:
            ranks[int(rank[0])] = int(folder.name)
    return ranks


def num_logged(folder: Path) -> int:
    path = folder / "run" / "log.jsonl"
    return len(path.read_text(encoding="utf-8").splitlines()) if path.exists() else 0


def test_two_processes_train_and_evaluate_as_one_with_their_clips(clips: Path, tmp_path: Path) -> None:
    alone = train(make_config(clips), tmp_path / "alone", device="cpu")
    process = start_training(make_config(clips, batch_size=2), tmp_path, "--nproc", "2", "--json")
    output, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, errors
    together = read_result(tmp_path / "run", model="tsm_efflite0")
    assert json.loads(output)["epochs"][1]["val_loss"] == together.epochs[1].val_loss
    for one, two in zip(alone.epochs, together.epochs, strict=True):
        # sums in another order: a few units in the last place of float32
        assert two.train_loss == pytest.approx(one.train_loss, rel=1e-5)
        assert two.val_loss == pytest.approx(one.val_loss, rel=1e-5)
        assert (two.val_top1, two.val_top5, two.learning_rate) == (one.val_top1, one.val_top5, one.learning_rate)
    assert together.val.num_clips == alone.val.num_clips == 3
    expected, got = (read_weights(path / "last").tensors for path in (tmp_path / "alone", tmp_path / "run"))
    for key, tensor in expected.items():
        np.testing.assert_allclose(got[key], tensor, rtol=1e-4, atol=1e-6, err_msg=key)
    assert [line.split(":")[0] for line in errors.splitlines() if line.startswith("epoch")] == ["epoch 1", "epoch 2"]


def test_process_that_dies_stops_the_run_and_is_named(clips: Path, tmp_path: Path) -> None:
    process = start_training(make_config(clips, batch_size=2, epochs=500), tmp_path, "--nproc", "2")
    wait_until((tmp_path / "run" / "last" / "checkpoint.safetensors").exists)
    os.kill(ranks_of(process)[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    # the launcher sees it first, or the other process, whose connection breaks
    assert "process 1 ended with code -9" in errors or "process 1 ended without a word" in errors
    assert "ppv train --resume" in errors
    wait_until(lambda: not ranks_of(process))


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_stopped_command_leaves_no_process_behind(clips: Path, tmp_path: Path, number: int, code: int) -> None:
    process = start_training(make_config(clips, batch_size=2, epochs=500), tmp_path, "--nproc", "2")
    wait_until(lambda: num_logged(tmp_path) > 0)
    assert sorted(ranks_of(process)) == [0, 1]
    process.send_signal(number)
    _, errors = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code
    assert "Traceback" not in errors
    wait_until(lambda: not ranks_of(process))


@pytest.mark.parametrize("num_lines", [1, 4])
def test_killed_run_goes_on_and_ends_with_the_same_weights(clips: Path, tmp_path: Path, num_lines: int) -> None:
    changes = {"epochs": 3, "model": {"name": "tsm_efflite0", "dropout": 0.3}, "ema_decay": 0.9}
    train(make_config(clips, **changes), tmp_path / "straight", device="cpu")
    process = start_training(make_config(clips, **changes), tmp_path, "--cpu")
    wait_until(lambda: num_logged(tmp_path) >= num_lines)
    process.kill()
    process.communicate()
    command = [sys.executable, "-m", "ppvcli", "train", "--resume", str(tmp_path / "run"), "--cpu"]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    expected, got = (read_weights(tmp_path / name / "last").tensors for name in ("straight", "run"))
    for key, tensor in expected.items():
        assert np.array_equal(tensor, got[key]), key
    entries = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [entry["epoch"] for entry in entries if entry["kind"] == "epoch"] == [1, 2, 3]


def test_machines_without_a_common_address_are_refused() -> None:
    with pytest.raises(UsageError, match="find each other"):
        Cluster(num_processes=2, num_nodes=2)
    with pytest.raises(UsageError, match="HOST:PORT"):
        Cluster(num_processes=2, num_nodes=2, master="192.168.0.10")


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ("Container rank 1 status failed cmd [] code -9 log x", "process 1 ended with code -9"),
        ("Container rank 0 status failed cmd [] code 1 log x", "process 1 ended without a word"),
        ("no container", "Paddle's launcher ended with code 1"),
    ],
)
def test_failure_names_the_process_that_went_first(tmp_path: Path, named: str, words: str) -> None:
    (tmp_path / "launch.log").write_text(f"LAUNCH INFO\n{named}\n", encoding="utf-8")
    (tmp_path / "workerlog.0").write_text("epoch 1\nerror: gloo: Connection closed by peer\n", encoding="utf-8")
    (tmp_path / "workerlog.1").write_text("epoch 1\n", encoding="utf-8")
    error = launch.describe_failure(tmp_path, 1, tmp_path / "run")
    assert error.message.startswith(words)
    assert str(tmp_path / "run") in str(error.hint)
