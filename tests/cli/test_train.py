"""`ppv train` and `ppv eval`: from a folder of rendered clips to a run folder that predict takes."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from ppvcli.errors import WeightsError
from ppvcli.video.render import render_action, write_video
from ppvcli.weights.torch_legacy import find_efflite0_file, read_torch_legacy
from tests.weights.conftest import PUBLISHED
from tests.weights.file_server import FileServer

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
def test_folder_of_clips_becomes_a_model_that_eval_and_predict_take(
    clips: Path, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    settings = ["--epochs", "1", "--val-ratio", "0.5", "--group-pattern", r"g(\d)", "--set", "data.num_workers=0"]
    trained = ppv("train", "--model", "tsm_efflite0", "--data", clips, "--out", run, *settings, "--json")
    assert trained.exit_code == 0, trained.stderr
    assert trained.stderr.splitlines()[:3] == [
        "data: 2 classes (bend, jack), 2 clips to train on, 2 held out",
        "start: 245 tensors from imagenet",
        "start: 2 tensors begin untrained: head.fc.weight, head.fc.bias",
    ]
    assert trained.stderr.splitlines()[3].startswith("epoch 1: loss ")
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

    shutil.move(clips / "bend", tmp_path)  # a finished run asks for no clips
    (run / "curves.png").unlink(missing_ok=True)
    resumed = ppv("train", "--resume", run, "--json")
    shutil.move(tmp_path / "bend", clips)
    assert (resumed.exit_code, json.loads(resumed.stdout)) == (0, result)
    warning = "warning: no curves.png: it needs matplotlib; pip install 'ppvcli[plot]'\n"
    finished = f"{run} is finished: nothing is left to train after epoch 1\n"
    drawn = importlib.util.find_spec("matplotlib") is not None
    assert (run / "curves.png").exists() == drawn
    assert resumed.stderr == (finished if drawn else warning + finished)

    (run / "curves.png").unlink(missing_ok=True)
    with monkeypatch.context() as patch:
        patch.setattr("ppvcli.engine.run.write_curves", lambda *_: False)
        assert ppv("train", "--resume", run).stderr.startswith(warning)


def test_list_configs_shows_what_the_shipped_ones_say(ppv: Ppv) -> None:
    from ppvcli.configs.load import list_configs, load_config

    answer = ppv("train", "--list-configs")
    assert answer.exit_code == 0
    lines = {line.split("  ")[0]: " ".join(line.split()[1:]) for line in answer.stdout.splitlines()}
    assert list(lines) == ["config", *list_configs()]
    assert lines["tsm_efflite0_weizmann_videos"] == "tsm_efflite0 videos, folders imagenet 15"
    assert lines["tsm_ucf101_frames"] == "tsm_ucf101 frames, lists tsm_k400 25"
    assert lines["tsm_k400_folder"] == "tsm_k400 videos, folders its published weights 20"
    assert lines["pptsmv2_k400_8frames_uniform_dml"].endswith("imagenet, taught by pptsm 120")
    rows = json.loads(ppv("train", "--list-configs", "--json").stdout)
    for row in rows:
        config = load_config(row["name"])
        assert (row["model"], row["epochs"]) == (config.model.name, config.epochs)
        assert row["starts_from"] == config.model.pretrained


def test_print_config_shows_flags_and_overrides(ppv: Ppv) -> None:
    answer = ppv(
        "train", "--config", "tsm_efflite0_weizmann_videos", "--data", "a b: c", "--set", "epochs=3", "--print-config"
    )
    assert answer.exit_code == 0
    assert "root: 'a b: c'" in answer.stdout
    assert "epochs: 3" in answer.stdout


def test_print_config_as_json_holds_what_the_yaml_says(ppv: Ppv) -> None:
    args = ["train", "--config", "tsm_k400_folder", "--data", "x", "--print-config"]
    assert json.loads(ppv(*args, "--json").stdout) == yaml.safe_load(ppv(*args).stdout)


@pytest.mark.parametrize(
    ("args", "recipe", "start"),
    [
        (["--model", "tsm_efflite0"], "tsm_efflite0", "imagenet"),
        (["--model", "tsm_efflite0_weizmann"], "tsm_efflite0", "tsm_efflite0_weizmann"),
        (["--model", "tsm_efflite0_weizmann", "--finetune", "a/run"], "tsm_efflite0", "a/run"),
        (["--model", "tsm_ucf101"], "tsm_k400", "tsm_ucf101"),
        (["--model", "pptsm_r50_k400_uniform_distill"], "pptsm_r50_k400_uniform", "pptsm_r50_k400_uniform_distill"),
    ],
)
def test_model_without_a_recipe_of_its_own_takes_that_of_its_network(
    args: list[str], recipe: str, start: str, ppv: Ppv
) -> None:
    printed = json.loads(ppv("train", *args, "--data", "x", "--print-config", "--json").stdout)
    assert printed["model"]["name"] == recipe
    assert printed["model"]["pretrained"] == start


@pytest.mark.parametrize(
    ("model", "words", "hint"),
    [
        ("tsn", "no recipe to fine-tune tsn on a folder\n", "--config FILE with one of your own"),
        (
            "pptsm_r50_k400_dense",
            "on a folder; there is one for: pptsm_r50_k400_uniform\n",
            "ppv train --model pptsm_r50_k400_uniform --finetune pptsm_r50_k400_dense ...",
        ),
        (
            "pptsmv2_k400_16f_lta",  # has no weights to start from
            "on a folder; there is one for: pptsmv2_k400_16f_dml_student\n",
            "ppv train --model pptsmv2_k400_16f_dml_student ...",
        ),
    ],
)
def test_refusal_of_a_model_names_the_recipes_that_its_weights_fit(model: str, words: str, hint: str, ppv: Ppv) -> None:
    answer = ppv("train", "--model", model, "--data", "x")
    assert answer.exit_code == 2
    assert words in answer.stderr
    assert f"hint: {hint}" in answer.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "say what to train: --config or --model"),
        (["--config", "x", "--model", "y"], "--config and --model both say"),
        (["--config", "tsm_efflite0_weizman_videos"], "nearest: tsm_efflite0_weizmann_videos"),
        (["--model", "tsm_eflite0", "--data", "x"], "nearest: tsm_efflite0"),
        (["--model", "tsn", "--data", "x"], "no recipe to fine-tune tsn"),
        (["--resume", "x", "--epochs", "3"], "--resume goes on with the run's own config"),
        (["--model", "tsm_efflite0", "--data", "x", "--set", "epoch=3"], "--set epoch=3: unknown key; nearest: epochs"),
        (
            ["--model", "tsm_efflite0", "--data", "x", "--set", "model.frozen_stages=9"],
            "--set model.frozen_stages=9: tsm_efflite0 has 7 stages",
        ),
        (["--model", "tsm_efflite0", "--data", "x", "--epochs", "0"], "--epochs 0: expected more than 0"),
        (["--model", "tsm_efflite0", "--data", "x", "--finetune", "nix"], "--finetune nix: unknown name 'nix'"),
        (["--model", "tsm_efflite0", "--data", "x", "--cpu", "--gpu"], "exclude each other"),
        (["--model", "tsm_efflite0", "--data", "x", "--cpu", "--amp", "O1"], "--amp O1: O1 needs a GPU"),
        (["--model", "tsm_efflite0", "--data", "x", "--nproc", "2", "--gpus", "0"], "exclude each other"),
        (["--model", "tsm_efflite0", "--data", "x", "--nproc", "2", "--gpu"], "--nproc trains on CPUs"),
        (["--model", "tsm_efflite0", "--data", "x", "--gpus", "0,0"], "expected the numbers of GPUs, each once"),
        (["--model", "tsm_efflite0", "--data", "x", "--gpus", "a,b"], "expected the numbers of GPUs, each once"),
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


def test_check_of_the_data_shows_what_could_steer_a_terminal(clips: Path, tmp_path: Path, ppv: Ppv) -> None:
    data = tmp_path / "clips"
    shutil.copytree(clips, data)
    (data / "bend" / os.fsdecode(b"a\n\x1b[2J\xff.mp4")).write_bytes(b"no video")
    settings = ["train", "--model", "tsm_efflite0", "--data", data, "--val-ratio", "0.5", "--check-data"]
    answer = ppv(*settings, "--out", tmp_path / "problems.tsv")
    assert answer.exit_code == 1, answer.stderr
    assert r"a\n\x1b[2J\udcff.mp4" in answer.stdout.splitlines()[0]
    assert r"\udcff.mp4" in (tmp_path / "problems.tsv").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("rows", "exit_code", "kind"),
    [
        (["bend_g0,bend,train", "jack_g0,jack,train", "jack_g1,jack,val"], 0, "class: bend: has no clip held out"),
        (["bend_g0,bend,train", "bend_g1,bend,val", "jack_g1,jack,val"], 1, "class: jack: has no clip to train on"),
        (
            ["bend_g0,bend,train", "bend_g0,bend,train", "bend_g1,bend,val", "jack_g0,jack,train", "jack_g1,jack,val"],
            0,
            "repeated: ",
        ),
        (
            ["bend_g0,bend,train", "bend_g0,bend,val", "jack_g0,jack,train", "jack_g1,jack,val"],
            1,
            "on both sides: ",
        ),
        (
            ["bend_g0,bend,train", "bend_g0,jack,train", "bend_g1,bend,val", "jack_g1,jack,val"],
            1,
            "two classes: ",
        ),
    ],
)
def test_check_of_the_data_fails_for_what_spoils_a_training(
    rows: list[str], exit_code: int, kind: str, clips: Path, tmp_path: Path, ppv: Ppv
) -> None:
    table = ["path,label,split"]
    for row in rows:
        name, action, side = row.split(",")
        table.append(f"{clips}/{name[:4]}/{name}.mp4,{action},{side}")
    (tmp_path / "clips.csv").write_text("\n".join(table))
    answer = ppv("train", "--model", "tsm_efflite0", "--data", tmp_path / "clips.csv", "--check-data")
    assert (answer.exit_code, answer.stderr) == (exit_code, "")
    assert answer.stdout.startswith(kind)
    assert "0 broken, 1 problems in all" in answer.stdout


def test_clips_that_no_class_has_are_told_before_hours_go_into_a_training(
    clips: Path, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "clips"
    shutil.copytree(clips, data)
    shutil.copy(clips / "bend" / "bend_g0.mp4", data)
    args = ["train", "--model", "tsm_efflite0", "--data", data, "--val-ratio", "0.5", "--out", tmp_path / "out"]
    warning = f"warning: {data}: clips outside of class folders are not used: 1\n"
    checked = ppv(*args, "--check-data")
    assert (checked.exit_code, checked.stderr) == (0, warning)
    (tmp_path / "out").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("ppvcli.engine.run.train", lambda *_, **__: 1 / 0)
        assert ppv(*args).stderr.startswith(warning)
    (data / "walk").mkdir()
    (data / "walk" / "a.xyz").touch()
    for more in ([], ["--check-data"]):
        answer = ppv(*args, *more)
        assert (answer.exit_code, answer.stdout) == (1, "")
        assert f"error: {data}/walk holds no clip, but 1 .xyz" in answer.stderr


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


def test_weights_are_fetched_before_eyes_and_only_for_a_run_that_can_begin(
    clips: Path, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer(PUBLISHED) as server:
        monkeypatch.setenv("PPV_WEIGHTS_MIRROR", server.base)
        args = ["train", "--model", "tsm", "--finetune", "resnet50", "--set", "data.num_workers=0", "--out", "run"]
        for wrong in (["--data", "no/such/folder"], ["--data", clips, "--set", "model.frozen_stages=1"]):
            assert ppv(*args, *wrong).exit_code in (1, 2)
        assert server.requests == []
        answer = ppv(*args, "--data", clips)
    data, first, second = answer.stderr.splitlines()[:3]
    assert data == "data: 2 classes (bend, jack), 2 clips to train on, 2 held out"
    assert first == f"resnet50: fetching {server.base}/PaddleVideo/PretrainModel/ResNet50_pretrain.pdparams, 0.4 MB"
    assert second.startswith("error: resnet50 is of another network than tsm_k400")


def test_terminal_shows_a_download_above_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from ppvcli.cli import output
    from ppvcli.cli.train_progress import TerminalWatcher
    from ppvcli.weights.download import DownloadProgress

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140, highlight=False)
    monkeypatch.setattr(output, "stderr_console", lambda: console)
    with TerminalWatcher() as watcher:
        watcher._live.refresh()
        assert "starting" in screen.getvalue()
        assert "resnet50" not in screen.getvalue()
        for stage, received in (("transfer", 0), ("transfer", 3_000_000), ("convert", 4_000_000)):
            watcher.on_download(
                DownloadProgress(name="resnet50", stage=stage, received_bytes=received, total_bytes=4_000_000)
            )
            watcher._live.refresh()
        assert "3.0/4.0 MB" in screen.getvalue()
        assert "resnet50: checking" in screen.getvalue()
        watcher.on_download(DownloadProgress(name="resnet50", stage="done"))
        screen.truncate(0)
        watcher._live.refresh()
        assert "starting" in screen.getvalue()
        assert "resnet50" not in screen.getvalue()


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("bend", "jack"), "it has 10, the data set 2; up to class 1 they are the same"),
        (("bend", "jump"), "class 1 is 'jack' for it and 'jump' in the data set (it has 10, the data set 2)"),
    ],
)
def test_teacher_of_other_classes_is_refused_with_the_first_that_differs(
    classes: tuple[str, ...], words: str, clips: Path, tmp_path: Path, ppv: Ppv
) -> None:
    for name, folder in zip(classes, ("bend", "jack"), strict=True):
        shutil.copytree(clips / folder, tmp_path / "clips" / name)
    teacher = ["--set", "teacher.weights=tsm_efflite0_weizmann", "--set", "model.pretrained=null"]
    answer = ppv("train", "--model", "tsm_efflite0", "--data", tmp_path / "clips", "--out", tmp_path / "run", *teacher)
    assert answer.exit_code == 2
    assert answer.stderr.splitlines()[1] == (
        "error: --set teacher.weights=tsm_efflite0_weizmann: tsm_efflite0_weizmann knows other classes than the data "
        f"set: {words}"
    )


def test_broken_clips_are_told_with_what_became_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    from ppvcli.cli.train_run import show_result
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
    show_result(TrainResult(run_dir="run", model="m", epochs=epochs, best_epoch=1, val=val))
    assert capsys.readouterr().err == (
        "warning: a/1.avi is empty: 0 bytes (skipped in training)\n"
        "warning: a/2.avi: decoding took too long (counted as wrong)\n"
        "hint: ppv eval --weights run, or ppv predict CLIP --weights run\n"
    )
