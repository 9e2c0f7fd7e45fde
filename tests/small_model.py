"""A real network with three classes on small frames, as a run would leave it: what tests predict with."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from ppvcli.specs import Crop, Preprocess, Resize, Sampling

MODEL = "tsm_efflite0"
LABELS = ("jump", "wave one hand", "wave two hands")
PREPROCESS = Preprocess(
    sampling=Sampling(mode="window", num_segments=8, frame_interval=2),
    resize=Resize(size_hw=(96, 96)),
    crop=Crop(kind="none"),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
)


def moving_block(num_frames: int, *, step: int = 3) -> np.ndarray:
    """uint8 [T, 72, 80, 3] of a bright block that goes right by `step` pixels a frame."""
    frames = np.full((num_frames, 72, 80, 3), 40, np.uint8)
    for t in range(num_frames):
        left = (step * t) % 60
        frames[t, 20:40, left : left + 20] = (220, 180, 90)
    return frames


def write_weights(
    path: Path, *, model: str = MODEL, preprocess: Preprocess = PREPROCESS, with_metadata: bool = True
) -> Path:
    """Writes weights of a model with three classes; the same bytes each time, so that all tests compile once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_content(model, preprocess, with_metadata))
    return path


@cache
def _content(model: str, preprocess: Preprocess, with_metadata: bool) -> bytes:
    from ppvcli.weights.formats import WeightsMetadata, write_safetensors

    tensors = _first_classes_of_the_bundled_model() if model == MODEL else _fresh(model)
    metadata = WeightsMetadata(model=model, labels=LABELS, preprocess=preprocess) if with_metadata else None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_safetensors(path, tensors, metadata=metadata)  # its header has another order each time
        return path.read_bytes()


def _first_classes_of_the_bundled_model() -> dict[str, np.ndarray]:
    """Trained weights: their logits are far enough apart for a difference to mean something."""
    from ppvcli.models.facts import BUNDLED_DIR
    from ppvcli.weights.formats import read_weights

    tensors = dict(read_weights(BUNDLED_DIR / "tsm_efflite0_weizmann.safetensors").tensors)
    for key in ("head.fc.weight", "head.fc.bias"):
        tensors[key] = tensors[key][..., : len(LABELS)]
    return tensors


def _fresh(model: str) -> dict[str, np.ndarray]:
    import paddle

    from ppvcli.models.build import build_network
    from ppvcli.models.zoo import get_model_row

    paddle.seed(0)
    network = build_network(get_model_row(model).network, len(LABELS))
    return {key: value.numpy() for key, value in network.state_dict().items()}
