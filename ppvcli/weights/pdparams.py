"""`.pdparams` files: pickled dicts of arrays, read by a machine that can build arrays and nothing else.

The names NumPy and Paddle write into such files map to small constructors of ours, so not even NumPy's own unpickling
code sees the file. Source of the forms: what `paddle.save` of Paddle 2.0 to 3.3 and the static-graph save of 1.x write.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ppvcli.errors import UnsafeWeightsError, WeightsFormatError, WeightsNotFoundError
from ppvcli.weights.pickle_machine import (
    Constructor,
    Name,
    PickleFaultError,
    PickleMachine,
    PickleRefusedError,
    Stateful,
    construct_dict,
)

NAME_TABLE_KEY = "StructuredToParameterName@@"
"""Entry of `paddle.save` that maps state-dict keys to parameter names; of no use to us."""
CHUNKS_KEY = "UnpackBigParamInfor@@"
"""Entry that tells which arrays were cut into slices: key -> original shape and names of the slices, in order."""
_DTYPES = frozenset({"b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"})
_SLACK_BYTES = 1 << 20


def read_pdparams(path: str | Path) -> dict[str, np.ndarray]:
    """Every tensor of a pickled state dict: C-contiguous, native byte order, dtype as stored.

    Arrays that Paddle cut into slices are put together again, and its name table is left out.

    Raises:
        WeightsNotFoundError: no file at `path`.
        UnsafeWeightsError: the file names something other than dicts, lists, numbers, strings and arrays.
        WeightsFormatError: no pickle, a truncated or damaged one, or one that is no flat dict of arrays.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsNotFoundError(f"no weight file at {path}")
    try:
        with path.open("rb") as stream:
            num_bytes = os.fstat(stream.fileno()).st_size
            tree = PickleMachine(stream, _constructors(num_bytes), num_bytes=num_bytes).run()
        return _state_dict(tree, max_bytes=num_bytes + _SLACK_BYTES)
    except PickleRefusedError as error:
        raise UnsafeWeightsError(
            f"{path}: the pickle asks for {error}; a weight file holds dicts, lists, numbers, strings and arrays only, "
            "and nothing of it was run",
            hint="save it again where it came from: paddle.save(network.state_dict(), FILE)",
        ) from None
    except (PickleFaultError, ValueError, OverflowError) as error:
        raise WeightsFormatError(
            f"{path}: not a readable .pdparams file: {error}", hint="copy or download the file again"
        ) from None


# --- what the pickle builds -------------------------------------------------------------------------------------------


class _Dtype(Stateful):
    """`numpy.dtype(code, align, copy)`; its state may only choose the byte order."""

    def __init__(self, args: tuple[object, ...]) -> None:
        code = args[0] if args else None
        if not isinstance(code, str) or code not in _DTYPES:  # hashing or printing another value may never end
            shown = ascii(code[:20]) if isinstance(code, str) else f"of type '{type(code).__name__}'"
            raise PickleRefusedError(f"arrays of dtype {shown}")
        self.dtype = np.dtype(code)

    def set_state(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "=", "|"):
            raise PickleFaultError("a dtype with an unknown state")
        if any(part is not None for part in state[2:5]):
            raise PickleRefusedError("arrays of a structured dtype")
        self.dtype = self.dtype.newbyteorder(state[1])


@dataclass(frozen=True)
class _Content:
    """What an array is made of; nothing is copied before the array is wanted, as many may share one buffer."""

    data: bytes | bytearray | str
    """Text is an 8-bit string of Python 2."""
    dtype: np.dtype
    shape: tuple[int, ...]
    order: Literal["C", "F"]


class _Array(Stateful):
    """An array that `_reconstruct` begins and BUILD completes."""

    def __init__(self) -> None:
        self._content: _Content | None = None
        self._result: np.ndarray | None = None

    def set_state(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise PickleFaultError("an array with an unknown state")
        shape, dtype, is_fortran, data = state[-4:]
        self.fill(data, dtype, shape=shape, order="F" if is_fortran else "C")

    def fill(self, data: object, dtype: object, *, shape: object, order: str) -> None:
        if not isinstance(data, bytes | bytearray | str) or not isinstance(dtype, _Dtype):
            raise PickleRefusedError(f"an array made from a value of type '{type(data).__name__}'")
        shape = checked_shape(shape)
        if math.prod(shape) * dtype.dtype.itemsize != len(data):
            raise PickleFaultError(f"an array of shape {list(shape)} and dtype {dtype.dtype} in {len(data)} bytes")
        self._content = _Content(data, dtype.dtype, shape, "F" if order == "F" else "C")

    def num_bytes_wanted(self) -> int:
        """Bytes that `array` may allocate: none the second time."""
        return 0 if self._result is not None or self._content is None else len(self._content.data)

    def array(self) -> np.ndarray:
        """Writable, aligned, C-contiguous, native byte order; the same one each time (tied weights)."""
        if self._content is None:
            raise PickleFaultError("an array without content")
        if self._result is None:
            data, dtype = self._content.data, self._content.dtype
            buffer = data.encode("latin-1") if isinstance(data, str) else data
            values = np.frombuffer(buffer, dtype) if buffer else np.empty(0, dtype)
            view = values.reshape(self._content.shape, order=self._content.order)
            self._result = np.require(view, dtype.newbyteorder("="), ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])
        return self._result


def printable(key: object) -> str:
    """A key of a file, cut to 100 characters and without control characters for a terminal."""
    text = str(key) if isinstance(key, str | int) else type(key).__name__
    return (text if text.isprintable() else ascii(text)[1:-1])[:100]


def checked_shape(shape: object) -> tuple[int, ...]:
    """`shape` as a tuple of at most 32 sizes from 0 up to what an int64 holds."""
    if not isinstance(shape, tuple | list) or len(shape) > 32:
        raise PickleFaultError("a shape that is no tuple of at most 32 sizes")
    if any(type(size) is not int or not 0 <= size < 1 << 63 for size in shape):
        raise PickleFaultError("a shape with an impossible size")
    return tuple(shape)


def _constructors(num_file_bytes: int) -> dict[str, Constructor]:
    """Every name a weight file may use. `_codecs.encode` copies: all its calls together stay below the file's size."""
    remaining_bytes = num_file_bytes

    def encode(args: tuple[object, ...]) -> object:
        nonlocal remaining_bytes
        if len(args) != 2 or not isinstance(args[0], str) or args[1] not in ("latin1", "latin-1"):
            raise PickleRefusedError("a text encoding other than latin1")
        remaining_bytes -= len(args[0])
        if remaining_bytes < 0:
            raise PickleFaultError("the arrays hold more bytes than the file")
        return args[0].encode("latin-1")

    names: dict[str, Constructor] = {
        "_codecs.encode": encode,
        "collections.OrderedDict": construct_dict,
        "numpy.dtype": _Dtype,
        "numpy.ndarray": _refuse_call,
    }
    for builtins in ("builtins", "__builtin__"):
        names[f"{builtins}.bytes"] = _empty_bytes
        names[f"{builtins}.tuple"] = _named_tensor
    for core in ("numpy.core", "numpy._core"):
        names[f"{core}.multiarray._reconstruct"] = _reconstruct
        names[f"{core}.multiarray.scalar"] = _scalar
        names[f"{core}.numeric._frombuffer"] = _from_buffer
    return names


def _refuse_call(args: tuple[object, ...]) -> object:
    raise PickleRefusedError("a call of 'numpy.ndarray'")


def _empty_bytes(args: tuple[object, ...]) -> object:
    if args:
        raise PickleRefusedError("a call of 'bytes'")
    return b""


def _named_tensor(args: tuple[object, ...]) -> object:
    """`tuple((name, array))`: a Paddle tensor of 2.1 and later."""
    if len(args) != 1 or not isinstance(args[0], tuple):
        raise PickleRefusedError("a call of 'tuple' on something that is no tuple")
    return args[0]


def _reconstruct(args: tuple[object, ...]) -> object:
    if len(args) != 3 or not isinstance(args[0], Name) or args[0].dotted != "numpy.ndarray":
        raise PickleRefusedError("an array of a class other than 'numpy.ndarray'")
    return _Array()


def _scalar(args: tuple[object, ...]) -> object:
    if len(args) != 2:
        raise PickleFaultError("a scalar without dtype and value")
    result = _Array()
    result.fill(args[1], args[0], shape=(), order="C")
    return result


def _from_buffer(args: tuple[object, ...]) -> object:
    """(buffer, dtype, shape, order): protocol 5."""
    if len(args) != 4 or args[3] not in ("C", "F"):
        raise PickleFaultError("an array without buffer, dtype, shape and order")
    result = _Array()
    result.fill(args[0], args[1], shape=args[2], order=str(args[3]))
    return result


# --- from what was built to tensors -----------------------------------------------------------------------------------


def _state_dict(tree: object, *, max_bytes: int) -> dict[str, np.ndarray]:
    if not isinstance(tree, dict):
        raise PickleFaultError(f"it holds a '{type(tree).__name__}', expected a dict of arrays")
    chunks = tree.get(CHUNKS_KEY, {})
    entries = {key: value for key, value in tree.items() if key not in (NAME_TABLE_KEY, CHUNKS_KEY)}
    result: dict[str, np.ndarray] = {}
    others: list[str] = []
    for key, value in entries.items():
        if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
            value = value[1]
        if not isinstance(key, str) or not isinstance(value, _Array):
            others.append(f"'{printable(key)}' ({type(value).__name__})")
            continue
        max_bytes -= value.num_bytes_wanted()
        if max_bytes < 0:
            raise PickleFaultError("the arrays hold more bytes than the file")
        result[key] = value.array()
    if others:
        optimizer = "; an optimizer file (.pdopt) holds such entries" if "LR_Scheduler" in tree else ""
        raise PickleFaultError(f"entries that are no tensors: {', '.join(others[:20])}{optimizer}")
    if not result:
        raise PickleFaultError("it holds no tensor")
    return _join_chunks(result, chunks) if chunks else result


def _join_chunks(tensors: dict[str, np.ndarray], chunks: object) -> dict[str, np.ndarray]:
    """Large arrays from their slices, which are flat and stand in the dict under names of their own."""
    if not isinstance(chunks, Mapping):
        raise PickleFaultError(f"the entry {CHUNKS_KEY} is no dict")
    result = dict(tensors)
    for key, facts in chunks.items():
        names = facts.get("slices") if isinstance(facts, dict) else None
        if not isinstance(names, list) or not names or not isinstance(key, str) or key in result:
            raise PickleFaultError(f"no usable list of slices for '{printable(key)}'")
        if not all(isinstance(name, str) and name in result for name in names) or len(set(names)) != len(names):
            raise PickleFaultError(f"slices of '{printable(key)}' are missing")
        parts = [result.pop(name) for name in names]
        shape = checked_shape(facts.get("OriginShape"))
        num_elements = sum(part.size for part in parts)
        if any(part.ndim != 1 or part.dtype != parts[0].dtype for part in parts) or math.prod(shape) != num_elements:
            raise PickleFaultError(
                f"the slices of '{printable(key)}' hold {num_elements} values for shape {list(shape)}"
            )
        result[key] = np.concatenate(parts).reshape(shape)
    return result
