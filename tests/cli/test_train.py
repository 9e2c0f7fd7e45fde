"""`ppv train` and `ppv eval`: from a folder of rendered clips to a run folder that predict takes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppvcli.errors import WeightsError
from ppvcli.video.render import render_action, write_video
from ppvcli.weights.torch_legacy import find_efflite0_file, read_torch_legacy

Ppv = Callable[..., Any]


def has_backbone() -> bool:
    try:
        find_efflite0_file()
    except WeightsError:
        return False
    return True


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for action in ("bend", "jack"):
        (folder / action).mkdir()
        for i in range(2):
            write_video(folder / action / f"{action}_g{i}.mp4", render_action(action, num_frames=30, seed=i))
    return folder


@pytest.mark.skipif(not has_backbone(), reason="needs the backbone from pip: ppvcli[efflite0]")
def test_folder_of_clips_becomes_a_model_that_eval_and_predict_take(clips: Path, tmp_path: Path, ppv: Ppv) -> None:
    run = tmp_path / "run"
    settings = ["--epochs", "1", "--val-ratio", "0.5", "--group-pattern", r"g(\d)", "--set", "data.num_workers=0"]
    trained = ppv("train", "--model", "tsm_efflite0", "--data", clips, "--out", run, *settings, "--json")
    assert trained.exit_code == 0, trained.stderr
    assert trained.stderr.splitlines()[:2] == [
        "start: 245 tensors from imagenet",
        "start: 2 tensors begin untrained: head.fc.weight, head.fc.bias",
    ]
    assert trained.stderr.splitlines()[2].startswith("epoch 1: loss ")
    result = json.loads(trained.stdout)
    assert result["run_dir"] == str(run)
    assert [c["label"] for c in result["val"]["classes"]] == ["bend", "jack"]

    again = ppv("eval", "--weights", run / "last", "--workers", "0", "--json")
    assert again.exit_code == 0, again.stderr
    measured = json.loads(again.stdout)
    assert measured.pop("setup")["data"] == f"held out of {clips}"
    assert measured == result["val"]

    everything = ppv("eval", "--weights", run, "--data", clips, "--workers", "0")
    assert everything.exit_code == 0, everything.stderr
    assert everything.stdout.splitlines()[-1].startswith("tsm_efflite0: top-1 ")
    assert "of 4 clips" in everything.stdout

    answer = ppv("predict", clips / "bend" / "bend_g0.mp4", "--weights", run, "--json")
    assert answer.exit_code == 0, answer.stderr
    assert {best["label"] for best in json.loads(answer.stdout)[0]["top"]} == {"bend", "jack"}

    refused = ppv("train", "--model", "tsm_efflite0", "--data", clips, "--out", run)
    assert refused.exit_code == 2
    assert f"hint: ppv train --resume {run}" in refused.stderr

    resumed = ppv("train", "--resume", run, "--json")
    assert resumed.exit_code == 0, resumed.stderr
    assert json.loads(resumed.stdout)["val"] == result["val"]


def test_list_configs_names_the_shipped_ones(ppv: Ppv) -> None:
    answer = ppv("train", "--list-configs")
    assert answer.exit_code == 0
    assert "tsm_efflite0_weizmann_videos" in answer.stdout.splitlines()


def test_print_config_shows_flags_and_overrides(ppv: Ppv) -> None:
    answer = ppv(
        "train", "--config", "tsm_efflite0_weizmann_videos", "--data", "a b: c", "--set", "epochs=3", "--print-config"
    )
    assert answer.exit_code == 0
    assert "root: 'a b: c'" in answer.stdout
    assert "epochs: 3" in answer.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "say what to train: --config or --model"),
        (["--config", "x", "--model", "y"], "--config and --model both say"),
        (["--config", "tsm_efflite0_weizman_videos"], "nearest: tsm_efflite0_weizmann_videos"),
        (["--model", "tsm_eflite0", "--data", "x"], "nearest: tsm_efflite0"),
        (["--model", "tsn", "--data", "x"], "no recipe to fine-tune tsn"),
        (["--resume", "x", "--epochs", "3"], "--resume goes on with the run's own config"),
        (["--model", "tsm_efflite0", "--data", "x", "--set", "epoch=3"], "epoch: unknown key; nearest: epochs"),
        (["--model", "tsm_efflite0", "--data", "x", "--set", "model.frozen_stages=9"], "but there are 7"),
        (["--model", "tsm_efflite0", "--data", "x", "--cpu", "--gpu"], "exclude each other"),
        (["--model", "tsm_efflite0", "--data", "x", "--cpu", "--amp", "O1"], "amp: O1 needs a GPU"),
        (["--model", "tsm_efflite0", "--data", "x", "--nproc", "2", "--gpus", "0"], "exclude each other"),
        (["--model", "tsm_efflite0", "--data", "x", "--nproc", "2", "--gpu"], "--nproc trains on CPUs"),
        (["--model", "tsm_efflite0", "--data", "x", "--gpus", "0,0"], "expected different numbers"),
        (["--model", "tsm_efflite0", "--data", "x", "--nnodes", "2"], "processes of each machine"),
        (["--model", "tsm_efflite0", "--data", "x", "--nnodes", "2", "--nproc", "2"], "find each other"),
    ],
)
def test_wrong_request_is_a_usage_error(args: list[str], words: str, ppv: Ppv) -> None:
    answer = ppv("train", *args)
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["train", "--model", "tsm_efflite0", "--data", "no/such/folder"], "no folder no/such/folder"),
        (["train", "--resume", "no/such/run"], "no run in no/such/run"),
        (["eval", "--weights", "no/such/run"], "no weight"),
    ],
)
def test_missing_input_fails_without_traceback(args: list[str], words: str, ppv: Ppv) -> None:
    answer = ppv(*args)
    assert answer.exit_code in (1, 2)
    assert words in answer.stderr
    assert "Traceback" not in answer.stderr


def test_eval_needs_a_model(ppv: Ppv) -> None:
    answer = ppv("eval")
    assert answer.exit_code == 2
    assert "no model is named" in answer.stderr


@pytest.mark.skipif(not has_backbone(), reason="needs the backbone from pip: ppvcli[efflite0]")
def test_interrupted_run_says_how_to_go_on_and_starts_with_the_backbone(
    clips: Path, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ppvcli.engine.trainer import Trainer

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    run = tmp_path / "run"
    settings = ["--val-ratio", "0.5", "--set", "data.num_workers=0", "--set", "epochs=1", "--out", run]
    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", interrupt)
        answer = ppv("train", "--model", "tsm_efflite0", "--data", clips, *settings)
    assert (answer.exit_code, answer.stdout) == (130, "")
    assert answer.stderr.endswith(f"error: interrupted\nhint: ppv train --resume {run}\n")

    started = {}

    def remember(trainer: Trainer, epoch: int) -> None:
        started["stem"] = trainer.network.backbone.stem.conv.weight.numpy()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "train_epoch", remember)
        assert ppv("train", "--resume", run).exit_code == 130
    expected = read_torch_legacy(find_efflite0_file())["_conv_stem.weight"]
    assert (started["stem"] == expected).all()


def test_check_of_the_data_names_what_is_broken_and_writes_it(clips: Path, tmp_path: Path, ppv: Ppv) -> None:
    data = tmp_path / "clips"
    shutil.copytree(clips, data)
    settings = ["train", "--model", "tsm_efflite0", "--data", data, "--val-ratio", "0.5", "--check-data"]
    good = ppv(*settings)
    assert good.exit_code == 0, good.stderr
    assert "0 broken, 0 problems in all" in good.stdout
    (data / "bend" / "bend_g2.mp4").write_bytes(b"no video")
    bad = ppv(*settings, "--out", tmp_path / "problems.tsv")
    assert bad.exit_code == 1
    assert bad.stdout.startswith("broken: ")
    assert bad.stdout.count("bend_g2.mp4") == 1
    rows = (tmp_path / "problems.tsv").read_text(encoding="utf-8").splitlines()
    assert [row.split("\t")[0] for row in rows] == ["problem", "broken"]
    assert json.loads(ppv(*settings, "--json").stdout)["broken"][0][0].endswith("bend_g2.mp4")


def test_writer_that_is_not_there_leaves_no_run_behind(clips: Path, tmp_path: Path, ppv: Ppv) -> None:
    settings = ["train", "--model", "tsm_efflite0", "--data", clips, "--out", tmp_path / "run"]
    for more in ([], ["--nproc", "2"]):
        answer = ppv(*settings, "--writer", "tensorbord", *more)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert "nearest: tensorboard" in answer.stderr
        assert not (tmp_path / "run").exists()


def test_split_of_the_user_takes_the_place_of_the_recipes(ppv: Ppv) -> None:
    groups = ["--group-pattern", "^(a)", "--set", "data.val_groups=[a]"]
    answer = ppv("train", "--model", "tsm_efflite0", "--data", "x", *groups, "--print-config")
    assert answer.exit_code == 0, answer.stderr
    assert "val_ratio: null" in answer.stdout
    both = ppv("train", "--model", "tsm_efflite0", "--data", "x", *groups, "--val-ratio", "0.5", "--print-config")
    assert both.exit_code == 2
    assert "both say what is held out" in both.stderr


def test_broken_clips_are_told_with_what_became_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    from ppvcli.cli import train as command
    from ppvcli.results import ClassResult, EpochResult, EvalReport, TrainResult

    numbers = dict.fromkeys(("train_loss", "train_top1", "train_top5", "val_loss", "val_top1", "val_top5"), 0.5)
    times = dict.fromkeys(("learning_rate", "train_s", "eval_s", "images_per_s", "data_wait_ratio"), 0.1)
    skipped = ("a/1.avi", "a/1.avi is empty: 0 bytes")
    epochs = tuple(EpochResult(epoch=i, **numbers, **times, failures=(skipped,)) for i in (1, 2))
    val = EvalReport(
        model="m",
        num_clips=2,
        num_correct=1,
        num_correct_top5=1,
        loss=1.0,
        classes=(ClassResult(label="a", num_clips=2, num_correct=1, num_predicted=1),),
        failures=(("a/2.avi", "decoding took too long"),),
    )
    command._show_result(TrainResult(run_dir="run", model="m", epochs=epochs, best_epoch=1, val=val))
    assert capsys.readouterr().err == (
        "warning: a/1.avi is empty: 0 bytes (skipped in training)\n"
        "warning: a/2.avi: decoding took too long (counted as wrong)\n"
    )
