from __future__ import annotations

from pathlib import Path

import pytest

from ppvcli.configs.load import dump_config, list_configs, load_config, parse_config
from ppvcli.errors import ConfigError, UnknownNameError
from ppvcli.models.zoo import get_model_row

MINIMAL = """
model: {name: tsm_efflite0}
data: {root: clips, val_ratio: 0.2}
optimizer: {name: adamw, learning_rate: 1e-4}
epochs: 2
batch_size: 3
"""


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", list_configs())
def test_shipped_config_loads_and_round_trips(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert get_model_row(config.model.name).name == config.model.name
    assert load_config(write(tmp_path, dump_config(config))) == config


@pytest.mark.parametrize("name", list_configs())
def test_shipped_config_opens_with_the_command_that_runs_it(name: str) -> None:
    text = (Path(__file__).parents[2] / "ppvcli" / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    head = text[: text.index("model:")]
    assert "ppv train --" in head
    assert "Assumes:" in head


def test_exponent_without_point_is_a_number(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, MINIMAL)).optimizer.learning_rate == 1e-4


def test_overrides_are_typed_and_applied_in_order(tmp_path: Path) -> None:
    config = load_config(
        write(tmp_path, MINIMAL),
        [
            "epochs=5",
            "epochs=7",
            "optimizer.learning_rate=3e-2",
            "model.freeze_batchnorm=true",
            "model.pretrained=null",
        ],
    )
    assert (config.epochs, config.optimizer.learning_rate) == (7, 3e-2)
    assert config.model.freeze_batchnorm is True
    assert config.model.pretrained is None


def test_override_value_is_data_not_code(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(write(tmp_path, MINIMAL), ["data.root=!!python/object/apply:os.system ['true']"])


@pytest.mark.parametrize("override", ["epochs", "=3", "epochs.deeper=1"])
def test_malformed_override_is_named(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, MINIMAL), [override])
    assert f"--set {override}" in caught.value.message


def test_all_faults_come_at_once_with_file_key_and_value(tmp_path: Path) -> None:
    text = MINIMAL.replace("epochs: 2", "epochs: two\nepoch: 2").replace("1e-4", "-1") + "label_smothing: 0.1\n"
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, text))
    faults = caught.value.message.splitlines()
    assert all("run.yaml: " in fault for fault in faults)
    assert sorted(fault.split(": ")[1] for fault in faults) == [
        "epoch", "epochs", "label_smothing", "optimizer.learning_rate",
    ]  # fmt: skip
    assert "nearest: label_smoothing" in caught.value.message
    assert "got 'two'" in caught.value.message


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("input.resize.shortside=256", "run.yaml: input.resize.shortside: unknown key; nearest: short_side"),
        ("augment.multi_scale.points=13", "run.yaml: augment.multi_scale.points: unknown key; nearest: num_points"),
        ("precise_bn.epochs=5", "run.yaml: precise_bn.epochs: unknown key; nearest: every_epochs"),
        ("teacher.weight=1.5", "run.yaml: teacher.weight: Input should be less than or equal to 1, got 1.5"),
        ("amp=O3", "run.yaml: amp: Input should be 'O1' or 'O2', got 'O3'"),
        ("optimizer.nesterov=yes please", "run.yaml: optimizer.nesterov: Input should be a valid boolean"),
    ],
)
def test_fault_in_a_section_names_key_value_and_nearest(override: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, MINIMAL), [override])
    assert words in caught.value.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"root": "x"}}, "either val_ratio or val_groups"),
        ({"data": {"root": "x", "val_ratio": 0.2, "train_list": "a"}}, "go together"),
        ({"data": {"root": "x", "val_groups": ["a"]}}, "needs group_pattern"),
        ({"data": {"root": "x", "val_ratio": 0.2, "group_pattern": "g.*"}}, "exactly one"),
        ({"data": {"root": "x", "val_ratio": 0.2, "group_pattern": "("}}, "no regular expression"),
        ({"optimizer": {"name": "adamw", "learning_rate": 0.1, "momentum": 0.9}}, "can't take effect"),
        ({"epochs": 0}, "greater than 0"),
        ({"batch_size": True}, "valid integer"),
    ],
)
def test_impossible_setting_is_refused(change: dict[str, object], words: str) -> None:
    tree = {
        "model": {"name": "tsm_efflite0"},
        "data": {"root": "clips", "val_ratio": 0.2},
        "optimizer": {"name": "adamw", "learning_rate": 1e-4},
        "epochs": 2,
        "batch_size": 3,
    }
    parse_config(tree, source="test")
    with pytest.raises(ConfigError, match=words):
        parse_config({**tree, **change}, source="test")


def test_unknown_name_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="tsm_efflite0_weizmann_videos"):
        load_config("tsm_efflite0_weizman_videos")


def test_missing_file_and_broken_yaml_are_config_errors(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't read config"):
        load_config(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError, match="not valid YAML"):
        load_config(write(tmp_path, "a: [1"))
    with pytest.raises(ConfigError, match="expected a mapping"):
        load_config(write(tmp_path, "- 1"))
