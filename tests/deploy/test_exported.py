"""Reading exports: ours, PaddleX's, tars of both, and what only looks like one."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ppvcli.deploy import exported
from ppvcli.deploy.exported import (
    ExportInfo,
    ProgramFile,
    is_export,
    paddlex_can_prepare,
    program_path,
    read_export,
    write_description,
)
from ppvcli.deploy.program import open_program
from ppvcli.errors import ExportError, WeightsFormatError
from ppvcli.models.zoo import ZOO, get_model_row
from ppvcli.specs import Crop, Preprocess, Resize, Sampling

PADDLEX_NAME = "PP-TSMv2-LCNetV2_16frames_uniform"
PADDLEX = {
    "Global": {"model_name": PADDLEX_NAME},
    "PreProcess": {
        "transform_ops": [
            {"ReadVideo": {"num_seg": 16, "target_size": 224, "seg_len": 1, "sample_type": "uniform"}},
            {"Scale": {"short_size": 256}},
            {"CenterCrop": {"target_size": 224}},
            {"Image2Array": {"data_format": "tchw"}},
            {"NormalizeVideo": {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}},
        ]
    },
    "PostProcess": {"Topk": {"topk": 5, "label_list": ["abseiling", "yes", "3"]}},
}


def paddlex_folder(folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "inference.yml").write_text(yaml.safe_dump({**PADDLEX, **changes}), encoding="utf-8")
    (folder / "inference.json").write_text("{}")
    (folder / "inference.pdiparams").write_bytes(b"weights")
    return folder


def our_folder(folder: Path, model: str = "pptsmv2", *, labels: tuple[str, ...] = ("a", "ü: #")) -> ExportInfo:
    folder.mkdir(parents=True, exist_ok=True)
    row = get_model_row(model)
    info = ExportInfo(
        folder=folder,
        model=row.name,
        labels=labels,
        preprocess=row.preprocess,
        programs=(
            ProgramFile(format="paddle", precision="fp32", path=folder / "inference.json"),
            ProgramFile(format="onnx", precision="int8", path=folder / "inference_int8.onnx"),
        ),
        versions={"ppvcli": "0.1.0"},
        provenance={"exported": "2026-11-22"},
    )
    for program in info.programs:
        for file in program.files:
            file.write_bytes(b"program")
    write_description(info, paddlex_name=PADDLEX_NAME if paddlex_can_prepare(row.preprocess) else None)
    return info


# --- ours -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ZOO)
def test_description_of_every_model_reads_back(model: str, tmp_path: Path) -> None:
    info = our_folder(tmp_path, model)
    assert read_export(tmp_path) == info
    assert is_export(tmp_path)


def test_description_is_what_paddlex_reads(tmp_path: Path) -> None:
    our_folder(tmp_path, "pptsmv2", labels=("abseiling", "yes", "3"))
    config = yaml.safe_load((tmp_path / "inference.yml").read_text(encoding="utf-8"))
    ours = config.pop("ppvcli")
    # two things that PaddleX compares or iterates over as they stand: names and the order of the transforms
    assert config == {**PADDLEX, "PostProcess": {"Topk": {"topk": 3, "label_list": ["abseiling", "yes", "3"]}}}
    assert ours["format"] == 1


def test_description_of_what_paddlex_can_not_prepare_has_no_transforms(tmp_path: Path) -> None:
    our_folder(tmp_path, "tsm_efflite0_weizmann")
    config = yaml.safe_load((tmp_path / "inference.yml").read_text(encoding="utf-8"))
    assert config["Global"]["model_name"] == "tsm_efflite0_weizmann"
    assert config["PreProcess"]["transform_ops"] == []


@pytest.mark.parametrize(
    ("model", "can"),
    [
        ("pptsmv2", True),
        ("pptsm_r50_k400_uniform", True),
        ("pptsm_r101_k400_dense", False),
        ("tsn", False),
        ("tsm", False),
    ],
)
def test_paddlex_can_prepare_uniform_clips_squeezed_to_4_3(model: str, can: bool) -> None:
    assert paddlex_can_prepare(get_model_row(model).preprocess) is can


def test_program_path_names_precision_unless_it_is_full(tmp_path: Path) -> None:
    names = [
        program_path(tmp_path, "paddle", "fp32").name,
        program_path(tmp_path, "paddle", "fp32", pdmodel=True).name,
        program_path(tmp_path, "onnx", "int8").name,
        program_path(tmp_path, "openvino", "bf16").name,
    ]
    assert names == ["inference.json", "inference.pdmodel", "inference_int8.onnx", "inference_bf16.xml"]


# --- PaddleX's --------------------------------------------------------------------------------------------------------


def test_paddlex_folder_is_read_with_the_preprocessing_of_the_released_models(tmp_path: Path) -> None:
    info = read_export(paddlex_folder(tmp_path / "model"))
    assert info.model == PADDLEX_NAME
    assert info.labels == ("abseiling", "yes", "3")
    assert info.preprocess == get_model_row("pptsmv2_k400_16f").preprocess
    assert [(p.format, p.precision, p.path.name) for p in info.programs] == [("paddle", "fp32", "inference.json")]
    assert info.versions == {}


def test_paddlex_defaults_stand_in_for_what_a_folder_does_not_say(tmp_path: Path) -> None:
    transforms = {"transform_ops": [{"ReadVideo": None}, {"Scale": None}, {"CenterCrop": None}, {"KeepKeys": None}]}
    info = read_export(paddlex_folder(tmp_path, PreProcess=transforms))
    assert info.preprocess == Preprocess(
        sampling=Sampling(mode="uniform", num_segments=8),
        resize=Resize(short_side=224, aspect="4:3"),
        crop=Crop(kind="center", rounding="round"),
    )


def test_paddlex_folder_with_the_old_program_format_is_read(tmp_path: Path) -> None:
    folder = paddlex_folder(tmp_path)
    (folder / "inference.json").rename(folder / "inference.pdmodel")
    assert [program.path.name for program in read_export(folder).programs] == ["inference.pdmodel"]


# --- tars -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def pack(folder: Path, tar: Path, *, into: str = "model_infer") -> Path:
    with tarfile.open(tar, "w") as file:
        file.add(folder, arcname=into)
    return tar


@pytest.mark.parametrize("into", ["model_infer", ".", "a/b"])
def test_tar_is_read_like_its_folder(into: str, home: Path, tmp_path: Path) -> None:
    folder = paddlex_folder(tmp_path / "model")
    (folder / "readme.txt").write_text("left out")
    tar = pack(folder, tmp_path / "model.tar", into=into)
    assert is_export(tar)
    info, plain = read_export(tar), read_export(folder)
    assert (info.model, info.labels, info.preprocess) == (plain.model, plain.labels, plain.preprocess)
    assert home in info.folder.parents
    assert sorted(path.name for path in info.folder.iterdir()) == [
        "inference.json",
        "inference.pdiparams",
        "inference.yml",
    ]
    # a damaged folder in the cache is not believed
    (info.folder / "inference.pdiparams").write_bytes(b"")
    assert (read_export(tar).folder / "inference.pdiparams").read_bytes() == b"weights"
    assert [path.name for path in info.folder.parent.iterdir()] == [info.folder.name]


def member(name: str, *, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = 4 if kind == tarfile.REGTYPE else 0
    return info


@pytest.mark.parametrize(
    "members",
    [
        [],
        [member("model/readme.txt")],
        [member("model/inference.yml", kind=tarfile.SYMTYPE, link="/etc/passwd")],
        [member("model/inference.yml", kind=tarfile.LNKTYPE, link="/etc/passwd")],
        [member("one/inference.yml"), member("two/inference.json")],
    ],
)
def test_tar_without_the_files_of_one_model_is_refused(
    members: list[tarfile.TarInfo], home: Path, tmp_path: Path
) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as file:
        for one in members:
            file.addfile(one, io.BytesIO(b"text"))
    with pytest.raises(ExportError, match="is not an export"):
        read_export(tmp_path / "bad.tar")
    assert not list(home.rglob("*.yml"))


def test_tar_can_not_write_outside_the_cache(home: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "bad.tar", "w") as file:
        for name in ("../../../inference.yml", "../../../inference.json"):
            file.addfile(member(name), io.BytesIO(b"text"))
    with pytest.raises(ExportError, match="is damaged"):
        read_export(tmp_path / "bad.tar")
    outside = [path for path in tmp_path.rglob("inference.*") if home not in path.parents]
    assert not outside


def test_file_that_is_no_tar_is_refused(home: Path, tmp_path: Path) -> None:
    (tmp_path / "model.tar").write_bytes(b"no tar at all" * 100)
    assert not is_export(tmp_path / "model.tar")
    with pytest.raises(ExportError, match="is no readable tar") as caught:
        read_export(tmp_path / "model.tar")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("name", ["model.tar", "model"])
def test_tar_is_an_export_by_its_content(packing: str, name: str, home: Path, tmp_path: Path) -> None:
    folder = paddlex_folder(tmp_path / "folder")
    with tarfile.open(tmp_path / name, f"w:{packing}") as file:  # type: ignore[call-overload]
        file.add(folder, arcname="model_infer")
    assert is_export(tmp_path / name)
    assert read_export(tmp_path / name).labels == read_export(folder).labels


def test_tar_of_something_else_is_no_export(tmp_path: Path) -> None:
    (tmp_path / "fc_0.w_0").write_bytes(bytes(100))
    with tarfile.open(tmp_path / "weights.tar", "w") as file:
        file.add(tmp_path / "fc_0.w_0")
    assert not is_export(tmp_path / "weights.tar")


def test_pytorch_file_with_its_usual_name_is_no_export(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "ckpt.best.pth.tar", "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    with pytest.raises(WeightsFormatError, match=r"a zip archive \(PyTorch"):
        open_program(None, weights=tmp_path / "ckpt.best.pth.tar")


@pytest.mark.parametrize("damage", ["cut off", "changed"])
@pytest.mark.parametrize("packing", ["", "gz", "bz2", "xz"])
def test_tar_that_is_damaged_is_refused(packing: str, damage: str, home: Path, tmp_path: Path) -> None:
    folder = paddlex_folder(tmp_path / "folder")
    (folder / "inference.pdiparams").write_bytes(np.random.default_rng(0).bytes(2_000_000))
    tar = tmp_path / "model.tar"
    with tarfile.open(tar, f"w:{packing}") as file:  # type: ignore[call-overload]
        file.add(folder, arcname="model_infer")
    content = bytearray(tar.read_bytes())
    if damage == "cut off":
        del content[-1_000_000:]
    elif packing == "":
        content[:4096] = bytes(range(256)) * 16  # a plain tar has sums of its headers only
    else:
        content[len(content) // 2 : len(content) // 2 + 4096] = bytes(4096)
    tar.write_bytes(content)
    with pytest.raises(ExportError, match=r"model\.tar is no readable tar: .") as caught:
        read_export(tar)
    assert "\n" not in caught.value.message
    assert str(home) not in caught.value.message
    assert not list(home.rglob("inference*"))
    assert is_export(tar) is not (packing == "" and damage == "changed")


@pytest.mark.parametrize("changes", [{"PostProcess": None}, {"Global": {}}, {"PreProcess": {"transform_ops": []}}])
def test_tar_is_named_in_the_errors_about_its_content(changes: dict[str, Any], home: Path, tmp_path: Path) -> None:
    tar = pack(paddlex_folder(tmp_path / "model", **changes), tmp_path / "model.tar")
    with pytest.raises(ExportError) as caught:
        read_export(tar)
    assert caught.value.message.startswith(str(tar))
    assert str(home) not in caught.value.message


# --- what is none -----------------------------------------------------------------------------------------------------


def change(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Sets, or with None removes, a place in the description."""

    def apply(config: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        for key in parents:
            config = config[int(key)] if isinstance(config, list) else config[key]
        if value is None:
            del config[last]
        else:
            config[last] = value

    return apply


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (change("ppvcli/format", 2), r"was exported by a newer ppv \(0\.1\.0\)"),
        (change("ppvcli/format", "1"), "is damaged: ppvcli.format: expected a number"),
        (change("ppvcli/model", None), "is damaged: 'model' is missing"),
        (change("ppvcli/preprocess/sampling/num_segments", 10**9), "is damaged: preprocess.sampling.num_segments"),
        (change("ppvcli/preprocess/surprise", 1), "is damaged: preprocess: unknown fields surprise"),
        (change("ppvcli/programs/0/file", "../inference.json"), "is damaged: .*is no name of a program"),
        (change("ppvcli/programs/0/file", "inference.exe"), "is damaged: .*is no name of a program"),
        (change("ppvcli/programs/0/precision", "fp4"), "is damaged: .*unknown precision 'fp4'"),
        (change("ppvcli/programs", 3), "is damaged"),
        (change("ppvcli", []), "is damaged"),
        (change("PostProcess/Topk/label_list", []), "is damaged: labels"),
        (change("PostProcess/Topk/label_list", ["\x1b[2J"]), "is damaged: labels"),
        (change("PostProcess", None), "is damaged: 'PostProcess' is missing"),
    ],
)
def test_description_that_is_wrong_is_told_where(edit: Any, message: str, tmp_path: Path) -> None:
    our_folder(tmp_path)
    path = tmp_path / "inference.yml"
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    edit(config)
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    with pytest.raises(ExportError, match=message) as caught:
        read_export(tmp_path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "- a list", "a: [", "\x00", "!!python/object/apply:os.system [exit]", "&a [*a]", "Global: 3"]
)
def test_description_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    our_folder(tmp_path)
    (tmp_path / "inference.yml").write_text(text)
    with pytest.raises(ExportError, match="is damaged"):
        read_export(tmp_path)


def test_description_of_gigabytes_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    our_folder(tmp_path)
    monkeypatch.setattr(exported, "_MAX_DESCRIPTION_BYTES", 100)
    with pytest.raises(ExportError, match="is damaged: larger than"):
        read_export(tmp_path)


@pytest.mark.parametrize("file", ["inference.json", "inference.pdiparams", "inference_int8.onnx"])
def test_export_without_one_of_its_files_is_refused(file: str, tmp_path: Path) -> None:
    our_folder(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(ExportError, match=f"is not a complete export: {file} is missing"):
        read_export(tmp_path)


def test_paddlex_folder_without_a_program_is_refused(tmp_path: Path) -> None:
    (paddlex_folder(tmp_path) / "inference.json").unlink()
    with pytest.raises(ExportError, match="is not a complete export"):
        read_export(tmp_path)


def test_paddlex_model_of_another_kind_is_refused(tmp_path: Path) -> None:
    folder = paddlex_folder(tmp_path, PreProcess={"transform_ops": [{"ResizeImage": {"resize_short": 256}}]})
    with pytest.raises(ExportError, match="is a model of another kind"):
        read_export(folder)


def test_folder_that_is_no_export_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        assert not is_export(path)
        with pytest.raises(ExportError, match=r"is not an export: no inference\.yml") as caught:
            read_export(path)
        assert "ppv export" in str(caught.value.hint)
    shutil.rmtree(tmp_path / "empty")
