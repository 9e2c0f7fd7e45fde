"""The two Paddle 1.x forms the TSN documentation names: a static-graph dict, and a tar or folder of LoD tensor files.

Source: names and layouts of `reference/LEGACY.md`.
"""

from __future__ import annotations

import gzip
import math
import re
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator
from io import RawIOBase
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from ppvcli.errors import WeightsFormatError

STEM_NAME = "conv1_weights"
"""Present in every legacy file, and in no other."""
_MAX_FILES = 10_000
_MAX_TOTAL_BYTES = 1 << 30
_MAX_EXPANSION = 64
"""Float weights hardly compress; a gzip stream that grows more than this is a bomb."""
_FREE_BYTES = 16 << 20
_FLOAT32 = 5
_NORM_PARTS = {"scale": "weight", "offset": "bias", "mean": "_mean", "variance": "_variance"}
_CONV = re.compile(r"(?:res(?P<block>[2-5](?:[a-z]|[a-z]\d{1,2}))_(?P<branch>branch1|branch2[abc])|conv1)_weights")
_NORM = re.compile(
    r"bn(?:(?P<block>[2-5](?:[a-z]|[a-z]\d{1,2}))_(?P<branch>branch1|branch2[abc])|_conv1)"
    r"_(?P<part>scale|offset|mean|variance)"
)


class LegacyFaultError(ValueError):
    """A stream that is no LoD tensor, or one of an unknown version or type."""


def is_legacy(names: Iterable[str]) -> bool:
    """Whether these are the parameter names of Paddle 1.x."""
    return STEM_NAME in names


def rename(tensors: dict[str, np.ndarray], *, keep_classifier: bool) -> dict[str, np.ndarray]:
    """The same tensors under `backbone.*` and `head.*`; unknown names stay, for the coverage check to report.

    Without `keep_classifier` the classifier of an ImageNet file is left out.
    """
    classifier = {"fc_0.w_0": "head.fc.weight", "fc_0.b_0": "head.fc.bias"}
    result: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        if name in classifier and not keep_classifier:
            continue
        result[classifier.get(name) or state_key(name) or name] = tensor
    return result


def state_key(name: str) -> str | None:
    """`res2a_branch2b_weights` -> `backbone.res2a.conv1._conv.weight`; None for a name of another kind."""
    match = _CONV.fullmatch(name)
    part = "_conv.weight"
    if match is None:
        match = _NORM.fullmatch(name)
        if match is None:
            return None
        part = f"_batch_norm.{_NORM_PARTS[match['part']]}"
    if match["block"] is None:
        return f"backbone.conv.{part}"
    branch = {"branch1": "short", "branch2a": "conv0", "branch2b": "conv1", "branch2c": "conv2"}[match["branch"]]
    return f"backbone.res{match['block']}.{branch}.{part}"


def parse_lod_tensor(data: bytes) -> np.ndarray:
    """The float32 array of one serialized LoD tensor, which must fill `data` exactly.

    Raises:
        LegacyFaultError: cut off, longer than its shape says, or of another version or data type.
    """
    try:
        (version, num_levels), position = struct.unpack_from("<IQ", data), 12
        if version != 0:
            raise LegacyFaultError(f"LoD tensor version {version}, expected 0")
        if num_levels > 8:
            raise LegacyFaultError(f"{num_levels} LoD levels")
        for _ in range(num_levels):
            position += 8 + struct.unpack_from("<Q", data, position)[0]
            if position > len(data):
                raise LegacyFaultError("cut off in a LoD level")
        (tensor_version, num_message_bytes), position = struct.unpack_from("<Ii", data, position), position + 8
    except struct.error:
        raise LegacyFaultError(f"cut off: {len(data)} bytes are too few for a LoD tensor") from None
    if tensor_version != 0:
        raise LegacyFaultError(f"tensor version {tensor_version}, expected 0")
    values_at = position + num_message_bytes
    if num_message_bytes < 0 or values_at > len(data):
        raise LegacyFaultError("cut off in the description of the tensor")
    shape = _parse_description(data[position:values_at])
    wanted = 4 * math.prod(shape)
    if wanted != len(data) - values_at:
        raise LegacyFaultError(f"{len(data) - values_at} bytes of values, expected {wanted} for shape {list(shape)}")
    return np.frombuffer(bytearray(data[values_at:]), "<f4").astype(np.float32, copy=False).reshape(shape)


def _parse_description(message: bytes) -> tuple[int, ...]:
    """The shape in a protobuf message of field 1 (data type) and field 2 (dims, packed or one by one)."""
    data_type: int | None = None
    dims: list[int] = []
    position = 0
    while position < len(message):
        tag, position = _varint(message, position)
        value, position = _varint(message, position)
        if tag == 0x08:
            data_type = value
        elif tag == 0x10:
            dims.append(value)
        elif tag == 0x12:
            end = position + value
            if end > len(message):
                raise LegacyFaultError("cut off in the dims")
            while position < end:
                dim, position = _varint(message, position)
                dims.append(dim)
        else:
            raise LegacyFaultError(f"an unknown field (tag {tag}) in the description of the tensor")
    if data_type != _FLOAT32:
        raise LegacyFaultError(f"data type {data_type}, expected {_FLOAT32} (float32)")
    if len(dims) > 8 or any(dim >= 1 << 40 for dim in dims):  # a negative dim is a varint of ten bytes
        raise LegacyFaultError(f"impossible dims {dims[:9]}")
    return tuple(dims)


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = 0
    for index in range(10):
        if position >= len(message):
            break
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, position
    raise LegacyFaultError("a damaged number in the description of the tensor")


# --- many of them in a folder or tar ----------------------------------------------------------------------------------


def is_legacy_folder(folder: Path) -> bool:
    """Whether `folder` holds one file per parameter."""
    return (folder / STEM_NAME).is_file()


def read_folder(folder: Path) -> dict[str, np.ndarray]:
    """Every parameter of an ImageNet folder under `backbone.*`, without the classifier.

    Raises:
        WeightsFormatError: a file in it is no float32 LoD tensor.
    """
    paths = sorted(path for path in folder.iterdir() if not _is_clutter(path.name))
    if len(paths) > _MAX_FILES:
        raise WeightsFormatError(f"{folder}: {len(paths)} files, expected one per parameter")
    files = ((path.name, path.read_bytes()) for path in paths if path.is_file())
    return _read_files(files, where=str(folder))


def read_tar(path: Path) -> dict[str, np.ndarray]:
    """The same from a `.tar` or `.tar.gz`, of which nothing is written to disk.

    Raises:
        WeightsFormatError: no tar, damaged, too large, with links or devices in it, or not of LoD tensors.
    """
    limit = min(_MAX_TOTAL_BYTES, _MAX_EXPANSION * path.stat().st_size + _FREE_BYTES)
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            stream = _Limited(gzip.GzipFile(fileobj=raw) if is_gzip else raw, limit)
            with tarfile.open(fileobj=stream, mode="r|") as tar:
                return _read_files(_members(tar, path), where=str(path))
    except (tarfile.TarError, EOFError, zlib.error, OSError, ValueError, struct.error) as error:
        raise WeightsFormatError(
            f"{path}: not a readable tar of Paddle 1.x parameters: {error}", hint="copy or download the file again"
        ) from None


def _members(tar: tarfile.TarFile, path: Path) -> Iterator[tuple[str, bytes]]:
    for number, member in enumerate(tar):
        if number >= _MAX_FILES:
            raise WeightsFormatError(f"{path}: more than {_MAX_FILES} members")
        name = PurePosixPath(member.name).name
        if member.isdir() or _is_clutter(name):
            continue
        content = tar.extractfile(member) if member.isreg() and not member.issparse() else None
        if content is None:
            raise WeightsFormatError(f"{path}: the member {member.name!r:.200} is no regular file")
        yield name, content.read()


def _is_clutter(name: str) -> bool:
    """Files of an operating system, and the program Paddle 1.x may leave beside the parameters."""
    return name.startswith(".") or name == "__model__"


def _read_files(files: Iterable[tuple[str, bytes]], *, where: str) -> dict[str, np.ndarray]:
    tensors: dict[str, np.ndarray] = {}
    for name, data in files:
        if name in tensors:
            raise WeightsFormatError(f"{where}: two parameters with the name {name!r:.200}")
        try:
            tensors[name] = parse_lod_tensor(data)
        except LegacyFaultError as error:
            raise WeightsFormatError(f"{where}: the parameter {name!r:.200} is not readable: {error}") from None
    if not is_legacy(tensors):
        raise WeightsFormatError(f"{where}: no parameter '{STEM_NAME}' among {len(tensors)} files")
    return rename(tensors, keep_classifier=False)


class _Limited(RawIOBase):
    """A stream that ends with an error where it would give more than `limit` bytes."""

    def __init__(self, stream: BinaryIO | gzip.GzipFile, limit: int) -> None:
        super().__init__()
        self._stream, self._limit, self._num_read = stream, limit, 0

    def read(self, size: int = -1) -> bytes:
        remaining = self._limit - self._num_read
        data = self._stream.read(min(size, remaining + 1) if size >= 0 else remaining + 1)
        self._num_read += len(data)
        if self._num_read > self._limit:
            raise tarfile.ReadError(f"it unpacks to more than {self._limit} bytes")
        return data
