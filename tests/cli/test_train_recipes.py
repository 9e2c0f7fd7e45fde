"""`ppv train --config NAME` with the shipped recipes: one step at a small size, and one exactly as documented."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ppvcli import prepare_ucf101_66
from ppvcli.models.backbones import BACKBONES
from ppvcli.models.build import expected_shapes
from ppvcli.models.zoo import get_model_row
from ppvcli.video.render import render_action, write_video
from ppvcli.weights.formats import read_metadata
from tests.datasets.fake_ucf101 import listed_paths, write_clips, write_lists

Ppv = Callable[..., Any]

SMALL = ("input.resize.short_side=72", "input.crop_size=64", "augment.multi_scale.size=64", "input.test=validated")
ONE_STEP = (
    "schedule={name: cosine}", "epochs=1", "batch_size=2", "data.num_workers=0", "model.pretrained=null",
)  # fmt: skip
RECIPES = (
    "pptsmv2_k400_8frames_uniform",
    *(
        pytest.param(name, marks=pytest.mark.slow)
        for name in (
            "tsn_k400_videos",
            "tsm_k400_videos",
            "tsm_k400_frames_nhwc",
            "pptsn_k400_frames",
            "pptsm_k400_videos_uniform",
            "pptsm_k400_frames_dense",
            "pptsmv2_k400_8frames_uniform_dml",
        )
    ),
)
"""One of each family; an epoch of a ResNet writes 400 MB."""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `data/k400`: two rendered training clips and one to hold out, as videos and as frames."""
    folder = tmp_path_factory.mktemp("recipes")
    root = folder / "data" / "k400"
    root.mkdir(parents=True)
    names = [f"{i} class_{i}" for i in range(400)]
    (root / "Kinetics-400_label_list.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    rows: dict[str, list[str]] = {name: [] for name in ("train", "val", "train_frames", "val_frames")}
    for side, action, label in (("train", "bend", 0), ("train", "jack", 399), ("val", "walk", 7)):
        frames = render_action(action, num_frames=20)
        write_video(root / f"{action}.mp4", frames)
        (root / action).mkdir()
        for i, frame in enumerate(frames, start=1):
            cv2.imwrite(str(root / action / f"img_{i:05d}.jpg"), np.ascontiguousarray(frame[:, :, ::-1]))
        rows[side].append(f"{action}.mp4 {label}")
        rows[f"{side}_frames"].append(f"{action} {len(frames)} {label}")
    for name, lines in rows.items():
        (root / f"{name}.list").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def options(*settings: str) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]


@pytest.mark.parametrize("name", RECIPES)
def test_recipe_takes_a_step_at_a_small_size(
    name: str, workspace: Path, tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(workspace)
    run = tmp_path / "run"
    answer = ppv("train", "--config", name, "--out", run, "--json", *options(*ONE_STEP, *SMALL))
    assert answer.exit_code == 0, answer.stderr
    result = json.loads(answer.stdout)
    (epoch,) = result["epochs"]
    assert np.isfinite([epoch["train_loss"], epoch["val_loss"]]).all()
    assert epoch["failures"] == []
    assert result["val"]["num_clips"] == 1
    metadata = read_metadata(run)
    assert metadata is not None
    assert metadata.labels is not None
    assert metadata.labels[7] == "class_7"
    assert metadata.model is not None
    assert metadata.model.removesuffix("_student") == result["model"].removesuffix("_student")


def test_recipe_without_its_data_names_the_command_that_makes_it(
    tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ppv("train", "--config", "pptsm_ucf101-66_frames_dense_r101")
    assert answer.exit_code == 1
    assert "error: the data set is not there: no folder data/ucf101-66" in answer.stderr
    assert "hint: ppv prepare-ucf101-66 --format frames --out data/ucf101-66" in answer.stderr
    assert not list(tmp_path.iterdir())


def test_mixed_precision_on_a_cpu_is_refused_before_the_data_is_looked_for(
    tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ppv("train", "--config", "tsm_k400_frames", "--cpu", "--set", "amp=O1")
    assert answer.exit_code == 2
    assert answer.stderr.startswith("error: --set amp=O1: O1 needs a GPU")
    recipe = ppv("train", "--config", "tsm_k400_frames", "--print-config").stdout
    (tmp_path / "mixed.yaml").write_text(recipe.replace("amp: null", "amp: O1"))
    assert "mixed.yaml: amp: O1 needs a GPU" in ppv("train", "--config", "mixed.yaml", "--cpu").stderr


@pytest.mark.slow
def test_ucf101_66_recipe_works_exactly_as_documented(
    tmp_path: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A prepared UCF101-66 with two training clips, the published backbone at the mirror; only the length is cut."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", str(tmp_path / "mirror"))
    backbone = BACKBONES["resnet101_vd_ssld"]
    shapes = expected_shapes(get_model_row("pptsm_r101_k400_dense").network, 1000)
    rng = np.random.default_rng(0)
    tensors = {
        key.removeprefix("backbone."): (
            (0.02 * rng.standard_normal(shape)) if len(shape) == 4 else np.full(shape, 0.0 if "mean" in key else 1.0)
        ).astype(np.float32)
        for key, shape in shapes.items()
        if key.startswith("backbone.")
    }
    (tmp_path / "mirror").mkdir()
    file_name = str(backbone.url).rsplit("/", 1)[-1]
    (tmp_path / "mirror" / file_name).write_bytes(pickle.dumps(tensors, protocol=2))

    write_lists(tmp_path / "ucf101" / "ucfTrainTestlist")
    chosen = [path for path in listed_paths() if "Surfing" in path or "Skiing" in path]
    few = [next(p for p in chosen if f"_g{group:02d}_" in p) for group in (8, 9, 1)]
    write_clips(tmp_path / "ucf101" / "videos", few, num_frames=12)
    prepare_ucf101_66("data/ucf101-66", source="ucf101", format="frames", allow_missing=True, num_workers=1)

    answer = ppv(
        "train", "--config", "pptsm_ucf101-66_frames_dense_r101", "--epochs", "1",
        *options("schedule.warmup_epochs=0", "data.num_workers=0"),
    )  # fmt: skip
    assert answer.exit_code == 0, answer.stderr
    start = json.loads((tmp_path / "runs" / "pptsm_ucf101-66_frames_dense_r101" / "start.json").read_text())
    assert start["new"] == ["head.fc.weight", "head.fc.bias"]
    assert start["num_loaded"] == len(tensors)
