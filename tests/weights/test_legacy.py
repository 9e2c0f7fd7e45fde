"""Paddle 1.x: names, LoD tensors, tars and folders."""

from __future__ import annotations

import gzip
import io
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ppvcli.errors import WeightsFormatError
from ppvcli.weights.formats import read_weights
from ppvcli.weights.legacy import LegacyFaultError, parse_lod_tensor, state_key
from tests.recipe import golden_shapes
from tests.weights.builders import assert_same_tensors, lod_tensor, write_tar

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


def _block_names(depth: int) -> list[str]:
    names = []
    for stage, count in enumerate(BLOCKS[depth], start=2):
        for block in range(count):
            numbered = depth > 50 and stage in (3, 4)
            suffix = ("a" if block == 0 else f"b{block}") if numbered and count > 4 else "abcdefgh"[block]
            names.append(f"{stage}{suffix}")
    return names


def _legacy_names(depth: int) -> list[str]:
    """Every backbone parameter of a Paddle 1.x ResNet, in the words of LEGACY.md."""
    norm_parts = ("scale", "offset", "mean", "variance")
    names = ["conv1_weights", *(f"bn_conv1_{part}" for part in norm_parts)]
    for block in _block_names(depth):
        branches = ["branch2a", "branch2b", "branch2c"] + (["branch1"] if block.endswith("a") else [])
        for branch in branches:
            names += [f"res{block}_{branch}_weights", *(f"bn{block}_{branch}_{part}" for part in norm_parts)]
    return names


def test_state_key_of_every_resnet50_parameter_is_the_published_key() -> None:
    keys = [state_key(name) for name in _legacy_names(50)]
    assert sorted(map(str, keys)) == sorted(k for k in golden_shapes("tsn_k400_3seg") if k.startswith("backbone."))


@pytest.mark.parametrize("depth", [101, 152])
def test_state_key_of_deeper_resnets_is_known_and_unique(depth: int) -> None:
    names = _legacy_names(depth)
    keys = [state_key(name) for name in names]
    assert None not in keys
    assert len(set(keys)) == len(names) == 5 * (1 + 3 * sum(BLOCKS[depth]) + 4)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("conv1_weights", "backbone.conv._conv.weight"),
        ("bn_conv1_variance", "backbone.conv._batch_norm._variance"),
        ("res2a_branch2b_weights", "backbone.res2a.conv1._conv.weight"),
        ("bn5c_branch2c_offset", "backbone.res5c.conv2._batch_norm.bias"),
        ("res3a_branch1_weights", "backbone.res3a.short._conv.weight"),
        ("bn3a_branch1_mean", "backbone.res3a.short._batch_norm._mean"),
        ("res4b22_branch2a_weights", "backbone.res4b22.conv0._conv.weight"),
        ("bn4b1_branch2c_scale", "backbone.res4b1.conv2._batch_norm.weight"),
    ],
)
def test_state_key_of_a_known_name_is_the_literal(name: str, key: str) -> None:
    assert state_key(name) == key


@pytest.mark.parametrize(
    "name", ["conv1_weights_", "res6a_branch2a_weights", "bn2a_branch2d_mean", "fc_0.w_0", "", "x"]
)
def test_state_key_of_another_name_is_none(name: str) -> None:
    assert state_key(name) is None


# --- one LoD tensor ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("shape", [(3,), (2, 3), (300, 2, 1, 1), (0, 4), ()])
@pytest.mark.parametrize("levels", [(), (b"",), (struct.pack("<QQ", 0, 3), b"12345678")])
def test_parse_lod_tensor_gives_the_array(shape: tuple[int, ...], packed: bool, levels: tuple[bytes, ...]) -> None:
    array = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    got = parse_lod_tensor(lod_tensor(array, packed=packed, levels=levels))
    assert got.flags.writeable
    np.testing.assert_array_equal(got, array, strict=True)


GOOD = lod_tensor(np.ones((2, 3), np.float32))
MESSAGE = b"\x08\x05\x12\x02\x02\x03"


def _with_message(message: bytes, values: bytes = bytes(24)) -> bytes:
    return struct.pack("<IQIi", 0, 0, 0, len(message)) + message + values


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "too few"),
        (b"\1" + GOOD[1:], "LoD tensor version 1"),
        (GOOD[:4] + struct.pack("<Q", 2**63) + GOOD[12:], "LoD levels"),
        (GOOD[:4] + struct.pack("<QQ", 1, 2**63) + GOOD[12:], "cut off"),
        (GOOD[:12] + b"\1" + GOOD[13:], "tensor version 1"),
        (GOOD[:16] + struct.pack("<i", -1) + GOOD[20:], "cut off"),
        (GOOD[:16] + struct.pack("<i", 2**31 - 1) + GOOD[20:], "cut off"),
        (GOOD + b"x", "25 bytes of values, expected 24"),
        (GOOD[:-1], "23 bytes of values, expected 24"),
        (_with_message(b"\x08\x06\x12\x02\x02\x03"), "data type 6"),
        (_with_message(b"\x12\x02\x02\x03"), "data type None"),
        (_with_message(b"\x08\x05\x12\x09\x02\x03"), "cut off in the dims"),
        (_with_message(b"\x08\x05\x18\x01"), "unknown field"),
        (_with_message(b"\x08\x05\x10" + b"\xff" * 9 + b"\x01"), "impossible dims"),
        (_with_message(b"\x08\x05\x10" + b"\xff" * 11), "damaged number"),
        (_with_message(b"\x08\x05" + b"\x10\x01" * 9, bytes(4)), "impossible dims"),
        (_with_message(b"\x08"), "damaged number"),
    ],
)
def test_parse_lod_tensor_damaged_raises(data: bytes, said: str) -> None:
    assert _with_message(MESSAGE, np.ones(6, "<f4").tobytes()) == GOOD
    with pytest.raises(LegacyFaultError, match=said):
        parse_lod_tensor(data)


@given(data=st.binary(max_size=80), at=st.integers(0, 60))
def test_parse_lod_tensor_of_random_bytes_gives_an_array_or_our_error(data: bytes, at: int) -> None:
    for candidate in (data, GOOD[:at] + data, GOOD[:at] + data + GOOD[at + len(data) :]):
        try:
            result = parse_lod_tensor(candidate)
        except LegacyFaultError:
            continue
        assert result.dtype == np.float32


# --- whole files ------------------------------------------------------------------------------------------------------


def _parameters() -> dict[str, np.ndarray]:
    """A legacy file in small: every ResNet-50 name, tiny arrays, and the classifier."""
    rng = np.random.default_rng(1)
    names = [*_legacy_names(50), "fc_0.w_0", "fc_0.b_0"]
    return {name: rng.standard_normal((2, 3)).astype(np.float32) for name in names}


def _renamed(parameters: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {key: array for name, array in parameters.items() if (key := state_key(name))}


@pytest.mark.parametrize("protocol", [2, 4])
def test_read_weights_static_graph_dict_has_the_keys_of_the_network(tmp_path: Path, protocol: int) -> None:
    parameters = _parameters()
    path = tmp_path / "TSN.pdparams"
    path.write_bytes(pickle.dumps(parameters, protocol))
    file = read_weights(path)
    assert file.form == "legacy pdparams"
    assert set(file.tensors) == set(golden_shapes("tsn_k400_3seg"))
    np.testing.assert_array_equal(file.tensors["head.fc.weight"], parameters["fc_0.w_0"])
    np.testing.assert_array_equal(
        file.tensors["backbone.res4f.conv2._batch_norm._mean"], parameters["bn4f_branch2c_mean"]
    )


@pytest.mark.parametrize("mode", ["w:gz", "w"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_read_weights_tar_has_the_backbone_without_the_classifier(
    tmp_path: Path, mode: str, form: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tarfile.TarFile, "format", form)
    parameters = dict(sorted(_parameters().items()))
    path = write_tar(tmp_path / "a.tar.gz", {name: lod_tensor(array) for name, array in parameters.items()}, mode=mode)
    file = read_weights(path)
    assert (file.form, file.metadata) == ("legacy tar", None)
    assert_same_tensors(file.tensors, _renamed(parameters))
    assert sorted(tmp_path.iterdir()) == [path]


def test_read_weights_folder_has_the_backbone_without_the_classifier(tmp_path: Path) -> None:
    parameters = dict(sorted(_parameters().items()))
    for name, array in parameters.items():
        (tmp_path / name).write_bytes(lod_tensor(array))
    (tmp_path / ".DS_Store").write_bytes(b"clutter")
    (tmp_path / "__model__").write_bytes(b"program")
    file = read_weights(tmp_path)
    assert file.form == "legacy folder"
    assert_same_tensors(file.tensors, _renamed(parameters))


def test_read_weights_folder_with_a_file_of_another_kind_raises(tmp_path: Path) -> None:
    (tmp_path / "conv1_weights").write_bytes(GOOD)
    (tmp_path / "README").write_text("hello")
    with pytest.raises(WeightsFormatError, match="README"):
        read_weights(tmp_path)


def _special_tar(path: Path, change: dict[str, object]) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("folder/conv1_weights")
        info.size = len(GOOD)
        for name, value in change.items():
            setattr(info, name, value)
        tar.addfile(info, io.BytesIO(GOOD) if info.isreg() else None)
    return path


@pytest.mark.parametrize(
    "change",
    [
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd", "size": 0},
        {"type": tarfile.CHRTYPE, "size": 0},
        {"type": tarfile.FIFOTYPE, "size": 0},
        {"pax_headers": {"GNU.sparse.map": "0,52", "GNU.sparse.size": str(2**50), "GNU.sparse.major": "0"}},
    ],
)
def test_read_weights_tar_with_links_or_devices_raises(tmp_path: Path, change: dict[str, object]) -> None:
    with pytest.raises(WeightsFormatError, match="no regular file"):
        read_weights(_special_tar(tmp_path / "a.tar.gz", change))


def test_read_weights_tar_names_that_climb_write_nothing(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {"../../../climbed/conv1_weights": GOOD}, folder="x")
    assert list(read_weights(path).tensors) == ["backbone.conv._conv.weight"]
    assert sorted(tmp_path.rglob("*")) == [path]


def test_read_weights_tar_with_a_name_twice_raises(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "a.tar.gz", {"conv1_weights": GOOD, "other/conv1_weights": GOOD})
    with pytest.raises(WeightsFormatError, match="two parameters"):
        read_weights(path)


def test_read_weights_gzip_bomb_raises_early(tmp_path: Path) -> None:
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        info = tarfile.TarInfo("folder/conv1_weights")
        info.size = 200 << 20
        file.write(info.tobuf())
        for _ in range(200):
            file.write(bytes(1 << 20))
    with pytest.raises(WeightsFormatError, match="unpacks to more than"):
        read_weights(path)


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.95])
def test_read_weights_truncated_tar_raises(tmp_path: Path, keep: float) -> None:
    parameters = _parameters()
    path = write_tar(tmp_path / "a.tar.gz", {name: lod_tensor(array) for name, array in parameters.items()})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(WeightsFormatError):
        read_weights(path)


@pytest.mark.parametrize("content", [b"", b"text" * 1000, GOOD])
def test_read_weights_gzip_of_something_else_raises(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(WeightsFormatError, match=r"Paddle 1|conv1_weights"):
        read_weights(path)
