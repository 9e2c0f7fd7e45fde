"""Where a run starts: files with the keys of the published backbones, made here."""

from __future__ import annotations

import dataclasses
import json
import pickle
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ppvcli.configs.load import load_config, parse_config
from ppvcli.configs.schema import TrainConfig
from ppvcli.engine.start import fetch_weights, starting_network
from ppvcli.errors import DownloadError, OfflineError, WeightsError, WeightsMismatchError
from ppvcli.models.backbones import BACKBONES, imagenet_backbone, list_weights, store_name, weight_source, weights_of
from ppvcli.models.build import build_network, expected_shapes
from ppvcli.models.load import save_weights
from ppvcli.models.zoo import ALIASES, ZOO, get_model_row, load_labels
from ppvcli.results import StartReport
from ppvcli.weights import store
from ppvcli.weights.download import DownloadProgress
from ppvcli.weights.fetch import download_weights
from ppvcli.weights.formats import WeightsMetadata, read_weights
from ppvcli.weights.torch_legacy import find_efflite0_file
from tests.weights.builders import lod_tensor
from tests.weights.file_server import FileServer

NUM_CLASSES = 7


def fill(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A value of the key's own; random ones would take seconds."""
    return np.full(shape, zlib.crc32(key.encode()) % 997 / 997, np.float32)


@pytest.fixture(autouse=True)
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store of the test's own, and the folder that stands for the network."""
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", str(folder))
    return folder


def imagenet_tensors(model: str) -> dict[str, np.ndarray]:
    """What the published ImageNet file of a model's backbone holds: bare keys, and a classifier of 1000 classes."""
    spec = dataclasses.replace(get_model_row(model).network, teacher=None, temporal_attention=False)
    shapes = {key: shape for key, shape in expected_shapes(spec, 1000).items() if key.startswith("backbone.")}
    tensors = {key.removeprefix("backbone."): fill(key, shape) for key, shape in shapes.items()}
    if spec.architecture != "pptsmv2":
        tensors |= {"out.weight": fill("out.weight", (2048, 1000)), "out.bias": fill("out.bias", (1000,))}
    return tensors


def publish(mirror: Path, name: str, tensors: dict[str, np.ndarray]) -> None:
    path = mirror / str(BACKBONES[name].url if name in BACKBONES else ZOO[name].url).rsplit("/", 1)[-1]
    path.write_bytes(pickle.dumps(dict(tensors), protocol=2))


def class_names(number: int) -> list[str]:
    return [f"class_{i}" for i in range(number)]


def make_config(name: str, pretrained: str | None, **inputs: object) -> TrainConfig:
    tree = {
        "model": {"name": name, "pretrained": pretrained},
        "data": {"root": "clips", "val_ratio": 0.2},
        "input": inputs,
        "optimizer": {"name": "momentum", "learning_rate": 0.01},
        "epochs": 2,
        "batch_size": 4,
    }
    return parse_config(tree, source="test")


def start(config: TrainConfig) -> tuple[dict[str, np.ndarray], StartReport]:
    network, report = starting_network(config, labels=class_names(NUM_CLASSES), starts=True)
    assert report is not None
    return {key: tensor.numpy() for key, tensor in network.state_dict().items()}, report


# --- which backbone ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "backbone"),
    [
        ("tsn_k400_3seg", "resnet50"),
        ("tsm_k400_nhwc", "resnet50"),
        ("pptsn_k400_3seg", "resnet50_vd_ssld_v2"),
        ("pptsm_r50_k400_dense", "resnet50_vd_ssld_v2"),
        ("pptsm_r101_k400_dense", "resnet101_vd_ssld"),
        ("pptsmv2_k400_16f_dml", "pplcnetv2_base_ssld"),
        ("tsm_efflite0", "efflite0"),
    ],
)
def test_imagenet_is_the_backbone_of_architecture_and_depth(model: str, backbone: str) -> None:
    found = imagenet_backbone(get_model_row(model).network)
    assert found is not None
    assert found.name == backbone


def test_names_of_weights_are_unique_and_their_files_have_addresses() -> None:
    assert len(set(list_weights())) == len(ZOO) + len(ALIASES) + len(BACKBONES)
    assert store_name("tsm") == "tsm_k400"
    assert weight_source("resnet101_vd_ssld").url.startswith("https://videotag.bj.bcebos.com/PaddleVideo-release2.2/")
    for name, backbone in BACKBONES.items():
        assert (backbone.url is None) == (name == "efflite0")


# --- what is taken ----------------------------------------------------------------------------------------------------


def test_imagenet_start_fills_the_backbone_and_accounts_for_the_rest(mirror: Path) -> None:
    tensors = imagenet_tensors("pptsmv2_k400_16f_lta")
    publish(mirror, "pplcnetv2_base_ssld", tensors)
    state, report = start(make_config("pptsmv2_k400_16f_lta", "imagenet"))
    layers = ("backbone.fc", "backbone.global_attention.fc")
    assert set(report.new) == {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    reasons = dict(report.skipped)
    assert set(reasons) == {"backbone.fc.weight", "backbone.fc.bias"}
    assert reasons["backbone.fc.weight"] == "has shape [1280, 1000], the network's has [1280, 7]"
    assert report.num_loaded == len(state) - len(report.new)
    assert (report.weights, report.num_loaded + len(reasons)) == ("imagenet", len(tensors))
    for key, values in tensors.items():
        if f"backbone.{key}" not in reasons:
            np.testing.assert_array_equal(state[f"backbone.{key}"], values, err_msg=key)
    json.dumps(report.to_dict())


def test_pair_starts_from_both_backbones(mirror: Path) -> None:
    student, teacher = imagenet_tensors("pptsmv2_k400_8f"), imagenet_tensors("pptsm_r50_k400_uniform")
    publish(mirror, "pplcnetv2_base_ssld", student)
    publish(mirror, "resnet50_vd_ssld_v2", teacher)
    state, report = start(make_config("pptsmv2_k400_8f_dml", "imagenet"))
    new = [f"{layer}.{part}" for layer in ("Teacher.1.fc", "Student.0.fc") for part in ("weight", "bias")]
    assert sorted(report.new) == sorted(new)
    np.testing.assert_array_equal(state["Student.0.last_conv.weight"], student["last_conv.weight"])
    np.testing.assert_array_equal(state["Teacher.0.bb_3_2.conv2._conv.weight"], teacher["bb_3_2.conv2._conv.weight"])


@pytest.mark.parametrize("prefix", ["", "backbone."])
def test_keys_are_taken_with_the_prefix_and_without(prefix: str, tmp_path: Path) -> None:
    path = tmp_path / "own.pdparams"
    tensors = {f"{prefix}{key}": tensor for key, tensor in imagenet_tensors("tsm_k400").items()}
    path.write_bytes(pickle.dumps(tensors, protocol=2))
    _, report = start(make_config("tsm_k400", str(path)))
    assert report.new == ("head.fc.weight", "head.fc.bias")
    why = "the network has none of this name"
    assert report.skipped == (("backbone.out.weight", why), ("backbone.out.bias", why))


def test_legacy_imagenet_folder_is_a_start(tmp_path: Path) -> None:
    folder = tmp_path / "ResNet50_pretrained"
    folder.mkdir()
    parts = {"weight": "scale", "bias": "offset", "_mean": "mean", "_variance": "variance"}
    branches = {"conv0": "branch2a", "conv1": "branch2b", "conv2": "branch2c", "short": "branch1"}
    for key, values in imagenet_tensors("tsn_k400_3seg").items():
        *block, kind, part = key.split(".")
        if block == ["conv"]:
            name = "conv1_weights" if kind == "_conv" else f"bn_conv1_{parts[part]}"
        elif len(block) == 2:
            where = f"{block[0]}_{branches[block[1]]}"
            name = f"{where}_weights" if kind == "_conv" else f"bn{where.removeprefix('res')}_{parts[part]}"
        else:
            name = {"weight": "fc_0.w_0", "bias": "fc_0.b_0"}[part]
        (folder / name).write_bytes(lod_tensor(values))
    state, report = start(make_config("tsn_k400_3seg", str(folder)))
    assert report.new == ("head.fc.weight", "head.fc.bias")
    np.testing.assert_array_equal(
        state["backbone.res4d.conv1._conv.weight"], fill("backbone.res4d.conv1._conv.weight", (256, 256, 3, 3))
    )


def test_video_model_of_other_classes_and_frames_is_a_start(mirror: Path) -> None:
    shapes = expected_shapes(get_model_row("pptsmv2_k400_16f_dml_student").network, 400)
    publish(mirror, "pptsmv2_k400_16f_dml_student", {key: fill(key, shape) for key, shape in shapes.items()})
    state, report = start(make_config("pptsmv2", "pptsmv2", num_segments=8))
    assert set(dict(report.skipped)) == set(report.new) == {
        "backbone.fc.weight", "backbone.fc.bias", "backbone.global_attention.fc.weight",
        "backbone.global_attention.fc.bias",
    }  # fmt: skip
    assert dict(report.skipped)["backbone.global_attention.fc.weight"] == "has shape [16, 16], the network's has [8, 8]"
    np.testing.assert_array_equal(
        state["backbone.last_conv.weight"], fill("backbone.last_conv.weight", (1280, 1024, 1, 1))
    )


def test_classifier_of_as_many_classes_is_taken(tmp_path: Path) -> None:
    shapes = expected_shapes(get_model_row("pptsmv2_k400_8f").network, NUM_CLASSES)
    path = tmp_path / "own.pdparams"
    path.write_bytes(pickle.dumps({key: fill(key, shape) for key, shape in shapes.items()}, protocol=2))
    _, report = start(make_config("pptsmv2_k400_8f", str(path)))
    assert (report.new, report.skipped, report.num_loaded) == ((), (), len(shapes))


def test_student_of_a_pair_is_a_start_without_its_teacher(tmp_path: Path) -> None:
    shapes = expected_shapes(get_model_row("pptsmv2_k400_8f_dml").network, NUM_CLASSES)
    path = tmp_path / "pair.pdparams"
    path.write_bytes(pickle.dumps({key: np.zeros(shape, np.float32) for key, shape in shapes.items()}, protocol=2))
    _, report = start(make_config("pptsmv2_k400_8f", str(path)))
    assert report.new == ()
    assert {why for _, why in report.skipped} == {"of the pair's teacher"}


def test_efflite0_comes_from_pip() -> None:
    try:
        find_efflite0_file()
    except WeightsError as error:
        pytest.skip(f"needs the backbone from pip: {error.message}")
    _, by_rule = start(make_config("tsm_efflite0", "imagenet"))
    _, by_name = start(make_config("tsm_efflite0", "efflite0"))
    assert by_rule.new == by_name.new == ("head.fc.weight", "head.fc.bias")
    assert by_rule.num_loaded == by_name.num_loaded > 200


def test_without_pretrained_or_before_a_checkpoint_nothing_is_read() -> None:
    for config, starts in ((make_config("pptsmv2", None), True), (make_config("pptsmv2", "imagenet"), False)):
        network, report = starting_network(config, labels=class_names(3), starts=starts)
        assert report is None
        assert network.backbone.fc.weight.shape == [1280, 3]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "other", "words"),
    [
        ("pptsm_r50_k400_uniform", "tsm_k400", "it has 0 of its 55 convolutions, and 53 others"),
        ("pptsm_r101_k400_dense", "pptsm_r50_k400_uniform", "and 0 others; first, it lacks backbone.bb_2_6"),
        ("pptsmv2_k400_8f_dml", "pptsmv2_k400_8f", "it lacks Teacher.0.conv1_1"),
    ],
)
def test_weights_of_another_network_are_refused(model: str, other: str, words: str, tmp_path: Path) -> None:
    shapes = expected_shapes(get_model_row(other).network, NUM_CLASSES)
    path = tmp_path / "other.pdparams"
    path.write_bytes(pickle.dumps({key: np.zeros(shape, np.float32) for key, shape in shapes.items()}, protocol=2))
    with pytest.raises(WeightsMismatchError) as caught:
        starting_network(make_config(model, str(path)), labels=class_names(NUM_CLASSES), starts=True)
    assert words in caught.value.message
    assert "pretrained=imagenet" in str(caught.value.hint)


def test_convolutions_that_have_no_place_are_refused(tmp_path: Path) -> None:
    tensors = {**imagenet_tensors("pptsmv2_k400_8f"), "stages.4.conv.weight": np.zeros((2, 2, 1, 1), np.float32)}
    path = tmp_path / "deeper.pdparams"
    path.write_bytes(pickle.dumps(tensors, protocol=2))
    with pytest.raises(WeightsMismatchError, match=r"and 1 others; first, backbone\.stages\.4\.conv\.weight"):
        starting_network(make_config("pptsmv2_k400_8f", str(path)), labels=class_names(NUM_CLASSES), starts=True)


# --- the store --------------------------------------------------------------------------------------------------------


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    tensors = {"conv._conv.weight": np.ones((64, 3, 7, 7), np.float32), "big": np.zeros((200, 1000), np.float32)}
    with FileServer(pickle.dumps(tensors, protocol=2)) as running:
        yield running


def test_backbone_is_fetched_once_resumed_and_verified(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", server.base)

    def broken(handler: object) -> None:
        handler.send_head(200, {"Content-Length": str(len(server.content)), "ETag": '"v1"'})  # type: ignore[attr-defined]
        handler.wfile.write(server.content[:300_000])  # type: ignore[attr-defined]
        handler.close_connection = True  # type: ignore[attr-defined]

    server.answers.append(broken)
    path = weights_of("resnet50")
    assert path == store.weights_path("resnet50")
    assert server.requests[0].path.endswith("/PaddleVideo/PretrainModel/ResNet50_pretrain.pdparams")
    assert any(request.range for request in server.requests[1:])
    num_requests = len(server.requests)
    assert weights_of("resnet50") == path
    assert len(server.requests) == num_requests
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(WeightsError, match="can't be trusted"):
        weights_of("resnet50")


@pytest.mark.parametrize(
    ("model", "pretrained", "starts", "names"),
    [
        ("pptsmv2_k400_8f_dml", "imagenet", True, ["pplcnetv2_base_ssld", "resnet50_vd_ssld_v2", "tsm_k400"]),
        ("tsm", "tsm", True, ["tsm_k400"]),
        ("tsm", "resnet50", True, ["tsm_k400", "resnet50"]),
        ("tsm_efflite0", "imagenet", True, ["tsm_k400"]),
        ("tsm", "runs/mine", True, ["tsm_k400"]),
        ("tsm", None, True, ["tsm_k400"]),
        ("tsm", "resnet50", False, ["tsm_k400"]),
    ],
)
def test_all_that_a_run_needs_is_fetched_at_once_and_told(
    model: str,
    pretrained: str | None,
    starts: bool,
    names: list[str],
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", server.base)
    tree = make_config(model, pretrained).model_dump()
    config = parse_config({**tree, "teacher": {"weights": "tsm"}}, source="test")
    events: list[DownloadProgress] = []
    fetch_weights(config, starts=starts, progress=events.append)
    assert sorted({event.name for event in events if event.stage == "transfer"}) == sorted(names)
    assert store.list_names() == sorted(names)
    num_requests = len(server.requests)
    fetch_weights(config, starts=starts, progress=None)
    assert len(server.requests) == num_requests


def test_absent_backbone_is_named_with_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(WeightsError, match="ResNet101_vd_ssld_pretrained"):
        starting_network(load_config("pptsm_ucf101-66_frames_dense_r101"), labels=class_names(3), starts=True)
    monkeypatch.delenv("PPV_WEIGHTS_MIRROR")
    with pytest.raises(OfflineError, match="ResNet50_pretrain"):
        download_weights([weight_source("resnet50")], offline=True)


def test_failed_download_names_a_training_that_needs_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", "http://127.0.0.1:9/")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("ppvcli.weights.download.time.sleep", lambda _: None)
    with pytest.raises(DownloadError) as caught:
        fetch_weights(make_config("tsm_k400", "resnet50"), starts=True, progress=None)
    assert "ppv train --model tsm_efflite0 --data DIR" in str(caught.value.hint)
    assert "ppv predict" not in str(caught.value.hint)


def test_frozen_stages_are_frozen_in_the_started_network() -> None:
    tree = make_config("tsm_efflite0", None).model_dump()
    tree["model"]["frozen_stages"] = 2
    network, _ = starting_network(parse_config(tree, source="test"), labels=class_names(2), starts=True)
    assert all(p.stop_gradient for p in network.backbone.stages[1].parameters())
    trained = [p for p in network.backbone.stages[2].parameters() if not p.stop_gradient]
    assert trained


@pytest.mark.parametrize(
    ("names", "kept"), [(("walk", "run"), True), (("run", "walk"), False), (("jump", "bend"), False)]
)
def test_classifier_of_other_classes_begins_anew_though_their_number_is_the_same(
    tmp_path: Path, names: tuple[str, ...], kept: bool
) -> None:
    path = tmp_path / "weights.safetensors"
    network = build_network(get_model_row("tsm_efflite0").network, 2)
    save_weights(network, path, metadata=WeightsMetadata(model="tsm_efflite0", labels=("walk", "run")))
    config = make_config("tsm_efflite0", str(path))
    started, report = starting_network(config, labels=names, starts=True)
    assert report is not None
    equal = np.array_equal(started.head.fc.weight.numpy(), network.head.fc.weight.numpy())
    assert equal == kept
    assert report.new == (() if kept else ("head.fc.weight", "head.fc.bias"))
    assert [why for _, why in report.skipped] == ([] if kept else ["of other classes: 'walk', 'run'"] * 2)


@pytest.mark.parametrize("kept", [True, False])
def test_classifier_of_a_model_by_name_begins_anew_for_as_many_other_classes(kept: bool) -> None:
    own = load_labels("weizmann")
    labels = own if kept else class_names(len(own))
    config = make_config("tsm_efflite0", "tsm_efflite0_weizmann")
    network, report = starting_network(config, labels=labels, starts=True)
    assert report is not None
    assert report.new == (() if kept else ("head.fc.weight", "head.fc.bias"))
    published = read_weights(weights_of("tsm_efflite0_weizmann")).tensors["head.fc.weight"]
    assert np.array_equal(network.head.fc.weight.numpy(), published) == kept
    reason = "of other classes: 'bend', 'jack', 'jump', 'pjump', 'run', ..."
    assert [why for _, why in report.skipped] == ([] if kept else [reason] * 2)
