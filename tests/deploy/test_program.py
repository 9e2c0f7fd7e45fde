"""Which program of an export is run; real exports are in test_exporter.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ppvcli.deploy import program as module
from ppvcli.deploy.exported import ExportInfo, ProgramFile
from ppvcli.deploy.program import open_program
from ppvcli.errors import MissingPackageError, UsageError
from tests.small_model import LABELS, MODEL, PREPROCESS

ALL = ("onnx fp32", "onnx int8", "openvino fp32", "openvino bf16", "paddle fp32")
SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "paddle": ".json"}


@pytest.fixture(autouse=True)
def everything_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "runtime_version", lambda runtime: "1")
    monkeypatch.setattr("ppvcli.deploy.runtimes.runtime_version", lambda runtime: "1")


def _export(monkeypatch: pytest.MonkeyPatch, kinds: tuple[str, ...]) -> None:
    programs = []
    for kind in kinds:
        format_, precision = kind.split()
        path = Path(f"/export/inference_{precision}{SUFFIXES[format_]}")
        programs.append(ProgramFile(format=format_, precision=precision, path=path))  # type: ignore[arg-type]
    info = ExportInfo(
        folder=Path("/export"), model=MODEL, labels=LABELS, preprocess=PREPROCESS, programs=tuple(programs)
    )
    monkeypatch.setattr(module, "is_export", lambda path: True)
    monkeypatch.setattr(module, "read_export", lambda path: info)


@pytest.mark.parametrize(
    ("kinds", "runtime", "precision", "chosen"),
    [
        (ALL, "auto", None, ("onnxruntime", "inference_fp32.onnx")),
        (ALL, "auto", "int8", ("onnxruntime", "inference_int8.onnx")),
        (ALL, "auto", "bf16", ("openvino", "inference_bf16.xml")),
        (ALL, "openvino", None, ("openvino", "inference_fp32.xml")),
        (ALL, "paddle", "fp32", ("paddle", "inference_fp32.json")),
        (("openvino fp32",), "auto", "bf16", ("openvino", "inference_fp32.xml")),
        (("onnx int8",), "auto", None, ("onnxruntime", "inference_int8.onnx")),
        (("paddle fp32",), "auto", None, ("paddle", "inference_fp32.json")),
    ],
)
def test_program_is_the_one_that_was_asked_for(
    kinds: tuple[str, ...],
    runtime: str,
    precision: str | None,
    chosen: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _export(monkeypatch, kinds)
    program = open_program(None, weights="/export", runtime=runtime, precision=precision, threads=2, device="cpu")
    assert (program.runtime, program.path.name) == chosen
    assert (program.model, program.labels, program.preprocess) == (MODEL, LABELS, PREPROCESS)


@pytest.mark.parametrize(
    ("kinds", "settings", "message"),
    [
        (("paddle fp32",), {"runtime": "openvino"}, "no program for openvino in fp32, only: paddle fp32"),
        (("paddle fp32",), {"precision": "int8"}, "no program for int8, only: paddle fp32"),
        (("onnx int8",), {"precision": "fp32"}, "no program for fp32, only: onnx int8"),
        (ALL, {"model": "tsm"}, f"is an export of {MODEL}, not of tsm"),
    ],
)
def test_program_that_is_not_there_is_named(
    kinds: tuple[str, ...], settings: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _export(monkeypatch, kinds)
    settings = dict(settings)
    model = settings.pop("model", None)
    with pytest.raises(UsageError, match=message) as caught:
        open_program(model, weights="/export", threads=1, device="cpu", **settings)  # type: ignore[arg-type]
    assert caught.value.hint


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        ({"runtime": "paddle"}, "--format paddle --precision fp32"),
        ({"runtime": "openvino"}, "--format openvino --precision fp32"),
        ({"precision": "int8"}, "--format onnx --precision int8"),
        ({"precision": "bf16"}, "--format openvino --precision bf16"),
        ({"runtime": "paddle", "precision": "int8"}, "leave out --runtime paddle or --precision int8"),
    ],
)
def test_hint_about_a_program_that_is_not_there_names_what_would_write_it(
    settings: dict[str, str], hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _export(monkeypatch, ("onnx fp32",))
    with pytest.raises(UsageError) as caught:
        open_program(None, weights="/export", threads=1, device="cpu", **settings)  # type: ignore[arg-type]
    assert hint in str(caught.value.hint)


def test_export_whose_runtime_is_not_installed_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    _export(monkeypatch, ("openvino fp32",))
    for place in ("ppvcli.deploy.program", "ppvcli.deploy.runtimes"):
        monkeypatch.setattr(f"{place}.runtime_version", lambda runtime: None)
    with pytest.raises(MissingPackageError, match="openvino is not installed") as caught:
        open_program(None, weights="/export", threads=1, device="cpu")
    assert "pip install 'ppvcli[openvino]'" in str(caught.value.hint)
