"""Makers of weight files, good and hostile, that the tests of this folder share."""

from __future__ import annotations

import io
import struct
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np


def some_tensors() -> dict[str, np.ndarray]:
    """Every kind of array a state dict may hold."""
    rng = np.random.default_rng(3)
    return {
        "backbone.conv.weight": rng.standard_normal((4, 3, 3, 3)).astype(np.float32),
        "backbone.fortran": np.asfortranarray(rng.standard_normal((5, 7))),
        "backbone.strided": rng.standard_normal(20).astype(np.float32)[::2],
        "backbone.big_endian": np.arange(6, dtype=">f4").reshape(2, 3),
        "backbone.empty": np.zeros((0, 2), np.float32),
        "backbone.zero_dim": np.array(2.5, np.float32),
        "backbone.count": np.arange(4),
        "backbone.flags": np.array([True, False, True]),
        "backbone.large": rng.standard_normal(40_000).astype(np.float32),
    }


def assert_same_tensors(got: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    """Same keys in the same order, same values, shapes and (native) dtypes; the arrays are ready for use."""
    assert list(got) == list(expected)
    for key, tensor in expected.items():
        native = tensor.astype(tensor.dtype.newbyteorder("="))
        assert got[key].flags.c_contiguous and got[key].flags.aligned and got[key].flags.writeable, key
        np.testing.assert_array_equal(got[key], native, err_msg=key, strict=True)


def varint(value: int) -> bytes:
    result = bytearray()
    while value >= 0x80:
        result.append(value & 0x7F | 0x80)
        value >>= 7
    result.append(value)
    return bytes(result)


def lod_tensor(array: np.ndarray, *, packed: bool = True, levels: tuple[bytes, ...] = ()) -> bytes:
    """A float32 array as Paddle 1.x writes one parameter."""
    dims = b"".join(map(varint, array.shape))
    message = b"\x08\x05" + (
        b"\x12" + varint(len(dims)) + dims if packed else b"".join(b"\x10" + varint(n) for n in array.shape)
    )
    head = struct.pack("<IQ", 0, len(levels)) + b"".join(struct.pack("<Q", len(level)) + level for level in levels)
    return head + struct.pack("<Ii", 0, len(message)) + message + array.astype("<f4").tobytes()


def write_tar(path: Path, files: dict[str, bytes], *, mode: str = "w:gz", folder: str = "ResNet50_pretrained") -> Path:
    with tarfile.open(path, mode) as tar:
        directory = tarfile.TarInfo(folder)
        directory.type = tarfile.DIRTYPE
        tar.addfile(directory)
        for name, content in files.items():
            info = tarfile.TarInfo(f"{folder}/{name}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


# --- pickles by hand --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Global:
    """A name, not what it stands for."""

    module: str
    name: str


@dataclass(frozen=True)
class Call:
    """REDUCE of a name, then BUILD where there is a state."""

    function: object
    args: object
    state: object = None


@dataclass(frozen=True)
class Persistent:
    identity: object


def opcodes(value: object) -> bytes:
    """The opcodes (protocol 2 and 3, no memo) that put `value` on the stack."""
    if isinstance(value, Global):
        return f"c{value.module}\n{value.name}\n".encode()
    if isinstance(value, Call):
        build = b"" if value.state is None else opcodes(value.state) + b"b"
        return opcodes(value.function) + opcodes(value.args) + b"R" + build
    if isinstance(value, Persistent):
        return opcodes(value.identity) + b"Q"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if value is None:
        return b"N"
    if isinstance(value, int):
        data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(data)]) + data
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return b"B" + struct.pack("<I", len(value)) + value
    if isinstance(value, tuple):
        return b"(" + b"".join(map(opcodes, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(opcodes, value)) + b"e"
    assert isinstance(value, dict)
    return b"}(" + b"".join(opcodes(part) for item in value.items() for part in item) + b"u"


def hand_pickle(value: object) -> bytes:
    return b"\x80\x03" + opcodes(value) + b"."


NDARRAY = Global("numpy", "ndarray")
RECONSTRUCT = Global("numpy.core.multiarray", "_reconstruct")


def hand_dtype(code: object = "f4", state: object = (3, "<", None, None, None, -1, -1, 0)) -> Call:
    return Call(Global("numpy", "dtype"), (code, False, True), state)


def hand_array(data: object, *, shape: object = (2,), dtype: object = None, kind: object = NDARRAY) -> Call:
    return Call(RECONSTRUCT, (kind, (0,), b"b"), (1, shape, dtype or hand_dtype(), False, data))


# --- torch files ------------------------------------------------------------------------------------------------------


def torch_file(
    tensors: dict[str, object], storages: dict[str, np.ndarray], *, counts: dict[str, int] | None = None
) -> bytes:
    """The torch.save format before 1.6, around `torch_tensor` entries."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    state = Call(Global("collections", "OrderedDict"), (), None)
    items = b"(" + b"".join(opcodes(key) + opcodes(tensor) for key, tensor in tensors.items()) + b"u"
    attributes = opcodes({"_metadata": Call(Global("collections", "OrderedDict"), ())}) + b"b"
    result = hand_pickle(0x1950A86A20F9469CFC6C) + hand_pickle(1001) + hand_pickle(system)
    result += b"\x80\x02" + opcodes(state) + items + attributes + b"." + hand_pickle(list(storages))
    for key, values in storages.items():
        result += struct.pack("<q", (counts or {}).get(key, values.size)) + values.tobytes()
    return result


def torch_tensor(
    key: str,
    count: int,
    *,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    offset: int = 0,
    kind: str = "FloatStorage",
) -> Call:
    storage = Persistent(("storage", Global("torch", kind), key, "cpu", count, None))
    hooks = Call(Global("collections", "OrderedDict"), ())
    return Call(Global("torch._utils", "_rebuild_tensor_v2"), (storage, offset, shape, strides, False, hooks))
