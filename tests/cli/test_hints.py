"""Hints that are commands can be copied to a shell, whatever the folder is called."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppvcli.cli import train_run
from ppvcli.configs.load import load_config
from ppvcli.datasets.check import check_report_path
from ppvcli.engine import checkpoint
from ppvcli.engine.launch import describe_failure
from ppvcli.engine.log import cannot_write
from ppvcli.engine.run_folder import check_new_run
from ppvcli.errors import PpvError
from ppvcli.models.facts import BUNDLED_DIR
from ppvcli.results import ClassResult, EvalReport, TrainResult
from ppvcli.video.bench.plot import check_plot_path
from ppvcli.weights.formats import resolve_weights_path
from tests.engine.run_entries import epoch_result

Ppv = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A folder with a config, weights, and a name that a shell would take for two words."""
    run = tmp_path / "my run"
    (run / "best").mkdir(parents=True)
    shutil.copy(BUNDLED_DIR / "tsm_efflite0_weizmann.safetensors", run / "best" / "weights.safetensors")
    (run / "config.yaml").write_text(
        f"model: {{name: tsm_efflite0}}\nepochs: 1\nbatch_size: 2\ndata: {{root: {tmp_path}/gone, val_ratio: 0.5}}\n"
        "optimizer: {name: adamw, learning_rate: 1e-3}\n",
        encoding="utf-8",
    )
    return run


def words_of(text: str) -> list[str]:
    """What a shell makes of the hint, or of the last line of stderr."""
    return shlex.split(text.splitlines()[-1].replace("hint: ", "").replace(",", " "))


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (["train", "--resume", "my run", "--print-config"], "my run/config.yaml"),
        (["train", "--resume", "my run", "--epochs", "3"], "my run"),
        (["train", "--resume", "my run", "--data", "my run/config.yaml"], "my run"),
        (["train", "--finetune", "my run/x.safetensors", "--data", "x"], "my run/x.safetensors"),
        (["train", "--model", "pptsm_r50_k400_dense", "--finetune", "my run", "--data", "x"], "my run"),
        (["eval", "--weights", "my run", "--workers", "0"], "my run/config.yaml"),
        (["predict", "my run"], "my run/*"),
    ],
)
def test_hint_of_a_command_quotes_the_path(
    args: list[str], named: str, run: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ppvcli.weights.formats import WeightsMetadata, write_safetensors

    write_safetensors(run / "x.safetensors", {}, metadata=WeightsMetadata())
    monkeypatch.chdir(run.parent)
    assert named in words_of(ppv(*args).stderr)


def _start_a_run(run: Path) -> None:
    check_new_run(run, load_config(str(run / "config.yaml")).data)


def _train_inside_the_data(run: Path) -> None:
    (run / "config.yaml").rename(run.parent / "mine.yaml")
    data = load_config(str(run.parent / "mine.yaml")).data.model_copy(update={"root": str(run)})
    check_new_run(run / "mine", data)


def _read_an_export(run: Path) -> None:
    (run / "inference.yml").touch()
    (run / "best" / "weights.safetensors").unlink()
    resolve_weights_path(run)


def _fail_in_a_process(run: Path) -> None:
    (run / "launch.log").touch()
    raise describe_failure(run, 1, run)


@pytest.mark.parametrize(
    ("fail", "named"),
    [
        (_start_a_run, "my run"),
        (_train_inside_the_data, "runs/mine"),
        (_read_an_export, "my run"),
        (_fail_in_a_process, "my run"),
        (lambda run: check_report_path(run / "none" / "x.tsv"), "my run/none"),
        (lambda run: check_report_path(run), "my run/problems.tsv"),
        (lambda run: check_plot_path(run / "none" / "x.png"), "my run/none"),
    ],
)
def test_hint_of_the_library_quotes_the_path(fail: Callable[[Path], None], named: str, run: Path) -> None:
    with pytest.raises(PpvError) as caught:
        fail(run)
    assert str(run.parent / named) in words_of(str(caught.value.hint))


def test_hint_about_a_full_disk_quotes_the_run(run: Path) -> None:
    assert str(run) in words_of(str(cannot_write(run / "log.jsonl", OSError(28, "full")).hint))


def test_hint_about_a_lost_report_quotes_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "_read_state", lambda run_dir: None)
    with pytest.raises(PpvError) as caught:
        checkpoint.read_result(run, model="m")
    assert str(run / "last") in words_of(str(caught.value.hint))


def test_hints_about_a_run_quote_it(
    run: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ppvcli.engine.run.resume", interrupt)
    assert words_of(ppv("train", "--resume", run).stderr) == ["ppv", "train", "--resume", str(run)]
    classes = (ClassResult(label="a", num_clips=1, num_correct=0, num_predicted=0),)
    val = EvalReport(model="m", num_clips=1, num_correct=0, num_correct_top5=0, loss=1.0, classes=classes)
    train_run.show_result(TrainResult(run_dir=str(run), model="m", epochs=(epoch_result(1),), best_epoch=1, val=val))
    assert words_of(capsys.readouterr().err).count(str(run)) == 2


def test_plot_into_a_folder_that_is_a_file_has_a_hint_that_works(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PpvError) as caught:
        check_plot_path(tmp_path / "file" / "x.png")
    assert caught.value.hint == "--plot in another folder"
