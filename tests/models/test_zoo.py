"""The table of models: every row is checked against the others, the label files and the reference's facts."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from ppvcli.errors import UnknownNameError
from ppvcli.models.zoo import ALIASES, LABEL_FILES, ZOO, get_model_row, list_models, load_labels
from tests.video.protocols import VIDEO_JOBS, WHOLE_FRAME

REPO = Path(__file__).resolve().parents[2]

CLAIMS = {
    "tsn_k400_3seg": ("TSN_k400.pdparams", 69.81, "25 frames x 10 crops"),
    "tsn_k400_8seg": ("TSN_k400_8.pdparams", 71.70, "25 frames x 10 crops"),
    "tsm_k400": ("TSM_k400.pdparams", 71.06, "8 frames x 1 crop"),
    "tsm_k400_nhwc": ("TSM_k400.pdparams", 71.06, "8 frames x 1 crop"),
    "tsm_ucf101": ("TSM_ucf101_nchw.pdparams", 94.42, "8 frames x 1 crop"),
    "tsm_ucf101_amp": ("TSM_ucf101_amp_nchw.pdparams", 94.40, "8 frames x 1 crop"),
    "tsm_ucf101_amp_nhwc": ("TSM_ucf101_amp_nhwc.pdparams", 94.55, "8 frames x 1 crop"),
    "pptsn_k400_3seg": ("ppTSN_k400.pdparams", 73.68, "25 frames x 10 crops"),
    "pptsn_k400_8seg_distill": ("ppTSN_k400_8.pdparams", 75.06, "25 frames x 10 crops"),
    "pptsm_r50_k400_uniform": ("ppTSM_k400_uniform.pdparams", 74.54, "8 frames x 1 crop"),
    "pptsm_r50_k400_dense": ("ppTSM_k400_dense.pdparams", 75.69, "8 frames x 10 clips x 3 crops"),
    "pptsm_r50_k400_uniform_distill": ("ppTSM_k400_uniform_distill.pdparams", 75.11, "8 frames x 1 crop"),
    "pptsm_r50_k400_dense_distill": ("ppTSM_k400_dense_distill.pdparams", 76.16, "8 frames x 10 clips x 3 crops"),
    "pptsm_r101_k400_dense": ("ppTSM_k400_dense_r101.pdparams", 77.15, "8 frames x 10 clips x 3 crops"),
    "pptsm_r101_k400_uniform_distill": ("ppTSM_k400_uniform_distill_r101.pdparams", 76.35, "8 frames x 1 crop"),
    "pptsmv2_k400_8f": ("PPTSMv2_k400_8f.pdparams", 71.81, "8 frames x 1 crop"),
    "pptsmv2_k400_16f": ("PPTSMv2_k400_16f.pdparams", 73.1, "16 frames x 1 crop"),
    "pptsmv2_k400_16f_lta": (None, None, "16 frames x 1 crop"),
    "pptsmv2_k400_8f_dml": ("PPTSMv2_k400_8f_dml.pdparams", 72.45, "8 frames x 1 crop"),
    "pptsmv2_k400_8f_dml_student": ("PPTSMv2_k400_8f_dml_student.pdparams", 72.45, "8 frames x 1 crop"),
    "pptsmv2_k400_16f_dml": ("PPTSMv2_k400_16f_dml.pdparams", 75.16, "16 frames x 1 crop"),
    "pptsmv2_k400_16f_dml_student": ("PPTSMv2_k400_16f_dml_student.pdparams", 75.16, "16 frames x 1 crop"),
    "tsm_efflite0": (None, None, "8 frames x whole frame"),
}
"""File name, published top-1 and test protocol, typed off the reference's tables a second time."""


def test_zoo_has_exactly_the_known_models() -> None:
    assert set(list_models()) == {*CLAIMS, "tsm_efflite0_weizmann"}
    assert all(row.name == name for name, row in ZOO.items())


@pytest.mark.parametrize("name", CLAIMS)
def test_row_states_what_was_published(name: str) -> None:
    file_name, top1, protocol = CLAIMS[name]
    row = ZOO[name]
    assert row.url is None if file_name is None else row.url and row.url.endswith(f"/{file_name}")
    assert (row.claimed_top1, row.protocol) == (top1, protocol)
    assert (row.claimed_on == "UCF101") == ("ucf101" in name)


@pytest.mark.parametrize("name", list_models())
def test_row_is_consistent_in_itself(name: str) -> None:
    row = get_model_row(name)
    if row.network.architecture in ("tsn", "pptsn"):
        assert row.network.num_segments is None
    else:
        assert row.network.num_segments == row.preprocess.sampling.num_segments
    if row.network.teacher is not None:
        assert row.network.teacher.num_segments == row.network.num_segments
    assert row.network.architecture == name.split("_k400")[0].split("_ucf101")[0].split("_r")[0].removesuffix(
        "_weizmann"
    )
    assert (row.network.depth == 101) == ("_r101_" in name)
    assert (row.network.data_format == "NHWC") == name.endswith("_nhwc")
    assert (row.network.teacher is not None) == name.endswith("_dml")
    assert (row.preprocess.sampling.mode == "dense") == (row.preprocess.sampling.num_clips > 1) == ("_dense" in name)
    assert row.preprocess.input_hw == ((160, 192) if row.network.architecture == "tsm_efflite0" else (224, 224))
    assert row.url is None or row.url.startswith("https://")
    assert row.url is not None or row.note
    assert row.num_classes == len(load_labels(row.labels))


@pytest.mark.parametrize("path", sorted((REPO / "tests" / "goldens" / "keys").glob("*.json.gz")), ids=lambda p: p.name)
def test_row_has_the_attention_and_the_classes_of_the_reference(path: Path) -> None:
    row = get_model_row(path.name.removesuffix(".json.gz"))
    with gzip.open(path, "rt", encoding="utf-8") as file:
        keys = json.load(file)
    assert row.network.temporal_attention == any("global_attention" in key for key in keys)
    assert (row.network.teacher is not None) == any(key.startswith("Teacher.") for key in keys)
    classifiers = [key for key in keys if key.endswith("fc.bias") and "global_attention" not in key]
    assert {tuple(keys[key]["shape"]) for key in classifiers} == {(row.num_classes,)}


def test_resize_and_crop_of_each_family_are_those_of_its_test() -> None:
    def facts(name: str) -> tuple[object, ...]:
        pre = ZOO[name].preprocess
        return (pre.sampling.mode, pre.resize.backend, pre.resize.aspect, pre.resize.rounding, pre.crop.kind)

    assert facts("tsn_k400_8seg") == ("select_left", "cv2", "keep", "round", "ten")
    assert facts("pptsn_k400_3seg") == ("linspace", "cv2", "keep", "floor", "ten")
    assert facts("tsm_k400") == ("select_left", "pillow", "keep", "floor", "center")
    assert facts("pptsm_r50_k400_uniform") == ("uniform", "pillow", "4:3", "floor", "center")
    assert facts("pptsm_r101_k400_dense") == ("dense", "pillow", "4:3", "floor", "three")
    assert facts("pptsmv2_k400_16f") == ("uniform", "pillow", "4:3", "floor", "center")
    assert ZOO["tsm_k400"].preprocess.crop.rounding == "round"


@pytest.mark.parametrize(
    ("alias", "top1"), [("tsn", 71.70), ("tsm", 71.06), ("pptsn", 75.06), ("pptsm", 77.15), ("pptsmv2", 75.16)], ids=str
)
def test_alias_names_the_best_published_weights_of_its_family(alias: str, top1: float) -> None:
    row = get_model_row(alias)
    assert row.claimed_top1 == top1
    assert row.network.architecture == alias
    family = [r for r in ZOO.values() if r.network.architecture == alias and r.claimed_on == "K400"]
    assert top1 == max(r.claimed_top1 or 0 for r in family)


def test_aliases_are_no_model_names() -> None:
    assert not ALIASES.keys() & ZOO.keys()


def test_bundled_model_is_the_weizmann_one_only() -> None:
    assert [row.name for row in ZOO.values() if row.bundled] == ["tsm_efflite0_weizmann"]


def test_unknown_model_lists_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'pptsmv2_16f'; nearest: .*pptsmv2_k400_16f") as caught:
        get_model_row("pptsmv2_16f")
    assert caught.value.hint == "ppv download-weights --list shows every model"


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count", "known"),
    [
        ("kinetics400", 400, {0: "abseiling", 5: "archery", 399: "zumba"}),
        ("ucf101", 101, {0: "ApplyEyeMakeup", 1: "ApplyLipstick", 100: "YoYo"}),
        ("ucf101-66", 65, {0: "BalanceBeam", 31: "JavelinThrow", 64: "YoYo"}),
        ("weizmann", 10, {0: "bend", 5: "side", 9: "wave2"}),
    ],
)
def test_labels_have_count_order_and_unique_names(name: str, count: int, known: dict[int, str]) -> None:
    labels = load_labels(name)
    assert len(labels) == count
    assert {index: labels[index] for index in known} == known
    assert max(Counter(labels).values()) == 1
    assert all(label == label.strip() and label for label in labels)


def test_ucf101_66_is_a_part_of_ucf101() -> None:
    assert set(load_labels("ucf101-66")) <= set(load_labels("ucf101"))


def test_label_files_are_exactly_those_of_the_package() -> None:
    folder = REPO / "ppvcli" / "models" / "labels"
    assert {path.stem for path in folder.glob("*.txt")} == set(LABEL_FILES)


def test_labels_of_unknown_name_list_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="nearest: kinetics400"):
        load_labels("kinetics")


def test_labels_equal_the_lists_of_the_data(shared_dir: Path) -> None:
    lists = {
        "kinetics400": shared_dir / "data" / "lists" / "kinetics400_label_list.txt",
        "ucf101": shared_dir / "data" / "ucf101" / "ucfTrainTestlist" / "classInd.txt",
        "weizmann": shared_dir / "data" / "weizmann" / "weizmann_labels.txt",
    }
    for name, path in lists.items():
        assert load_labels(name) == tuple(line.split()[1] for line in path.read_text().splitlines())


def test_importing_the_zoo_imports_nothing_heavy() -> None:
    script = "import sys, ppvcli.models.zoo; print(*sys.modules)"
    modules = subprocess.run(
        [sys.executable, "-c", script], cwd=REPO, capture_output=True, text=True, check=True
    ).stdout
    assert not {"paddle", "numpy", "cv2", "av", "rich", "requests", "typer"} & set(modules.split())


@pytest.mark.parametrize(
    ("name", "job"),
    [
        ("tsn_k400_3seg", "tsn_k400_test25_tencrop"),
        ("tsm_k400", "tsm_k400_test8"),
        ("pptsn_k400_3seg", "pptsn_k400_test25_linspace_tencrop"),
        ("pptsm_r50_k400_uniform", "pptsm_k400_uniform_test8"),
        ("pptsm_r101_k400_dense", "pptsm_k400_dense_test_10clip_3crop"),
        ("pptsmv2_k400_16f_dml_student", "pptsmv2_16f_test"),
    ],
)
def test_preprocessing_is_the_one_that_the_goldens_check(name: str, job: str) -> None:
    assert get_model_row(name).preprocess == VIDEO_JOBS[job]


def test_bundled_model_looks_at_whole_frames() -> None:
    assert get_model_row("tsm_efflite0_weizmann").preprocess == WHOLE_FRAME
