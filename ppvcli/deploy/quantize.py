"""From an ONNX program of full precision to one of eight bits, by what its layers see of the user's clips."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppvcli.deploy.programs import INPUT, require_package
from ppvcli.deploy.runtimes import import_runtime


def require_quantizer() -> None:
    """Raises: MissingPackageError where a package that quantising needs is not installed."""
    for module in ("onnx", "onnxruntime", "ml_dtypes"):
        require_package(module)


def write_int8_onnx(source: Path, target: Path, *, clips_ntchw: Iterator[npt.NDArray[np.float32]]) -> None:
    """Writes the program `source` with its layers in 8 bits, as static QDQ.

    Activations are unsigned, because CPUs multiply u8 by s8 in one instruction (signed ones ran at less than half the
    speed); weights are signed, with a scale for every output channel. Ranges are the smallest and largest values that
    the layers see on `clips_ntchw`, each [1, T, 3, H, W].

    Raises: MissingPackageError; RuntimeFailedError; OSError; what `clips_ntchw` raises.
    """
    require_quantizer()
    onnxruntime = import_runtime("onnxruntime")
    from onnxruntime import quantization

    with tempfile.TemporaryDirectory(prefix="ppv-int8-") as folder:
        folded = Path(folder) / "folded.onnx"
        options = onnxruntime.SessionOptions()
        # BatchNorm goes into the convolution before its weights get their scales
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(folded)
        options.log_severity_level = 3
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
        with _without_advice():
            quantization.quantize_static(
                str(folded),
                str(target),
                _reader(clips_ntchw),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
                per_channel=True,
                calibrate_method=quantization.CalibrationMethod.MinMax,
            )


def _reader(clips_ntchw: Iterator[npt.NDArray[np.float32]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):
        """Hands the quantiser one clip at a time."""

        def get_next(self) -> dict[str, npt.NDArray[np.float32]] | None:
            clip = next(clips_ntchw, None)
            return None if clip is None else {INPUT: clip}

    return Reader()


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """Keeps the quantiser from telling the root logger about steps that were taken before it."""
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
