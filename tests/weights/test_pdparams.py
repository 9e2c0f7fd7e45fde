"""`.pdparams` files that are well-formed: every form Paddle and NumPy write."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from ppvcli.errors import WeightsFormatError, WeightsNotFoundError
from ppvcli.weights.pdparams import read_pdparams
from tests.weights.builders import assert_same_tensors, some_tensors

PROTOCOLS = range(6)


def _write(path: Path, content: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("kind", [dict, OrderedDict])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_read_pdparams_every_protocol_gives_the_same_arrays(tmp_path: Path, protocol: int, kind: type) -> None:
    tensors = some_tensors()
    path = _write(tmp_path / "a.pdparams", kind(tensors), protocol)
    assert_same_tensors(read_pdparams(path), tensors)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_read_pdparams_with_numpy_1_module_names_gives_the_same_arrays(tmp_path: Path, protocol: int) -> None:
    tensors = some_tensors()
    content = pickle._dumps(tensors, protocol)  # type: ignore[attr-defined]
    renamed = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    renamed = renamed.replace(b"numpy._core.numeric", b"numpy.core.numeric")
    if protocol >= 4:  # lengths before the names and of the frame
        renamed = renamed.replace(b"\x8c\x16numpy.core.multiarray", b"\x8c\x15numpy.core.multiarray")
        renamed = renamed.replace(b"\x8c\x13numpy.core.numeric", b"\x8c\x12numpy.core.numeric")
    assert renamed != content
    (tmp_path / "a.pdparams").write_bytes(renamed)
    assert_same_tensors(read_pdparams(tmp_path / "a.pdparams"), tensors)


def test_read_pdparams_named_tensors_of_paddle_2_1_gives_their_arrays(tmp_path: Path) -> None:
    array = np.ones((2, 3), np.float32)
    path = _write(tmp_path / "a.pdparams", {"w": ("linear_0.w_0", array)})
    assert_same_tensors(read_pdparams(path), {"w": array})


class _PaddleTensor:
    """Pickles as a Paddle tensor does: a call of `tuple`."""

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def __reduce__(self) -> tuple[object, ...]:
        return (tuple, (("linear_0.w_0", self.array),))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_read_pdparams_tensors_reduced_to_tuples_gives_their_arrays(tmp_path: Path, protocol: int) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    path = _write(tmp_path / "a.pdparams", {"w": _PaddleTensor(array)}, protocol)
    assert_same_tensors(read_pdparams(path), {"w": array})


def test_read_pdparams_name_table_is_left_out(tmp_path: Path) -> None:
    array = np.ones(3, np.float32)
    path = _write(tmp_path / "a.pdparams", {"w": array, "StructuredToParameterName@@": {"w": "linear_0.w_0"}})
    assert_same_tensors(read_pdparams(path), {"w": array})


def test_read_pdparams_tied_weights_share_one_array(tmp_path: Path) -> None:
    array = np.ones(100_000, np.float32)
    path = _write(tmp_path / "a.pdparams", {"a": array, "b": array, "c": array})
    tensors = read_pdparams(path)
    assert tensors["a"] is tensors["b"] is tensors["c"]


def _chunked(key: str, array: np.ndarray, num_slices: int) -> dict[str, object]:
    parts = np.array_split(array.flatten(), num_slices)
    names = [f"{key}@@.{i}" for i in range(num_slices)]
    info = {key: {"OriginShape": array.shape, "slices": names}}
    return {**dict(zip(names, parts, strict=True)), "UnpackBigParamInfor@@": info}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_read_pdparams_slices_of_a_large_array_are_joined(tmp_path: Path, protocol: int) -> None:
    array, small = np.arange(42, dtype=np.float32).reshape(6, 7), np.ones(2, np.float32)
    path = _write(tmp_path / "a.pdparams", {"small": small, **_chunked("big", array, 11)}, protocol)
    assert_same_tensors(read_pdparams(path), {"small": small, "big": array})


class _Unflattened(np.ndarray):
    """One value that stands for a large flat array, without a gigabyte of memory."""

    def flatten(self, order: object = "C") -> np.ndarray:
        return self


def test_read_pdparams_slices_as_paddle_itself_cuts_them_are_joined(tmp_path: Path) -> None:
    io_utils = pytest.importorskip("paddle.framework.io_utils")
    large = np.broadcast_to(np.float32(1), (2**28,)).view(_Unflattened)  # over Paddle's limit of 2**30 - 1 bytes
    content = io_utils._unpack_saved_dict({"big": large}, 2)
    assert content["UnpackBigParamInfor@@"]["big"]["slices"] == ["big@@.0", "big@@.1"]
    names = content["UnpackBigParamInfor@@"]["big"]["slices"]
    content["UnpackBigParamInfor@@"]["big"]["OriginShape"] = (2, 3)
    content.update({names[0]: np.arange(4.0), names[1]: np.arange(4.0, 6.0)})  # Paddle's bookkeeping, small data
    path = _write(tmp_path / "a.pdparams", content, 2)
    assert_same_tensors(read_pdparams(path), {"big": np.arange(6.0).reshape(2, 3)})


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("big@@.1"),
        lambda content: content["UnpackBigParamInfor@@"]["big"].update(OriginShape=(5, 5)),
        lambda content: content["UnpackBigParamInfor@@"]["big"].update(OriginShape="67"),
        lambda content: content["UnpackBigParamInfor@@"]["big"].update(slices=["big@@.0", "big@@.0", "big@@.1"]),
        lambda content: content["UnpackBigParamInfor@@"]["big"].update(slices=[]),
        lambda content: content["UnpackBigParamInfor@@"].update(big=3),
        lambda content: content.update({"UnpackBigParamInfor@@": [1]}),
        lambda content: content.update({"big@@.1": content["big@@.1"].astype(np.float64)}),
        lambda content: content.update({"big": np.ones(2)}),
    ],
)
def test_read_pdparams_damaged_bookkeeping_of_slices_raises(tmp_path: Path, change: object) -> None:
    content = _chunked("big", np.arange(42, dtype=np.float32).reshape(6, 7), 3)
    change(content)  # type: ignore[operator]
    with pytest.raises(WeightsFormatError):
        read_pdparams(_write(tmp_path / "a.pdparams", content))


def _python_2_string(data: bytes) -> bytes:
    return b"T" + len(data).to_bytes(4, "little") + data


def test_read_pdparams_written_by_python_2_gives_its_arrays(tmp_path: Path) -> None:
    array = np.linspace(-1, 1, 6, dtype=np.float32).reshape(2, 3)
    content = (
        b"\x80\x02}q\x00(U\x0dconv1_weightsq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03"
        b"K\x00\x85U\x01b\x87Rq\x04(K\x01K\x02K\x03\x86cnumpy\ndtype\nq\x05U\x02f4K\x00K\x01\x87Rq\x06"
        b"(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + _python_2_string(array.tobytes()) + b"tbu."
    )
    assert_same_tensors(pickle.loads(content, encoding="latin1"), {"conv1_weights": array})
    (tmp_path / "a.pdparams").write_bytes(content)
    assert_same_tensors(read_pdparams(tmp_path / "a.pdparams"), {"conv1_weights": array})


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_read_pdparams_written_by_paddle_save_gives_the_network_state(tmp_path: Path, protocol: int) -> None:
    paddle = pytest.importorskip("paddle")
    with paddle.utils.unique_name.guard():
        network = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 3), paddle.nn.BatchNorm2D(4), paddle.nn.Linear(4, 2))
    path = tmp_path / "a.pdparams"
    paddle.save(network.state_dict(), str(path), protocol=protocol)
    assert_same_tensors(read_pdparams(path), {k: v.numpy() for k, v in network.state_dict().items()})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([1, 2], "a 'list'"),
        (3, "a 'int'"),
        ({}, "no tensor"),
        ({"w": np.ones(2), "LR_Scheduler": {"last_lr": 0.1}}, "optimizer file"),
        ({"w": "text"}, "'w' (str)"),
        ({"w": {"nested": np.ones(2)}}, "'w' (dict)"),
        ({3: np.ones(2)}, "'3'"),
        ({("a", "b"): np.ones(2)}, "dict key"),
    ],
)
def test_read_pdparams_not_a_flat_dict_of_arrays_raises(tmp_path: Path, content: object, said: str) -> None:
    with pytest.raises(WeightsFormatError) as caught:
        read_pdparams(_write(tmp_path / "a.pdparams", content))
    assert said in caught.value.message
    assert caught.value.hint


def test_read_pdparams_without_a_file_raises(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"missing\.pdparams"):
        read_pdparams(tmp_path / "missing.pdparams")
