"""Programs against the networks they were made of, at input sizes that run in milliseconds."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import paddle
import pytest

from ppvcli.deploy import programs
from ppvcli.deploy.check import check_program
from ppvcli.deploy.programs import require_package, write_onnx, write_openvino, write_paddle_program
from ppvcli.deploy.runtimes import EngineSettings, load_engine
from ppvcli.errors import MissingPackageError, RuntimeFailedError, UsageError
from ppvcli.models.build import build_with_weights, expected_shapes
from ppvcli.models.pptsm import LEAKY_RELU_SLOPE
from ppvcli.models.zoo import ZOO, ModelRow, get_model_row
from ppvcli.specs import NetworkSpec
from ppvcli.video.transforms import normalize
from tests.broken_package import break_package
from tests.recipe import fill_state

HW = (64, 64)
NUM_CLASSES = 7
QUICK = ("pptsmv2_k400_16f_lta", "pptsm_r50_k400_uniform")
"""What has gone wrong before: sigmoid, merged branches, leaky ReLU. `test_exporter.py` has tsm_efflite0."""


def _networks() -> dict[NetworkSpec, str]:
    """Every network of the zoo once, under the name of a row that has it."""
    names = {row.network: row.name for row in reversed(ZOO.values())}
    return names | {ZOO[name].network: name for name in QUICK}


MODELS = [
    name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in sorted(_networks().values())
]


class Made:
    """A network with recipe weights, what it answers to noise, and its programs."""

    def __init__(self, model: str, folder: Path) -> None:
        self.row: ModelRow = get_model_row(model)
        spec = self.row.network
        self.num_segments = spec.num_segments or 3
        self.network = build_with_weights(spec, NUM_CLASSES, state=fill_state(expected_shapes(spec, NUM_CLASSES)))
        rng = np.random.default_rng(0)
        self.clips = rng.integers(0, 256, (3, self.num_segments, *HW, 3)).astype(np.uint8)
        self.clips[1] //= 3
        self.logits = self.answer()
        write_paddle_program(self.network, folder, num_segments=self.num_segments, input_hw=HW)
        write_onnx(self.network, folder / "inference.onnx", num_segments=self.num_segments, input_hw=HW)
        self.folder = folder

    @paddle.no_grad()
    def answer(self) -> np.ndarray:
        return self.network(paddle.to_tensor(normalize(self.clips, self.row.preprocess))).numpy()

    @property
    def tolerance(self) -> float:
        """float32 has seven digits; some of these networks have logits in the hundreds."""
        return max(1e-4, 5e-6 * float(np.abs(self.logits).max()))


@pytest.fixture(scope="module", params=MODELS)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(request.param, tmp_path_factory.mktemp("programs"))


@pytest.mark.parametrize("batch", [1, 2, 3])
def test_onnx_of_any_batch_gives_the_logits_of_the_network(made: Made, batch: int) -> None:
    engine = load_engine("onnxruntime", made.folder / "inference.onnx", settings=EngineSettings(threads=1))
    assert engine.takes == "float32"
    logits = engine.run(normalize(made.clips[:batch], made.row.preprocess))
    assert logits.shape == (batch, NUM_CLASSES)
    np.testing.assert_allclose(logits, made.logits[:batch], rtol=0, atol=made.tolerance)


def test_paddle_program_gives_the_logits_of_the_network(made: Made, tmp_path: Path) -> None:
    np.save(tmp_path / "clips.npy", made.clips)
    result = check_program(
        "paddle",
        made.folder / "inference.json",
        clips_path=tmp_path / "clips.npy",
        logits_nk=made.logits,
        preprocess=made.row.preprocess,
        settings=EngineSettings(threads=1),
    )
    # with leaky ReLU an optimisation of Paddle is left out, and rounding differs more
    assert result.max_diff <= 3 * made.tolerance


def test_openvino_gives_the_logits_of_the_network(made: Made) -> None:
    pytest.importorskip("openvino")
    write_openvino(made.folder / "inference.onnx", made.folder / "inference.xml")
    engine = load_engine("openvino", made.folder / "inference.xml", settings=EngineSettings(threads=1))
    logits = engine.run(normalize(made.clips, made.row.preprocess))
    np.testing.assert_allclose(logits, made.logits, rtol=0, atol=3 * made.tolerance)


def test_openvino_program_that_cannot_be_written_is_an_os_error(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "inference.xml").mkdir()
    with pytest.raises(OSError, match="OpenVINO says"):
        write_openvino(made.folder / "inference.onnx", tmp_path / "inference.xml")


def test_network_answers_as_before_after_it_was_written(made: Made) -> None:
    # rounding only: the branches of PP-TSMv2 are merged
    np.testing.assert_allclose(made.answer(), made.logits, rtol=0, atol=made.tolerance)
    assert type(made.network).forward.__module__.startswith("ppvcli.")


def test_onnx_has_our_names_a_free_batch_and_nothing_unused(made: Made) -> None:
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(made.folder / "inference.onnx")).graph
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {"clips": ["N", made.num_segments, 3, *HW], "logits": ["N", NUM_CLASSES]}
    used = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= used
    slopes = {attribute.f for node in graph.node if node.op_type == "LeakyRelu" for attribute in node.attribute}
    assert slopes == ({np.float32(LEAKY_RELU_SLOPE)} if made.row.network.architecture == "pptsm" else set())


def test_onnx_that_normalises_by_itself_takes_pictures(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    row, network = get_model_row("tsm_efflite0"), _small("tsm_efflite0")
    odd = replace(row.preprocess, mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))  # each channel its own
    write_onnx(network, tmp_path / "a.onnx", num_segments=8, input_hw=(32, 64), fold_normalize=odd)
    assert capfd.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"]
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 64, 3)).astype(np.uint8)
    with paddle.no_grad():
        wanted = network(paddle.to_tensor(normalize(clips, odd))).numpy()
    engine = load_engine("onnxruntime", tmp_path / "a.onnx", settings=EngineSettings(threads=1))
    assert engine.takes == "uint8"
    np.testing.assert_allclose(engine.run(clips), wanted, rtol=0, atol=1e-5)


# --- what can't be written --------------------------------------------------------------------------------------------


def _small(model: str) -> paddle.nn.Layer:
    spec = replace(get_model_row(model).network, teacher=None)
    return build_with_weights(spec, NUM_CLASSES, state={})


def test_pdmodel_of_a_network_that_the_old_format_can_hold_runs(tmp_path: Path) -> None:
    network = _small("tsm_efflite0")
    write_paddle_program(network, tmp_path, num_segments=8, input_hw=(32, 32), pdmodel=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["inference.pdiparams", "inference.pdmodel"]
    row = get_model_row("tsm_efflite0")
    clips = np.random.default_rng(0).integers(0, 256, (2, 8, 32, 32, 3)).astype(np.uint8)
    with paddle.no_grad():
        logits = network(paddle.to_tensor(normalize(clips, row.preprocess))).numpy()
    np.save(tmp_path / "clips.npy", clips)
    result = check_program(
        "paddle",
        tmp_path / "inference.pdmodel",
        clips_path=tmp_path / "clips.npy",
        logits_nk=logits,
        preprocess=row.preprocess,
        settings=EngineSettings(threads=1),
    )
    assert result.max_diff < 1e-4


def test_pdmodel_of_pptsmv2_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't write this network as \.pdmodel") as caught:
        write_paddle_program(_small("pptsmv2_k400_8f"), tmp_path, num_segments=8, input_hw=(32, 32), pdmodel=True)
    assert "--program json" in str(caught.value.hint)


def test_program_that_paddle2onnx_does_not_take_is_an_error_not_the_end(tmp_path: Path) -> None:
    pytest.importorskip("paddle2onnx")
    (tmp_path / "inference.json").write_text("{}")
    (tmp_path / "inference.pdiparams").write_bytes(b"")
    with pytest.raises(RuntimeFailedError, match="paddle2onnx can't convert the program") as caught:
        programs._convert(tmp_path)
    assert "--runtime paddle" in str(caught.value.hint)


def test_paddle2onnx_that_can_t_be_loaded_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnx")
    break_package("paddle2onnx", tmp_path, monkeypatch)
    with pytest.raises(RuntimeFailedError, match=r"can't convert the program: ImportError: DLL load failed"):
        programs._convert(tmp_path)


@pytest.mark.parametrize("module", ["onnx", "openvino"])
def test_converter_that_can_t_be_loaded_is_one_that_failed(
    module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip(module)
    break_package(module, tmp_path, monkeypatch)
    with pytest.raises(RuntimeFailedError, match=f"{module} is installed, but can't be loaded: DLL load failed"):
        if module == "onnx":
            programs._convert(tmp_path)
        else:
            write_openvino(tmp_path / "a.onnx", tmp_path / "a.xml")


def test_onnx_file_that_openvino_does_not_take_is_a_failure_of_openvino(tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    (tmp_path / "a.onnx").write_bytes(b"rubbish")
    with pytest.raises(RuntimeFailedError, match="openvino does not take the program"):
        write_openvino(tmp_path / "a.onnx", tmp_path / "a.xml")


@pytest.mark.parametrize(("module", "line"), [("ml_dtypes", "ml-dtypes"), ("paddle2onnx", "paddle2onnx")])
def test_missing_package_is_named_with_the_line_for_pip(
    module: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=f"{module} is not installed") as caught:
        require_package(module)
    assert "pip install" in str(caught.value.hint)
    assert line in str(caught.value.hint)
