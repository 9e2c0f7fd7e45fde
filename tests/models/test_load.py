"""Files of every prefix form into networks and back; what is new, what is left, and what is refused."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import paddle
import pytest
import safetensors.numpy

from ppvcli.errors import (
    UnknownNameError,
    UsageError,
    WeightsError,
    WeightsFormatError,
    WeightsMismatchError,
    WeightsNotFoundError,
)
from ppvcli.models import facts
from ppvcli.models.load import load_model, save_weights
from ppvcli.models.zoo import get_model_row, load_labels
from ppvcli.weights import store
from ppvcli.weights.formats import WeightsMetadata, read_weights, write_safetensors
from ppvcli.weights.torch_legacy import find_efflite0_file
from tests import recipe

PLAIN = "pptsmv2_k400_8f"
LTA = "pptsmv2_k400_16f_lta"
PAIR = "pptsmv2_k400_8f_dml"

Tensors = dict[str, np.ndarray]


@pytest.fixture(autouse=True)
def leave_no_files(tmp_path: Path) -> Iterator[None]:
    """pytest keeps the folders of three runs, and weight files have up to 115 MB."""
    yield
    shutil.rmtree(tmp_path)


def recipe_tensors(name: str) -> Tensors:
    return recipe.fill_state(recipe.golden_shapes(name))


def renamed(tensors: Tensors, **prefixes: str) -> Tensors:
    """`tensors` with each prefix (without its dot) replaced; only those that have one of them."""
    return {
        f"{new}{key.removeprefix(f'{old}.')}": tensor
        for old, new in prefixes.items()
        for key, tensor in tensors.items()
        if key.startswith(f"{old}.")
    }


def write_pdparams(path: Path, tensors: Tensors) -> Path:
    path.write_bytes(pickle.dumps(tensors, protocol=2))
    return path


def with_classes(tensors: Tensors, num_classes: int) -> Tensors:
    """PP-TSMv2 `tensors` with a classifier for so many classes."""
    weight, bias = tensors["backbone.fc.weight"], tensors["backbone.fc.bias"]
    cut = {"backbone.fc.weight": weight[:, :num_classes], "backbone.fc.bias": bias[:num_classes]}
    return tensors | {key: np.ascontiguousarray(tensor) for key, tensor in cut.items()}


def assert_holds(network: paddle.nn.Layer, tensors: Tensors, *, but: tuple[str, ...] = ()) -> None:
    state = network.state_dict()
    assert state.keys() == tensors.keys()
    for key, tensor in state.items():
        assert np.array_equal(tensor.numpy(), tensors[key]) == (key not in but), key


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "to_file_keys",
    [
        lambda tensors: tensors,
        partial(renamed, backbone=""),
        partial(renamed, backbone="0."),
        partial(renamed, backbone="Student.0."),
    ],
    ids=["backbone.*", "bare", "0.*", "Student.0.*"],
)
def test_file_of_any_prefix_form_gives_the_network(to_file_keys: Callable[[Tensors], Tensors], tmp_path: Path) -> None:
    tensors = recipe_tensors(PLAIN)
    network = load_model(PLAIN, weights=write_pdparams(tmp_path / "w.pdparams", to_file_keys(tensors)))
    assert not network.training
    assert_holds(network, tensors)
    report = network.load_report
    assert (report.form, report.num_loaded, report.num_classes) == ("pdparams", 278, 400)
    assert report.path == tmp_path / "w.pdparams"


def test_pair_file_gives_a_single_network_its_student(tmp_path: Path) -> None:
    tensors = recipe_tensors(PAIR)
    network = load_model(PLAIN, weights=write_pdparams(tmp_path / "w.pdparams", tensors))
    assert_holds(network, renamed(tensors, **{"Student.0": "backbone."}))
    assert len(network.load_report.ignored) == 277
    assert all(key.startswith("Teacher.") for key in network.load_report.ignored)


def test_student_file_gives_a_pairs_row_the_student_alone(tmp_path: Path) -> None:
    tensors = recipe_tensors(PLAIN)
    weights = write_pdparams(tmp_path / "w.pdparams", renamed(tensors, backbone="0."))
    assert_holds(load_model(PAIR, weights=weights), tensors)


def test_double_and_half_precision_become_float32(tmp_path: Path) -> None:
    tensors = recipe_tensors(PLAIN)
    half = {key: tensor.astype(np.float16) for key, tensor in tensors.items()}
    write_safetensors(tmp_path / "half.safetensors", half)
    network = load_model(PLAIN, weights=tmp_path / "half.safetensors")
    assert_holds(network, {key: tensor.astype(np.float32) for key, tensor in half.items()})
    double = {key: tensor.astype(np.float64) for key, tensor in tensors.items()}
    network = load_model(PLAIN, weights=write_pdparams(tmp_path / "w.pdparams", double))
    assert_holds(network, tensors)
    assert {tensor.dtype for tensor in network.state_dict().values()} == {paddle.float32}


# --- files that do not fit --------------------------------------------------------------------------------------------


def test_file_of_another_network_is_refused_with_the_model_it_fits(tmp_path: Path) -> None:
    weights = write_pdparams(tmp_path / "w.pdparams", recipe_tensors(LTA))
    with pytest.raises(WeightsMismatchError) as caught:
        load_model("pptsmv2_k400_16f", weights=weights)
    message = caught.value.message
    assert "w.pdparams as pptsmv2_k400_16f: the tensors do not fit: 0 missing, 2 extra, 0 misshapen" in message
    assert "nearest model: pptsmv2_k400_16f_lta (fits exactly" in message
    assert "backbone.global_attention.fc.weight [16, 16]" in message
    assert caught.value.hint == "--model pptsmv2_k400_16f_lta"


def test_file_of_another_network_and_class_count_is_refused_with_the_model_it_fits(tmp_path: Path) -> None:
    weights = write_pdparams(tmp_path / "w.pdparams", with_classes(recipe_tensors(LTA), 7))
    with pytest.raises(WeightsMismatchError, match=r"nearest model: pptsmv2_k400_16f_lta \(fits exactly"):
        load_model("tsm_k400", weights=weights)


def test_missing_and_misshapen_tensors_are_all_listed(tmp_path: Path) -> None:
    tensors = recipe_tensors(PLAIN)
    del tensors["backbone.last_conv.weight"]
    tensors["backbone.stem.0.bn.bias"] = np.zeros(31, np.float32)
    with pytest.raises(WeightsMismatchError) as caught:
        load_model(PLAIN, weights=write_pdparams(tmp_path / "w.pdparams", tensors), num_classes=5)
    assert "missing    backbone.last_conv.weight [1280, 1024, 1, 1]" in caught.value.message
    assert "misshapen  backbone.stem.0.bn.bias [32], got [31]" in caught.value.message


@pytest.mark.parametrize(
    ("trained", "loaded", "message"),
    [
        ("pptsmv2_k400_8f", "pptsmv2_k400_16f", "pptsmv2 with 16 frames instead of pptsmv2 with 8 frames"),
        ("pptsmv2_k400_16f", "pptsmv2_k400_8f_dml_student", "pptsmv2 with 8 frames instead of pptsmv2 with 16 frames"),
    ],
)
def test_file_that_names_a_network_with_the_same_tensors_is_refused(
    trained: str, loaded: str, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, recipe_tensors(PLAIN), metadata=WeightsMetadata(model=trained))
    with pytest.raises(WeightsMismatchError, match=message) as caught:
        load_model(loaded, weights=path)
    assert caught.value.hint == f"--model {trained}"
    # a start for training on other classes may come from it
    assert load_model(loaded, weights=path, num_classes=5).load_report.num_classes == 5


@pytest.mark.parametrize(("content", "error"), [(b"<!doctype html>", WeightsFormatError), (None, WeightsNotFoundError)])
def test_no_weight_file_is_an_error_of_its_own(
    content: bytes | None, error: type[WeightsError], tmp_path: Path
) -> None:
    path = tmp_path / "w.pdparams"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(error, match=r"w\.pdparams"):
        load_model(PLAIN, weights=path)


def test_unknown_model_and_impossible_class_count_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="nearest: pptsmv2"):
        load_model("pptsm_v2")
    with pytest.raises(UsageError, match="at least one class, got num_classes 0"):
        load_model(PLAIN, num_classes=0)


# --- classes ----------------------------------------------------------------------------------------------------------


def test_another_number_of_classes_makes_the_classifier_alone_new(tmp_path: Path) -> None:
    tensors = recipe_tensors("tsm_k400")
    path = tmp_path / "w.safetensors"
    write_safetensors(path, tensors, metadata=WeightsMetadata(labels=load_labels("kinetics400")))
    network = load_model("tsm_k400", weights=path, num_classes=65)
    report = network.load_report
    classifier = ("head.fc.weight", "head.fc.bias")
    assert report.reinitialized == classifier
    assert report.ignored == classifier
    assert (report.num_loaded, report.num_classes, report.labels) == (265, 65, None)
    weight, bias = (network.state_dict()[key].numpy() for key in classifier)
    assert weight.shape == (2048, 65)
    assert weight.std() == pytest.approx(0.001, rel=0.02)  # N(0, 0.001), the head's own start
    assert np.array_equal(bias, np.zeros(65, np.float32))
    for key, tensor in network.state_dict().items():
        if key not in classifier:
            assert np.array_equal(tensor.numpy(), tensors[key]), key
    assert network(paddle.zeros([1, 8, 3, 32, 32])).shape == [1, 65]


def test_the_files_own_number_of_classes_keeps_its_classifier(tmp_path: Path) -> None:
    tensors = with_classes(recipe_tensors(PLAIN), 7)
    path = write_pdparams(tmp_path / "w.pdparams", tensors)
    for num_classes in (None, 7):
        network = load_model(PLAIN, weights=path, num_classes=num_classes)
        assert_holds(network, tensors)
        assert network.load_report.reinitialized == ()
        assert network.load_report.num_classes == 7


def test_pair_with_another_number_of_classes_gets_two_new_classifiers(tmp_path: Path) -> None:
    path = write_pdparams(tmp_path / "w.pdparams", recipe_tensors(PAIR))
    network = load_model(PAIR, weights=path, num_classes=9)
    assert set(network.load_report.reinitialized) == {
        f"{layer}.fc.{part}" for layer in ("Teacher.1", "Student.0") for part in ("weight", "bias")
    }
    student, teacher = network.forward_both(paddle.zeros([1, 8, 3, 32, 32]))
    assert student.shape == teacher.shape == [1, 9]


def test_file_without_classifier_needs_a_number_of_classes(tmp_path: Path) -> None:
    tensors = {key: tensor for key, tensor in recipe_tensors("tsm_k400").items() if not key.startswith("head.")}
    path = write_pdparams(tmp_path / "w.pdparams", tensors)
    with pytest.raises(WeightsMismatchError, match=r"2 missing, 0 extra, 0 misshapen"):
        load_model("tsm_k400", weights=path)
    network = load_model("tsm_k400", weights=path, num_classes=400)
    assert network.load_report.reinitialized == ("head.fc.weight", "head.fc.bias")


# --- what a file says about itself ------------------------------------------------------------------------------------


def test_labels_and_preprocessing_of_the_file_are_reported(tmp_path: Path) -> None:
    preprocess = replace(get_model_row(PLAIN).preprocess, mean=(0.5, 0.5, 0.5))
    metadata = WeightsMetadata(model=PLAIN, labels=("a", "b", "c"), preprocess=preprocess)
    run_dir = tmp_path / "run"
    (run_dir / "best").mkdir(parents=True)
    write_safetensors(
        run_dir / "best" / "weights.safetensors", with_classes(recipe_tensors(PLAIN), 3), metadata=metadata
    )
    report = load_model(PLAIN, weights=run_dir).load_report
    assert report.path == run_dir / "best" / "weights.safetensors"
    assert (report.num_classes, report.labels, report.preprocess) == (3, ("a", "b", "c"), preprocess)


def test_labels_that_do_not_fit_the_classifier_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    write_safetensors(path, recipe_tensors(PLAIN), metadata=WeightsMetadata(labels=("a", "b", "c")))
    with pytest.raises(WeightsMismatchError, match="names 3 classes, but its classifier has 400"):
        load_model(PLAIN, weights=path)


# --- without a file ---------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty store of the test's own, and a mirror folder beside it."""
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", str(tmp_path / "mirror"))
    (tmp_path / "mirror").mkdir()
    return tmp_path


def test_published_weights_are_fetched_once_and_then_read_from_the_store(home: Path) -> None:
    tensors = recipe_tensors(PLAIN)
    published = write_pdparams(home / "mirror" / "PPTSMv2_k400_8f.pdparams", tensors)
    assert_holds(load_model(PLAIN), tensors)
    published.unlink()
    network = load_model(PLAIN)
    assert_holds(network, tensors)
    assert network.load_report.path == store.weights_path(PLAIN)


def test_weights_that_can_not_be_fetched_are_an_error(home: Path) -> None:
    with pytest.raises(WeightsError, match="PPTSMv2_k400_8f"):
        load_model(PLAIN)


def test_model_without_published_file_asks_for_weights() -> None:
    with pytest.raises(WeightsNotFoundError, match="pptsmv2_k400_16f_lta has no published weights") as caught:
        load_model(LTA)
    assert "--weights FILE" in (caught.value.hint or "")


def test_bundled_model_is_read_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(get_model_row(PLAIN), bundled=True)
    monkeypatch.setattr(facts, "BUNDLED_DIR", tmp_path)
    safetensors.numpy.save_file(recipe_tensors(PLAIN), tmp_path / f"{PLAIN}.safetensors")
    assert load_model(row).load_report.path == tmp_path / f"{PLAIN}.safetensors"


def test_efflite0_starts_from_the_backbone_of_its_package() -> None:
    try:
        path = find_efflite0_file()
    except WeightsError as error:
        pytest.skip(f"needs the backbone from pip: {error.message}")
    network = load_model("tsm_efflite0", num_classes=4)
    assert network.load_report.path == path
    assert network.load_report.reinitialized == ("head.fc.weight", "head.fc.bias")
    assert network(paddle.zeros([1, 8, 3, 32, 32])).shape == [1, 4]


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [PLAIN, PAIR])
def test_saved_pdparams_gives_paddle_the_same_keys_and_values(name: str, tmp_path: Path) -> None:
    tensors = recipe_tensors(name)
    network = load_model(name, weights=write_pdparams(tmp_path / "in.pdparams", tensors))
    save_weights(network, tmp_path / "out.pdparams")
    loaded = paddle.load(str(tmp_path / "out.pdparams"))
    assert list(loaded) == list(tensors)
    for key, tensor in loaded.items():
        assert isinstance(tensor, paddle.Tensor)
        assert np.array_equal(tensor.numpy(), tensors[key]), key
    assert_holds(load_model(name, weights=tmp_path / "out.pdparams"), tensors)
    # a module of NumPy 2 only, which the NumPy 1 of the reference could not import
    assert b"numpy._core" not in (tmp_path / "out.pdparams").read_bytes()


def test_saved_safetensors_holds_the_networks_own_keys_and_the_metadata(tmp_path: Path) -> None:
    tensors = recipe_tensors(PAIR)
    network = load_model(PAIR, weights=write_pdparams(tmp_path / "in.pdparams", tensors))
    save_weights(network, tmp_path / "out.safetensors", metadata=WeightsMetadata(model=PAIR))
    file = read_weights(tmp_path / "out.safetensors")
    assert file.tensors.keys() == tensors.keys()
    assert all(np.array_equal(file.tensors[key], tensor) for key, tensor in tensors.items())
    assert file.metadata == WeightsMetadata(model=PAIR)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.pdparams", "out.safetensors"]


@pytest.fixture(scope="module")
def network() -> paddle.nn.Layer:
    return paddle.nn.Linear(2, 3)


def test_metadata_for_pdparams_is_refused(network: paddle.nn.Layer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no place for metadata"):
        save_weights(network, tmp_path / "w.pdparams", metadata=WeightsMetadata(model=PLAIN))


def test_unknown_ending_is_refused(network: paddle.nn.Layer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't write weights to .*w\.pth"):
        save_weights(network, tmp_path / "w.pth")


@pytest.mark.parametrize("ending", ["pdparams", "safetensors"])
def test_unwritable_place_is_a_weights_error(network: paddle.nn.Layer, ending: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"can't write the weights to .*nowhere"):
        save_weights(network, tmp_path / "nowhere" / f"w.{ending}")
