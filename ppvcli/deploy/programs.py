"""One network as the files that engines run: Paddle's program, ONNX, OpenVINO's IR. Written here, checked elsewhere.

All take float32 [N, T, 3, H, W] as `clips` with any N and give `logits` float32 [N, K]; T, H and W are fixed. ONNX has
a second form whose input is uint8 `frames`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import paddle
from paddle import nn
from paddle.static import InputSpec

from ppvcli.deploy.quiet import silenced
from ppvcli.deploy.runtimes import first_line, import_package, import_runtime
from ppvcli.errors import MissingPackageError, PpvError, RuntimeFailedError, UsageError
from ppvcli.files import replacing
from ppvcli.models.build import build_with_weights
from ppvcli.models.distilled import DistilledPair
from ppvcli.models.pptsm import LEAKY_RELU_SLOPE
from ppvcli.models.tsm import TSM
from ppvcli.specs import NetworkSpec, Preprocess

if TYPE_CHECKING:
    import onnx

INPUT, UINT8_INPUT, OUTPUT = "clips", "frames", "logits"
OPSET = 14
"""Of ONNX: the lowest with everything that the networks need and that per-channel quantisation needs (13)."""


_PIP = {
    "paddle2onnx": "paddle2onnx (for Python 3.10 to 3.12); Paddle's own program needs no such package",
    "ml_dtypes": "ml-dtypes",
}


class _Deployed(nn.Layer):
    """What is exported of a network: of a DML pair the student alone, of an NHWC network its NCHW form.

    paddle2onnx has no NHWC convolution, and the two forms have the same weights and logits.
    """

    def __init__(self, network: nn.Layer) -> None:
        super().__init__()
        self.is_pair = isinstance(network, DistilledPair)
        if isinstance(network, TSM) and network.backbone.data_format == "NHWC":
            spec = NetworkSpec(architecture="tsm", num_segments=network.num_segments)
            state = {key: tensor.numpy() for key, tensor in network.state_dict().items()}
            network = build_with_weights(spec, state["head.fc.bias"].shape[0], state=state)
        self.network = network.Student[0] if self.is_pair else network

    def forward(self, clips_ntchw: paddle.Tensor) -> paddle.Tensor:
        return self.network(clips_ntchw.flatten(0, 1) if self.is_pair else clips_ntchw)


def write_paddle_program(
    network: nn.Layer, folder: Path, *, num_segments: int, input_hw: tuple[int, int], pdmodel: bool = False
) -> None:
    """Writes `inference.json` (or, with `pdmodel`, `inference.pdmodel`) and `inference.pdiparams` into `folder`.

    Puts `network` into eval mode and merges the branches of a PP-TSMv2 for good; its logits stay the same.

    Raises: PpvError where Paddle can't write the program; UsageError for `pdmodel` of a network that this old format
    can't hold.
    """
    network.eval()
    if hasattr(network, "reparameterize"):
        network.reparameterize()
    # a wrapper, because saving replaces the `forward` of what is saved
    deployed = _Deployed(network)
    deployed.eval()
    spec = InputSpec([None, num_segments, 3, *input_hw], "float32", name=INPUT)
    guard = paddle.pir_utils.OldIrGuard() if pdmodel else contextlib.nullcontext()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with silenced(), guard, _home_of_its_own():
            paddle.jit.save(deployed, str(folder / "inference"), input_spec=[spec])
    except OSError:
        raise
    except Exception as error:
        if pdmodel:
            raise UsageError(
                f"Paddle {paddle.__version__} can't write this network as .pdmodel: {_last_line(str(error))}",
                hint="--program json, the format of Paddle 3",
            ) from error
        raise PpvError(
            f"Paddle {paddle.__version__} can't write the network as a program: {_last_line(str(error))}"
        ) from error
    (folder / "inference.pdiparams.info").unlink(missing_ok=True)  # a pickle that no engine needs
    if not pdmodel:
        _check_complete(folder)


@contextlib.contextmanager
def _home_of_its_own() -> Iterator[None]:
    """Paddle writes what it makes of our `forward` below ~/.cache, which may be a place where nothing can be written.

    For the whole process, as `silenced`.
    """
    before = {name: os.environ.get(name) for name in ("HOME", "USERPROFILE")}  # the latter is that of Windows
    with tempfile.TemporaryDirectory(prefix="ppv-paddle-") as folder:
        os.environ.update(dict.fromkeys(before, folder))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def _check_complete(folder: Path) -> None:
    """Raises: PpvError where weights are missing: Paddle does not notice when the disk is full."""
    try:
        with silenced():
            paddle.jit.load(str(folder / "inference"))
    except Exception as error:
        raise PpvError(
            f"the program that Paddle wrote into {folder} is not complete: {_last_line(str(error))}",
            hint="free some space on the disk",
        ) from error


def write_onnx(
    network: nn.Layer,
    path: Path,
    *,
    num_segments: int,
    input_hw: tuple[int, int],
    fold_normalize: Preprocess | None = None,
) -> None:
    """Writes an ONNX file that is complete or not there.

    With `fold_normalize` its input is `frames` uint8 [N, T, H, W, 3] RGB, normalised inside as (x - 255 mean) /
    (255 std); two operations where `normalize` has three, so that inputs of the network differ by up to 5e-7 and
    logits by no more than engines differ among each other.

    Raises: MissingPackageError without paddle2onnx; RuntimeFailedError where the conversion fails; PpvError; OSError.
    """
    with tempfile.TemporaryDirectory(prefix="ppv-onnx-") as folder:
        write_paddle_program(network, Path(folder), num_segments=num_segments, input_hw=input_hw)
        model = _convert(Path(folder))
    _cure(model)
    _rename(model)
    if fold_normalize is not None:
        _fold_normalize(model, fold_normalize)
    with replacing(path) as temporary:
        temporary.write_bytes(model.SerializeToString())


def write_openvino(onnx_path: Path, xml_path: Path, *, precision: str = "fp32") -> None:
    """Writes OpenVINO's IR (`.xml` and, beside it, `.bin`) of an ONNX file.

    `precision` (`fp32`, `bf16`, `int8`) is noted in the file for people: OpenVINO chooses the arithmetic when it loads
    a program, so whoever loads it must say INFERENCE_PRECISION_HINT (`f32`, or `bf16`). With `bf16` constants take two
    bytes each; they are written as fp16, which has more digits than the arithmetic will use.

    Raises: MissingPackageError without openvino; RuntimeFailedError where it does not take the file; OSError where the
    files can't be written.
    """
    openvino = import_runtime("openvino")
    try:
        # read_model, because convert_model reports its use to Intel
        model = openvino.Core().read_model(onnx_path)
    except RuntimeError as error:
        raise RuntimeFailedError(f"openvino does not take the program {onnx_path}: {first_line(error)}") from error
    model.set_rt_info(precision, ["ppvcli", "precision"])
    try:
        openvino.save_model(model, xml_path, compress_to_fp16=precision == "bf16")
    except RuntimeError as error:  # also for a full disk
        raise OSError(f"OpenVINO says: {_last_line(str(error))}") from error


def require_package(module: str) -> None:
    """Raises: MissingPackageError, with the line for pip, where `module` is not installed."""
    if importlib.util.find_spec(module) is None:
        raise MissingPackageError(f"{module} is not installed", hint=f"pip install {_PIP.get(module, module)}")


# --- ONNX -------------------------------------------------------------------------------------------------------------


def _convert(folder: Path) -> onnx.ModelProto:
    """The program in `folder` as paddle2onnx translates it, in a child process: it aborts on what it does not know."""
    require_package("paddle2onnx")
    onnx = import_package("onnx")
    target = folder / "inference.onnx"
    settings = {
        "model_filename": str(folder / "inference.json"),
        "params_filename": str(folder / "inference.pdiparams"),
        "save_file": str(target),
        "opset_version": OPSET,
        "optimize_tool": "None",  # the default runs `pip install`, then folds constants, which engines do anyway
    }
    code = "import json, sys, paddle2onnx; paddle2onnx.export(**json.loads(sys.argv[1]))"
    child = subprocess.run(
        [sys.executable, "-c", code, json.dumps(settings)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    if child.returncode or not target.is_file():
        said = child.stdout.decode(errors="replace").splitlines()
        faults = [line for line in said if "[ERROR]" in line][:3] or said[-1:]  # of a traceback the last line
        raise RuntimeFailedError(
            f"paddle2onnx can't convert the program: {_last_line(' '.join(faults))}",
            hint="do without it: --runtime paddle to predict, --format paddle to export",
        )
    return onnx.load(str(target))


def _cure(model: onnx.ModelProto) -> None:
    """Sets what paddle2onnx 2.1.0 gets wrong with programs of Paddle 3.3, drops what nothing uses."""
    for node in model.graph.node:
        if node.op_type == "LeakyRelu":  # the slope is read as float where Paddle writes a double
            (alpha,) = (attribute for attribute in node.attribute if attribute.name == "alpha")
            alpha.f = LEAKY_RELU_SLOPE
    needed = {value.name for value in model.graph.output}
    for node in reversed(model.graph.node):  # sorted: what a node gives is used by later ones only
        if needed.intersection(node.output):
            needed.update(node.input)
    for values in (model.graph.node, model.graph.initializer):
        kept = [one for one in values if needed.intersection(getattr(one, "output", None) or [one.name])]
        del values[:]
        values.extend(kept)


def _rename(model: onnx.ModelProto) -> None:
    """Input and output get our names, the batch dimension is called N in both."""
    names = {model.graph.input[0].name: INPUT, model.graph.output[0].name: OUTPUT}
    for node in model.graph.node:
        for values in (node.input, node.output):
            for index, name in enumerate(values):
                values[index] = names.get(name, name)
    for value in (model.graph.input[0], model.graph.output[0]):
        value.name = names[value.name]
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    model.producer_name = "ppvcli"


def _fold_normalize(model: onnx.ModelProto, preprocess: Preprocess) -> None:
    """Puts uint8 [N, T, H, W, 3] -> float32 [N, T, 3, H, W], normalised, before the network."""
    from onnx import TensorProto, helper, numpy_helper

    mean, std = (np.array(values, np.float64).reshape(3, 1, 1) * 255 for values in (preprocess.mean, preprocess.std))
    constants: dict[str, Any] = {"normalize_mean": mean, "normalize_std": std}
    _, num_segments, _, height, width = (dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    nodes = [
        # transposed while a pixel is one byte
        helper.make_node("Transpose", [UINT8_INPUT], ["frames_chw"], name="normalize_chw", perm=[0, 1, 4, 2, 3]),
        helper.make_node("Cast", ["frames_chw"], ["frames_float"], name="normalize_cast", to=TensorProto.FLOAT),
        helper.make_node("Sub", ["frames_float", "normalize_mean"], ["frames_centred"], name="normalize_sub"),
        helper.make_node("Div", ["frames_centred", "normalize_std"], [INPUT], name="normalize_div"),
    ]
    for index, node in enumerate(nodes):
        model.graph.node.insert(index, node)
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), name))
    frames = helper.make_tensor_value_info(UINT8_INPUT, TensorProto.UINT8, ["N", num_segments, height, width, 3])
    model.graph.input[0].CopyFrom(frames)


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it does not say why"
