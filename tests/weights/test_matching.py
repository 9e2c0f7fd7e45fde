"""Prefix forms of released files against the networks' keys, and the one error that lists all that does not fit."""

from __future__ import annotations

import pickle
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppvcli.errors import WeightsMismatchError
from ppvcli.weights.formats import read_weights
from ppvcli.weights.matching import MatchResult, canonical_keys, match_tensors
from tests.recipe import GOLDEN_MODELS, golden_shapes

Shapes = Mapping[str, tuple[int, ...]]
DML = tuple(model for model in GOLDEN_MODELS if model.endswith("_dml"))
PLAIN = tuple(model for model in GOLDEN_MODELS if model not in DML)


def _tensors(shapes: Shapes) -> dict[str, np.ndarray]:
    """Arrays of these shapes that differ from each other and take no memory."""
    return {key: np.broadcast_to(np.float32(i), shape) for i, (key, shape) in enumerate(shapes.items())}


def _all_candidates() -> dict[str, Shapes]:
    return {model: golden_shapes(model) for model in GOLDEN_MODELS}


def _classifier(expected: Shapes) -> tuple[str, ...]:
    names = ("head.fc", "backbone.fc", "Teacher.1.fc", "Student.0.fc")
    return tuple(key for key in expected if key.rpartition(".")[0] in names)


def _match(
    tensors: Mapping[str, np.ndarray], expected: Shapes, *, replace_classifier: bool = False, is_clean: bool = True
) -> MatchResult:
    def candidates() -> dict[str, Shapes]:
        assert not is_clean, "only an error asks for them"
        return _all_candidates()

    return match_tensors(
        tensors,
        expected,
        classifier=_classifier(expected),
        replace_classifier=replace_classifier,
        candidates=candidates,
        source="a.pdparams",
    )


def _fails(
    tensors: Mapping[str, np.ndarray], expected: Shapes, *, replace_classifier: bool = False
) -> WeightsMismatchError:
    with pytest.raises(WeightsMismatchError) as caught:
        _match(tensors, expected, replace_classifier=replace_classifier, is_clean=False)
    return caught.value


def _bare(shapes: Shapes) -> dict[str, tuple[int, ...]]:
    return {key.removeprefix("backbone."): shape for key, shape in shapes.items() if key.startswith("backbone.")}


def _student(model: str) -> dict[str, tuple[int, ...]]:
    """What the network of the student alone expects."""
    return {
        key.replace("Student.0.", "backbone."): shape
        for key, shape in golden_shapes(model).items()
        if key.startswith("Student.0.")
    }


# --- forms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "canonical"),
    [
        (["backbone.a", "head.b"], ["backbone.a", "head.b"]),
        (["Student.0.a", "Student.1.b", "Teacher.0.a"], ["backbone.a", "head.b", "Teacher.0.a"]),
        (["0.a", "0.0.a", "1.b"], ["backbone.a", "backbone.0.a", "head.b"]),
        (["conv.a", "res2a.0.b"], ["backbone.conv.a", "backbone.res2a.0.b"]),
        (["backbone.a", "Student.0.a", "0.a", "c"], ["backbone.a", "Student.0.a", "0.a", "c"]),
        ([], []),
    ],
)
def test_canonical_keys_of_every_form_are_the_literals(keys: list[str], canonical: list[str]) -> None:
    assert list(canonical_keys(keys).items()) == list(zip(keys, canonical, strict=True))


_PARTS = st.sampled_from(["backbone", "head", "Student", "Teacher", "0", "1", "conv", "w"])


@given(keys=st.sets(st.lists(_PARTS, min_size=1, max_size=3).map(".".join), max_size=8))
def test_canonical_keys_never_makes_two_keys_the_same(keys: set[str]) -> None:
    canonical = canonical_keys(keys)
    assert set(canonical) == keys
    assert len(set(canonical.values())) == len(keys)


@pytest.mark.parametrize("model", GOLDEN_MODELS)
def test_match_tensors_of_the_models_own_file_uses_every_key_once(model: str) -> None:
    expected = golden_shapes(model)
    tensors = _tensors(expected)
    shuffled = dict(random.Random(0).sample(sorted(tensors.items(), key=lambda item: item[0]), len(tensors)))
    result = _match(shuffled, expected)
    assert list(result.state) == list(expected)
    assert all(result.state[key] is tensors[key] for key in expected)
    assert (result.reinitialized, result.ignored) == ((), ())


@pytest.mark.parametrize("model", PLAIN)
def test_match_tensors_of_a_student_export_uses_every_key_once(model: str) -> None:
    expected = golden_shapes(model)
    prefixes = {"backbone": "0", "head": "1"}
    tensors = _tensors(expected)
    exported = {prefixes[key.partition(".")[0]] + "." + key.partition(".")[2]: t for key, t in tensors.items()}
    result = _match(exported, expected)
    assert list(result.state) == list(expected)
    assert all(result.state[key] is tensors[key] for key in expected)


@pytest.mark.parametrize("model", DML)
def test_match_tensors_of_a_dml_file_to_the_student_leaves_the_teacher_and_says_so(model: str) -> None:
    tensors, expected = _tensors(golden_shapes(model)), _student(model)
    result = _match(tensors, expected)
    assert set(result.state) == set(expected)
    assert all(result.state[key] is tensors[key.replace("backbone.", "Student.0.")] for key in expected)
    assert result.ignored == tuple(key for key in tensors if key.startswith("Teacher."))
    assert len(result.ignored) == 277


@pytest.mark.parametrize("model", DML)
def test_match_tensors_of_a_student_export_to_the_pair_lists_the_teacher(model: str) -> None:
    exported = _tensors({key.replace("backbone.", "0."): shape for key, shape in _student(model).items()})
    error = _fails(exported, golden_shapes(model))
    assert "277 missing, 0 extra, 0 misshapen" in error.message
    assert error.message.count("\n  missing    Teacher.") == 277


@pytest.mark.parametrize("model", PLAIN)
def test_match_tensors_of_a_bare_backbone_with_a_new_classifier_uses_every_key(model: str) -> None:
    expected = golden_shapes(model)
    tensors = _tensors(_bare(expected))
    result = _match(tensors, expected, replace_classifier=True)
    head = tuple(key for key in expected if key.startswith("head."))
    assert result.reinitialized == head
    assert set(result.state) == set(expected) - set(head)


@pytest.mark.parametrize("name", ["fc", "out"])
def test_match_tensors_of_an_imagenet_backbone_drops_its_classifier(name: str) -> None:
    expected = golden_shapes("tsm_k400")
    shapes = {**_bare(expected), f"{name}.weight": (2048, 1000), f"{name}.bias": (1000,)}
    result = _match(_tensors(shapes), expected, replace_classifier=True)
    assert result.reinitialized == ("head.fc.weight", "head.fc.bias")
    assert result.ignored == (f"{name}.weight", f"{name}.bias")


def test_match_tensors_of_an_imagenet_pptsmv2_drops_its_classifier() -> None:
    expected = golden_shapes("pptsmv2_k400_16f")
    shapes = {**_bare(expected), "fc.weight": (1280, 1000), "fc.bias": (1000,)}
    result = _match(_tensors(shapes), expected, replace_classifier=True)
    assert result.reinitialized == ("backbone.fc.weight", "backbone.fc.bias")
    assert set(result.ignored) == {"fc.weight", "fc.bias"}


def test_match_tensors_of_an_imagenet_backbone_without_a_new_classifier_raises() -> None:
    expected = golden_shapes("tsm_k400")
    error = _fails(_tensors({**_bare(expected), "fc.weight": (2048, 1000), "fc.bias": (1000,)}), expected)
    assert "2 missing, 2 extra, 0 misshapen" in error.message
    assert "ppv train" in (error.hint or "")


def test_match_tensors_of_the_legacy_static_file_fits_tsn(tmp_path: Path) -> None:
    shapes = {"conv1_weights": (64, 3, 7, 7), "fc_0.w_0": (2048, 400), "fc_0.b_0": (400,)}
    (tmp_path / "TSN.pdparams").write_bytes(pickle.dumps({k: np.zeros(s, np.float32) for k, s in shapes.items()}, 2))
    names = ("backbone.conv._conv.weight", "head.fc.weight", "head.fc.bias")
    expected = {key: golden_shapes("tsn_k400_3seg")[key] for key in names}
    assert set(_match(read_weights(tmp_path / "TSN.pdparams").tensors, expected).state) == set(names)


# --- another number of classes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", GOLDEN_MODELS)
def test_match_tensors_for_other_classes_reinitializes_the_classifier_alone(model: str) -> None:
    shapes = golden_shapes(model)
    classifier = _classifier(shapes)
    expected = {key: (*shape[:-1], 7) if key in classifier else shape for key, shape in shapes.items()}
    result = _match(_tensors(shapes), expected, replace_classifier=True)
    assert set(result.reinitialized) == set(result.ignored) == set(classifier)
    assert list(result.state) == [key for key in expected if key not in classifier]


def test_match_tensors_with_a_classifier_that_fits_takes_it() -> None:
    expected = golden_shapes("tsm_k400")
    result = _match(_tensors(expected), expected, replace_classifier=True)
    assert result.reinitialized == ()
    assert list(result.state) == list(expected)


def test_match_tensors_for_other_classes_without_leave_raises_and_names_the_number() -> None:
    shapes = golden_shapes("pptsm_r50_k400_uniform")
    expected = {key: (*shape[:-1], 7) if key.startswith("head.") else shape for key, shape in shapes.items()}
    with pytest.raises(WeightsMismatchError) as caught:
        match_tensors(
            _tensors(shapes),
            expected,
            classifier=_classifier(expected),
            replace_classifier=False,
            candidates=lambda: {"pptsm_mine": expected},
            source="a.pdparams",
        )
    assert "misshapen  head.fc.weight [2048, 7], got [2048, 400]" in caught.value.message
    assert "400 classes" in (caught.value.hint or "")


def test_match_tensors_new_classifier_does_not_excuse_other_faults() -> None:
    shapes = golden_shapes("tsm_k400")
    expected = {key: (*shape[:-1], 7) if key.startswith("head.") else shape for key, shape in shapes.items()}
    tensors = _tensors(shapes)
    del tensors["backbone.res2a.conv0._conv.weight"]
    error = _fails(tensors, expected, replace_classifier=True)
    assert "1 missing, 0 extra, 0 misshapen" in error.message


# --- faults -----------------------------------------------------------------------------------------------------------


def test_match_tensors_with_every_kind_of_fault_lists_them_all() -> None:
    expected = golden_shapes("tsm_k400")
    tensors = _tensors(expected)
    missing = [key for key in tensors if ".res3b." in key]
    for key in missing:
        del tensors[key]
    misshapen = [key for key in tensors if ".res4a." in key]
    for key in misshapen:
        tensors[key] = np.zeros((9, *tensors[key].shape[1:]), np.float32)
    extra = {f"backbone.new.{i}": np.zeros((2, i), np.float32) for i in range(30)}
    error = _fails({**tensors, **extra}, expected)
    head, *lines = error.message.split("\n")
    assert head == (
        "a.pdparams: the tensors do not fit: 15 missing, 30 extra, 20 misshapen; "
        "nearest model: tsm_k400 (232 of 282 tensors fit)"
    )
    shape = {key: list(expected[key]) for key in (*missing, *misshapen)}
    assert lines == [
        *(f"  missing    {key} {shape[key]}" for key in missing),
        *(f"  extra      {key} {list(tensor.shape)}" for key, tensor in extra.items()),
        *(f"  misshapen  {key} {shape[key]}, got {list(tensors[key].shape)}" for key in misshapen),
    ]
    assert error.hint


@pytest.mark.parametrize("model", ["tsm_ucf101", "pptsm_r101_k400_dense", "pptsmv2_k400_16f_dml"])
def test_match_tensors_of_another_models_file_names_that_model(model: str) -> None:
    error = _fails(_tensors(golden_shapes(model)), golden_shapes("pptsm_r50_k400_uniform"))
    assert f"nearest model: {model} (fits exactly)" in error.message.splitlines()[0]
    assert error.hint == f"--model {model}"


def test_match_tensors_that_several_models_fit_names_them_all() -> None:
    error = _fails(_tensors(golden_shapes("tsn_k400_8seg")), golden_shapes("pptsmv2_k400_8f"))
    assert "tsm_k400 (fits exactly; so do tsm_k400_nhwc, tsn_k400_3seg, tsn_k400_8seg)" in error.message
    assert (error.hint or "").startswith("--model NAME")


def test_match_tensors_with_lta_named_among_16_frame_models() -> None:
    error = _fails(_tensors(golden_shapes("pptsmv2_k400_16f_lta")), golden_shapes("pptsmv2_k400_16f"))
    assert "0 missing, 2 extra, 0 misshapen" in error.message
    assert "extra      backbone.global_attention.fc.weight [16, 16]" in error.message
    assert error.hint == "--model pptsmv2_k400_16f_lta"


def test_match_tensors_of_integers_does_not_fit() -> None:
    expected = {"backbone.w": (2,)}
    with pytest.raises(WeightsMismatchError, match=r"misshapen  backbone.w \[2\], got \[2\] of uint16"):
        _match({"backbone.w": np.zeros(2, np.uint16)}, expected, is_clean=False)


def test_match_tensors_without_candidates_says_none() -> None:
    with pytest.raises(WeightsMismatchError, match="nearest model: none"):
        match_tensors(
            {"a": np.zeros(1)}, {"b": (1,)}, classifier=(), replace_classifier=False, candidates=dict, source="x"
        )
