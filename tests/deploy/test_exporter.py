"""Exports as a user gets them: complete and right, or an error and nothing. A real network, small random weights."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest

from ppvcli.deploy import export_plan, exporter
from ppvcli.deploy.clips import find_clips
from ppvcli.deploy.exported import read_export
from ppvcli.deploy.exporter import export, paddlex_name
from ppvcli.deploy.programs import write_onnx
from ppvcli.deploy.runtimes import EngineSettings, load_engine
from ppvcli.errors import (
    DatasetError,
    ExportError,
    MissingPackageError,
    PpvError,
    UnknownNameError,
    UsageError,
    VideoError,
    WeightsNotFoundError,
)
from ppvcli.models import pptsmv2
from ppvcli.models.build import build_network
from ppvcli.models.load import load_model
from ppvcli.models.recognizer import open_recognizer
from ppvcli.models.zoo import get_model_row
from ppvcli.results import ExportReport
from ppvcli.video.clip import load_clip
from ppvcli.video.render import render_action, write_video
from tests.small_model import LABELS, MODEL, PREPROCESS, write_weights

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, three clips, and lists of them."""
    folder = tmp_path_factory.mktemp("exporter")
    write_weights(folder / "run" / "best" / "weights.safetensors")
    for name, action in (("a.mp4", "bend"), ("b c.mp4", "jack"), ("deep/d.mp4", "jump")):
        (folder / "clips" / name).parent.mkdir(parents=True, exist_ok=True)
        write_video(folder / "clips" / name, render_action(action, num_frames=24))
    (folder / "clips" / "labelled.list").write_text("a.mp4 1\nb c.mp4 2\n\ndeep/d.mp4 0\n")
    (folder / "clips" / "plain.txt").write_text("a.mp4\nb c.mp4\n")
    (folder / "clips" / "missing.txt").write_text("a.mp4\ngone.mp4\nalso gone.mp4 3\n")
    (folder / "clips" / "empty.txt").write_text("\n")
    (folder / "clips" / "marked.txt").write_text("a.mp4\nb c.mp4\n", encoding="utf-8-sig")
    (folder / "clips" / "mixed.list").write_text("a.mp4 1\nb c.mp4\n")
    (folder / "clips" / "wrong.list").write_text("a.mp4 1\nb c.mp4 999\n")
    (folder / "nothing").mkdir()
    return folder


@pytest.fixture(scope="module")
def exported(folder: Path) -> tuple[Path, ExportReport]:
    """Everything at once."""
    pytest.importorskip("openvino")
    out = folder / "all"
    report = export(
        None,
        out,
        weights=folder / "run",
        formats=["onnx", "paddle", "openvino"],
        precisions=["fp32", "int8", "bf16"],
        calibration=folder / "clips",
        check=folder / "clips" / "labelled.list",
        threads=1,
    )
    return out, report


def small_export(folder: Path, out: Path, **settings: Any) -> ExportReport:
    return export(None, out, weights=folder / "run", **{"formats": ["onnx"], "threads": 1, **settings})


@pytest.fixture
def converted(exported: tuple[Path, ExportReport], monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversion to ONNX gives what it gave before."""

    def write(network: Any, path: Path, **settings: Any) -> None:
        shutil.copy(exported[0] / "inference.onnx", path)

    monkeypatch.setattr(exporter.programs, "write_onnx", write)


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


# --- what is written --------------------------------------------------------------------------------------------------


def test_export_holds_every_program_that_was_asked_for_and_nothing_else(exported: tuple[Path, ExportReport]) -> None:
    out, report = exported
    assert [(p.file, p.format, p.precision) for p in report.programs] == [
        ("inference.json", "paddle", "fp32"),
        ("inference.onnx", "onnx", "fp32"),
        ("inference_int8.onnx", "onnx", "int8"),
        ("inference.xml", "openvino", "fp32"),
        ("inference_bf16.xml", "openvino", "bf16"),
    ]
    assert sorted(path.name for path in out.iterdir()) == [
        "inference.bin",
        "inference.json",
        "inference.onnx",
        "inference.pdiparams",
        "inference.xml",
        "inference.yml",
        "inference_bf16.bin",
        "inference_bf16.xml",
        "inference_int8.onnx",
    ]
    assert (report.out_dir, report.model) == (str(out), MODEL)
    assert not hidden(out.parent)


def test_export_report_says_what_the_check_found(exported: tuple[Path, ExportReport]) -> None:
    _, report = exported
    for program in report.programs:
        assert 0 < program.max_diff < (1e-4 if program.precision == "fp32" else 1.0), program
        assert (program.num_clips, program.num_labelled, program.threads) == (5, 3, 1)
        assert program.num_correct is not None
        assert 0 <= program.num_correct <= 3
        assert program.time_ms > 0
        if program.precision == "fp32":
            assert program.num_agree == 5
    # the list calls these small clips what the network calls them, and one of them something else
    assert report.programs[0].num_correct == 2
    size = {program.file: program.size_bytes for program in report.programs}
    assert size["inference_int8.onnx"] < 0.35 * size["inference.onnx"]
    assert size["inference_bf16.xml"] < 0.6 * size["inference.xml"]
    assert report.to_dict()["programs"][0]["file"] == "inference.json"


def test_export_reads_back_as_it_was_written(exported: tuple[Path, ExportReport]) -> None:
    out, _ = exported
    info = read_export(out)
    assert (info.folder, info.model, info.labels, info.preprocess) == (out, MODEL, LABELS, PREPROCESS)
    assert {"ppvcli", "paddle", "onnxruntime", "openvino"} == set(info.versions)
    assert info.provenance["weights"]["file"] == "weights.safetensors"
    assert re.fullmatch(r"[0-9a-f]{64}", info.provenance["weights"]["sha256"])
    found = info.find("openvino", "bf16")
    assert found is not None
    assert [path.name for path in found.files] == ["inference_bf16.xml", "inference_bf16.bin"]
    assert info.find("paddle", "int8") is None


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("int8", 0.5)])
def test_program_gives_the_logits_of_load_model(
    precision: Any, tolerance: float, exported: tuple[Path, ExportReport], folder: Path
) -> None:
    clip = load_clip(folder / "clips" / "b c.mp4", PREPROCESS)
    with paddle.no_grad():
        wanted = load_model(MODEL, weights=folder / "run")(paddle.to_tensor(clip)).numpy()
    program = read_export(exported[0]).find("onnx", precision)
    assert program is not None
    logits = load_engine("onnxruntime", program.path, settings=EngineSettings(threads=1)).run(clip)
    np.testing.assert_allclose(logits, wanted, rtol=0, atol=tolerance)


def test_int8_program_has_unsigned_activations_and_a_scale_for_every_channel(
    exported: tuple[Path, ExportReport],
) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(exported[0] / "inference_int8.onnx")).graph
    kinds = {tensor.name: (tensor.data_type, list(tensor.dims)) for tensor in graph.initializer}
    points = [kinds[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert points
    assert all(kind == onnx.TensorProto.UINT8 for kind, _ in points)
    weights = [
        kinds[node.input[0]] for node in graph.node if node.op_type == "DequantizeLinear" and node.input[0] in kinds
    ]
    kernels = [dims for kind, dims in weights if kind == onnx.TensorProto.INT8 and len(dims) == 4]
    assert len(kernels) == sum(node.op_type == "Conv" for node in graph.node)
    scales = {node.input[0]: kinds[node.input[1]][1] for node in graph.node if node.op_type == "DequantizeLinear"}
    assert all(scales[name] == dims[:1] for name, (_, dims) in kinds.items() if name in scales and len(dims) == 4)


# --- what an export replaces ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("converted")
def test_existing_export_is_replaced_only_by_force(exported: tuple[Path, ExportReport], folder: Path) -> None:
    out = folder / "again"
    shutil.copytree(exported[0], out)
    with pytest.raises(UsageError, match="already holds an export") as caught:
        small_export(folder, out)
    assert "--force" in str(caught.value.hint)
    assert len(list(out.iterdir())) == 9
    small_export(folder, out, force=True)
    assert sorted(path.name for path in out.iterdir()) == ["inference.onnx", "inference.yml"]
    assert not hidden(folder)


def test_folder_with_other_things_is_never_replaced(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "holiday.mp4").touch()
    (tmp_path / "inference.onnx").touch()
    with pytest.raises(UsageError, match=r"holds other things than an export, such as holiday\.mp4"):
        small_export(folder, tmp_path, force=True)
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file, not a folder"):
        small_export(folder, tmp_path / "file", force=True)
    assert len(list(tmp_path.iterdir())) == 3


# --- nothing half-written ---------------------------------------------------------------------------------------------


def write_another_network(network: Any, path: Path, **settings: Any) -> None:
    paddle.seed(1)
    write_onnx(build_network(get_model_row(MODEL).network, len(LABELS)), path, **settings)


def write_rubbish(network: Any, path: Path, **settings: Any) -> None:
    path.write_bytes(b"\x08\x07rubbish")


def write_nothing(network: Any, path: Path, **settings: Any) -> None:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(
    ("write", "fault"),
    [
        (
            write_another_network,
            r"inference\.onnx \(onnx, fp32\) failed its check, nothing was exported: .*differently",
        ),
        (write_rubbish, r"inference\.onnx \(onnx, fp32\) failed its check, nothing was exported: .*does not take"),
        (write_nothing, r"can't write the export .*: No space left on device"),
    ],
)
def test_program_that_is_wrong_is_named_and_leaves_nothing(
    write: Callable[..., None], fault: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter.programs, "write_onnx", write)
    with pytest.raises(ExportError, match=fault):
        small_export(folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("converted")
def test_crash_of_a_program_is_an_error_that_names_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = subprocess.run

    def kill_the_check(args: list[str], **settings: Any) -> Any:
        if "check" in args[-1]:
            args = [sys.executable, "-c", "import os; os.abort()"]
        return run(args, **settings)

    monkeypatch.setattr(subprocess, "run", kill_the_check)
    with pytest.raises(ExportError, match=r"inference\.onnx .*nothing was exported: .*crashes .*signal 6"):
        small_export(folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_full_disk_is_seen_before_anything_is_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("Usage", (), {"free": 20 << 20})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ExportError, match="not enough space for the export"):
        small_export(folder, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on file sizes")
def test_disk_that_fills_up_in_the_middle_gives_one_error_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    code = f"""
import resource, sys
from ppvcli.cli.app import main
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, 4 << 20))
sys.exit(main(["export", "--weights", {str(folder / "run")!r}, "--out", "out", "--format", "paddle"]))
"""
    (tmp_path / "tmp").mkdir()
    env = {"PYTHONPATH": str(REPO), "PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path / "tmp"), "HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stdout == ""
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: the program that Paddle wrote into ")
    assert hint == "hint: free some space on the disk"
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("tmp", ".cache")] == []
    assert not list((tmp_path / "tmp").iterdir())


def test_full_disk_is_seen_also_where_the_clips_of_the_check_would_fill_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "clips" / "long.txt").write_text("a.mp4\n" * 1000)  # of 221 kB each
    usage = type("Usage", (), {"free": 250 << 20})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(ExportError, match=r"not enough space for the export in .*: 2[6-9]\d MB needed, 250 MB free"):
        small_export(folder, tmp_path / "out", check=folder / "clips" / "long.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("check", "error", "fault"),
    [
        ("clips/wrong.list", DatasetError, r"label 999 of .*b c\.mp4, but there are 3 classes"),
        ("broken.mp4", VideoError, r"broken\.mp4"),
    ],
)
def test_fault_in_the_clips_of_the_check_is_told_before_the_conversion(
    check: str, error: type[PpvError], fault: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "broken.mp4").write_text("no video")
    monkeypatch.setattr(exporter.programs, "write_onnx", None)  # would be a TypeError
    with pytest.raises(error, match=fault):
        small_export(folder, tmp_path / "out", check=folder / check)
    assert not list(tmp_path.iterdir())


def test_wrong_merge_of_branches_is_a_difference_from_the_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = pptsmv2._merge_depthwise

    def wrong(*args: Any, **settings: Any) -> tuple[Any, Any]:
        kernel, offset = merge(*args, **settings)
        return kernel * 0.5, offset + 1

    monkeypatch.setattr(pptsmv2, "_merge_depthwise", wrong)
    weights = write_weights(tmp_path / "w.safetensors", model="pptsmv2_k400_8f")
    with pytest.raises(ExportError, match=r"inference\.json .*failed its check.*answers differently from the network"):
        export(None, tmp_path / "out", weights=weights, formats=["paddle"], threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["w.safetensors"]


@pytest.mark.usefixtures("converted")
def test_interrupted_export_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    def interrupt(step: str) -> None:
        if step.startswith("checking"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        small_export(folder, tmp_path / "out", on_step=interrupt)
    assert not list(tmp_path.iterdir())


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"formats": ["onx"]}, UnknownNameError, "unknown format 'onx'; nearest: onnx"),
        ({"formats": []}, UsageError, "no format is named"),
        ({"precisions": ["fp16"]}, UnknownNameError, "unknown precision 'fp16'"),
        ({"precisions": []}, UsageError, "no precision is named"),
        ({"formats": ["paddle"], "precisions": ["bf16"]}, UsageError, "paddle can't be exported as bf16: Paddle runs"),
        (
            {"formats": ["paddle", "onnx"], "precisions": ["fp32", "bf16"]},
            UsageError,
            "bf16 can't be had in paddle, onnx",
        ),
        ({"formats": ["openvino"], "precisions": ["int8"]}, UsageError, "openvino can't be exported as int8"),
        ({"formats": ["onnx", "paddle"], "precisions": ["int8"]}, UsageError, "paddle can't be exported as int8"),
        ({"precisions": ["int8"]}, UsageError, "int8 needs clips"),
        ({"calibration": "clips"}, UsageError, "calibration clips can't take effect without int8"),
        ({"precisions": ["int8"], "calibration": "gone"}, DatasetError, "calibration: no folder, list or video at"),
        ({"precisions": ["int8"], "calibration": "nothing"}, DatasetError, "calibration: no video in the folder"),
        (
            {"precisions": ["int8"], "calibration": "clips/empty.txt"},
            DatasetError,
            "calibration: the list .* names no clip",
        ),
        (
            {"precisions": ["int8"], "calibration": "clips/missing.txt"},
            DatasetError,
            r"calibration: 2 of 3 clips in .* are not there, first: gone\.mp4",
        ),
        ({"check": "gone.mp4"}, DatasetError, "check: no folder, list or video at"),
        ({"program": "onnx"}, UnknownNameError, "unknown program 'onnx'"),
        ({"program": "pdmodel"}, UsageError, "--program pdmodel is about the format paddle"),
        ({"threads": 0}, UsageError, "threads must be between 1 and 1024"),
        (
            {"precisions": ["int8"], "calibration": "clips/mixed.list"},
            DatasetError,
            r"calibration: 1 of 2 rows of .* have no label, first: b c\.mp4",
        ),
        ({"labels": "gone.txt"}, DatasetError, "can't read gone.txt"),
        ({"class_names": ["one", "two"], "model": "tsm_efflite0"}, WeightsNotFoundError, "is a start for training"),
    ],
)
def test_impossible_request_is_refused_before_anything_is_made(
    settings: dict[str, Any],
    error: type[PpvError],
    message: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    request = {"formats": ["onnx"], "model": MODEL, **settings}
    if error is not WeightsNotFoundError:
        monkeypatch.setattr(exporter, "open_recognizer", None)  # would be a TypeError: nothing is loaded
    with pytest.raises(error, match=message):
        export(out=tmp_path / "out", **request)
    assert not list(tmp_path.iterdir())


def test_runtime_that_is_not_installed_is_named_with_the_line_for_pip(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def require(runtime: str) -> str:
        raise MissingPackageError(f"{runtime} is not installed", hint="pip install 'ppvcli[openvino]'")

    monkeypatch.setattr(export_plan, "require_runtime", require)
    with pytest.raises(MissingPackageError, match="openvino is not installed"):
        small_export(folder, tmp_path / "out", formats=["openvino"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("source", "names", "truth"),
    [
        ("clips", ["a.mp4", "b c.mp4", "deep/d.mp4"], None),
        ("clips/labelled.list", ["a.mp4", "b c.mp4", "deep/d.mp4"], (1, 2, 0)),
        ("clips/plain.txt", ["a.mp4", "b c.mp4"], None),
        ("clips/marked.txt", ["a.mp4", "b c.mp4"], None),
        ("clips/a.mp4", ["a.mp4"], None),
    ],
)
def test_clips_come_from_folders_lists_and_videos(
    source: str, names: list[str], truth: tuple[int, ...] | None, folder: Path
) -> None:
    clips = find_clips(folder / source, purpose="check")
    assert [path.relative_to(folder / "clips").as_posix() for path in clips.paths] == names
    assert clips.truth == truth


def test_class_names_are_for_classes_that_the_weights_leave_unnamed_a_labels_file_is_for_all(
    folder: Path, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "plain.safetensors", with_metadata=False)
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    for names in ({"class_names": ["one", "two"]}, {"labels": tmp_path / "labels.txt"}):
        with pytest.raises(UsageError, match="2 class names for a network of 3 classes"):
            export(MODEL, tmp_path / "out", weights=weights, **names)
    plain, named = open_recognizer(MODEL, weights=weights), open_recognizer(None, weights=folder / "run")
    assert exporter._name_classes(plain, None, unnamed=["x", "y", "z"]).labels == ("x", "y", "z")
    assert exporter._name_classes(named, None, unnamed=["x", "y", "z"]).labels == LABELS
    assert exporter._name_classes(named, ["x", "y", "z"], unnamed=["u", "v", "w"]).labels == ("x", "y", "z")


@pytest.mark.usefixtures("converted")
def test_labels_file_names_the_classes_of_the_export(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("one\ntwo\nthree\n")
    small_export(folder, tmp_path / "out", labels=str(tmp_path / "labels.txt"))
    assert read_export(tmp_path / "out").labels == ("one", "two", "three")


# --- PaddleX ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("pptsmv2_k400_16f_dml", "PP-TSMv2-LCNetV2_16frames_uniform"),
        ("pptsmv2_k400_8f", "PP-TSMv2-LCNetV2_8frames_uniform"),
        ("pptsm_r50_k400_uniform", "PP-TSM-R50_8frames_uniform"),
        ("pptsm_r101_k400_dense", None),
        ("tsm_k400", None),
        ("tsm_efflite0_weizmann", None),
    ],
)
def test_networks_that_paddlex_knows_have_its_names(model: str, name: str | None) -> None:
    assert paddlex_name(get_model_row(model).network) == name
