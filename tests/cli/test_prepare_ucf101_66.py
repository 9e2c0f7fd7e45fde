"""`ppv prepare-ucf101-66`: what it prints, and that it can be ended at any moment."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppvcli.datasets.annotations import read_labels, read_list
from ppvcli.datasets.frames import count_frames
from ppvcli.files import LOCK_NAME
from ppvcli.models.zoo import load_labels
from tests.datasets.fake_ucf101 import listed_paths, tree, write_clips, write_lists

Ppv = Callable[..., Any]
Start = Callable[..., "subprocess.Popen[str]"]

WANTED = [path for path in listed_paths() if path.startswith(("Surfing/", "HandstandPushups/")) and "_c01." in path]
NUM_FRAMES = 120


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("my data")
    write_lists(folder / "ucfTrainTestlist")
    write_clips(folder / "videos", WANTED, num_frames=NUM_FRAMES)
    (folder / "classes.txt").write_text("HandstandPushups\nSurfing\n")
    return folder


@pytest.fixture
def options(source: Path, tmp_path: Path) -> list[str]:
    out = str(tmp_path / "out dir")
    return ["--source", str(source), "--classes", str(source / "classes.txt"), "--out", out, "--allow-missing"]


def test_lists_go_to_stdout_and_progress_to_stderr(options: list[str], ppv: Ppv, tmp_path: Path) -> None:
    answer = ppv("prepare-ucf101-66", *options)
    out = tmp_path / "out dir"
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.splitlines() == [
        f"train      36 clips    {out}/train_split1_videos.txt",
        f"val        14 clips    {out}/val_split1_videos.txt",
        f"labels      2 classes  {out}/labels.txt",
    ]
    for line in (
        "taking over the split lists: 7 of 7 files",
        "placing clips: 50 of 50 files",
        "hashing: 50 of 50 files",
    ):
        assert f"{line}\n" in answer.stderr
    assert "listed clips left out" in answer.stderr
    assert len(read_list(out / "train_split1_videos.txt", out, num_classes=2)) == 36
    again = ppv("prepare-ucf101-66", *options)
    assert (again.exit_code, again.stdout) == (0, answer.stdout)
    assert f"{out}: already prepared and unchanged, nothing to do\n" in again.stderr


@pytest.mark.parametrize(
    ("more", "words"),
    [("Archery\n", "1 class: Archery"), ("Archery\nBowling\n", "2 classes: Archery, Bowling")],
)
def test_classes_without_a_training_clip_are_warned_of(
    more: str, words: str, options: list[str], ppv: Ppv, tmp_path: Path
) -> None:
    (tmp_path / "more.txt").write_text(f"Surfing\n{more}")
    answer = ppv("prepare-ucf101-66", *options, "--classes", tmp_path / "more.txt")
    assert f"warning: no training clip in {words}\n" in answer.stderr


def test_json_is_alone_on_stdout(options: list[str], ppv: Ppv) -> None:
    answer = ppv("prepare-ucf101-66", *options, "--json", "--split", "3", "--format", "frames", "--num-workers", "1")
    result = json.loads(answer.stdout)
    assert (result["split"], result["num_train"], result["num_val"]) == (3, 36, 14)
    assert result["train_list"] == "train_split3_frames.txt"
    assert "extracting frames: 50 of 50 files\n" in answer.stderr


def test_terminal_gets_a_bar_for_each_stage(options: list[str], ppv: Ppv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ppvcli.cli.output.is_terminal", lambda stream: True)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    answer = ppv("prepare-ucf101-66", *options)
    assert answer.exit_code == 0
    for line in ("taking over the split lists", "placing clips", "hashing"):
        assert line in answer.stderr
    assert "50 of 50 files" in answer.stderr
    assert len(answer.stdout.splitlines()) == 3


@pytest.mark.parametrize(
    ("more", "exit_code", "error"),
    [
        (["--split", "4"], 2, "error: UCF101 has no split 4\nhint: --split 1, 2 or 3\n"),
        (["--format", "video"], 2, "error: unknown format 'video'; nearest: videos\n"),
        (["--num-workers", "0"], 2, "error: 0 processes can't work\n"),
        (["--source", "nowhere"], 1, "error: no source nowhere: nothing is there\n"),
        (["--source", "tests", "--out", "tests/x"], 2, "error: tests/x is inside the source tests, where every clip"),
        (["--classes", "nowhere"], 1, "error: can't read nowhere"),
    ],
)
def test_impossible_request_is_told_with_exit_code(
    more: list[str], exit_code: int, error: str, options: list[str], ppv: Ppv
) -> None:
    answer = ppv("prepare-ucf101-66", *options, *more)
    assert (answer.exit_code, answer.stdout) == (exit_code, "")
    assert answer.stderr.startswith(error)


def test_missing_clips_fail_with_their_number_and_a_file(options: list[str], ppv: Ppv, tmp_path: Path) -> None:
    answer = ppv("prepare-ucf101-66", *options[:-1])
    assert (answer.exit_code, answer.stdout) == (1, "")
    missing = (tmp_path / "out dir" / "missing.txt").read_text().splitlines()
    assert f"error: {len(missing)} clips that split 1 lists are missing or unreadable" in answer.stderr
    assert "--allow-missing" in answer.stderr


def test_damaged_clips_are_warned_of(source: Path, ppv: Ppv, tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text("Surfing\n")
    copy = shutil.copytree(source, tmp_path / "copy")
    clip = copy / "videos" / WANTED[-1]
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 4 // 5])
    options = ["--source", copy, "--classes", tmp_path / "one.txt", "--out", tmp_path / "out", "--allow-missing"]
    warning = f"warning: 1 clip is cut off or damaged, but used, see {tmp_path / 'out' / 'damaged.txt'}\n"
    assert warning not in ppv("prepare-ucf101-66", *options).stderr
    assert warning in ppv("prepare-ucf101-66", *options, "--format", "frames", "--num-workers", "1").stderr
    again = ppv("prepare-ucf101-66", *options, "--format", "frames", "--json")
    assert warning not in again.stderr
    assert json.loads(again.stdout)["num_damaged"] == 1


def test_all_unknown_classes_are_named_before_anything_is_made(options: list[str], ppv: Ppv, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Surfin\nSurfing\nPushup\n")
    answer = ppv("prepare-ucf101-66", *options, "--classes", tmp_path / "mine.txt")
    assert (answer.exit_code, answer.stdout) == (2, "")
    rows = answer.stderr.splitlines()
    assert rows[0].startswith("error: unknown UCF101 class 'Surfin'; nearest: Surfing, ")
    assert rows[1].strip().startswith("unknown UCF101 class 'Pushup'; nearest: PushUps")
    assert rows[2] == "hint: spelt as in classInd.txt, one a line"
    assert not (tmp_path / "out dir").exists()


def test_without_out_it_is_a_usage_error(ppv: Ppv) -> None:
    answer = ppv("prepare-ucf101-66")
    assert answer.exit_code == 2
    assert "--out" in answer.stderr


# --- ended in the middle of the frames --------------------------------------------------------------------------------


def _in_session(session: int) -> set[int]:
    """Processes that are alive in the session of a process that was started as its leader."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            state, _, _, its_session = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
        except OSError:
            continue
        if int(its_session) == session and state != "Z":
            found.add(int(folder.name))
    return found


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT], ids=["killed", "interrupted"])
def test_run_that_is_ended_leaves_whole_folders_and_goes_on(
    sign: signal.Signals, options: list[str], python_process: Start, ppv: Ppv, tmp_path: Path
) -> None:
    frames = ["--format", "frames", "--num-workers", "2"]
    process = python_process("-m", "ppvcli", "prepare-ucf101-66", *options, *frames)
    out, deadline_s = tmp_path / "out dir", time.monotonic() + 40
    while len(list(out.glob("frames/*/*"))) < 4:
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()
        time.sleep(0.01)
    if sign is signal.SIGKILL:
        process.kill()
    else:
        os.killpg(process.pid, sign)  # as the terminal does
    _, stderr = process.communicate(timeout=30)
    if sign is signal.SIGINT:
        assert process.returncode == 130
        assert stderr.endswith("error: interrupted\nhint: the same command goes on from here\n")
        assert "Traceback" not in stderr
    if Path("/proc/self/stat").exists():
        while _in_session(process.pid):
            assert time.monotonic() < deadline_s, "a worker outlives its parent"
            time.sleep(0.02)
    done = {path.name: path.stat().st_mtime_ns for path in out.glob("frames/*/*")}
    assert 4 <= len(done) < len(WANTED), "it was over already"
    assert {count_frames(path) for path in out.glob("frames/*/*")} == {NUM_FRAMES}
    assert not (out / "dataset.yaml").exists()
    assert not list(out.glob("*_frames.txt"))
    answer = ppv("prepare-ucf101-66", *options, *frames)
    assert answer.exit_code == 0, answer.stderr
    now = {path.name: path.stat().st_mtime_ns for path in out.glob("frames/*/*")}
    assert len(now) == len(WANTED)
    assert {count_frames(path) for path in out.glob("frames/*/*")} == {NUM_FRAMES}
    assert {name: now[name] for name in done} == done, "what was done is done anew"
    assert {path.name for path in out.iterdir()} == {
        *(LOCK_NAME, "dataset.yaml", "frames", "labels.txt", "missing.txt", "ucfTrainTestlist", "videos"),
        *("train_split1_frames.txt", "val_split1_frames.txt", "videos.sha256", "frames.sha256"),
    }


def test_force_that_is_interrupted_leaves_the_old_set(
    options: list[str], python_process: Start, ppv: Ppv, tmp_path: Path
) -> None:
    ppv("prepare-ucf101-66", *options)
    before = tree(tmp_path / "out dir")
    again = ["--format", "frames", "--num-workers", "2", "--force"]
    process = python_process("-m", "ppvcli", "prepare-ucf101-66", *options, *again)
    growing, deadline_s = tmp_path / "out dir" / ".ppv-prepare" / "new" / "frames", time.monotonic() + 40
    while len(list(growing.glob("*/*"))) < 4:
        assert process.poll() is None and time.monotonic() < deadline_s, process.communicate()
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 130
    assert stderr.endswith(
        "error: interrupted\nhint: the same command starts over; nothing that was prepared is lost\n"
    )
    assert not growing.exists()
    assert tree(tmp_path / "out dir") == before
    assert "nothing to do" in ppv("prepare-ucf101-66", *options).stderr


# --- real clips -------------------------------------------------------------------------------------------------------


def test_real_clips_become_lists_and_frames(shared_dir: Path, ppv: Ppv, tmp_path: Path) -> None:
    source = shared_dir / "data" / "ucf101"
    answer = ppv("prepare-ucf101-66", "--source", source, "--out", tmp_path, "--allow-missing", "--json")
    result = json.loads(answer.stdout)
    assert (result["num_train"], result["num_val"], result["num_missing"]) == (50, 47, 8401)
    assert read_labels(tmp_path / "labels.txt") == load_labels("ucf101-66")
    for name in (result["train_list"], result["val_list"]):
        samples = read_list(tmp_path / name, tmp_path, num_classes=65)
        assert all(sample.path.is_file() for sample in samples)
    (tmp_path / "two.txt").write_text("YoYo\nSkiing\n")
    answer = ppv(
        *("prepare-ucf101-66", "--source", source, "--out", tmp_path / "two", "--classes", tmp_path / "two.txt"),
        *("--allow-missing", "--format", "frames", "--num-workers", 1, "--split", 2, "--json"),
    )
    result = json.loads(answer.stdout)
    assert (result["num_train"], result["num_val"]) == (1, 1)
    for name in (result["train_list"], result["val_list"]):
        folder, num_frames, _ = (tmp_path / "two" / name).read_text().split()
        assert int(num_frames) == count_frames(tmp_path / "two" / folder) > 50
