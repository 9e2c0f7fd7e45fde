"""Three engines on programs of small networks, and the settings that they refuse."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ppvcli.deploy import runtimes
from ppvcli.deploy.program import Program, open_program
from ppvcli.deploy.runtimes import RUNTIMES, EngineSettings, check_choice, load_engine
from ppvcli.errors import MissingPackageError, PpvError, RuntimeFailedError, UnknownNameError, UsageError
from ppvcli.models.load import load_model
from ppvcli.models.views import clip_logits
from ppvcli.specs import Preprocess
from ppvcli.video.transforms import normalize
from tests.broken_package import break_package
from tests.small_model import MODEL, PREPROCESS, write_weights

REPO = Path(__file__).resolve().parents[2]
FP32_TOLERANCE = 1e-3
"""The contract for logits of any runtime against the network."""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = write_weights(tmp_path_factory.mktemp("runtimes") / "weights.safetensors")
    open_program(None, weights=path, threads=2)  # one conversion for all that are made of ONNX
    return path


def _open(weights: Path, runtime: str) -> Program:
    if runtimes.runtime_version(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    return open_program(None, weights=weights, runtime=runtime, threads=2)


def _clips(preprocess: Preprocess, num_clips: int) -> np.ndarray:
    shape = (num_clips, preprocess.sampling.num_segments, *preprocess.input_hw, 3)
    return np.random.default_rng(5).integers(0, 256, shape).astype(np.uint8)


def _feed(program: Program, clips: np.ndarray, takes: str) -> np.ndarray:
    return clips if takes == "uint8" else normalize(clips, program.preprocess)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_runtime_gives_the_network_s_logits_for_any_number_of_clips(runtime: str, weights: Path) -> None:
    program = _open(weights, runtime)
    engine = program.load(streams=1)
    clips = _clips(PREPROCESS, 3)
    network = load_model(MODEL, weights=weights)
    expected = np.stack([clip_logits(network, clips[i : i + 1], preprocess=PREPROCESS) for i in range(3)])
    for first, last in ((0, 1), (0, 3), (1, 3)):
        logits = engine.run(_feed(program, clips[first:last], engine.takes))
        assert logits.dtype == np.float32
        assert np.abs(logits - expected[first:last]).max() < FP32_TOLERANCE


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_pictures_go_to_these_runtimes_as_bytes(runtime: str, weights: Path) -> None:
    assert _open(weights, runtime).load(streams=1).takes == "uint8"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_several_callers_at_once_get_their_own_answers(runtime: str, weights: Path) -> None:
    program = _open(weights, runtime)
    engine = program.load(streams=2)
    assert engine.streams == 2
    clips = _clips(PREPROCESS, 4)
    expected = [engine.run(_feed(program, clips[i : i + 1], engine.takes)) for i in range(4)]
    wrong: list[int] = []

    def call(i: int) -> None:
        for _ in range(5):
            if not np.array_equal(engine.run(_feed(program, clips[i : i + 1], engine.takes)), expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong


def test_leaky_relu_network_survives_paddle_with_onednn(tmp_path: Path) -> None:
    """Paddle 3.3 kills the process here unless one pass is taken out."""
    preprocess = replace(PREPROCESS, sampling=replace(PREPROCESS.sampling, num_segments=8))
    weights = write_weights(tmp_path / "weights.safetensors", model="pptsm_r50_k400_uniform", preprocess=preprocess)
    program = _open(weights, "paddle")  # checked in a child process
    assert b"leaky_relu" in program.path.read_bytes()
    logits = program.load(streams=1).run(normalize(_clips(preprocess, 1), preprocess))
    assert np.isfinite(logits).all()


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_program_that_is_none_is_refused(runtime: str, tmp_path: Path) -> None:
    if runtimes.runtime_version(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    for name in runtimes.PROGRAM_FILES[runtimes._runtime(runtime)]:
        (tmp_path / name).write_bytes(b"no program")
    path = tmp_path / runtimes.PROGRAM_FILES[runtimes._runtime(runtime)][0]
    with pytest.raises(RuntimeFailedError, match=f"{runtime} does not take the program"):
        load_engine(runtime, path, settings=EngineSettings(threads=1))


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])  # Paddle takes pictures of any size
def test_clip_of_another_shape_is_a_failure_of_the_run(runtime: str, weights: Path) -> None:
    program = _open(weights, runtime)
    engine = program.load(streams=1)
    with pytest.raises(RuntimeFailedError, match=f"{runtime} failed"):
        engine.run(_feed(program, _clips(PREPROCESS, 1)[:, :, :, :30], engine.takes))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_runtime_that_is_not_installed_is_an_error_with_the_line_for_pip(
    runtime: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=f"the runtime {runtime} is not installed") as caught:
        check_choice(runtime, "fp32", device="cpu", tensorrt=False, is_export=False)
    assert "pip install" in str(caught.value.hint)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_runtime_that_can_t_be_loaded_is_one_that_failed(
    runtime: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if runtimes.runtime_version(runtime) is None:
        pytest.skip(f"{runtime} is not installed")
    break_package(runtime, tmp_path, monkeypatch)
    with pytest.raises(
        RuntimeFailedError, match=f"{runtime} is installed, but can't be loaded: DLL load failed"
    ) as caught:
        load_engine(runtime, tmp_path / "inference.json", settings=EngineSettings(threads=1))
    assert "--runtime" in str(caught.value.hint)


@pytest.mark.parametrize(
    ("runtime", "precision", "device", "tensorrt", "error", "message"),
    [
        ("onnx", "fp32", "cpu", False, UnknownNameError, "unknown runtime 'onnx'; nearest: onnxruntime"),
        ("auto", "fp16", "cpu", False, UnknownNameError, "unknown precision 'fp16'"),
        ("auto", "fp32", "cpu", True, UsageError, "TensorRT runs on GPUs through Paddle, not with the CPU"),
        ("onnxruntime", "fp32", "gpu:0", True, UsageError, "not with the runtime onnxruntime"),
        ("onnxruntime", "fp32", "gpu:0", False, UsageError, "onnxruntime runs on the CPU here, not on gpu:0"),
        ("onnxruntime", "bf16", "cpu", False, UsageError, "bf16 needs the runtime openvino on a CPU"),
        ("paddle", "bf16", "cpu", False, UsageError, "bf16 needs the runtime openvino on a CPU"),
        ("auto", "bf16", "gpu:0", False, UsageError, "bf16 needs the runtime openvino on a CPU"),
        ("auto", "int8", "cpu", False, UsageError, "int8 needs clips to calibrate on"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(
    runtime: str, precision: str, device: str, tensorrt: bool, error: type[PpvError], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        check_choice(runtime, precision, device=device, tensorrt=tensorrt, is_export=False)
    assert caught.value.hint


@pytest.mark.parametrize("runtime", ["auto", "paddle"])
def test_tensorrt_belongs_to_a_gpu(runtime: str) -> None:
    check_choice(runtime, "fp32", device="gpu:0", tensorrt=True, is_export=False)


def test_int8_belongs_to_an_export() -> None:
    check_choice("auto", "int8", device="cpu", tensorrt=False, is_export=True)


def test_onnx_runtime_is_imported_without_reports_to_its_makers(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    code = "from ppvcli.deploy.runtimes import import_runtime; import_runtime('onnxruntime')"
    env = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**env, "HOME": str(tmp_path)}, cwd=REPO, capture_output=True, check=True
    )
    assert done.stderr == b""
    # it keeps an identifier of the machine below ~/.cache/Microsoft
    assert not (tmp_path / ".cache").exists()
