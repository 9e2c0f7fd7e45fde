"""Recognise what people do in videos: TSN, TSM, PP-TSN, PP-TSM and PP-TSMv2, from a file to the answer.

Every public name is loaded on first use, so `import ppvcli` costs nothing:

    for prediction in ppvcli.predict(["clip.mp4"]):
        print(prediction.top[0].label)

Paddle, the library of `train`, `evaluate` and `load_model`, reads the number of its threads when it is imported, and
takes one unless told otherwise. Where the first use of these names imports it and OMP_NUM_THREADS is not set, they tell
it to use every core that this process may use, as the commands do: OMP_NUM_THREADS and MKL_NUM_THREADS are set then, in
`os.environ`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppvcli.api import download_weights, load_clip, prepare_ucf101_66
    from ppvcli.deploy.exporter import export
    from ppvcli.deploy.predictor import predict
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


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'ppvcli' has no attribute '{name}'")
    import importlib
    import warnings

    if home.startswith(("ppvcli.engine.", "ppvcli.models.load")):
        _use_all_cores()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No ccache found")  # said by Paddle at its import
        value = getattr(importlib.import_module(home), name)
    globals()[name] = value  # the next access does not come here
    return value


def _use_all_cores() -> None:
    """Imports Paddle with the settings of the commands; nothing where somebody has imported it already."""
    import sys

    if "paddle" not in sys.modules:
        from ppvcli.api import start_paddle

        start_paddle()


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
