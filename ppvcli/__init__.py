"""Recognise what people do in videos: TSN, TSM, PP-TSN, PP-TSM and PP-TSMv2, from a file to the answer.

Every public name is loaded on first use, so `import ppvcli` costs nothing:

    for prediction in ppvcli.predict(["clip.mp4"]):
        print(prediction.path, prediction.error or prediction.top[0].label)

Paddle, the library of `train`, `evaluate`, `export` and `load_model`, reads the number of its threads when it is
imported, and takes one unless told otherwise. Where ppvcli imports it (`predict` does too, to compile a model on first
use) and OMP_NUM_THREADS is not set, it is told to use every core that this process may use, as by the commands:
OMP_NUM_THREADS and MKL_NUM_THREADS are set then, in `os.environ`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppvcli.api import download_weights, load_clip, prepare_ucf101_66
    from ppvcli.deploy.exporter import export
    from ppvcli.deploy.predictor import Predictor, predict
    from ppvcli.engine.evaluate import evaluate
    from ppvcli.engine.run import train
    from ppvcli.errors import PpvError
    from ppvcli.models.load import load_model
    from ppvcli.models.zoo import list_models
    from ppvcli.results import Prediction
    from ppvcli.video.bench.run import bench_decode
    from ppvcli.video.decoding import read_frames

__version__ = "0.1.0"

__all__ = [
    "PpvError",
    "Prediction",
    "Predictor",
    "__version__",
    "bench_decode",
    "download_weights",
    "evaluate",
    "export",
    "list_models",
    "load_clip",
    "load_model",
    "predict",
    "prepare_ucf101_66",
    "read_frames",
    "train",
]

_HOMES = {
    "PpvError": "ppvcli.errors",
    "Prediction": "ppvcli.results",
    "Predictor": "ppvcli.deploy.predictor",
    "bench_decode": "ppvcli.video.bench.run",
    "download_weights": "ppvcli.api",
    "evaluate": "ppvcli.engine.evaluate",
    "export": "ppvcli.deploy.exporter",
    "list_models": "ppvcli.models.zoo",
    "load_clip": "ppvcli.api",
    "load_model": "ppvcli.models.load",
    "predict": "ppvcli.deploy.predictor",
    "prepare_ucf101_66": "ppvcli.api",
    "read_frames": "ppvcli.video.decoding",
    "train": "ppvcli.engine.run",
}

_WITH_PADDLE = ("ppvcli.engine.evaluate", "ppvcli.engine.run", "ppvcli.deploy.exporter", "ppvcli.models.load")
"""Homes that import Paddle at their top."""


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'ppvcli' has no attribute '{name}'")
    import importlib

    if home in _WITH_PADDLE:
        from ppvcli.models.device import load_paddle

        load_paddle()
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
