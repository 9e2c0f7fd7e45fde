"""`ppv export` on the bundled model, and its errors as a user reads them."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import ppvcli
from ppvcli.deploy import export_plan, exporter
from ppvcli.models.facts import BUNDLED_DIR
from ppvcli.results import ExportedProgram, ExportReport
from tests.small_model import write_weights

MODEL = "tsm_efflite0_weizmann"
DEMO = BUNDLED_DIR / "demo.mp4"

Ppv = Callable[..., Any]


def test_export_is_public() -> None:
    assert ppvcli.export is exporter.export


def test_export_of_the_bundled_model_shows_what_its_check_found(ppv: Ppv, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    answer = ppv("export", "--model", MODEL, "--out", out, "--format", "onnx", "--check", DEMO, "--threads", 2)
    assert (answer.exit_code, answer.stderr) == (0, "")
    header, row, note = answer.stdout.splitlines()
    assert header.split() == ["program", "precision", "MB", "logits", "differ", "by", "same", "top-1", "right", "ms"]
    assert re.fullmatch(r"inference\.onnx +fp32 +13\.8 +\d\.\de-0[5-7] +3 of 3 +- +\d+\.\d", row)
    assert note == f"{MODEL} -> {out}: 3 clips, two of them rendered; time of one clip with 2 threads"
    assert sorted(path.name for path in out.iterdir()) == ["inference.onnx", "inference.yml"]

    again = ppv("export", "--model", MODEL, "--out", out)
    assert (again.exit_code, again.stdout) == (2, "")
    assert again.stderr == (
        f"error: {out} already holds an export\nhint: --force replaces it, or choose another --out\n"
    )


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_export_that_is_terminated_leaves_nothing_behind(tmp_path: Path, python_process: Any) -> None:
    exports, temporary = tmp_path / "exports", tmp_path / "tmp"
    for folder in (exports, temporary):
        folder.mkdir()
    args = ("export", "--model", MODEL, "--out", str(exports / "mine"), "--format", "paddle")
    process = python_process("-m", "ppvcli", *args, OMP_NUM_THREADS="1", TMPDIR=str(temporary))
    while not any(exports.iterdir()):
        assert process.poll() is None
        time.sleep(0.05)
    process.terminate()
    assert process.communicate(timeout=60) == ("", "error: terminated\n")
    assert process.returncode == 143
    assert [*exports.iterdir(), *temporary.iterdir()] == []


PROGRAM = ExportedProgram(
    file="inference.json",
    format="paddle",
    precision="fp32",
    size_bytes=1_000_000,
    max_diff=2e-6,
    num_clips=5,
    num_agree=4,
    num_labelled=3,
    num_correct=2,
    time_ms=12.34,
    threads=1,
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asks the library for, instead of an export."""
    asked: dict[str, Any] = {}

    def export(model: str | None, out: Path, **settings: Any) -> ExportReport:
        asked.update(settings, model=model, out=out)
        return ExportReport(out_dir=str(out), model=MODEL, programs=(PROGRAM,))

    monkeypatch.setattr(exporter, "export", export)
    return asked


def test_export_without_check_names_the_programs(asked: dict[str, Any], ppv: Ppv) -> None:
    answer = ppv("export", "--weights", "run", "-o", "out", "--format", "paddle, onnx,", "--precision", "fp32,int8")
    assert answer == (0, f"{Path('out/inference.json')}\n", "")
    assert (asked["model"], asked["weights"], asked["out"]) == (None, Path("run"), Path("out"))
    assert (asked["formats"], asked["precisions"]) == (["paddle", "onnx"], ["fp32", "int8"])
    assert (asked["program"], asked["force"], asked["check"], asked["calibration"]) == ("json", False, None, None)


def test_export_writes_paddle_and_onnx_in_full_precision_by_default(
    asked: dict[str, Any], ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_plan, "package_version", lambda distribution: "2.1.0")
    assert ppv("export", "--weights", "run", "--out", "out").exit_code == 0
    assert (asked["formats"], asked["precisions"]) == (("paddle", "onnx"), ["fp32"])


def test_export_without_paddle2onnx_is_of_paddle_alone_unless_onnx_is_asked_for(
    asked: dict[str, Any], ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_plan, "package_version", lambda distribution: None)
    answer = ppv("export", "--weights", "run", "--out", "out")
    assert answer.exit_code == 0
    assert answer.stderr.startswith("no ONNX: paddle2onnx is not installed; pip install paddle2onnx")
    assert asked["formats"] == ("paddle",)
    for args in (["--format", "paddle,onnx"], ["--precision", "fp32,int8"]):  # these fail, with the line for pip
        assert ppv("export", "--weights", "run", "--out", "out", *args).stderr == ""
        assert list(asked["formats"]) == ["paddle", "onnx"]


def test_export_table_says_how_many_labelled_clips_are_right(asked: dict[str, Any], ppv: Ppv) -> None:
    answer = ppv("export", "--weights", "run", "--out", "out", "--check", "clips.list")
    assert " ".join(answer.stdout.splitlines()[1].split()) == "inference.json fp32 1.0 2.0e-06 4 of 5 2 of 3 12.3"
    assert answer.stdout.splitlines()[2].endswith("time of one clip with 1 thread")


def test_export_as_json_is_the_report(asked: dict[str, Any], ppv: Ppv) -> None:
    answer = ppv("export", "--weights", "run", "--out", "out", "--json", "--force")
    report = json.loads(answer.stdout)
    assert (report["out_dir"], report["model"]) == ("out", MODEL)
    assert report["programs"][0]["max_diff"] == 2e-6
    assert asked["force"] is True


def test_config_names_the_model_and_its_data_the_classes(asked: dict[str, Any], ppv: Ppv, tmp_path: Path) -> None:
    for label in ("kick", "throw"):
        (tmp_path / "data" / label).mkdir(parents=True)
        for number in range(2):
            (tmp_path / "data" / label / f"{number}.mp4").touch()
    text = (Path(ppvcli.__file__).parent / "configs" / "tsm_efflite0_folder.yaml").read_text(encoding="utf-8")
    config = tmp_path / "mine.yaml"
    config.write_text(re.sub(r"(?m)^(\s+root:).*$", rf"\1 {tmp_path / 'data'}", text), encoding="utf-8")
    weights = write_weights(tmp_path / "w.safetensors")
    assert ppv("export", "--config", config, "--weights", weights, "--out", "out").exit_code == 0
    assert (asked["model"], asked["class_names"]) == ("tsm_efflite0", ("kick", "throw"))

    config.write_text(re.sub(r"(?m)^(\s+root:).*$", rf"\1 {tmp_path / 'gone'}", text), encoding="utf-8")
    weights = write_weights(tmp_path / "w.safetensors")
    assert ppv("export", "--config", config, "--weights", weights, "--out", "out").exit_code == 0
    assert asked["class_names"] is None


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        ([], "missing option '--out' / '-o'", "ppv export --help"),
        (["--out", "o"], "no model is named", "--model NAME, or --weights RUN_DIR"),
        (["--out", "o", "--config", "x"], "a config has no weights", "--weights FILE, or --weights RUN_DIR"),
        (
            ["--out", "o", "--config", "x", "--model", MODEL, "--weights", "w"],
            "--config and --model exclude each other",
            "the config names the model",
        ),
        (
            ["--out", "o", "--model", MODEL, "--format", "tensorrt"],
            "unknown format 'tensorrt'",
            "there are: paddle, onnx, openvino",
        ),
        (
            ["--out", "o", "--model", MODEL, "--precision", "int8"],
            "paddle can't be exported as int8: what Paddle's own quantisation writes does not load again",
            "paddle: fp32; onnx: fp32, int8; openvino: fp32, bf16",
        ),
        (
            ["--out", "o", "--model", MODEL, "--precision", "int8", "--format", "onnx"],
            "int8 needs clips of yours to measure the ranges of values on",
            "--calibration FOLDER",
        ),
    ],
)
def test_export_refuses_with_one_error_and_one_hint(
    args: list[str], error: str, hint: str, ppv: Ppv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ppv("export", *args) == (2, "", f"error: {error}\nhint: {hint}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("args", "error"),
    [
        (["--format", "tensorrt"], "unknown format 'tensorrt'"),
        (["--precision", "int8", "--format", "onnx"], "int8 needs clips of yours"),
        (["--check", "nowhere", "--format", "paddle"], "check: no folder, list or video at nowhere"),
        (["--out", "full", "--format", "paddle"], "full holds other things than an export"),
    ],
)
def test_export_that_cannot_be_made_is_told_before_weights_are_fetched(
    args: list[str], error: str, ppv: Ppv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppvcli.cli.export.fetch_weights", lambda name: pytest.fail("fetched for nothing"))
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    answer = ppv("export", "--model", "pptsmv2", "--out", "o", *args)
    assert answer.stdout == ""
    assert answer.stderr.startswith(f"error: {error}")


def test_config_of_another_model_is_told_as_such(ppv: Ppv, tmp_path: Path) -> None:
    weights = BUNDLED_DIR / f"{MODEL}.safetensors"
    answer = ppv("export", "--weights", weights, "--config", "tsm_k400_folder", "--out", tmp_path / "out")
    assert (answer.exit_code, answer.stdout) == (2, "")
    assert "error: --config tsm_k400_folder trains tsm_k400: " in answer.stderr
    assert "hint: leave --config out" in answer.stderr


def test_export_counts_right_answers_by_the_names_of_folders_that_are_classes(ppv: Ppv, tmp_path: Path) -> None:
    for name in ("wave2", "somewhere"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        shutil.copy(DEMO, tmp_path / "clips" / name / "clip.mp4")
    args = ("--model", MODEL, "--format", "paddle", "--check", tmp_path / "clips", "--threads", 1)
    answer = ppv("export", *args, "--out", tmp_path / "out", "--json")
    (program,) = json.loads(answer.stdout)["programs"]
    assert (program["num_clips"], program["num_labelled"], program["num_correct"]) == (4, 1, 1)


@pytest.mark.skipif(sys.platform != "linux", reason="nobody can make a folder in the /proc of Linux")
def test_export_needs_no_home_that_can_be_written(tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/proc/home")
    answer = ppv("export", "--model", MODEL, "--format", "paddle", "--out", tmp_path / "out", "--threads", 1)
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert os.environ["HOME"] == "/proc/home"
