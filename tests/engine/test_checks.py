"""Settings that only the model, the device or the disk rules out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ppvcli.configs.load import Change, Source, list_configs, load_config, parse_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.engine.checks import check_config, check_data_exists
from ppvcli.errors import ConfigError, DatasetError
from ppvcli.models.zoo import ZOO


def make_config(name: str = "pptsm_r50_k400_uniform", **changes: Any) -> TrainConfig:
    tree: dict[str, Any] = {
        "model": {"name": name},
        "data": {"root": "clips", "val_ratio": 0.2},
        "optimizer": {"name": "momentum", "learning_rate": 0.01},
        "epochs": 2,
        "batch_size": 4,
    }
    for key, value in changes.items():
        tree[key] = {**tree.get(key, {}), **value} if isinstance(value, dict) else value
    return parse_config(tree, source="test")


def faults_of(config: TrainConfig, *, device: str = "cpu", resumes: bool = False) -> list[str]:
    try:
        check_config(config, source=Source("run.yaml"), device=device, resumes=resumes)
    except ConfigError as error:
        return error.message.splitlines()
    return []


@pytest.mark.parametrize("name", list_configs())
def test_shipped_config_has_no_fault(name: str) -> None:
    assert faults_of(load_config(name)) == []


@pytest.mark.parametrize("name", ZOO)
def test_every_model_can_be_trained(name: str) -> None:
    assert faults_of(make_config(name)) == []
    assert faults_of(make_config(name, model={"name": name, "pretrained": "imagenet"})) == []


@pytest.mark.parametrize(
    ("config", "key", "words"),
    [
        (make_config("pptsmw2"), "model.name", "nearest: pptsmv2"),
        (make_config(amp="O1"), "amp", "O1 needs a GPU: on a CPU Paddle computes in float32"),
        (make_config("tsm_k400", input={"train_sampling": "dense"}), "input.train_sampling", "pptsm has"),
        (make_config("pptsmv2_k400_8f", input={"val_sampling": "dense"}), "input.val_sampling", "no dense form"),
        (make_config(input={"num_segments": 2}), "input.num_segments", "needs 3 or more"),
        (make_config(input={"num_segments": 12, "test": "published"}), "input.test", "8 frames, but .* is 12"),
        (make_config(input={"train_sampling": "window"}), "input.frame_interval", "needs one"),
        (make_config(input={"frame_interval": 4}), "input.frame_interval", "can't take effect"),
        (make_config(input={"crop_size": 288}), "input.crop_size", "288 pixels out of frames with a short side of 256"),
        (make_config("tsm_efflite0", input={"crop_size": 128}), "input.crop_size", "takes the whole frame"),
        (make_config(augment={"multi_scale": {"size": 192}}), "augment.multi_scale.size", "less than the 224"),
        (make_config(model={"temporal_shift": False}), "model.temporal_shift", "can't be switched off"),
        (make_config(model={"frozen_stages": 2}), "model.frozen_stages", "no stages that can be frozen"),
        (make_config("tsm_efflite0", model={"name": "tsm_efflite0", "frozen_stages": 8}), "model.frozen_stages", "7"),
        (make_config(model={"pretrained": "resnet5O_vd"}), "model.pretrained", "nearest: resnet50, resnet50_vd_"),
        (make_config(model={"pretrained": "resnet50"}), "model.pretrained", "tsn and tsm of depth 50"),
        (make_config(model={"pretrained": "resnet101_vd_ssld"}), "model.pretrained", "takes resnet50_vd_ssld_v2"),
        (make_config(model={"pretrained": "pptsm"}), "model.pretrained", "another network"),
        (make_config(model={"pretrained": "tsm"}), "model.pretrained", "another network"),
        (make_config("tsm_efflite0", model={"name": "tsm_efflite0", "pretrained": "tsm_efflite0"}), "model.pretrained",
         "imagenet is what it starts from"),
        (make_config("pptsmv2_k400_8f_dml", model={"name": "pptsmv2_k400_8f_dml", "pretrained": "resnet50"}),
         "model.pretrained", "imagenet has weights for both"),
        (make_config("pptsmv2_k400_8f_dml", model={"name": "pptsmv2_k400_8f_dml", "pretrained": "pptsmv2_k400_8f"}),
         "model.pretrained", "another network"),
        (make_config("pptsmv2_k400_8f_dml", teacher={"weights": "tsm"}), "teacher", "takes no other teacher"),
        (make_config(teacher={"weights": "runs/none"}), "teacher.weights", "nothing stands at this path"),
        (make_config(augment={"mixup_alpha": 0.2}, batch_size=1), "augment.mixup_alpha", "with batch_size 1"),
        (make_config(precise_bn={}, ema_decay=0.99), "precise_bn", "ema_decay keeps"),
        (make_config(model={"freeze_batchnorm": True}, precise_bn={}), "precise_bn", "keeps the stored statistics"),
    ],
)  # fmt: skip
def test_impossible_setting_is_a_fault_with_file_and_key(config: TrainConfig, key: str, words: str) -> None:
    (fault,) = faults_of(config)
    assert fault.startswith(f"run.yaml: {key}: ")
    assert re.search(words, fault), fault


def test_all_faults_come_at_once() -> None:
    config = make_config(
        amp="O2", input={"num_segments": 1, "crop_size": 400}, model={"frozen_stages": 1, "pretrained": "tsn"}
    )
    keys = [fault.split(": ")[1] for fault in faults_of(config)]
    assert keys == ["model.frozen_stages", "input.num_segments", "input.crop_size", "amp", "model.pretrained"]


def test_fault_of_a_flag_names_the_flag() -> None:
    config = make_config(amp="O1", model={"frozen_stages": 1})
    source = Source("run.yaml", (Change(key="amp", value="O1", typed="--amp O1"),))
    with pytest.raises(ConfigError) as caught:
        check_config(config, source=source, device="cpu", resumes=False)
    assert [line.split(": ")[0] for line in caught.value.message.splitlines()] == ["run.yaml", "--amp O1"]


@pytest.mark.parametrize(
    ("config", "hint"),
    [
        (make_config(amp="O1"), "leave it out, or train with --gpu"),
        (make_config(model={"pretrained": "nope"}), "ppv download-weights --list names the weights"),
        (make_config("nope"), "ppv download-weights --list names the models"),
        (make_config(input={"num_segments": 2}), "--print-config"),
    ],
)
def test_fault_comes_with_a_hint(config: TrainConfig, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_config(config, source=Source("run.yaml"), device="cpu", resumes=False)
    assert str(caught.value.hint).startswith(hint)


def test_possible_settings_are_let_through(tmp_path: Path) -> None:
    assert faults_of(make_config(amp="O1"), device="gpu:0") == []
    assert faults_of(make_config(input={"train_sampling": "dense"})) == []
    assert faults_of(make_config(input={"num_segments": 12})) == []
    assert faults_of(make_config("tsm_k400", model={"name": "tsm_k400", "pretrained": "tsn"})) == []
    assert faults_of(make_config("pptsmv2", model={"name": "pptsmv2", "pretrained": "pptsmv2_k400_8f"})) == []
    assert faults_of(make_config(model={"pretrained": str(tmp_path)})) == []
    # a run that goes on needs its first weights no more
    gone = make_config(model={"pretrained": "gone.pdparams"})
    assert faults_of(gone, resumes=True) == []
    assert len(faults_of(gone)) == 1


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("pptsm_ucf101-66_frames_dense_r101", "ppv prepare-ucf101-66 --format frames --out data/ucf101-66"),
        ("pptsm_ucf101-66_videos_uniform", "ppv prepare-ucf101-66 --format videos --out data/ucf101-66"),
        ("tsm_k400_frames", "--data DIR"),
        ("tsm_ucf101_videos", "ppv prepare-ucf101-66 --format videos --out data/ucf101, with --classes FILE"),
    ],
)
def test_absent_data_set_names_the_command_that_makes_it(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(name)
    with pytest.raises(DatasetError, match=f"no folder {config.data.root}") as caught:
        check_data_exists(config.data)
    assert caught.value.hint is not None
    assert caught.value.hint.startswith(command)
    root = Path(config.data.root)
    root.mkdir(parents=True)
    with pytest.raises(DatasetError, match=r"is not there: no .*(labels|label_list)\.txt") as caught:
        check_data_exists(config.data)
    for file in (config.data.train_list, config.data.val_list, config.data.labels):
        (root / str(file)).touch()
    check_data_exists(config.data)
