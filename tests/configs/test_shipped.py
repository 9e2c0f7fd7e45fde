"""The shipped recipes against the facts of the reference, written down here by hand from SPEC sections 2, 3 and 4.3."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from ppvcli.configs import schema
from ppvcli.configs.load import list_configs, load_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.models.zoo import get_model_row

CONFIGS_DIR = Path(schema.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The facts of one recipe; the defaults are what most have in common."""

    model: str
    pretrained: str = "imagenet"
    num_segments: int = 8
    num_gpus: int = 8
    batch_size: int = 16
    epochs: int
    learning_rate: float
    milestones: tuple[int, ...] = ()
    warmup: tuple[float, float] = (0.0, 0.0)
    """Epochs, and the start as a share of the peak."""
    weight_decay: float = 1e-4
    nesterov: bool = True
    clip: float | None = None
    mixup: float | None = 0.2
    label_smoothing: float = 0.0
    precise_bn: tuple[int, int] | None = None
    dropout: float | None
    train_sampling: str = "uniform"
    val_sampling: str = "uniform"
    resize: tuple[str, int, str, str] = ("pillow", 256, "4:3", "floor")
    """Backend, short side, aspect, rounding."""
    crop_rounding: str = "round"
    multi_scale: tuple[int, int, bool, bool] = (256, 13, True, False)
    """Size, points, resize first, places repeated (SPEC's "dup")."""


_COSINE: dict[str, Any] = {"warmup": (10, 0.5)}
_STEPS: dict[str, Any] = {"nesterov": False, "mixup": None}
_TSN_INPUT: dict[str, Any] = {
    "num_segments": 3, "train_sampling": "select_left", "val_sampling": "select_left", "crop_rounding": "floor",
    "resize": ("cv2", 256, "keep", "round"), "batch_size": 32, "dropout": 0.4,
}  # fmt: skip
_TSM_INPUT: dict[str, Any] = {
    "train_sampling": "select_left", "val_sampling": "select_left", "resize": ("pillow", 256, "keep", "floor"),
    "multi_scale": (224, 13, False, True),
}  # fmt: skip
TSN = Recipe(
    model="tsn_k400_3seg", **_TSN_INPUT, **_STEPS, num_gpus=4, epochs=100, learning_rate=0.01, milestones=(40, 80),
    clip=40.0, multi_scale=(224, 5, True, True),
)  # fmt: skip
PPTSN = Recipe(
    model="pptsn_k400_3seg", **_TSN_INPUT, **_COSINE, epochs=100, learning_rate=0.01, label_smoothing=0.1,
    multi_scale=(224, 13, True, True),
)  # fmt: skip
TSM = Recipe(
    model="tsm_k400", **_TSM_INPUT, **_STEPS, epochs=50, learning_rate=0.02, milestones=(20, 40), clip=20.0, dropout=0.5
)
TSM_UCF = replace(
    TSM, model="tsm_ucf101", pretrained="tsm_k400", epochs=25, learning_rate=0.001, milestones=(10, 20),
    weight_decay=0.0, dropout=0.8,
)  # fmt: skip
PPTSM = Recipe(
    model="pptsm_r50_k400_uniform", **_COSINE, epochs=80, learning_rate=0.01, label_smoothing=0.1, precise_bn=(5, 200),
    dropout=0.5,
)  # fmt: skip
DENSE = replace(PPTSM, model="pptsm_r50_k400_dense", train_sampling="dense", learning_rate=0.02)
R101 = replace(DENSE, model="pptsm_r101_k400_dense", epochs=100)
V2_8F = Recipe(model="pptsmv2_k400_8f", **_COSINE, epochs=120, learning_rate=0.01, dropout=0.2)
V2_16F = replace(V2_8F, model="pptsmv2_k400_16f", num_segments=16)
DML_8F = replace(V2_8F, model="pptsmv2_k400_8f_dml", batch_size=8, learning_rate=0.005, dropout=None)
DML_16F = replace(DML_8F, model="pptsmv2_k400_16f_dml", num_segments=16)

RECIPES = {
    **{f"tsn_k400_{form}": TSN for form in ("frames", "videos")},
    **{f"tsm_k400_{form}": TSM for form in ("frames", "videos")},
    "tsm_k400_frames_nhwc": replace(TSM, model="tsm_k400_nhwc"),
    **{f"tsm_ucf101_{form}": TSM_UCF for form in ("frames", "videos")},
    "tsm_ucf101_frames_nhwc": replace(TSM_UCF, model="tsm_ucf101_amp_nhwc"),
    **{f"pptsn_k400_{form}": PPTSN for form in ("frames", "videos")},
    **{f"pptsm_{data}_{form}_uniform": PPTSM for data in ("k400", "ucf101-66") for form in ("frames", "videos")},
    **{f"pptsm_{data}_frames_dense": DENSE for data in ("k400", "ucf101-66")},
    **{f"pptsm_{data}_frames_dense_r101": R101 for data in ("k400", "ucf101-66")},
    "pptsmv2_k400_8frames_uniform": V2_8F,
    "pptsmv2_k400_16frames_uniform": V2_16F,
    "pptsmv2_k400_8frames_uniform_dml": DML_8F,
    "pptsmv2_k400_16frames_uniform_dml": DML_16F,
    "pptsmv2_ucf101-66_16frames_uniform": V2_16F,
}
FOLDERS = ("tsm", "pptsm", "pptsmv2", "pptsm_r50_k400_uniform", "tsm_efflite0")
"""Models, as a user types them, that `ppv train --model NAME --data DIR` fine-tunes."""


def recipe_of(config: TrainConfig) -> Recipe:
    """The facts of a config, in the form of the table."""
    chosen, optimizer, schedule = config.input, config.optimizer, config.schedule
    resize, multi_scale = chosen.resize, config.augment.multi_scale
    assert resize is not None
    assert multi_scale is not None
    assert optimizer.learning_rate_batch_size is not None
    assert chosen.num_segments is not None
    return Recipe(
        model=config.model.name,
        pretrained=str(config.model.pretrained),
        num_segments=chosen.num_segments,
        num_gpus=optimizer.learning_rate_batch_size // config.batch_size,
        batch_size=config.batch_size,
        epochs=config.epochs,
        learning_rate=optimizer.learning_rate,
        milestones=schedule.milestones,
        warmup=(schedule.warmup_epochs, schedule.warmup_start_ratio),
        weight_decay=optimizer.weight_decay,
        nesterov=optimizer.nesterov,
        clip=optimizer.clip_grad_norm,
        mixup=config.augment.mixup_alpha,
        label_smoothing=config.label_smoothing,
        precise_bn=config.precise_bn and (config.precise_bn.every_epochs, config.precise_bn.num_batches),
        dropout=config.model.dropout,
        train_sampling=str(chosen.train_sampling),
        val_sampling=str(chosen.val_sampling),
        resize=(resize.backend, resize.short_side or 0, resize.aspect, resize.rounding),
        crop_rounding=str(chosen.crop_rounding),
        multi_scale=(
            multi_scale.size,
            multi_scale.num_points,
            multi_scale.scale_first,
            multi_scale.repeat_places,
        ),
    )


def test_every_shipped_config_is_in_a_table() -> None:
    folders = {f"{get_model_row(name).name}_folder" for name in FOLDERS}
    assert set(list_configs()) == {*RECIPES, *folders, "tsm_efflite0_weizmann_videos"}


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipe_has_the_documented_facts(name: str) -> None:
    config = load_config(name)
    assert asdict(recipe_of(config)) == asdict(RECIPES[name])
    # the same for all: SPEC 3 and 4.3
    assert config.optimizer.name == "momentum"
    assert config.optimizer.momentum == 0.9
    assert config.schedule.name == ("step" if config.schedule.milestones else "cosine")
    assert config.schedule.factor == 0.1
    assert config.augment.flip_ratio == 0.5
    assert config.augment.multi_scale is not None
    assert config.augment.multi_scale.scales == (1.0, 0.875, 0.75, 0.66)
    assert config.input.crop_size == 224
    assert config.input.test == "published"
    assert (config.amp, config.ema_decay, config.accumulate_steps) == (None, None, 1)


@pytest.mark.parametrize("name", RECIPES)
def test_shipped_recipe_reads_the_data_that_its_name_says(name: str) -> None:
    data = load_config(name).data
    form = "videos" if "videos" in name else "frames"
    assert data.format == form
    if "_k400_" in name:
        suffix = "_frames" if form == "frames" else ""
        expected = ("data/k400", f"train{suffix}.list", f"val{suffix}.list", "Kinetics-400_label_list.txt")
    else:
        root = "data/ucf101-66" if "ucf101-66" in name else "data/ucf101"
        expected = (root, f"train_split1_{form}.txt", f"val_split1_{form}.txt", "labels.txt")
    assert (data.root, data.train_list, data.val_list, data.labels) == expected


@pytest.mark.parametrize("name", RECIPES)
def test_header_names_gpus_clips_and_data(name: str) -> None:
    text = (CONFIGS_DIR / f"{name}.yaml").read_text(encoding="utf-8")
    head = text[: text.index("\nmodel:")]
    recipe = RECIPES[name]
    assert f"ppv train --config {name}\n" in head
    assert f"Assumes: {recipe.num_gpus} GPUs with {recipe.batch_size} clips each" in head
    assert load_config(name).data.root in head
    if "ucf101" in name:
        assert f"--format {load_config(name).data.format} --out {load_config(name).data.root}\n" in head
    if recipe.milestones:
        assert "schedule" in head


@pytest.mark.parametrize("name", FOLDERS)
def test_folder_recipe_fine_tunes_the_published_network(name: str) -> None:
    row = get_model_row(name)
    config = load_config(f"{row.name}_folder", ["data.root=mine"])
    assert (config.model.name, config.data.root, config.data.val_ratio) == (row.name, "mine", 0.2)
    assert config.model.pretrained == ("imagenet" if row.name == "tsm_efflite0" else row.name)
    text = (CONFIGS_DIR / f"{row.name}_folder.yaml").read_text(encoding="utf-8")
    assert f"ppv train --model {name} --data DIR\n" in text


@pytest.mark.parametrize("name", RECIPES)
def test_settings_that_the_header_suggests_are_valid(name: str) -> None:
    text = (CONFIGS_DIR / f"{name}.yaml").read_text(encoding="utf-8")
    suggested = re.findall(r"--set (?:'([^']+)'|(\S+))", text[: text.index("\nmodel:")])
    changes = [quoted or plain for quoted, plain in suggested if "=DIR" not in plain]
    config = load_config(name, changes)
    assert ("schedule.milestones" in " ".join(changes)) == bool(RECIPES[name].milestones)
    assert not changes or config != load_config(name)
