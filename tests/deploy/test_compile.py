"""First use and later ones: what is compiled, what is trusted, and which runtime `auto` takes."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ppvcli.deploy import cache, compile, runtimes
from ppvcli.deploy.cache import CheckResult, Entry, Record
from ppvcli.deploy.compile import Request, compiled, weights_sha256
from ppvcli.errors import MissingPackageError, RuntimeFailedError, WeightsError
from ppvcli.models.zoo import get_model_row
from ppvcli.weights.formats import read_weights, write_safetensors
from tests.broken_package import break_package
from tests.small_model import LABELS, MODEL, PREPROCESS, write_weights


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    """Small weights and an empty cache."""
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    return _request(write_weights(tmp_path / "weights.safetensors"))


def _request(weights: Path) -> Request:
    return Request(
        row=get_model_row(MODEL), weights=weights, weights_sha256=weights_sha256(weights), precision="fp32", threads=1
    )


def test_first_use_compiles_and_checks_and_later_ones_do_not(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    runtime, entry = compiled(replace(request_, on_compile=told.append), "onnxruntime")
    assert (runtime, told) == ("onnxruntime", [MODEL])
    assert (entry.record.labels, entry.record.preprocess) == (LABELS, PREPROCESS)
    assert 0 < entry.record.check.max_diff < 1e-3
    assert entry.record.check.top1_agrees
    assert not list(cache.cache_dir().glob(".tmp-*"))

    monkeypatch.setattr(compile, "_build", None)  # would be a TypeError
    assert compiled(replace(request_, on_compile=told.append), "onnxruntime")[1] == entry
    assert told == [MODEL]


@pytest.mark.parametrize("runtime", ["onnxruntime", "auto"])
def test_cache_on_a_full_disk_is_not_written_and_the_program_is_made_elsewhere(
    runtime: str, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk_usage = shutil.disk_usage

    def full(path: Path) -> Any:
        usage = disk_usage(path)
        return usage._replace(free=0) if path.is_relative_to(tmp_path / "home") else usage

    monkeypatch.setattr(shutil, "disk_usage", full)
    _, entry = compiled(request_, runtime)
    assert "No space left on device" in str(entry.unkept)
    assert entry.program.is_file()
    assert not entry.program.is_relative_to(tmp_path / "home")
    assert not [path for path in (tmp_path / "home").rglob("*") if path.suffix != ".lock" and path.is_file()]


def test_damaged_entry_is_compiled_anew(request_: Request, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = compile._facts(request_, "onnxruntime", engine=str(runtimes.runtime_version("onnxruntime")))
    monkeypatch.setattr(compile, "_entry", Measured({"onnxruntime": 1.0}).entry)
    entry = compile._entry(request_, "onnxruntime", network=None)
    monkeypatch.undo()
    monkeypatch.setenv("PPV_HOME", str(entry.folder.parents[1]))
    entry.folder.rename(cache.entry_dir(facts))  # an entry of other facts in the place of ours
    monkeypatch.setattr(compile, "_build", _stop)
    with pytest.raises(ZeroDivisionError):
        compiled(request_, "onnxruntime")


def _stop(request: Request) -> object:
    raise ZeroDivisionError


@pytest.mark.parametrize("change", ["weights", "package", "engine", "cpu"])
def test_entry_is_for_these_weights_versions_and_processor_only(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    request = _request(tmp_path / "weights")
    before = cache.entry_dir(compile._facts(request, "onnxruntime", engine="1.0"))
    engine = "1.0"
    if change == "weights":
        (tmp_path / "weights").write_bytes(b"2")
        request = _request(tmp_path / "weights")
    elif change == "package":
        monkeypatch.setattr("ppvcli.__version__", "99")
    elif change == "cpu":
        monkeypatch.setattr(compile, "cpu_features", lambda: "another")
    else:
        engine = "1.1"
    assert cache.entry_dir(compile._facts(request, "onnxruntime", engine=engine)) != before


def test_hash_of_a_legacy_folder_sees_names_and_contents(tmp_path: Path) -> None:
    hashes = set()
    for names in (("a", "b"), ("a", "c")):
        for content in (b"1", b"2"):
            shutil.rmtree(tmp_path / "folder", ignore_errors=True)
            (tmp_path / "folder").mkdir()
            for name in names:
                (tmp_path / "folder" / name).write_bytes(content)
            hashes.add(weights_sha256(tmp_path / "folder"))
    assert len(hashes) == 4


def test_weights_of_a_diverged_training_are_not_compiled(request_: Request) -> None:
    file = read_weights(request_.weights)
    tensors = {**file.tensors, "head.fc.bias": np.full(len(LABELS), np.nan, np.float32)}
    write_safetensors(request_.weights, tensors, metadata=file.metadata)
    with pytest.raises(WeightsError, match="scores that are no numbers"):
        compiled(_request(request_.weights), "onnxruntime")
    assert cache.find(compile._facts(request_, "onnxruntime", engine="any")) is None


@pytest.mark.parametrize(("module", "chosen"), [("onnxruntime", "openvino"), ("paddle2onnx", "paddle")])
def test_auto_takes_what_works_where_a_package_can_t_be_loaded(
    module: str, chosen: str, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (module, chosen):
        pytest.importorskip(name)
    break_package(module, tmp_path, monkeypatch)
    assert compiled(request_, "auto")[0] == chosen
    (path,) = cache.cache_dir().glob("*-auto-*.json")
    assert "DLL load failed" in json.loads(path.read_text())["measured"]["onnxruntime"]["error"]


# --- auto, with given times instead of real ones ----------------------------------------------------------------------


class Measured:
    """Stands for compiling: what each runtime would have taken, or its fault."""

    def __init__(self, times_ms: dict[str, float | Exception]) -> None:
        self.times_ms = times_ms
        self.asked: list[str] = []

    def entry(self, request: Request, runtime: str, *, network: object) -> Entry:
        self.asked.append(runtime)
        time_ms = self.times_ms[runtime]
        if isinstance(time_ms, Exception):
            raise time_ms
        facts = compile._facts(request, runtime, engine="1")
        check = CheckResult(max_diff=0.0, top1_agrees=True, num_clips=3, num_agree=3, time_ms=time_ms, threads=1)
        record = Record(facts=facts, program="inference.onnx", labels=LABELS, preprocess=PREPROCESS, check=check)
        with cache.locked(facts), cache.writing(facts) as folder:
            (folder / "inference.onnx").touch()
            return cache.seal(folder, record)


CRASH = RuntimeFailedError("it crashes")
MISSING = MissingPackageError("no paddle2onnx")


@pytest.mark.parametrize(
    ("times_ms", "chosen"),
    [
        ({"onnxruntime": 100.0, "openvino": 120.0}, "onnxruntime"),
        ({"onnxruntime": 100.0, "openvino": 85.0}, "onnxruntime"),  # too close to leave the order
        ({"onnxruntime": 100.0, "openvino": 75.0}, "openvino"),
        ({"onnxruntime": CRASH, "openvino": 500.0}, "openvino"),
        ({"onnxruntime": MISSING, "openvino": CRASH, "paddle": 900.0}, "paddle"),
    ],
)
def test_auto_takes_the_fastest_that_passed_and_remembers_it(
    times_ms: dict[str, float | Exception], chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    (tmp_path / "weights").touch()
    request = _request(tmp_path / "weights")
    measured = Measured(times_ms)
    monkeypatch.setattr(compile, "_entry", measured.entry)
    monkeypatch.setattr(compile, "runtime_version", lambda runtime: "1")
    assert compiled(request, "auto")[0] == chosen
    assert measured.asked == list(times_ms)
    (path,) = cache.cache_dir().glob("*-auto-*.json")
    noted = json.loads(path.read_text())
    assert noted["runtime"] == chosen
    assert set(noted["measured"]) == set(times_ms)
    assert compiled(request, "auto")[0] == chosen
    assert measured.asked == list(times_ms), "the second time nothing is measured"
    shutil.rmtree(next(cache.cache_dir().glob(f"*-{chosen}-*/")))
    assert compiled(request, "auto")[0] == chosen
    assert measured.asked == 2 * list(times_ms)


def test_auto_is_decided_anew_when_a_runtime_is_installed_or_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    (tmp_path / "weights").touch()
    request = _request(tmp_path / "weights")
    measured = Measured({"onnxruntime": 100.0, "openvino": 10.0})
    monkeypatch.setattr(compile, "_entry", measured.entry)
    versions: dict[str, str | None] = {"onnxruntime": "1", "openvino": None, "paddle": "1"}
    monkeypatch.setattr(compile, "runtime_version", versions.get)
    assert compiled(request, "auto")[0] == "onnxruntime"
    versions["openvino"] = "1"
    assert compiled(request, "auto")[0] == "openvino"
    assert measured.asked == ["onnxruntime", "onnxruntime", "openvino"]


def test_auto_without_any_working_runtime_names_every_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    (tmp_path / "weights").touch()
    measured = Measured({"onnxruntime": MISSING, "openvino": CRASH, "paddle": RuntimeFailedError("wrong answer")})
    monkeypatch.setattr(compile, "_entry", measured.entry)
    monkeypatch.setattr(compile, "runtime_version", lambda runtime: "1")
    with pytest.raises(RuntimeFailedError, match="onnxruntime: no paddle2onnx; openvino: it crashes; paddle: wrong"):
        compiled(_request(tmp_path / "weights"), "auto")


def test_bf16_is_openvino_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    (tmp_path / "weights").touch()
    measured = Measured({"openvino": 100.0})
    monkeypatch.setattr(compile, "_entry", measured.entry)
    monkeypatch.setattr(compile, "runtime_version", lambda runtime: "1")
    assert compiled(replace(_request(tmp_path / "weights"), precision="bf16"), "auto")[0] == "openvino"


def test_program_with_other_logits_is_refused_by_name_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = _request(write_weights(tmp_path / "weights.safetensors"))
    program = compiled(request, "onnxruntime")[1].program  # perhaps of an earlier test
    build = compile._build

    def wrong(request: Request) -> object:
        recognizer, clips, logits = build(request)
        return recognizer, clips, logits + np.float32(0.01)

    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(compile, "_build", wrong)
    monkeypatch.setattr(compile, "_write_program", lambda *args, folder, **settings: Path(shutil.copy(program, folder)))
    with pytest.raises(RuntimeFailedError, match="onnxruntime answers differently from the network"):
        compiled(request, "onnxruntime")
    assert not [path for path in cache.cache_dir().iterdir() if path.is_dir()]


def test_installed_runtimes_have_versions() -> None:
    assert runtimes.runtime_version("paddle")
    assert runtimes.runtime_version("onnxruntime")
