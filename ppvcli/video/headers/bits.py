"""Bits of coded video headers: one header at a time, or the same field of many headers at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Rows = npt.NDArray[np.int64]

_WORD_BYTES = 8
_HALF = np.uint64(32)
_TOP_BIT = np.uint64(1 << 63)
_MOST_ZEROS = 15
_EXPONENT_OF_TOP_BIT = 1023 + 31
"""What a float64 stores as the exponent of 2**31."""


class BitsEndError(Exception):
    """A header goes on past the end of its data."""


class Bits:
    """Reads one header, the highest bit of a byte first. Every method raises `BitsEndError` past the end."""

    def __init__(self, data: bytes) -> None:
        self._value = int.from_bytes(data, "big")
        self.left = len(data) * 8

    def skip(self, num_bits: int) -> None:
        """Passes over what is not needed."""
        self.u(num_bits)

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

    def __init__(self, headers: npt.NDArray[np.uint8], sizes: npt.NDArray[np.int64]) -> None:
        """`headers` [N, bytes] are without emulation prevention bytes; what is behind `sizes` bytes is not theirs."""
        count, num_bytes = headers.shape
        whole = np.append(headers, np.zeros(_WORD_BYTES, dtype=np.uint8))
        # the eight bytes from each byte on as one number, made once, since many fields are read
        self._words = np.ndarray((count * num_bytes,), ">u8", buffer=whole, strides=(1,)).astype(np.uint64)
        self.all: Rows = np.arange(count, dtype=np.int64)
        self._positions = self.all * (num_bytes * 8)
        self._limits = self._positions + 8 * sizes
        self._bad = np.zeros(count, dtype=bool)

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
        positions, windows = self._look(rows)
        self._positions[rows] = positions + num_bits
        windows >>= np.uint64(1)  # in two steps, because a shift by all 64 bits would be undefined
        windows >>= np.asarray(63 - num_bits).astype(np.uint64)
        return windows.view(np.int64)

    def flag(self, rows: Rows) -> npt.NDArray[np.bool_]:
        """One bit each."""
        if not len(rows):
            return np.zeros(0, dtype=bool)
        positions, windows = self._look(rows)
        self._positions[rows] = positions + 1
        return windows >= _TOP_BIT

    def ue(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Unsigned Exp-Golomb numbers up to 65534; a larger one marks its header."""
        if not len(rows):
            return np.zeros(0, dtype=np.int64)
        positions, windows = self._look(rows)
        # how many zeros a number begins with follows from its exponent as a float64, which is small for 0, too
        zeros = (windows >> _HALF).astype(np.float64).view(np.int64)
        zeros >>= 52
        np.subtract(_EXPONENT_OF_TOP_BIT, zeros, out=zeros)
        if np.maximum.reduce(zeros) > _MOST_ZEROS:
            self._bad[rows[zeros > _MOST_ZEROS]] = True
            np.minimum(zeros, _MOST_ZEROS, out=zeros)
        zeros <<= 1
        positions += zeros
        positions += 1
        self._positions[rows] = positions
        np.subtract(63, zeros, out=zeros)
        windows >>= zeros.view(np.uint64)
        numbers = windows.view(np.int64)
        numbers -= 1
        return numbers

    def se(self, rows: Rows) -> npt.NDArray[np.int64]:
        """Signed Exp-Golomb numbers."""
        codes = self.ue(rows)
        sizes = codes + 1
        sizes >>= 1
        return np.where(codes & 1, sizes, -sizes)

    def _look(self, rows: Rows) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint64]]:
        """The position of each row, and the bits from there on: at least 57 of them, at the top of 64."""
        positions = self._positions[rows]
        # past all headers there is nothing to read; past one's own it is marked bad
        windows = self._words.take(positions >> 3, mode="clip")
        windows <<= (positions & 7).view(np.uint64)
        return positions, windows
