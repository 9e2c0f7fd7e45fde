"""A run keeps the clips it began with, whatever happens to their folder; the real network, 32x32 pixels."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ppvcli.configs.load import load_config, parse_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.datasets.catalog import open_split
from ppvcli.engine import run
from ppvcli.engine.evaluate import evaluate
from ppvcli.engine.launch import Cluster
from ppvcli.engine.progress import StepReport
from ppvcli.engine.run import resume, train
from ppvcli.errors import DatasetError, RankError, UsageError
from ppvcli.results import EpochResult, StartReport
from ppvcli.video.render import write_video
from ppvcli.weights.formats import read_weights


class StopAfterEpoch:
    """Ctrl-C once the first epoch is in its checkpoint."""

    def on_start(self, report: StartReport) -> None:
        pass

    def on_step(self, report: StepReport) -> None:
        pass

    def on_eval_clip(self, done: int, total: int) -> None:
        pass

    def on_epoch(self, result: EpochResult) -> None:
        raise KeyboardInterrupt


class StopAtStep(StopAfterEpoch):
    """Ctrl-C in the first epoch."""

    def on_step(self, report: StepReport) -> None:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("clips")
    for i in range(6):
        frames = np.full((12, 48, 48, 3), 40, np.uint8)
        for t in range(12):
            x = 2 * t if i % 2 else 24 - 2 * t
            frames[t, 5 * i : 5 * i + 14, x : x + 14] = (230, 60, 40) if i % 2 else (40, 60, 230)
        path = root / ("right" if i % 2 else "left") / f"{i}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, frames)
    return root


@pytest.fixture(scope="module")
def straight(clips: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that nothing interrupts."""
    folder = tmp_path_factory.mktemp("straight")
    train(make_config(clips), folder / "run", device="cpu")
    return folder / "run"


def make_config(clips: Path) -> TrainConfig:
    tree = {
        "model": {"name": "tsm_efflite0", "dropout": 0.3},
        "data": {"root": str(clips), "val_ratio": 0.4, "num_workers": 0},
        "input": {"resize": {"size_hw": [32, 32]}, "frame_interval": 1},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "epochs": 2,
        "batch_size": 2,
        "seed": 3,
    }
    return parse_config(tree, source="test")


def change(config: TrainConfig, **changes: object) -> TrainConfig:
    return parse_config({**config.model_dump(mode="json"), **changes}, source="test")


def begin(clips: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A copy of the clips, and a run on them that stopped after its first epoch."""
    root = tmp_path / "clips"
    shutil.copytree(clips, root)
    with pytest.raises(KeyboardInterrupt):
        train(make_config(root), tmp_path / "run", device="cpu", observer=StopAfterEpoch())
    return root, tmp_path / "run"


@pytest.mark.parametrize("is_moved", [False, True], ids=["in_place", "moved"])
def test_resumed_run_after_clips_were_added_ends_with_the_weights_of_one_without(
    is_moved: bool, clips: Path, straight: Path, tmp_path: Path
) -> None:
    root, run_dir = begin(clips, tmp_path)
    for name in ("left/7.mp4", "right/8.mp4", "another class/1.mp4"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(clips / "left" / "0.mp4", root / name)
    if is_moved:
        root = root.rename(tmp_path / "moved")
    notes: list[str] = []
    result = resume(run_dir, data=root if is_moved else None, device="cpu", note=notes.append)
    assert notes == [
        f"{root}: 3 clips are newer than the run and not in it",
        "data: 2 classes (left, right), 4 clips to train on, 2 held out",
    ]
    assert (run_dir / "split.jsonl").read_bytes() == (straight / "split.jsonl").read_bytes()
    expected, got = (read_weights(path / "last").tensors for path in (straight, run_dir))
    assert expected.keys() == got.keys()
    for key, tensor in expected.items():
        assert np.array_equal(tensor, got[key]), key

    report = evaluate(weights=run_dir / "last", device="cpu", num_workers=0)
    assert report.num_clips == result.val.num_clips == 2
    assert (report.wrong, report.loss) == (result.val.wrong, result.val.loss)
    assert report.setup is not None
    assert (report.setup.num_newer, report.setup.num_trained_on) == (3, 0)


class Intruder(StopAfterEpoch):
    """Tries to train where a run is under way."""

    def __init__(self, clips: Path, run_dir: Path) -> None:
        self.clips, self.run_dir, self.refused = clips, run_dir, 0

    def on_epoch(self, result: EpochResult) -> None:
        words = "another process is training in"
        with pytest.raises(UsageError, match=words):
            resume(self.run_dir, device="cpu")
        with pytest.raises(UsageError, match=words):
            train(make_config(self.clips), self.run_dir, device="cpu")
        self.refused += 1


def test_run_under_way_is_not_trained_by_another_process(clips: Path, tmp_path: Path) -> None:
    intruder = Intruder(clips, tmp_path / "run")
    train(make_config(clips), tmp_path / "run", device="cpu", observer=intruder)
    assert intruder.refused == 2
    with pytest.raises(UsageError, match="already holds a run"):
        train(make_config(clips), tmp_path / "run", device="cpu")


def test_clips_that_are_all_on_both_sides_are_not_trained_on(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("left\nright\n", encoding="utf-8")
    (tmp_path / "clips.list").write_text("left/0.mp4 0\nright/1.mp4 1\n", encoding="utf-8")
    tree = make_config(clips).model_dump(mode="json")
    lists = {"train_list": "clips.list", "val_list": "clips.list", "labels": "labels.txt", "val_ratio": None}
    config = parse_config({**tree, "data": {**tree["data"], **lists, "root": str(tmp_path)}}, source="test")
    with pytest.raises(DatasetError, match="all 2 held-out clips are also trained on"):
        train(config, tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_clip_whose_name_is_not_utf8_is_trained_on_and_reported(clips: Path, tmp_path: Path) -> None:
    root, name = tmp_path / "clips", os.fsdecode(b"w\xff1.mp4")
    shutil.copytree(clips, root)
    for path in sorted(root.glob("*/*.mp4")):
        path.rename(path.with_name(path.name[:1] + name))
    train(make_config(root), tmp_path / "run", device="cpu")
    evaluate(weights=tmp_path / "run", data=root, device="cpu", num_workers=0, out=tmp_path / "report")
    lines = (tmp_path / "report" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    assert {Path(json.loads(line)["path"]) for line in lines} == set(root.glob("*/*.mp4"))
    broken = sorted(root.glob("*/*.mp4"))[0]
    broken.write_bytes(b"no video")
    report = evaluate(weights=tmp_path / "run", data=root, device="cpu", num_workers=0, out=tmp_path / "report")
    assert [failure[0] for failure in report.failures] == [str(broken)]
    told = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert told["failures"][0][0] == str(broken)


def test_clips_that_can_not_be_decoded_leave_no_run_in_the_way(clips: Path, tmp_path: Path) -> None:
    root, run_dir = tmp_path / "clips", tmp_path / "run"
    shutil.copytree(clips, root)
    for path in root.glob("*/*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(DatasetError, match="not one of the 4 training clips"):
        train(make_config(root), run_dir, device="cpu")
    assert not run_dir.exists()


def test_held_out_clips_that_can_not_be_decoded_leave_no_run_either(clips: Path, tmp_path: Path) -> None:
    root, run_dir = tmp_path / "clips", tmp_path / "run"
    shutil.copytree(clips, root)
    config = make_config(root)
    for sample in open_split(config.data, seed=config.seed).val:
        sample.path.write_bytes(b"no video")
    with pytest.raises(DatasetError, match="0 of 2 clips could be evaluated") as caught:
        train(config, run_dir, device="cpu")
    assert caught.value.message.count(str(root)) == 2
    assert not run_dir.exists()


def test_run_that_could_be_resumed_keeps_its_folder_when_clips_break(clips: Path, tmp_path: Path) -> None:
    root, run_dir = begin(clips, tmp_path)
    (run_dir / "last" / "checkpoint.safetensors").unlink()
    for path in root.glob("*/*.mp4"):
        path.write_bytes(b"no video")
    with pytest.raises(DatasetError, match="not one of the 4 training clips"):
        resume(run_dir, device="cpu")
    assert (run_dir / "split.jsonl").is_file()


def test_removed_clips_stop_a_resumed_run_until_they_are_back(clips: Path, tmp_path: Path) -> None:
    root, run_dir = begin(clips, tmp_path)
    (root / "left").rename(tmp_path / "left")
    with pytest.raises(DatasetError) as caught:
        resume(run_dir, device="cpu")
    assert caught.value.message.startswith(f"3 of the 6 clips of {run_dir} are gone; first: {root}/left/")
    assert "--data DIR if they were moved" in str(caught.value.hint)
    (tmp_path / "left").rename(root / "left")
    assert len(resume(run_dir, device="cpu").epochs) == 2


def test_processes_of_a_run_see_the_split_that_was_drawn_for_all(
    clips: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, run_dir = tmp_path / "clips", tmp_path / "run"
    shutil.copytree(clips, root)

    def one_process(arguments: list[str], folder: Path, **_: object) -> None:
        """What Paddle's launcher starts, in this process; a clip arrives in between."""
        assert arguments[:3] == ["train", "--resume", str(folder)]
        shutil.copy(clips / "left" / "0.mp4", root / "left" / "7.mp4")
        resume(folder, device="cpu")

    monkeypatch.setattr(run, "launch", one_process)
    result = train(make_config(root), run_dir, device="cpu", cluster=Cluster(num_processes=2))
    assert (run_dir / "split.jsonl").read_bytes() == (straight / "split.jsonl").read_bytes()
    assert result.val.num_clips == 2


def test_second_machine_of_a_run_joins_what_the_first_one_wrote_and_nothing_else(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machines = Cluster(num_processes=1, num_nodes=2, master="localhost:49178")
    launched: list[Path] = []
    monkeypatch.setattr(run, "launch", lambda arguments, run_dir, **_: launched.append(run_dir))
    monkeypatch.setattr(run, "read_result", lambda *_, **__: None)
    for _ in range(2):
        train(make_config(clips), tmp_path, device="cpu", cluster=machines)
    assert launched == [tmp_path] * 2
    other = make_config(clips).model_copy(update={"seed": 4})
    with pytest.raises(UsageError, match="already holds a run"):
        train(other, tmp_path, device="cpu", cluster=machines)
    with pytest.raises(UsageError, match="already holds a run"):
        train(make_config(clips), tmp_path, device="cpu")
    (tmp_path / "config.yaml").unlink()
    with pytest.raises(UsageError, match=r"holds something else than a run: split\.jsonl"):
        train(make_config(clips), tmp_path, device="cpu")


@pytest.mark.parametrize("has_checkpoint", [False, True], ids=["first_epoch", "later"])
def test_processes_that_fail_in_the_first_epoch_leave_no_run_in_the_way(
    has_checkpoint: bool, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"

    def fails(arguments: list[str], folder: Path, **_: object) -> None:
        (folder / "log.jsonl").write_text("", encoding="utf-8")
        if has_checkpoint:
            (folder / "last").mkdir()
            (folder / "last" / "checkpoint.safetensors").touch()
        raise RankError("process 0 ended with code 1", hint=f"ppv train --resume {folder}")

    monkeypatch.setattr(run, "launch", fails)
    with pytest.raises(RankError) as caught:
        train(make_config(clips), run_dir, device="cpu", cluster=Cluster(num_processes=2))
    assert run_dir.exists() == has_checkpoint
    assert (f"ppv train --resume {run_dir}" == caught.value.hint) == has_checkpoint
    assert ("the same command" in str(caught.value.hint)) != has_checkpoint


def test_single_gpu_of_a_cluster_is_the_one_trained_on(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def select(device: str) -> str:
        asked.append(device)
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "find_device", lambda device: device)
    monkeypatch.setattr(run, "select_device", select)
    with pytest.raises(KeyboardInterrupt):
        train(make_config(clips), tmp_path / "run", device="gpu", cluster=Cluster(num_processes=1, gpus=(3,)))
    assert asked == ["gpu:3"]


@pytest.mark.parametrize("weights", ["tsm", "tsm_k400", "runs/teacher"])
def test_teacher_is_opened_by_name_alias_or_path(
    weights: str, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[tuple[str | None, str | None]] = []

    def open_one(model: str | None, *, weights: str | None = None) -> None:
        opened.append((model, weights))
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    Path("runs/teacher").mkdir(parents=True)
    monkeypatch.setattr(run, "open_recognizer", open_one)
    monkeypatch.setattr(run, "fetch_weights", lambda *_, **__: None)
    with pytest.raises(KeyboardInterrupt):
        train(change(make_config(clips), teacher={"weights": weights}), tmp_path / "run", device="cpu")
    assert opened == [(None, weights) if "/" in weights else (weights, None)]


def test_paths_of_a_run_are_in_full_and_names_stay(
    clips: Path, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(straight.parent)
    monkeypatch.setenv("HOME", str(straight.parent))
    for number, (given, kept) in enumerate((("run", str(straight)), ("~/run/last", f"{straight}/last"))):
        config = change(make_config(clips), model={"name": "tsm_efflite0", "pretrained": given})
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / str(number), device="cpu", observer=StopAtStep())
        assert load_config(str(tmp_path / str(number) / "config.yaml")).model.pretrained == kept
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        resume(tmp_path / "0", device="cpu", observer=StopAtStep())
    (tmp_path / "tsm_efflite0_weizmann").mkdir()
    name = {"name": "tsm_efflite0", "pretrained": "tsm_efflite0_weizmann"}
    with pytest.raises(KeyboardInterrupt):
        train(change(make_config(clips), model=name), tmp_path / "named", device="cpu", observer=StopAtStep())
    assert load_config(str(tmp_path / "named" / "config.yaml")).model.pretrained == "tsm_efflite0_weizmann"


def test_resume_where_no_run_is_begins_one(clips: Path, straight: Path, tmp_path: Path) -> None:
    config, run_dir = make_config(clips), tmp_path / "run"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(config, run_dir, device="cpu", resume=True, observer=StopAtStep())
        assert (run_dir / "split.jsonl").read_bytes() == (straight / "split.jsonl").read_bytes()
        (run_dir / "split.jsonl").unlink()  # a run that lost it writes it down again
    with pytest.raises(UsageError, match="would be taken for clips"):
        train(config, clips / "run", device="cpu", resume=True)
