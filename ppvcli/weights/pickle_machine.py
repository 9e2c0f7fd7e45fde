"""A pickle interpreter that cannot run code: names map to constructors of ours, everything else is refused.

`pickle.Unpickler` with a strict `find_class` still calls what it found, hashes tuples of any depth, allocates what an
opcode announces and consults the process-wide extension registry. This machine knows the opcodes of weight files,
takes only bytes that the file has, and bounds its own memory by the size of the file.

Source: the opcode descriptions of Python's `pickletools`, protocols 0 to 5.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

MAX_OPCODES = 1_000_000
"""The largest released file has 23 thousand; every opcode costs some memory, so their number is bounded."""
MAX_NUMBER_BYTES = 1024
"""Of one integer or float; reading longer decimal numbers takes quadratic time."""
_LARGE_BYTES = 1 << 16
"""From here on a piece of the file is read straight into memory that an array can keep."""


class PickleFaultError(Exception):
    """The stream is cut off or damaged, or is no pickle."""


class PickleRefusedError(Exception):
    """The stream asks for something that is not on the list; the message names it."""


Constructor = Callable[[tuple[object, ...]], object]


@dataclass(frozen=True)
class Name:
    """A `module.name` of the stream, on the list of allowed ones."""

    dotted: str
    construct: Constructor


class Stateful:
    """A thing under construction that the BUILD opcode may complete."""

    def set_state(self, state: object) -> None:
        raise NotImplementedError


class _Mark:
    """Where a variable number of stack items begins."""


_MARK = _Mark()


class PickleMachine:
    """Runs one pickle after another from `stream`, which ends at byte `num_bytes`.

    Bytes come out as `bytes`, or `bytearray` where there are many; 8-bit strings of Python 2 as `str` (latin-1).
    `persistent` answers the persistent ids of torch files; without it they are refused.
    """

    def __init__(
        self,
        stream: BinaryIO,
        names: Mapping[str, Constructor],
        *,
        num_bytes: int,
        persistent: Callable[[object], object] | None = None,
    ) -> None:
        self._stream = stream
        self._num_bytes = num_bytes
        self._names = {dotted: Name(dotted, construct) for dotted, construct in names.items()}
        self._persistent = persistent
        self._position = stream.tell()
        self._stack: list[object] = []
        self._memo: dict[int, object] = {}
        self._num_opcodes = 0

    def run(self) -> object:
        """The object of the next pickle in the stream, which is left right behind it.

        Raises:
            PickleRefusedError: it names something that is not allowed.
            PickleFaultError: it is cut off or damaged.
        """
        self._stack, self._memo = [], {}
        try:
            while True:
                self._num_opcodes += 1
                if self._num_opcodes > MAX_OPCODES:
                    raise PickleFaultError(f"more than {MAX_OPCODES} opcodes")
                opcode = self._take(1)[0]
                if opcode == 0x2E:  # STOP
                    return self._pop()
                action = _ACTIONS.get(opcode)
                if action is None:
                    raise _unknown(opcode)
                action(self)
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError, struct.error) as error:
            raise PickleFaultError(f"damaged near byte {self._position}: {error}") from error

    # --- reading ------------------------------------------------------------------------------------------------------

    def _take(self, num_bytes: int) -> bytes | bytearray:
        if num_bytes > self._num_bytes - self._position:
            raise PickleFaultError(f"cut off: {num_bytes} bytes announced at {self._position} of {self._num_bytes}")
        if num_bytes < _LARGE_BYTES:
            piece: bytes | bytearray = self._stream.read(num_bytes)
            num_read = len(piece)
        else:
            piece = bytearray(num_bytes)
            num_read = self._stream.readinto(piece)  # type: ignore[attr-defined]
        if num_read != num_bytes:
            raise PickleFaultError(f"cut off at byte {self._position + num_read}")
        self._position += num_bytes
        return piece

    def _unsigned(self, num_bytes: int) -> int:
        return int.from_bytes(self._take(num_bytes), "little")

    def _line(self, limit: int = -1) -> bytes:
        line = self._stream.readline(limit)
        self._position += len(line)
        if not line.endswith(b"\n"):
            raise PickleFaultError(f"a line without an end, or a number too long, at byte {self._position}")
        return line[:-1]

    # --- the stack ----------------------------------------------------------------------------------------------------

    def _pop(self) -> object:
        if not self._stack or self._stack[-1] is _MARK:
            raise PickleFaultError(f"nothing on the stack at byte {self._position}")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[object]:
        for index in range(len(self._stack) - 1, -1, -1):
            if self._stack[index] is _MARK:
                items = self._stack[index + 1 :]
                del self._stack[index:]
                return items
        raise PickleFaultError(f"no mark on the stack at byte {self._position}")

    def _push(self, value: object) -> None:
        self._stack.append(value)

    def _pop_tuple(self, length: int) -> None:
        items = [self._pop() for _ in range(length)]
        self._push(tuple(reversed(items)))

    def _top(self) -> object:
        value = self._pop()
        self._push(value)
        return value

    def _store(self, index: int) -> None:
        self._memo[index] = self._top()

    def _protocol(self, version: int) -> None:
        if version > 5:
            raise PickleFaultError(f"pickle protocol {version}, known are 0 to 5")

    # --- containers ---------------------------------------------------------------------------------------------------

    def _set_items(self, pairs: Sequence[object]) -> None:
        target = self._top()
        if not isinstance(target, dict) or len(pairs) % 2:
            raise PickleFaultError(f"items for something that is no dict at byte {self._position}")
        target.update(checked_dict(zip(pairs[::2], pairs[1::2], strict=True)))

    def _dict(self, items: list[object]) -> None:
        self._push({})
        self._set_items(items)

    def _extend(self, items: Sequence[object]) -> None:
        target = self._top()
        if not isinstance(target, list):
            raise PickleFaultError(f"items for something that is no list at byte {self._position}")
        target.extend(items)

    # --- names --------------------------------------------------------------------------------------------------------

    def _name(self, module: object, name: object) -> Name:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleFaultError(f"a name that is no string at byte {self._position}")
        dotted = f"{module}.{name}"
        if dotted not in self._names:
            raise PickleRefusedError(f"the name {dotted[:200]!r}")
        return self._names[dotted]

    def _name_line(self) -> Name:
        return self._name(self._line().decode("utf-8"), self._line().decode("utf-8"))

    def _stack_global(self) -> None:
        name, module = self._pop(), self._pop()
        self._push(self._name(module, name))

    def _refuse_instance(self) -> None:
        raise PickleRefusedError(f"an instance of {self._name_line().dotted!r}")

    def _reduce(self) -> None:
        args, name = self._pop(), self._pop()
        if not isinstance(name, Name):
            raise PickleRefusedError(f"a call of a value of type '{type(name).__name__}'")
        if not isinstance(args, tuple):
            raise PickleFaultError(f"arguments that are no tuple at byte {self._position}")
        self._push(name.construct(args))

    def _build(self) -> None:
        state, target = self._pop(), self._pop()
        if isinstance(target, Stateful):
            target.set_state(state)
        elif not (isinstance(target, dict) and isinstance(state, dict)):  # attributes of an OrderedDict are dropped
            raise PickleRefusedError(f"state for a value of type '{type(target).__name__}'")
        self._push(target)

    def _persistent_id(self, identity: object) -> None:
        if self._persistent is None:
            raise PickleRefusedError("a persistent id")
        self._push(self._persistent(identity))

    # --- text of protocol 0 and Python 2 ------------------------------------------------------------------------------

    def _integer_line(self) -> None:
        text = self._line(MAX_NUMBER_BYTES)
        special = {b"00": False, b"01": True}
        self._push(special[text] if text in special else int(text.removesuffix(b"L") or b"0"))

    def _string_line(self) -> None:
        text = self._line()
        if len(text) < 2 or text[0] != text[-1] or text[:1] not in (b"'", b'"'):
            raise PickleFaultError(f"a string without quotes at byte {self._position}")
        self._push(codecs.escape_decode(text[1:-1])[0].decode("latin-1"))

    def _long(self, num_bytes: int) -> None:
        if num_bytes > MAX_NUMBER_BYTES:
            raise PickleFaultError(f"an integer of {num_bytes} bytes")
        self._push(int.from_bytes(self._take(num_bytes), "little", signed=True))


def checked_dict(pairs: Iterable[object]) -> dict[object, object]:
    """A dict of `pairs` with flat keys; a tuple as key could be so deep that hashing it ends the process."""
    result: dict[object, object] = {}
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise PickleFaultError("a dict item that is no pair")
        if not isinstance(pair[0], str | int):
            raise PickleFaultError(f"a dict key of type '{type(pair[0]).__name__}'")
        result[pair[0]] = pair[1]
    return result


def construct_dict(args: tuple[object, ...]) -> dict[object, object]:
    """What `collections.OrderedDict` becomes: a dict, of no arguments or (Python 2) of a list of pairs.

    The list is used up, so that a memo can't make many large dicts of one list.
    """
    if not args:
        return {}
    pairs = args[0]
    if len(args) != 1 or not isinstance(pairs, list):
        raise PickleFaultError("a dict of something that is no list of pairs")
    result = checked_dict(pairs)
    pairs.clear()
    return result


def _unknown(opcode: int) -> Exception:
    refused = {
        0x6F: "an object (OBJ)",
        0x81: "an object (NEWOBJ)",
        0x92: "an object (NEWOBJ_EX)",
        0x82: "an extension code (EXT1)",
        0x83: "an extension code (EXT2)",
        0x84: "an extension code (EXT4)",
        0x8F: "a set",
        0x91: "a frozen set",
        0x97: "an out-of-band buffer",
    }
    if opcode in refused:
        return PickleRefusedError(refused[opcode])
    return PickleFaultError(f"unknown opcode 0x{opcode:02x}")


def _float_line(machine: PickleMachine) -> float:
    return float(machine._line(MAX_NUMBER_BYTES))


def _text(machine: PickleMachine, length_bytes: int) -> str:
    return str(machine._take(machine._unsigned(length_bytes)), "utf-8", "surrogatepass")


def _eight_bit(machine: PickleMachine, length_bytes: int) -> str:
    return str(machine._take(machine._unsigned(length_bytes)), "latin-1")


# One line per opcode of `pickletools`, in its order; `m` is the machine.
_ACTIONS: dict[int, Callable[[PickleMachine], object]] = {
    0x80: lambda m: m._protocol(m._unsigned(1)),
    0x95: lambda m: m._unsigned(8),  # FRAME: a hint for readers of streams
    ord("I"): lambda m: m._integer_line(),
    ord("L"): lambda m: m._integer_line(),
    ord("J"): lambda m: m._push(int.from_bytes(m._take(4), "little", signed=True)),
    ord("K"): lambda m: m._push(m._unsigned(1)),
    ord("M"): lambda m: m._push(m._unsigned(2)),
    0x8A: lambda m: m._long(m._unsigned(1)),
    0x8B: lambda m: m._long(m._unsigned(4)),
    ord("S"): lambda m: m._string_line(),
    ord("T"): lambda m: m._push(_eight_bit(m, 4)),
    ord("U"): lambda m: m._push(_eight_bit(m, 1)),
    ord("B"): lambda m: m._push(m._take(m._unsigned(4))),
    ord("C"): lambda m: m._push(m._take(m._unsigned(1))),
    0x8E: lambda m: m._push(m._take(m._unsigned(8))),
    0x96: lambda m: m._push(m._take(m._unsigned(8))),  # BYTEARRAY8, the in-band buffer of protocol 5
    0x98: lambda m: None,  # READONLY_BUFFER
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    ord("V"): lambda m: m._push(m._line().decode("raw-unicode-escape")),
    0x8C: lambda m: m._push(_text(m, 1)),
    ord("X"): lambda m: m._push(_text(m, 4)),
    0x8D: lambda m: m._push(_text(m, 8)),
    ord("F"): lambda m: m._push(_float_line(m)),
    ord("G"): lambda m: m._push(struct.unpack(">d", m._take(8))[0]),
    ord("]"): lambda m: m._push([]),
    ord("a"): lambda m: m._extend([m._pop()]),
    ord("e"): lambda m: m._extend(m._pop_to_mark()),
    ord("l"): lambda m: m._push(m._pop_to_mark()),
    ord(")"): lambda m: m._push(()),
    ord("t"): lambda m: m._push(tuple(m._pop_to_mark())),
    0x85: lambda m: m._pop_tuple(1),
    0x86: lambda m: m._pop_tuple(2),
    0x87: lambda m: m._pop_tuple(3),
    ord("}"): lambda m: m._push({}),
    ord("d"): lambda m: m._dict(m._pop_to_mark()),
    ord("s"): lambda m: m._set_items([m._pop(), m._pop()][::-1]),
    ord("u"): lambda m: m._set_items(m._pop_to_mark()),
    ord("("): lambda m: m._push(_MARK),
    ord("0"): lambda m: m._pop(),
    ord("1"): lambda m: m._pop_to_mark(),
    ord("2"): lambda m: m._stack.append(m._top()),
    ord("g"): lambda m: m._push(m._memo[int(m._line(MAX_NUMBER_BYTES))]),
    ord("h"): lambda m: m._push(m._memo[m._unsigned(1)]),
    ord("j"): lambda m: m._push(m._memo[m._unsigned(4)]),
    ord("p"): lambda m: m._store(int(m._line(MAX_NUMBER_BYTES))),
    ord("q"): lambda m: m._store(m._unsigned(1)),
    ord("r"): lambda m: m._store(m._unsigned(4)),
    0x94: lambda m: m._store(len(m._memo)),
    ord("c"): lambda m: m._push(m._name_line()),
    0x93: lambda m: m._stack_global(),
    ord("R"): lambda m: m._reduce(),
    ord("b"): lambda m: m._build(),
    ord("i"): lambda m: m._refuse_instance(),
    ord("P"): lambda m: m._persistent_id(m._line().decode("utf-8")),
    ord("Q"): lambda m: m._persistent_id(m._pop()),
}
