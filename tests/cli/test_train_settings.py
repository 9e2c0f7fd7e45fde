"""What `ppv train` makes of its flags before anything is trained."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppvcli.errors import DatasetError
from ppvcli.machine import usable_cores
from ppvcli.models.facts import BUNDLED_DIR
from ppvcli.weights.formats import WeightsMetadata, write_safetensors

Ppv = Callable[..., Any]

MODEL = ["train", "--model", "tsm_efflite0"]


def config_of(answer: Any) -> Any:
    assert answer.exit_code == 0, answer.stderr
    return json.loads(answer.stdout)


# --- contradictions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--epochs", "2", "--set", "epochs=7"], "--epochs 2 and --set epochs=7 contradict each other"),
        (["--data", "a", "--set", "data.root=b"], "--data a and --set data.root=b contradict"),
        (["--data", "a.csv", "--set", "data.csv=b.csv"], "--data a.csv and --set data.csv=b.csv contradict"),
        (["--data", "a", "--set", "data={root: b}"], "--data a and --set data={root: b} contradict"),
        (["--val-ratio", "0.2", "--set", "data.val_ratio=null"], "--val-ratio 0.2 and --set data.val_ratio=null"),
        (["--group-pattern", "(a)", "--set", "data.group_pattern=(b)"], "--group-pattern (a) and --set"),
        (["--finetune", "a/run", "--set", "model.pretrained=null"], "--finetune a/run and --set model.pretrained=null"),
        (["--amp", "O1", "--set", "amp=O2"], "--amp O1 and --set amp=O2"),
        (["--check-data", "--print-config"], "--print-config and --check-data exclude each other"),
        (["--list-configs", "--print-config"], "--list-configs and --print-config exclude each other"),
    ],
)
def test_contradiction_is_a_usage_error_with_a_hint(flags: list[str], words: str, ppv: Ppv) -> None:
    answer = ppv(*MODEL, *flags)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert words in answer.stderr
    assert "hint: keep one of them" in answer.stderr


@pytest.mark.parametrize(
    ("mode", "flags", "idle"),
    [
        ("--list-configs", ["--model", "nonsense", "--threads", "3", "--out", "x"], "--model, --out, --threads"),
        ("--list-configs", ["--set", "epochs=1"], "--set"),
        ("--check-data", ["--model", "tsm_efflite0", "--nproc", "2", "--master", "a:1"], "--nproc, --master"),
        ("--check-data", ["--model", "tsm_efflite0", "--device", "cpu"], "--device"),
    ],
)
def test_flag_that_takes_no_effect_without_a_training_is_refused(
    mode: str, flags: list[str], idle: str, ppv: Ppv
) -> None:
    answer = ppv("train", mode, *flags)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert answer.stderr == f"error: {idle} can't take effect with {mode}\nhint: leave {idle} out\n"


def test_whole_command_can_be_looked_at_before_it_runs(ppv: Ppv) -> None:
    flags = ["--out", "x", "--writer", "tensorboard", "--threads", "1", "--cpu", "--nproc", "1"]
    assert config_of(ppv(*MODEL, *flags, "--print-config", "--json"))["epochs"] > 0


def test_setting_that_is_said_twice_alike_is_no_contradiction(ppv: Ppv) -> None:
    flags = ["--epochs", "2", "--set", "epochs=2", "--val-ratio", "0.5", "--set", "data.val_ratio=0.5"]
    assert config_of(ppv(*MODEL, *flags, "--print-config", "--json"))["epochs"] == 2


def test_weights_of_a_model_give_way_to_others(ppv: Ppv) -> None:
    args = ["train", "--model", "tsm_ucf101", "--set", "model.pretrained=imagenet", "--print-config", "--json"]
    assert config_of(ppv(*args))["model"]["pretrained"] == "imagenet"


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--writer", "wandb"], "--writer tensorboard or --writer visualdl"),
        (["--amp", "O1", "--cpu"], "leave it out, or train with --gpu"),
        (["--finetune", "nope"], "ppv download-weights --list"),
        (["--nproc", "2", "--gpu"], "--gpus 0,1 in place of --nproc"),
        (["--gpus", "0", "--cpu"], "leave --gpus out"),
    ],
)
def test_wrong_request_comes_with_a_hint(flags: list[str], hint: str, ppv: Ppv) -> None:
    answer = ppv(*MODEL, "--data", "x", *flags)
    assert answer.exit_code == 2
    assert f"hint: {hint}" in answer.stderr


@pytest.mark.parametrize(
    ("value", "words"),
    [("0", "expected at least 1"), ("999", "expected at most 256"), ("x", "expected a valid integer")],
)
def test_number_out_of_range_is_told_in_our_words(value: str, words: str, ppv: Ppv) -> None:
    answer = ppv(*MODEL, "--nproc", value)
    assert answer.exit_code == 2
    assert f"error: invalid value for '--nproc': {words}" in answer.stderr


# --- --resume, --finetune ---------------------------------------------------------------------------------------------


def test_resume_names_what_it_can_not_take_and_a_command_that_can(tmp_path: Path, ppv: Ppv) -> None:
    changes = ["--epochs", "20", "--set", "optimizer.learning_rate=1e-4"]
    (tmp_path / "run" / "best").mkdir(parents=True)
    weights = BUNDLED_DIR / "tsm_efflite0_weizmann.safetensors"
    (tmp_path / "run" / "best" / "weights.safetensors").write_bytes(weights.read_bytes())
    answer = ppv("train", "--resume", tmp_path / "run", *changes)
    assert answer.exit_code == 2
    error, hint = answer.stderr.splitlines()
    assert "--epochs 20, --set optimizer.learning_rate=1e-4 can't take effect; only --data, --writer" in error
    command = hint.removeprefix("hint: ppv ").partition(" starts a new run")[0]
    args = command.replace("DIR --out NEW_RUN_DIR", "x")
    config = config_of(ppv(*shlex.split(args), "--print-config", "--json"))
    assert (config["model"]["name"], config["model"]["pretrained"]) == ("tsm_efflite0", str(tmp_path / "run"))
    assert (config["epochs"], config["optimizer"]["learning_rate"]) == (20, 1e-4)


@pytest.mark.parametrize(
    ("flags", "hint"),
    [
        (["--print-config"], "ppv train --config run/config.yaml --print-config"),
        (["--check-data"], "ppv train --config run/config.yaml --check-data"),
        (["--list-configs"], "keep one of them"),
        (["--model", "tsm_efflite0"], "ppv train --finetune run --data DIR --out NEW_RUN_DIR starts"),
    ],
)
def test_resume_excludes_what_is_no_training_of_the_run(flags: list[str], hint: str, ppv: Ppv) -> None:
    answer = ppv("train", "--resume", "run", *flags)
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert f"hint: {hint}" in answer.stderr


def test_resume_takes_a_folder_of_moved_clips_not_a_csv(tmp_path: Path, ppv: Ppv) -> None:
    (tmp_path / "clips.csv").touch()
    answer = ppv("train", "--resume", "run", "--data", tmp_path / "clips.csv")
    assert answer.exit_code == 2
    assert f"hint: --data {tmp_path}, or no --data" in answer.stderr


def test_run_that_is_not_there_comes_with_a_hint(ppv: Ppv) -> None:
    assert "hint: --resume RUN_DIR, the folder that ppv train wrote" in ppv("train", "--resume", "nope").stderr


@pytest.mark.parametrize(
    ("model", "recipe"),
    [("tsm_efflite0_weizmann", "tsm_efflite0"), ("tsm_ucf101", "tsm_k400")],
)
def test_weights_that_say_their_model_choose_its_recipe(model: str, recipe: str, tmp_path: Path, ppv: Ppv) -> None:
    path = tmp_path / "own.safetensors"
    write_safetensors(path, {"x": np.zeros(1, np.float32)}, metadata=WeightsMetadata(model=model))
    for start in (str(path), model):
        config = config_of(ppv("train", "--finetune", start, "--data", "x", "--print-config", "--json"))
        assert (config["model"]["name"], config["model"]["pretrained"]) == (recipe, start)


def test_weights_that_name_no_model_ask_for_it(tmp_path: Path, ppv: Ppv) -> None:
    write_safetensors(tmp_path / "own.safetensors", {"x": np.zeros(1, np.float32)})
    for start in (tmp_path / "own.safetensors", "resnet50", "imagenet"):
        answer = ppv("train", "--finetune", start, "--data", "x")
        assert answer.exit_code == 2
        assert f"error: --finetune {start} does not say what to train" in answer.stderr
        assert f"hint: ppv train --model NAME --finetune {start} --data DIR" in answer.stderr
    answer = ppv("train", "--finetune", tmp_path / "none", "--data", "x")
    assert f"error: no weight file at {tmp_path / 'none'}" in answer.stderr


def test_model_of_weights_without_a_recipe_is_told_with_them(tmp_path: Path, ppv: Ppv) -> None:
    path = tmp_path / "own.safetensors"
    metadata = WeightsMetadata(model="pptsm_r50_k400_dense")
    write_safetensors(path, {"x": np.zeros(1, np.float32)}, metadata=metadata)
    answer = ppv("train", "--finetune", path, "--data", "x")
    assert answer.exit_code == 2
    assert f"hint: ppv train --model pptsm_r50_k400_uniform --finetune {path} ..." in answer.stderr


# --- a CSV file -------------------------------------------------------------------------------------------------------


def write_csv(path: Path, *, with_split: bool) -> None:
    rows = [("a.mp4", "walk", "train"), ("b.mp4", "bend", "train"), ("c.mp4", "walk", "val"), ("d.mp4", "bend", "val")]
    table = [("path", "label", "split"), *rows]
    path.write_text("\n".join(",".join(row if with_split else row[:2]) for row in table))


def test_data_may_be_a_csv_and_its_split_comes_before_the_recipes(
    tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_clips").mkdir()
    for name, with_split in (("split.csv", True), ("all.CSV", False)):
        write_csv(tmp_path / "my_clips" / name, with_split=with_split)
        data = config_of(ppv(*MODEL, "--data", f"my_clips/{name}", "--print-config", "--json"))["data"]
        assert (data["root"], data["csv"], data["val_ratio"]) == ("my_clips", name, None if with_split else 0.2)
    answer = ppv(*MODEL, "--data", "my_clips", "--set", "data.csv=split.csv", "--print-config", "--json")
    assert config_of(answer)["data"]["val_ratio"] is None
    monkeypatch.chdir(tmp_path / "my_clips")
    data = config_of(ppv(*MODEL, "--data", "split.csv", "--print-config", "--json"))["data"]
    assert (data["root"], data["csv"]) == (".", "split.csv")


@pytest.mark.parametrize("typed", [["--val-ratio", "0.3"], ["--set", "data.val_ratio=0.3"]])
def test_ratio_that_was_typed_does_not_give_way_to_a_split(typed: list[str], tmp_path: Path, ppv: Ppv) -> None:
    write_csv(tmp_path / "split.csv", with_split=True)
    answer = ppv(*MODEL, "--data", tmp_path / "split.csv", *typed)
    assert answer.exit_code == 1
    assert "has a column 'split', so that data.val_ratio can't take effect" in answer.stderr
    assert "hint: leave that out" in answer.stderr


def test_csv_that_is_not_there_is_an_error(tmp_path: Path, ppv: Ppv) -> None:
    answer = ppv(*MODEL, "--data", tmp_path / "none.csv")
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert f"no {tmp_path / 'none.csv'}" in answer.stderr


# --- the data set -----------------------------------------------------------------------------------------------------


def make_clips(root: Path) -> None:
    for name in ("bend", "jack"):
        (root / name).mkdir(parents=True)
        for i in range(2):
            (root / name / f"{i}.mp4").touch()


@pytest.mark.parametrize("more", [[], ["--check-data"], ["--json"]])
def test_folder_one_level_too_high_is_an_error(more: list[str], tmp_path: Path, ppv: Ppv) -> None:
    make_clips(tmp_path / "my_clips")
    answer = ppv(*MODEL, "--data", tmp_path, "--out", tmp_path.parent / f"{tmp_path.name}_run", *more)
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert f"hint: did you mean --data {tmp_path / 'my_clips'}?" in answer.stderr


def test_run_never_goes_into_the_data_set(tmp_path: Path, ppv: Ppv) -> None:
    make_clips(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    for out in (tmp_path, tmp_path / "run", tmp_path.parent):
        answer = ppv(*MODEL, "--data", tmp_path, "--out", out)
        assert (answer.exit_code, answer.stdout) == (2, "")
    assert sorted(tmp_path.rglob("*")) == before


def test_report_of_a_check_is_refused_before_clips_are_decoded(tmp_path: Path, ppv: Ppv) -> None:
    make_clips(tmp_path / "my_clips")
    victim = tmp_path / "victim.avi"
    victim.write_bytes(b"RIFF")
    for out in (victim, tmp_path, tmp_path / "none" / "x.tsv"):
        answer = ppv(*MODEL, "--data", tmp_path / "my_clips", "--check-data", "--out", out)
        assert (answer.exit_code, answer.stdout) == (2, "")
        assert "hint: " in answer.stderr
        assert "PPV_DEBUG" not in answer.stderr
    assert victim.read_bytes() == b"RIFF"


def test_results_of_a_check_are_shown_where_the_disk_refuses_the_report(
    tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clips(tmp_path / "my_clips")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("ppvcli.datasets.check.write_text", full)
    answer = ppv(*MODEL, "--data", tmp_path / "my_clips", "--check-data", "--out", tmp_path / "x.tsv")
    assert answer.exit_code == 2
    assert answer.stdout.count("broken: ") == 4
    assert f"error: can't write {tmp_path / 'x.tsv'}: No space left on device" in answer.stderr


@pytest.mark.parametrize(("threads", "num_workers"), [(["--threads", "1"], 1), ([], usable_cores())])
def test_check_decodes_with_as_many_processes_as_threads(
    threads: list[str], num_workers: int, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_data(*_: object, num_workers: int, **__: object) -> None:
        raise DatasetError(f"{num_workers} at work")

    make_clips(tmp_path / "my_clips")
    monkeypatch.setattr("ppvcli.datasets.check.check_data", check_data)
    answer = ppv(*MODEL, "--data", tmp_path / "my_clips", "--check-data", *threads)
    assert answer.stderr == f"error: {num_workers} at work\n"


def test_classes_and_clips_are_told_on_a_terminal_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The note goes above the bar, which is what else stands on stderr."""
    from rich.console import Console

    from ppvcli.cli import output
    from ppvcli.cli.train_progress import TerminalWatcher

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=140, highlight=False)
    monkeypatch.setattr(output, "stderr_console", lambda: console)
    with TerminalWatcher():
        output.show_note("data: 2 classes (bend, jack), 2 clips to train on, 2 held out")
    assert "data: 2 classes (bend, jack), 2 clips to train on, 2 held out" in screen.getvalue()
