"""Weights and inputs of the goldens, from NumPy alone: every array depends on its state-dict key and shape, or on T."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

import numpy as np

GOLDENS_DIR = Path(__file__).resolve().parent / "goldens"
GOLDEN_MODELS = tuple(sorted(path.name.removesuffix(".json.gz") for path in (GOLDENS_DIR / "keys").glob("*.json.gz")))
"""The thirteen models whose keys and logits were recorded from the reference."""


@cache
def golden_keys(model: str) -> dict[str, dict[str, object]]:
    """State-dict key -> `shape`, `kind` (param or stat), `lr_mult`, `l2_override`; in the reference's order."""
    return json.loads(gzip.decompress((GOLDENS_DIR / "keys" / f"{model}.json.gz").read_bytes()))


def golden_shapes(model: str) -> dict[str, tuple[int, ...]]:
    return {key: tuple(facts["shape"]) for key, facts in golden_keys(model).items()}  # type: ignore[arg-type]


@cache
def golden_logits(model: str) -> dict[str, np.ndarray]:
    """`logits*` float32 [1, K], `perm` [T] and `weights_sha256` of a model."""
    with np.load(GOLDENS_DIR / "golden" / f"{model}.npz") as file:
        return {name: file[name] for name in file.files}


# Several models have the same backbone, and drawing 25 million normal numbers takes most of a second.
@cache
def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float32 tensor of state-dict entry `key`, prefix included."""
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode("utf-8"))))
    if key.endswith("._variance"):
        values = 0.75 + 0.5 * generator.random(shape)
    elif key.endswith(("._mean", ".bias")):
        values = 0.1 * generator.standard_normal(shape)
    elif len(shape) == 1:
        values = 0.75 + 0.5 * generator.random(shape)
        if key.endswith(".conv2._batch_norm.weight"):
            values *= 0.4  # the last BatchNorm of a bottleneck: the residual sums stay small
    elif len(shape) == 2:
        values = generator.standard_normal(shape) * np.sqrt(1.0 / shape[0])
    else:
        values = generator.standard_normal(shape) * np.sqrt(2.0 / np.prod(shape[1:]))
    result = values.astype(np.float32)
    result.flags.writeable = False
    return result


def fill_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """A whole state dict of recipe weights."""
    return {key: fill(key, shape) for key, shape in shapes.items()}


def weights_sha256(arrays: Iterable[np.ndarray]) -> str:
    """Of all bytes one after another, as the goldens record it."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


@cache
def plain_clip(num_frames: int) -> np.ndarray:
    """float32 [1, T, 3, 224, 224]: noise, the frames alike."""
    return np.random.default_rng(0).standard_normal((1, num_frames, 3, 224, 224)).astype(np.float32)


@cache
def struct_clip(num_frames: int) -> np.ndarray:
    """float32 [1, T, 3, 224, 224]: noise, of another strength and colour in each frame: temporal mistakes show."""
    generator = np.random.default_rng(1)
    noise = generator.standard_normal((1, num_frames, 3, 224, 224))
    gain = 0.25 + 1.5 * generator.random((1, num_frames, 1, 1, 1))
    offset = generator.standard_normal((1, num_frames, 3, 1, 1))
    return (noise * gain + offset).astype(np.float32)


def permutation(num_frames: int) -> np.ndarray:
    return np.random.default_rng(7).permutation(num_frames)
