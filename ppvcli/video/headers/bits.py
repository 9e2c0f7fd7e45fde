"""Bits of coded video headers: one header at a time, or the same field of many headers at once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

HEADER_BYTES = 96
"""How much of a slice `HeaderRows` looks at if nothing else is said; a longer header counts as damaged."""


class BitsEndError(Exception):
    """A header goes on past the end of its data."""


class Bits:
    """Reads one header, the highest bit of a byte first. Every method raises `BitsEndError` past the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self.left = len(data) * 8

    def u(self, num_bits: int) -> int:
        """An unsigned number of `num_bits`."""
        self.left -= num_bits
        if self.left < 0:
            raise BitsEndError
        return self._value >> self.left & ((1 << num_bits) - 1)

    def flag(self) -> bool:
        """One bit."""
        return bool(self.u(1))

    def ue(self) -> int:
        """An unsigned Exp-Golomb number."""
        zeros = 0
        while not self.u(1):
            zeros += 1
            if zeros > 32:
                raise BitsEndError
        return (1 << zeros) - 1 + self.u(zeros)

    def se(self) -> int:
        """A signed Exp-Golomb number: 0, 1, -1, 2, -2, ..."""
        code = self.ue()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class HeaderRows:
    """Many headers, each with a position of its own; a field is read from any subset of them in one go.

    Nothing raises: a header that is too long, or holds a number no sane stream has, is marked in `bad`.
    """

    def __init__(self, headers: Sequence[bytes], *, num_bytes: int = HEADER_BYTES) -> None:
        """`headers` are without emulation prevention bytes; only their first `num_bytes` are looked at."""
        self._num_bytes = num_bytes
        self._limits = np.array([min(len(header), num_bytes) * 8 for header in headers], dtype=np.int64)
        buffer = b"".join([header[:num_bytes].ljust(num_bytes, b"\0") for header in headers]) + bytes(8)
        self._words = np.ndarray((len(headers) * num_bytes,), dtype=">u8", buffer=buffer, strides=(1,))
        self._offsets = np.arange(len(headers), dtype=np.int64) * num_bytes
        self._positions = np.zeros(len(headers), dtype=np.int64)
        self.all: Rows = np.arange(len(headers), dtype=np.int64)
        self._bad = np.zeros(len(headers), dtype=bool)

    @property
    def bad(self) -> npt.NDArray[np.bool_]:
        """The headers that can't be trusted, so far."""
        return self._bad | (self._positions > self._limits)

    def mark_bad(self, rows: Rows) -> None:
        """Rejects headers for what they hold."""
        self._bad[rows] = True

    def skip(self, rows: Rows, num_bits: npt.NDArray[np.int64]) -> None:
        """Passes over any number of bits."""
        self._positions[rows] += num_bits

    def u(self, rows: Rows, num_bits: npt.NDArray[np.int64] | int) -> npt.NDArray[np.int64]:
        """Unsigned numbers of `num_bits` (up to 32; one width, or one for each row)."""
        if not len(rows):
            return np.zeros(0, dtype=np.int64)
        windows = self._windows(rows)
        self._positions[rows] += num_bits
        # in two steps, because a shift by all 64 bits would be undefined
        return ((windows >> np.uint64(1)) >> np.asarray(63 - num_bits).astype(np.uint64)).astype(np.int64)

    def flag(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """One bit each."""
        return self.u(rows, 1).astype(bool)

    def ue(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Unsigned Exp-Golomb numbers up to 65534; a larger one marks its header."""
        if not len(rows):
            return np.zeros(0, dtype=np.int64)
        windows = self._windows(rows)
        zeros = 32 - np.frexp(windows >> np.uint64(32))[1].astype(np.int64)
        if zeros.max() > 15:
            self._bad[rows[zeros > 15]] = True
            zeros = np.minimum(zeros, 15)
        self._positions[rows] += 2 * zeros + 1
        return (windows >> (63 - 2 * zeros).astype(np.uint64)).astype(np.int64) - 1

    def se(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Signed Exp-Golomb numbers."""
        codes = self.ue(rows)
        return np.where(codes & 1, (codes + 1) >> 1, -(codes >> 1))

    def _windows(self, rows: Rows) -> npt.NDArray[np.uint64]:
        """The bits from the position of each row on: at least 57 of them, at the top of a number of 64 bits."""
        positions = self._positions[rows]
        places = self._offsets[rows] + np.minimum(positions >> 3, self._num_bytes - 1)
        return self._words[places].astype(np.uint64) << (positions & 7).astype(np.uint64)
