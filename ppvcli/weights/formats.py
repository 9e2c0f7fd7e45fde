"""Weight files of every form a user may hold -> tensors; and the one form we write, safetensors.

What a file is follows from its content, not from its name: a web page saved as `.pdparams` is a web page.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy

from ppvcli.errors import WeightsError, WeightsFormatError, WeightsNotFoundError
from ppvcli.files import replacing
from ppvcli.weights import legacy
from ppvcli.weights.metadata import MetadataError, WeightsMetadata
from ppvcli.weights.pdparams import read_pdparams

__all__ = [
    "WeightFile",
    "WeightsMetadata",
    "read_metadata",
    "read_weights",
    "resolve_weights_path",
    "write_safetensors",
]

Form = Literal["safetensors", "checkpoint", "pdparams", "legacy pdparams", "legacy tar", "legacy folder"]
BEST_WEIGHTS = Path("best") / "weights.safetensors"
LAST_CHECKPOINT = Path("last") / "checkpoint.safetensors"
CHECKPOINT_MODEL_PREFIX = "model/"
CHECKPOINT_OPTIMIZER_PREFIX = "optimizer/"
CHECKPOINT_RAW_PREFIX = "raw/"
"""The weights that steps go on from, where `model/` holds their moving average."""
EXPORT_DESCRIPTION = "inference.yml"
"""The file that makes a folder an export."""
_AGAIN = "copy or download the file again"
_HEAD_BYTES = 512
_MAX_HEADER_BYTES = 100_000_000
"""Of the safetensors package."""
_DTYPES = {"BOOL", "U8", "I8", "U16", "I16", "F16", "U32", "I32", "F32", "U64", "I64", "F64"}


@dataclass(frozen=True)
class WeightFile:
    """The content of a weight file. `tensors` has the file's own keys, except that legacy names are translated."""

    path: Path
    tensors: dict[str, np.ndarray]
    """Half precision comes as float32; every other dtype as stored."""
    form: Form
    metadata: WeightsMetadata | None
    """None where the file is not of our own writing."""


def resolve_weights_path(path: str | Path) -> Path:
    """The weight file a user means: a file as it is; of a run folder its best weights, else its last checkpoint.

    `RUN_DIR/best` and `RUN_DIR/last` name one of the two. A folder of Paddle 1.x parameter files is returned as it is.

    Raises:
        WeightsNotFoundError: nothing at `path`, a folder without a checkpoint, or an export.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        for candidate in (BEST_WEIGHTS, LAST_CHECKPOINT, Path(BEST_WEIGHTS.name), Path(LAST_CHECKPOINT.name)):
            if (path / candidate).is_file():
                return path / candidate
        if legacy.is_legacy_folder(path):
            return path
        if (path / EXPORT_DESCRIPTION).is_file():
            given = shlex.quote(str(path))
            raise WeightsNotFoundError(
                f"{path} is an export: it can predict, but can't be evaluated, trained on or exported",
                hint=f"ppv predict FILE --weights {given}, or give the weights or the run that it was exported from",
            )
        raise WeightsNotFoundError(
            f"the folder {path} holds no weights: neither {BEST_WEIGHTS} nor {LAST_CHECKPOINT}",
            hint="give a weight file, or the folder that `ppv train` wrote its run to",
        )
    if not path.is_file():
        raise WeightsNotFoundError(
            f"no weight file at {path}", hint="check the path, or see `ppv download-weights --list`"
        )
    return path


def read_weights(path: str | Path) -> WeightFile:
    """The tensors of a safetensors file, a `.pdparams` file, a run folder or one of the Paddle 1.x forms.

    Of a training checkpoint only the network's tensors are read, under the keys of the network.

    Raises:
        WeightsNotFoundError: see `resolve_weights_path`.
        UnsafeWeightsError: a pickle that names more than arrays; nothing of it was run.
        WeightsFormatError: another kind of file, or a truncated or damaged one; the message says what it looks like.
    """
    path = resolve_weights_path(path)
    with _readable(path):
        kind = _sniff(path)
        if kind == "folder":
            return WeightFile(path, legacy.read_folder(path), "legacy folder", None)
        if kind == "tar":
            return WeightFile(path, legacy.read_tar(path), "legacy tar", None)
        if kind == "safetensors":
            return _read_safetensors(path)
        tensors = read_pdparams(path)
    if legacy.is_legacy(tensors):
        return WeightFile(path, _widen(legacy.rename(tensors, keep_classifier=True)), "legacy pdparams", None)
    return WeightFile(path, _widen(tensors), "pdparams", None)


def read_metadata(path: str | Path) -> WeightsMetadata | None:
    """What a file or run folder says about itself, without reading its tensors; None for a file not of our writing.

    Raises:
        WeightsNotFoundError, WeightsFormatError: as `read_weights`.
    """
    path = resolve_weights_path(path)
    with _readable(path):
        if _sniff(path) != "safetensors":
            return None
        with _open_safetensors(path) as file:
            return _metadata(path, file)


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What the disk refuses is an error of ours."""
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{path}: can't be read: {error.strerror or error}") from error


def write_safetensors(
    path: str | Path, tensors: Mapping[str, np.ndarray], *, metadata: WeightsMetadata | None = None
) -> None:
    """Writes a file that is complete or not there; equal tensors and metadata give equal bytes.

    Raises:
        WeightsError: the disk is full, the folder is missing or may not be written to, the metadata takes over 100 MB.
    """
    path = Path(path)
    arrays = {key: np.asarray(tensor, order="C") for key, tensor in tensors.items()}
    header = (metadata or WeightsMetadata()).to_header()
    try:
        content = _sorted_header(safetensors.numpy.save(arrays, metadata=header))
    except safetensors.SafetensorError as error:
        raise WeightsError(
            f"can't write the weights to {path}: {error}",
            hint="class names and, in a checkpoint, the clips that could not be decoded must fit into 100 MB",
        ) from error
    try:
        with replacing(path) as temporary, temporary.open("wb") as file:
            file.writelines(content)
    except OSError as error:
        raise WeightsError(
            f"can't write the weights to {path}: {error.strerror or error}",
            hint="free space on the disk, or write elsewhere",
        ) from error


def _sorted_header(content: bytes) -> tuple[bytes, memoryview]:
    """The two parts of a safetensors file, header and tensors, with the metadata in alphabetical order.

    The safetensors package writes them in an order that differs from call to call.
    """
    end = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that tensors stay aligned
    return len(text).to_bytes(8, "little") + text, memoryview(content)[end:]


# --- safetensors ------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open_safetensors(path: Path) -> Iterator[Any]:
    """The file opened by `safetensors`, whose own faults become ours."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            yield file
    except safetensors.SafetensorError as error:
        raise WeightsFormatError(f"{path}: a truncated or damaged safetensors file: {error}", hint=_AGAIN) from None


def _metadata(path: Path, file: Any) -> WeightsMetadata | None:
    try:
        return WeightsMetadata.from_header(file.metadata())
    except MetadataError as error:
        raise WeightsFormatError(
            f"{path}: the header breaks the rules of ppvcli weight files: {error}", hint="write the file again"
        ) from None


def _read_safetensors(path: Path) -> WeightFile:
    with _open_safetensors(path) as file:
        metadata = _metadata(path, file)
        keys = list(file.keys())
        is_checkpoint = any(key.startswith(CHECKPOINT_MODEL_PREFIX) for key in keys)
        if is_checkpoint:
            prefixes = (CHECKPOINT_MODEL_PREFIX, CHECKPOINT_OPTIMIZER_PREFIX, CHECKPOINT_RAW_PREFIX)
            strange = [key for key in keys if not key.startswith(prefixes)]
            if strange:
                raise WeightsFormatError(
                    f"{path}: a checkpoint with tensors of neither network nor optimizer: {strange}"
                )
            keys = [key for key in keys if key.startswith(CHECKPOINT_MODEL_PREFIX)]
        for key in keys:
            if (dtype := file.get_slice(key).get_dtype()) not in _DTYPES:
                raise WeightsFormatError(f"{path}: the tensor '{key}' has dtype {dtype}, which NumPy does not know")
        tensors = {key: file.get_tensor(key) for key in keys}
    if not tensors:
        raise WeightsFormatError(f"{path}: a safetensors file without tensors")
    if is_checkpoint:
        tensors = {key.removeprefix(CHECKPOINT_MODEL_PREFIX): tensor for key, tensor in tensors.items()}
    return WeightFile(path, _widen(tensors), "checkpoint" if is_checkpoint else "safetensors", metadata)


def _widen(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Half precision, which only saves space in a file, as float32."""
    return {k: t.astype(np.float32) if t.dtype == np.float16 else t for k, t in tensors.items()}


# --- what a file is ---------------------------------------------------------------------------------------------------

_PICKLE_TEXT = re.compile(rb"\(+[dltSVi]|[}\]][q(.]|c[\w.]+\n[\w.]+\n")
"""How protocols 0 and 1 begin: a mark, a container or a name. They end with a dot."""
_OLD_TORCH = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46"
_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (PyTorch's format since 1.6 is one)"),
    (_OLD_TORCH, "a PyTorch file of the format before 1.6"),
    (b"Rar!", "a rar archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"\x93NUMPY", "a NumPy array file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "an AVI or WAV file"),
    (b"\x1a\x45\xdf\xa3", "a Matroska or WebM video"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file it points to"),
    (
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        "a Paddle parameter file of an exported program (.pdiparams) or one LoD tensor",
    ),
)


def _sniff(path: Path) -> Literal["folder", "tar", "safetensors", "pickle"]:
    """The reader for `path`.

    Raises:
        WeightsFormatError: none; the message says what the file looks like.
    """
    if path.is_dir():
        return "folder"
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        num_bytes = os.fstat(file.fileno()).st_size
        file.seek(max(num_bytes - 1, 0))
        last = file.read(1)
    # First, since a safetensors file begins with the length of its header, which may look like a pickle's first bytes
    # (640 is 80 02) or gzip's. No pickle of arrays and no archive goes on with zeros and a brace.
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= _MAX_HEADER_BYTES:
        return "safetensors"
    if head[:2] == b"\x1f\x8b" or head[257:262] == b"ustar":
        return "tar"
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5") and not head.startswith(_OLD_TORCH):
        return "pickle"
    if _PICKLE_TEXT.match(head) and last == b".":
        return "pickle"
    if (path.parent / EXPORT_DESCRIPTION).is_file():
        raise WeightsFormatError(
            f"{path}: no weight file, but a part of an export",
            hint=f"ppv predict takes the whole folder: --weights {shlex.quote(str(path.parent))}",
        )
    raise WeightsFormatError(
        f"{path}: no weight file: it looks like {_describe(head, num_bytes)}; expected safetensors or .pdparams",
        hint=_AGAIN,
    )


def _describe(head: bytes, num_bytes: int) -> str:
    """What a person would call a file that begins like this."""
    if num_bytes == 0:
        return "an empty file (0 bytes)"
    for signature, name in _SIGNATURES:
        if head.startswith(signature):
            return name
    if head[4:8] == b"ftyp":
        return "an MP4 or MOV video"
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html", b"<head", b"<body")) or b"<html" in text:
        return "an HTML page, such as a web server's error or login page"
    if text.startswith(b"<"):
        return "an XML document, such as a storage service's error answer"
    if not re.search(rb"[\x00-\x08\x0e-\x1a\x7f]", head) and _is_utf8(head):
        return "a JSON text" if text.startswith((b"{", b"[")) else "a text file"
    return f"unknown data of {num_bytes} bytes that begins with {head[:8].hex(' ')}"


def _is_utf8(head: bytes) -> bool:
    """Whether `head` decodes; the last character may be cut off by the read."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start >= len(head) - 3 and len(head) == _HEAD_BYTES
    return True
