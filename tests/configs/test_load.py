from __future__ import annotations

from pathlib import Path

import pytest

from ppvcli.configs.load import Change, Source, dump_config, list_configs, load_config, load_source, parse_config
from ppvcli.configs.schema import DataConfig
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


@pytest.mark.parametrize(
    "text",
    ["12e4", "1e4", "+1E-4", "-1.e+4", "1_0e5", "1.5", "0x1f", "1:30", "yes", "null", "~", "2026-11-22", "<<", "=",
     "a: b", "# a", "- a", " a ", "a  b " * 40, "@a", "'", '"', "a\nb", "\\d+", "ä\x85\u2028\ufeff", "\udcff", "\x00"],
)  # fmt: skip
def test_text_in_a_config_is_written_so_that_it_is_read_as_text(text: str, tmp_path: Path) -> None:
    data = {"root": text, "val_groups": [text], "group_pattern": "(.*)"}
    config = load_config(write(tmp_path, MINIMAL))
    config = config.model_copy(update={"data": DataConfig.model_validate(data)})
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
    with pytest.raises(ConfigError, match="text that begins with ! needs quotes"):
        load_config(write(tmp_path, MINIMAL), ["data.root=!!python/object/apply:os.system ['true']"])


@pytest.mark.parametrize("override", ["epochs", "=3", ".epochs=3", "data.=3", "epochs.deeper=1", "data.root=[a"])
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
    ("override", "fault"),
    [
        ("input.resize.shortside=256", "unknown key; nearest: short_side"),
        ("augment.multi_scale.points=13", "unknown key; nearest: num_points"),
        ("precise_bn.epochs=5", "unknown key; nearest: every_epochs"),
        (
            "model.xyz=5",
            "unknown key; known: name, pretrained, temporal_shift, dropout, frozen_stages, freeze_batchnorm",
        ),
        ("teacher.weight=1.5", "expected 1 or less, got 1.5"),
        ("amp=O3", "expected 'O1' or 'O2', got 'O3'"),
        ("optimizer.nesterov=yes please", "expected true or false, got 'yes please'"),
        ("optimizer.learning_rate=.inf", "expected a finite number, got inf"),
        ("optimizer.weight_decay=-1", "expected 0 or more, got -1"),
        ("augment.flip_ratio=half", "expected a number, got 'half'"),
        ("model.dropout=1", "expected less than 1, got 1"),
        ("model=tsm", "expected a section of `key: value`, got 'tsm'"),
        ("epochs=null", "expected a whole number, got null"),
        ("epochs=true", "expected a whole number, got true"),
        ("data.root=3", "expected text, got 3; in quotes it is text"),
        ("data.val_groups=a", "expected a list, got 'a'"),
        ("data.val_groups=[a, 1]", "data.val_groups.1: expected text, got 1; in quotes it is text"),
        ("input.resize.size_hw=[1, 2, 3]", "expected a list of 2 at the most, got [1, 2, 3]"),
        ("input.resize.size_hw=[64]", "entry 2 is missing, got [64]"),
        ("input.resize={short_side: 0}", "input.resize.short_side: expected more than 0, got 0"),
        (
            "augment.multi_scale={size: 9, scales: []}",
            "augment.multi_scale.scales: expected a list of 1 or more, got []",
        ),
        ("data.group_pattern=(", "no regular expression: "),
        ("data={1: 2}", "data.1: expected a key of letters, got 1"),
    ],
)
def test_fault_of_an_override_names_what_was_typed(override: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(write(tmp_path, MINIMAL), ["batch_size=4", override])
    assert any(line.startswith(f"--set {override}: {fault}") for line in caught.value.message.splitlines()), (
        caught.value
    )


def test_fault_between_settings_names_the_file_and_what_was_typed_in_that_section(tmp_path: Path) -> None:
    file = write(tmp_path, MINIMAL)
    with pytest.raises(ConfigError) as caught:
        load_config(file, ["epochs=3", "data.train_list=a", "teacher.weight=0.5"])
    assert caught.value.message.splitlines() == [
        f"{file} with --set teacher.weight=0.5: teacher: weights is missing, and has no default",
        f"{file} with --set data.train_list=a: data: train_list, val_list and labels go together; "
        "leave all three out for class folders",
    ]


def test_fault_of_a_flag_names_the_flag(tmp_path: Path) -> None:
    flag = Change(key="epochs", value=0, typed="--epochs 0")
    with pytest.raises(ConfigError, match=r"^--epochs 0: expected more than 0, got 0$"):
        load_source(Source(write(tmp_path, MINIMAL), (flag,)))


def test_section_that_is_null_can_be_filled(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, MINIMAL + "teacher: null\n"), ["teacher.weights=tsm"])
    assert config.teacher is not None
    assert config.teacher.weights == "tsm"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": {"root": "x"}}, "either val_ratio or val_groups"),
        ({"data": {"root": "x", "val_ratio": 0.2, "train_list": "a"}}, "go together"),
        ({"data": {"root": "x", "val_groups": ["a"]}}, "needs group_pattern"),
        ({"data": {"root": "x", "val_ratio": 0.2, "group_pattern": "g.*"}}, "exactly one"),
        ({"data": {"root": "x", "val_ratio": 0.2, "group_pattern": "("}}, "no regular expression"),
        ({"optimizer": {"name": "adamw", "learning_rate": 0.1, "momentum": 0.9}}, "can't take effect"),
        ({"epochs": 0}, "expected more than 0"),
        ({"batch_size": True}, "expected a whole number"),
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


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty; expected settings"),
        ("# nothing yet\n", "is empty; expected settings"),
        ("- 1\n- 2\n", "holds a list; expected settings"),
        ("hello\n", "holds a single value; expected settings"),
        ("model:\n  name: x\n\tpretrained: y\n", ": line 3: indented with a tab; YAML takes spaces"),
        ("model: {name: tsm\ndata: [1\n", ": line 1: what { opens is not closed"),
        ("model: 'tsm\nepochs: 3\n", ": line 1: what ' opens is not closed"),
        ("epochs: 3\ndata: a: b\n", ": line 2: can't be read: check the indentation"),
        ("model:\n  name: x\n epochs: 2\n", ": line 3: can't be read: check the indentation"),
        ("epochs: 3\ndata: *clips\n", ": line 2: text that begins with * needs quotes"),
        ("data: @clips\n", ": line 1: text that begins with @ needs quotes"),
        ('data: "C:\\clips"\n', ": line 1: a backslash in double quotes; single quotes take it as it is"),
        ("model: !!python/object/apply:os.system ['true']\n", ": line 1: text that begins with ! needs quotes"),
        ("epochs: 3\nseed: 1\nepochs: 4\n", ": line 3: key 'epochs' stands twice"),
        ("data: {root: a, root: b}\n", ": line 1: key 'root' stands twice"),
        ("epochs: 3\x00\n", ": the character '\\x00' can't stand in YAML"),
        ("<<: 3\n", ": line 1: can't be read"),
        ("epochs: 0x_\n", ": a number can't be read"),
        ("model: {name: x}\n", ": data is missing, and has no default"),
    ],
)
def test_file_that_holds_no_config_is_told_in_plain_words(content: str, words: str, tmp_path: Path) -> None:
    file = write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert caught.value.message.startswith(f"{file}{words}" if words.startswith(":") else f"{file} {words}")


def test_date_is_text_and_byte_order_mark_no_matter(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(MINIMAL.replace("clips", "2026-11-22"), encoding="utf-8-sig")
    assert load_config(str(file)).data.root == "2026-11-22"


def test_path_that_is_no_config_file_says_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no config file .*none\.yaml"):
        load_config(str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigError) as caught:
        load_config("tsm_efflite0_folder.yaml")
    assert caught.value.hint == "--config tsm_efflite0_folder"
    with pytest.raises(ConfigError, match="is a folder, not a config"):
        load_config(str(tmp_path))
    write(tmp_path, MINIMAL)
    (tmp_path / "run.yaml").rename(tmp_path / "config.yaml")
    with pytest.raises(ConfigError) as caught:
        load_config(str(tmp_path))
    assert caught.value.hint == f"--config {tmp_path / 'config.yaml'}"
    (tmp_path / "utf16.yaml").write_text(MINIMAL, encoding="utf-16")
    with pytest.raises(ConfigError, match="not a text in UTF-8"):
        load_config(str(tmp_path / "utf16.yaml"))
