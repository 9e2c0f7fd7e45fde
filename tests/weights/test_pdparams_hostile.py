"""Pickles that would run code, eat memory or end the process; and damaged ones."""

from __future__ import annotations

import copyreg
import pickle
import random
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ppvcli.errors import UnsafeWeightsError, WeightsError, WeightsFormatError
from ppvcli.weights.formats import read_weights
from ppvcli.weights.pdparams import read_pdparams
from tests.weights.builders import Call, Global, hand_array, hand_dtype, hand_pickle, opcodes, some_tensors


@contextmanager
def memory_below(num_bytes: int) -> Iterator[None]:
    """Fails where Python and NumPy together held more at any moment."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < num_bytes
    finally:
        tracemalloc.stop()


# --- code -------------------------------------------------------------------------------------------------------------

SYSTEM = Global("posix", "system")
GETATTR = Global("builtins", "getattr")
IMPORT = Global("importlib", "import_module")


def _touch(canary: Path) -> str:
    return f"touch {canary}"


def _python(canary: Path) -> str:
    return f"open({str(canary)!r}, 'w').close()"


class _Reduced:
    """Pickles as a call, the way an attacker writes it down."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.parts = (function, args)

    def __reduce__(self) -> tuple[object, ...]:
        return self.parts


def _through_pickle(protocol: int) -> Callable[[Path], bytes]:
    return lambda canary: pickle.dumps({"w": _Reduced(exec, _python(canary))}, protocol)


def _stack_global(module: str, name: str) -> bytes:
    return b"".join(b"\x8c" + bytes([len(text)]) + text.encode() for text in (module, name)) + b"\x93"


LIVE: dict[str, tuple[Callable[[Path], bytes], str]] = {
    # name: (pickle that creates the canary, what the refusal names)
    **{f"protocol_{p}": (_through_pickle(p), "exec") for p in range(6)},
    "posix_system": (lambda c: hand_pickle(Call(SYSTEM, (_touch(c),))), "posix.system"),
    "os_system": (lambda c: hand_pickle(Call(Global("os", "system"), (_touch(c),))), "os.system"),
    "subprocess": (
        lambda c: hand_pickle(Call(Global("subprocess", "check_output"), (["touch", str(c)],))),
        "subprocess.check_output",
    ),
    "eval": (lambda c: hand_pickle(Call(Global("builtins", "eval"), (_python(c),))), "builtins.eval"),
    "eval_python_2": (
        lambda c: b"\x80\x02" + opcodes(Call(Global("__builtin__", "eval"), (_python(c),))) + b".",
        "__builtin__.eval",
    ),
    "exec": (lambda c: hand_pickle(Call(Global("builtins", "exec"), (_python(c),))), "builtins.exec"),
    "getattr_chain": (
        lambda c: hand_pickle(Call(Call(GETATTR, (Call(IMPORT, ("os",)), "system")), (_touch(c),))),
        "builtins.getattr",
    ),
    "import_module": (
        lambda c: hand_pickle({"w": Call(Call(GETATTR, (Call(IMPORT, ("os",)), "system")), (_touch(c),))}),
        "builtins.getattr",
    ),
    "numpy_runstring": (
        lambda c: hand_pickle(Call(Global("numpy.testing._private.utils", "runstring"), (_python(c), {}))),
        "runstring",
    ),
    "numpy_save": (lambda c: hand_pickle(Call(Global("numpy", "savetxt"), (str(c), [1]))), "numpy.savetxt"),
    "numpy_memmap": (
        lambda c: hand_pickle(Call(Global("numpy", "memmap"), (str(c), "uint8", "w+", 0, (4,)))),
        "numpy.memmap",
    ),
    "dotted_name": (
        lambda c: b"\x80\x04" + _stack_global("shutil", "os.system") + opcodes((_touch(c),)) + b"R.",
        "shutil",
    ),
    "stack_global": (lambda c: b"\x80\x04" + _stack_global("posix", "system") + opcodes((_touch(c),)) + b"R.", "posix"),
    "inst": (lambda c: f"(S'{_touch(c)}'\niposix\nsystem\n.".encode(), "posix.system"),
    "obj": (lambda c: b"\x80\x02(" + opcodes(SYSTEM) + opcodes(_touch(c)) + b"o.", "posix.system"),
    "text_protocol": (lambda c: f"cposix\nsystem\n(S'{_touch(c)}'\ntR.".encode(), "posix.system"),
    "in_dict_value": (
        lambda c: hand_pickle({"good": hand_array(bytes(8)), "bad": [[(Call(SYSTEM, (_touch(c),)),)]]}),
        "posix.system",
    ),
    "in_name_table": (
        lambda c: hand_pickle({"w": hand_array(bytes(8)), "StructuredToParameterName@@": Call(SYSTEM, (_touch(c),))}),
        "posix.system",
    ),
    "in_slices": (
        lambda c: hand_pickle({"w": hand_array(bytes(8)), "UnpackBigParamInfor@@": Call(SYSTEM, (_touch(c),))}),
        "posix.system",
    ),
    "in_dict_key": (lambda c: hand_pickle({Call(SYSTEM, (_touch(c),)): 1}), "posix.system"),
    "discarded": (lambda c: b"\x80\x02" + opcodes(Call(SYSTEM, (_touch(c),))) + b"0}.", "posix.system"),
    "in_object_array": (
        lambda c: pickle.dumps({"w": np.array([_Reduced(exec, _python(c))], dtype=object)}),
        "dtype 'O8'",
    ),
    "paddle_dense_tensor": (
        lambda c: hand_pickle({"w": Call(Global("builtins", "eval"), (f"[data, {_python(c)}]", {"data": 1}))}),
        "builtins.eval",
    ),
    "state_of_array_class": (
        lambda c: hand_pickle(hand_array(bytes(8), kind=Call(SYSTEM, (_touch(c),)))),
        "posix.system",
    ),
}


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="the payloads call a POSIX shell")
@pytest.mark.parametrize("name", LIVE)
def test_read_pickle_that_would_run_code_refuses_it_by_name(tmp_path: Path, name: str) -> None:
    make, said = LIVE[name]
    canary, path = tmp_path / "canary", tmp_path / "a.pdparams"
    content = make(canary)
    try:
        pickle.loads(content)
    except Exception as error:  # some end in an error of pickle after they ran
        assert canary.exists(), error
    assert canary.exists(), "the attack must be a real one"
    canary.unlink()
    path.write_bytes(content)
    for read in (read_pdparams, read_weights):
        with pytest.raises(UnsafeWeightsError, match="nothing of it was run") as caught:
            read(path)
        assert said in caught.value.message
        assert not canary.exists()


@pytest.mark.parametrize(
    "opcode", [b"\x82\xf1", b"\x83\xf1\x00", b"\x84\xf1\x00\x00\x00"], ids=["ext1", "ext2", "ext4"]
)
@pytest.mark.parametrize("is_cached", [False, True])
def test_read_pdparams_extension_code_is_refused(tmp_path: Path, opcode: bytes, is_cached: bool) -> None:
    canary, path = tmp_path / "canary", tmp_path / "a.pdparams"
    content = b"\x80\x02" + opcode + opcodes((_touch(canary),)) + b"R."
    path.write_bytes(content)
    copyreg.add_extension("posix", "system", 0xF1)
    try:
        if is_cached:  # pickle asks its cache before find_class
            pickle.loads(content)
            canary.unlink()
        with pytest.raises(UnsafeWeightsError, match="extension code"):
            read_pdparams(path)
    finally:
        copyreg.remove_extension("posix", "system", 0xF1)
        copyreg._extension_cache.pop(0xF1, None)  # type: ignore[attr-defined]
    assert not canary.exists()


FLOAT = hand_dtype()
REFUSED: dict[str, tuple[bytes, str]] = {
    "newobj": (b"\x80\x02" + opcodes(Global("subprocess", "Popen")) + b")\x81.", "subprocess.Popen"),
    "newobj_ex": (b"\x80\x04" + opcodes(Global("subprocess", "Popen")) + b")}\x92.", "subprocess.Popen"),
    "newobj_allowed_name": (b"\x80\x02" + opcodes(Global("numpy", "ndarray")) + b")\x81.", "NEWOBJ"),
    "newobj_ex_allowed_name": (b"\x80\x04" + opcodes(Global("numpy", "ndarray")) + b")}\x92.", "NEWOBJ_EX"),
    "obj_allowed_name": (b"\x80\x02(" + opcodes(Global("numpy", "dtype")) + opcodes("O") + b"o.", "OBJ"),
    "inst_allowed_name": (b"\x80\x02(inumpy\ndtype\n.", "numpy.dtype"),
    "ndarray_call": (hand_pickle(Call(Global("numpy", "ndarray"), ((2**40,), FLOAT))), "numpy.ndarray"),
    "ndarray_subclass": (hand_pickle(hand_array(bytes(8), kind=Global("numpy", "memmap"))), "numpy.memmap"),
    "reconstruct_other": (hand_pickle(hand_array(bytes(8), kind=Global("numpy", "dtype"))), "numpy.ndarray"),
    "reconstruct_text": (hand_pickle(hand_array(bytes(8), kind="ndarray")), "numpy.ndarray"),
    "object_dtype": (hand_pickle(hand_array([None, None], dtype=hand_dtype("O8"))), "'O8'"),
    "object_list": (hand_pickle(hand_array([None, None])), "'list'"),
    "text_dtype": (hand_pickle({"w": hand_array(bytes(8), dtype=hand_dtype("U1"))}), "'U1'"),
    "long_double": (hand_pickle({"w": hand_array(bytes(32), dtype=hand_dtype("f16"))}), "'f16'"),
    "structured_dtype": (
        hand_pickle(hand_dtype("f4", (3, "|", None, ("a",), {"a": (FLOAT, 0)}, 4, 1, 0))),
        "structured",
    ),
    "sub_array_dtype": (hand_pickle(hand_dtype("f4", (3, "|", (FLOAT, (2**40,)), None, None, 4, 1, 0))), "structured"),
    "dtype_object": (hand_pickle(Call(Global("numpy", "dtype"), (FLOAT, False, True))), "dtype"),
    "codec": (hand_pickle(Call(Global("_codecs", "encode"), ("abc", "zlib_codec"))), "encoding"),
    "bytes_of_size": (hand_pickle(Call(Global("builtins", "bytes"), (2**40,))), "bytes"),
    "tuple_of_list": (hand_pickle(Call(Global("builtins", "tuple"), ([1],))), "tuple"),
    "call_of_text": (hand_pickle(Call("print", ())), "call of a value of type 'str'"),
    "call_of_result": (hand_pickle(Call(Call(Global("collections", "OrderedDict"), ()), ())), "'dict'"),
    "state_of_list": (hand_pickle([])[:-1] + opcodes({"a": 1}) + b"b.", "'list'"),
    "state_of_name": (b"\x80\x02" + opcodes(Global("numpy", "ndarray")) + opcodes({"tobytes": 1}) + b"b.", "'Name'"),
    "persistent_id": (b"\x80\x02" + opcodes("x") + b"Q.", "persistent id"),
    "persistent_line": (b"\x80\x02Px\n.", "persistent id"),
    "set": (pickle.dumps({"w": {1, 2}}), "set"),
    "frozen_set": (pickle.dumps({"w": frozenset({1})}), "set"),
    "complex": (pickle.dumps({"w": 1j}), "complex"),
    "out_of_band": (b"\x80\x05\x97.", "out-of-band"),
    "copyreg": (hand_pickle(Global("copyreg", "_reconstructor")), "copyreg._reconstructor"),
    "codecs_lookup": (hand_pickle(Global("_codecs", "lookup")), "_codecs.lookup"),
    "numpy_fromfile": (hand_pickle(Global("numpy", "fromfile")), "numpy.fromfile"),
    "allowed_prefix": (hand_pickle(Global("numpy.core.multiarray", "_reconstruct.__globals__")), "__globals__"),
    "dots_moved": (hand_pickle(Global("numpy.core", "multiarray._reconstruct.x")), "_reconstruct.x"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_read_pdparams_with_more_than_arrays_refuses_it_by_name(tmp_path: Path, name: str) -> None:
    content, said = REFUSED[name]
    (tmp_path / "a.pdparams").write_bytes(content)
    with memory_below(1 << 20), pytest.raises(UnsafeWeightsError) as caught:
        read_pdparams(tmp_path / "a.pdparams")
    assert said in caught.value.message
    assert "paddle.save" in (caught.value.hint or "")


# --- memory and time --------------------------------------------------------------------------------------------------


def _deep_tuple_key(depth: int) -> bytes:
    return b"\x80\x02})" + b"\x85" * depth + b"K\x01s."


def _shared_buffer(num_arrays: int) -> bytes:
    """Many arrays on one buffer, which the memo hands out: each would be copied."""
    data = b"\x80\x03}(" + opcodes("first") + opcodes(bytes(4096)) + b"q\x00"
    for number in range(num_arrays):
        array = opcodes(hand_array("HERE", shape=(1024,)))
        data += opcodes(f"k{number}") + array.replace(opcodes("HERE"), b"h\x00")
    return data + b"u."


def _shared_pairs(num_dicts: int) -> bytes:
    """One list of pairs, and many dicts made of it."""
    pairs = b"](" + b"".join(opcodes((f"k{number}", 1)) for number in range(2000)) + b"e"
    dicts = opcodes(Global("collections", "OrderedDict")) + b"q\x010(" + b"h\x01h\x00\x85R" * num_dicts + b"t"
    return b"\x80\x02" + pairs + b"q\x000" + dicts + b"."


def _endless_slice_name() -> bytes:
    """Bookkeeping of slices with a name that would take ages to print."""
    name = b")" + b"\x32\x86" * 60
    facts = b"}(" + opcodes("slices") + b"](" + name + b"eu"
    table = b"}(" + opcodes("big") + facts + b"u"
    return (
        b"\x80\x02}(" + opcodes("w") + opcodes(hand_array(bytes(8))) + opcodes("UnpackBigParamInfor@@") + table + b"u."
    )


BOMBS: dict[str, bytes] = {
    "bytes8": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",
    "bytearray8": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x.",
    "text8": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x.",
    "bytes4": b"\x80\x03B" + struct.pack("<I", (1 << 32) - 1) + b"x.",
    "frame": b"\x80\x04\x95" + struct.pack("<Q", 1 << 62) + b"}.",
    "memo_index": b"\x80\x02}r" + struct.pack("<I", (1 << 32) - 1) + b".",
    "memo_line": b"}p" + b"9" * 1000 + b"\n.",
    "long4": b"\x80\x02\x8b" + struct.pack("<I", 1 << 31) + b"\x01.",
    "long_digits": b"L" + b"9" * 1_000_000 + b"L\n.",
    "shape": hand_pickle({"w": hand_array(b"1234", shape=(2**40, 2**40))}),
    "empty_shape": hand_pickle({"w": hand_array(b"", shape=(0, 2**62, 2**62))}),
    "negative_shape": hand_pickle({"w": hand_array(b"1234", shape=(-1, -1))}),
    "many_axes": hand_pickle({"w": hand_array(b"1234", shape=(1,) * 65)}),
    "array_without_state": hand_pickle(
        {"w": Call(Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (2**40,), b"b"))}
    ),
    "deep_tuple_key": _deep_tuple_key(200_000),
    "wide_tuple_key": b"\x80\x02})" + b"\x32\x86" * 60 + b"K\x01s.",
    "deep_list": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "self_reference": b"\x80\x02}q\x00(" + opcodes("w") + b"h\x00u.",
    "opcodes": b"\x80\x02" + b"}0" * 600_000 + b"}.",
    "encode_again": b"\x80\x02"
    + opcodes(Global("_codecs", "encode"))
    + b"q\x000"
    + opcodes(("x" * 4096, "latin1"))
    + b"q\x010"
    + b"h\x00h\x01R" * 400
    + b"t.",
    "shared_buffer": _shared_buffer(1000),
    "shared_text": _shared_buffer(1000).replace(opcodes(bytes(4096)), opcodes("x" * 4096)),
    "shared_pairs": _shared_pairs(2000),
    "endless_dtype": b"\x80\x02" + opcodes(Global("numpy", "dtype")) + b")" + b"\x32\x86" * 60 + b"\x85R.",
    "endless_slice_name": _endless_slice_name(),
}


@pytest.mark.parametrize("name", BOMBS)
def test_read_pdparams_small_file_that_asks_for_much_raises_within_bounds(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.pdparams").write_bytes(BOMBS[name])
    with memory_below(40 << 20 if name == "deep_list" else 12 << 20), pytest.raises(WeightsError):
        read_pdparams(tmp_path / "a.pdparams")


# --- damage -----------------------------------------------------------------------------------------------------------

GOOD = {
    protocol: pickle.dumps({k: v[:0] if k.endswith("large") else v for k, v in some_tensors().items()}, protocol)
    for protocol in range(6)
}


@pytest.mark.parametrize("protocol", range(2, 6))
def test_read_pdparams_truncated_anywhere_raises(tmp_path: Path, protocol: int) -> None:
    tensors = {"a": np.ones((2, 3), np.float32), "b": np.arange(2)}
    content, path = pickle.dumps(tensors, protocol), tmp_path / "a.pdparams"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsFormatError):
            read_pdparams(path)


def test_read_pdparams_truncated_in_a_large_array_says_where(tmp_path: Path) -> None:
    content = pickle.dumps({"w": np.zeros(100_000, np.float32)})
    (tmp_path / "a.pdparams").write_bytes(content[:200_000])
    with pytest.raises(WeightsFormatError, match=r"cut off: 400000 bytes announced at .* of 200000") as caught:
        read_pdparams(tmp_path / "a.pdparams")
    assert caught.value.hint == "copy or download the file again"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.pdparams"


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(protocol=st.integers(0, 5), seed=st.integers(0, 2**32), num_flips=st.integers(1, 8))
def test_read_pdparams_with_flipped_bits_gives_arrays_or_our_error(
    scratch: Path, protocol: int, seed: int, num_flips: int
) -> None:
    draw = random.Random(seed)
    content = bytearray(GOOD[protocol])
    for _ in range(num_flips):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    scratch.write_bytes(content)
    with memory_below(4 << 20):
        try:
            tensors = read_pdparams(scratch)
        except WeightsError:
            return
        assert all(isinstance(tensor, np.ndarray) for tensor in tensors.values())


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
@example(content=b".")
@example(content=b"(.")
@example(content=b"}(K\x01u.")
@example(content=b"S'\\x'\n.")
@example(content=b"V\\ud800\n.")
@example(content=b"\x80\x06}.")
@example(content=b"F1e999\n.")
@example(content=b"h\x05.")
def test_read_pdparams_of_random_bytes_gives_our_error(scratch: Path, content: bytes) -> None:
    scratch.write_bytes(content)
    with memory_below(4 << 20), pytest.raises(WeightsError):
        read_pdparams(scratch)
