"""ONNX Runtime, OpenVINO and Paddle behind the protocol of `runtimes.py`; each imports its package when it is made."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ppvcli.deploy.quiet import silenced
from ppvcli.deploy.runtimes import Engine, EngineSettings, Runtime, first_line, import_runtime
from ppvcli.errors import DeviceError, RuntimeFailedError


class OnnxEngine:
    """ONNX Runtime on the CPU."""

    def __init__(self, program: Path, settings: EngineSettings) -> None:
        onnxruntime = import_runtime("onnxruntime")
        _cpu_only("onnxruntime", settings)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = settings.threads // settings.streams
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        if is_optimized(program):
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        try:
            self._session = onnxruntime.InferenceSession(str(program), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its own exceptions have no common class
            raise _refused("onnxruntime", program, error) from error
        (self._input,) = self._session.get_inputs()
        self.takes: Literal["uint8", "float32"] = "uint8" if "uint8" in self._input.type else "float32"
        self.streams = settings.streams

    def run(self, clips: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        try:
            (logits_nk,) = self._session.run(None, {self._input.name: clips})
        except Exception as error:
            raise _failed("onnxruntime", error) from error
        return np.asarray(logits_nk, dtype=np.float32)


def optimize_onnx(source: Path, target: Path) -> None:
    """Writes what ONNX Runtime makes of a program for this very processor; it loads in half the time.

    Raises: MissingPackageError, RuntimeFailedError.
    """
    onnxruntime = import_runtime("onnxruntime")
    assert is_optimized(target)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(target)
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    try:
        onnxruntime.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise _refused("onnxruntime", source, error) from error


def is_optimized(program: Path) -> bool:
    """Whether an ONNX file is named as one that `optimize_onnx` has written."""
    return program.name.endswith(OPTIMIZED)


OPTIMIZED = ".optimized.onnx"


class OpenvinoEngine:
    """OpenVINO on the CPU; the precision is always said, because it would take bf16 by itself."""

    def __init__(self, program: Path, settings: EngineSettings) -> None:
        openvino = import_runtime("openvino")
        _cpu_only("openvino", settings)
        config = {
            "INFERENCE_PRECISION_HINT": "bf16" if settings.precision == "bf16" else "f32",
            "INFERENCE_NUM_THREADS": settings.threads,
            "NUM_STREAMS": settings.streams,
            "PERFORMANCE_HINT": "LATENCY" if settings.streams == 1 else "THROUGHPUT",
        }
        try:
            self._model = openvino.Core().compile_model(program, "CPU", config)
        except RuntimeError as error:
            raise _refused("openvino", program, error) from error
        is_uint8 = self._model.input(0).get_element_type() == openvino.Type.u8
        self.takes: Literal["uint8", "float32"] = "uint8" if is_uint8 else "float32"
        self.streams = settings.streams
        # the first use of `data` sets up numpy in OpenVINO: two threads there at once wait for each other for ever
        _ = openvino.Tensor(openvino.Type.u8, openvino.Shape([1])).data

    def run(self, clips: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        try:
            # a request of its own for each call: requests are not for several threads
            request = self._model.create_infer_request()
            return np.array(request.infer([clips])[self._model.output(0)], dtype=np.float32)
        except RuntimeError as error:
            raise _failed("openvino", error) from error


class PaddleEngine:
    """`paddle.inference` with oneDNN, or on a GPU, there with TensorRT if asked for. Not yet run on a GPU."""

    takes: Literal["uint8", "float32"] = "float32"

    def __init__(self, program: Path, settings: EngineSettings) -> None:
        import_runtime("paddle")
        from paddle import inference

        config = inference.Config(str(program), str(program.with_suffix(".pdiparams")))
        config.disable_glog_info()
        if settings.device == "cpu":
            config.disable_gpu()
            config.enable_mkldnn()
            config.set_cpu_math_library_num_threads(settings.threads // settings.streams)
            if b"leaky_relu" in program.read_bytes():
                # Paddle 3.3 writes the slope as a double, this pass reads a float: the process would crash
                config.delete_pass("conv_activation_onednn_fuse_pass")
        else:
            config.enable_use_gpu(_GPU_POOL_MB, int(settings.device.removeprefix("gpu:")))
            if settings.tensorrt:
                config.enable_tensorrt_engine(
                    workspace_size=_TENSORRT_WORKSPACE_BYTES,
                    max_batch_size=_TENSORRT_MAX_BATCH,
                    min_subgraph_size=3,
                    precision_mode=inference.PrecisionType.Float32,
                    use_static=False,
                    use_calib_mode=False,
                )
        if program.suffix == ".pdmodel":
            config.enable_memory_optim()  # raises on the format of Paddle 3
        try:
            with silenced():
                first = inference.create_predictor(config)
                self._predictors = [first, *(first.clone() for _ in range(settings.streams - 1))]
                if settings.clip_thw is not None:
                    num_segments, height, width = settings.clip_thw
                    for predictor in self._predictors:
                        _run_paddle(predictor, np.zeros((1, num_segments, 3, height, width), np.float32))
        except Exception as error:  # its own exceptions have no common class
            raise _refused("paddle", program, error) from error
        self._free = threading.Semaphore(settings.streams)
        self.streams = settings.streams

    def run(self, clips: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        with self._free:
            predictor = self._predictors.pop()
            try:
                return _run_paddle(predictor, clips)
            except Exception as error:
                raise _failed("paddle", error) from error
            finally:
                self._predictors.append(predictor)


def _run_paddle(predictor: Any, clips: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    handle = predictor.get_input_handle(predictor.get_input_names()[0])
    handle.reshape(list(clips.shape))
    handle.copy_from_cpu(np.ascontiguousarray(clips))
    predictor.run()
    logits_nk = predictor.get_output_handle(predictor.get_output_names()[0]).copy_to_cpu()
    return np.asarray(logits_nk, dtype=np.float32)


_GPU_POOL_MB = 512
_TENSORRT_WORKSPACE_BYTES = 1 << 30
_TENSORRT_MAX_BATCH = 32


def _cpu_only(runtime: str, settings: EngineSettings) -> None:
    if settings.device != "cpu":
        raise DeviceError(f"the runtime {runtime} runs on the CPU here, not on {settings.device}")


def _refused(runtime: str, program: Path, error: Exception) -> RuntimeFailedError:
    return RuntimeFailedError(f"{runtime} does not take the program {program}: {first_line(error)}")


def _failed(runtime: str, error: Exception) -> RuntimeFailedError:
    return RuntimeFailedError(f"{runtime} failed while running the network: {first_line(error)}")


ENGINES: dict[Runtime, Callable[[Path, EngineSettings], Engine]] = {
    "onnxruntime": OnnxEngine,
    "openvino": OpenvinoEngine,
    "paddle": PaddleEngine,
}
