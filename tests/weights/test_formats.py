"""What a file is, reading every form, and writing safetensors whole or not at all."""

from __future__ import annotations

import errno
import gzip
import json
import os
import pickle
import stat
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from ppvcli.errors import WeightsError, WeightsFormatError, WeightsNotFoundError
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.weights.formats import (
    WeightsMetadata,
    read_metadata,
    read_weights,
    resolve_weights_path,
    write_safetensors,
)
from tests.weights.builders import assert_same_tensors, some_tensors

METADATA = WeightsMetadata(
    model="tsm_efflite0",
    labels=("bend", "jack"),
    preprocess=Preprocess(
        sampling=Sampling(mode="uniform", num_segments=8), resize=Resize(short_side=256), crop=Crop(kind="center")
    ),
    extra={"epoch": "15"},
)
ONE = {"w": np.arange(6, dtype=np.float32).reshape(2, 3)}


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- safetensors ------------------------------------------------------------------------------------------------------


def test_write_safetensors_read_back_is_equal(tmp_path: Path) -> None:
    path, tensors = tmp_path / "a.safetensors", some_tensors()
    write_safetensors(path, tensors, metadata=METADATA)
    file = read_weights(path)
    assert (file.path, file.form, file.metadata) == (path, "safetensors", METADATA)
    assert_same_tensors({key: file.tensors[key] for key in tensors}, tensors)
    assert len(file.tensors) == len(tensors)
    assert _names(tmp_path) == ["a.safetensors"]


def test_write_safetensors_twice_gives_equal_bytes(tmp_path: Path) -> None:
    labels = tuple(f"class {number} \u00fc" for number in range(9))
    metadata = WeightsMetadata(model="tsm_k400", labels=labels, extra={f"fact_{number}": "1" for number in range(9)})
    code = (
        "import sys, numpy as np\nfrom ppvcli.weights.formats import WeightsMetadata, write_safetensors\n"
        "tensors = {name: np.full(3, number, np.float32) for number, name in enumerate('bca')}\n"
        f"write_safetensors(sys.argv[1], tensors, metadata={metadata!r})"
    )
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / name)], check=True)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (read_weights(tmp_path / "one").metadata, read_weights(tmp_path / "one").tensors["c"][0]) == (metadata, 1)
    assert int.from_bytes((tmp_path / "one").read_bytes()[:8], "little") % 8 == 0


def test_write_safetensors_is_a_file_for_the_safetensors_package(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", ONE)
    np.testing.assert_array_equal(safetensors.numpy.load_file(tmp_path / "a.safetensors")["w"], ONE["w"])


@pytest.mark.parametrize(
    "num_bytes",
    [
        *(protocol << 8 | 0x80 for protocol in range(2, 6)),  # 80 02 to 80 05 begin a pickle
        0x8B1F,  # 1f 8b begins gzip
        0x5D28,  # "(]" begins a pickle of protocol 0
    ],
)
def test_read_weights_of_safetensors_whose_header_length_reads_as_another_form(tmp_path: Path, num_bytes: int) -> None:
    content = safetensors.numpy.save(ONE)
    end = 8 + int.from_bytes(content[:8], "little")
    header = content[8:end].ljust(num_bytes)
    (tmp_path / "a").write_bytes(num_bytes.to_bytes(8, "little") + header + content[end:])
    file = read_weights(tmp_path / "a")
    assert file.form == "safetensors"
    np.testing.assert_array_equal(file.tensors["w"], ONE["w"])


def test_read_weights_of_safetensors_with_a_tensor_called_like_the_mark_of_a_tar(tmp_path: Path) -> None:
    key = "x" * (257 - len('........{"')) + "ustar"
    (tmp_path / "a").write_bytes(safetensors.numpy.save({key: ONE["w"]}))
    assert (tmp_path / "a").read_bytes()[257:262] == b"ustar"
    assert read_weights(tmp_path / "a").form == "safetensors"


def test_read_weights_half_precision_comes_as_float32(tmp_path: Path) -> None:
    half = {"w": np.array([0.1, 65504], np.float16), "n": np.array([3])}
    write_safetensors(tmp_path / "a.safetensors", half)
    assert (tmp_path / "a.safetensors").stat().st_size < 200
    tensors = read_weights(tmp_path / "a.safetensors").tensors
    np.testing.assert_array_equal(tensors["w"], half["w"].astype(np.float32), strict=True)
    assert tensors["n"].dtype == np.int64


def test_read_weights_of_another_programs_safetensors_has_no_metadata(tmp_path: Path) -> None:
    safetensors.numpy.save_file(ONE, tmp_path / "a.safetensors", metadata={"format": "pt", "labels": "{"})
    assert read_weights(tmp_path / "a.safetensors").metadata is None


def test_read_weights_written_by_paddle_as_safetensors_gives_the_tensors(tmp_path: Path) -> None:
    pytest.importorskip("paddle")
    paddle_io = pytest.importorskip("safetensors.paddle")
    import paddle

    paddle_io.save_file({"w": paddle.to_tensor(ONE["w"])}, str(tmp_path / "a.safetensors"))
    assert_same_tensors(read_weights(tmp_path / "a.safetensors").tensors, ONE)


def test_read_weights_of_a_checkpoint_gives_the_network_only(tmp_path: Path) -> None:
    checkpoint = {
        "model/backbone.w": ONE["w"],
        "optimizer/backbone.w/velocity": np.zeros(3),
        "model/head.b": np.ones(2),
    }
    write_safetensors(tmp_path / "checkpoint.safetensors", checkpoint, metadata=METADATA)
    file = read_weights(tmp_path / "checkpoint.safetensors")
    assert (file.form, file.metadata) == ("checkpoint", METADATA)
    assert_same_tensors(dict(sorted(file.tensors.items())), {"backbone.w": ONE["w"], "head.b": np.ones(2)})


def test_read_weights_of_a_checkpoint_with_strange_tensors_raises(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"model/w": ONE["w"], "other": ONE["w"]})
    with pytest.raises(WeightsFormatError, match="other"):
        read_weights(tmp_path / "a.safetensors")


def test_read_metadata_does_not_read_the_tensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, {"w": np.ones(4_000_000, np.float32)}, metadata=METADATA)
    tracemalloc.start()
    try:
        assert read_metadata(path) == METADATA
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_read_metadata_of_a_pickle_is_none(tmp_path: Path) -> None:
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(ONE))
    assert read_metadata(tmp_path / "a.pdparams") is None


def test_read_weights_with_a_hostile_header_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    header = {"format": "ppvcli/1", "preprocess": '{"sampling": {"mode": "uniform", "num_segments": 1e99}}'}
    safetensors.numpy.save_file(ONE, path, metadata=header)
    for read in (read_weights, read_metadata):
        with pytest.raises(WeightsFormatError, match="preprocess"):
            read(path)


def _raw_safetensors(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            _raw_safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}, b"1234"),
            "truncated or damaged",
        ),
        (
            _raw_safetensors({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
            "truncated or damaged",
        ),
        (
            _raw_safetensors({"w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}, bytes(8)),
            "truncated or damaged",
        ),
        (_raw_safetensors({"w": {"dtype": "BF16", "shape": [4], "data_offsets": [0, 8]}}, bytes(8)), "dtype BF16"),
        (_raw_safetensors({"w": 1}), "truncated or damaged"),
        (_raw_safetensors({}), "without tensors"),
        (struct.pack("<Q", 1000) + b"{}", "truncated or damaged"),
    ],
)
def test_read_weights_damaged_safetensors_raises(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "a.safetensors").write_bytes(content)
    with pytest.raises(WeightsFormatError, match=said):
        read_weights(tmp_path / "a.safetensors")


def test_read_weights_safetensors_truncated_anywhere_raises(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, ONE, metadata=METADATA)
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(WeightsFormatError):
            read_weights(path)


# --- writing ----------------------------------------------------------------------------------------------------------


def test_write_safetensors_respects_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_safetensors(tmp_path / "a.safetensors", ONE)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.safetensors").stat().st_mode) == 0o640


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_write_safetensors_on_a_full_disk_keeps_the_old_file_and_no_other(tmp_path: Path) -> None:
    """A process that may write 100 kB per file stands for a disk with that much space."""
    path = tmp_path / "a.safetensors"
    write_safetensors(path, ONE)
    old = path.read_bytes()
    script = (
        "import resource, sys, numpy as np\n"
        "from ppvcli.errors import WeightsError\n"
        "from ppvcli.weights.formats import write_safetensors\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    write_safetensors(sys.argv[1], {'w': np.zeros(100_000, np.float32)})\n"
        "except WeightsError as error:\n"
        "    print(error.message); raise SystemExit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "can't write the weights" in done.stdout and "File too large" in done.stdout
    assert path.read_bytes() == old
    assert _names(tmp_path) == ["a.safetensors"]


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_write_safetensors_that_fails_late_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "a.safetensors"
    write_safetensors(path, ONE)
    old = path.read_bytes()

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(*((os, "fsync", fail) if failing == "fsync" else (Path, "replace", fail)))
    with pytest.raises(WeightsError, match="No space left on device"):
        write_safetensors(path, {"w": np.zeros(9)})
    assert path.read_bytes() == old
    assert _names(tmp_path) == ["a.safetensors"]


def test_write_safetensors_interrupted_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_safetensors(tmp_path / "a.safetensors", ONE)
    assert _names(tmp_path) == []


def test_write_safetensors_with_more_metadata_than_a_header_holds_raises(tmp_path: Path) -> None:
    metadata = WeightsMetadata(extra={"state": "x" * 100_000_000})
    with pytest.raises(WeightsError, match="header too large") as caught:
        write_safetensors(tmp_path / "w.safetensors", {"a": np.zeros(1, np.float32)}, metadata=metadata)
    assert "100 MB" in str(caught.value.hint)
    assert not list(tmp_path.iterdir())


def test_write_safetensors_into_a_missing_folder_raises(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="No such file"):
        write_safetensors(tmp_path / "none" / "a.safetensors", ONE)


# --- which file -------------------------------------------------------------------------------------------------------


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_resolve_weights_path_of_a_run_prefers_the_best(tmp_path: Path) -> None:
    last = _touch(tmp_path / "last" / "checkpoint.safetensors")
    assert resolve_weights_path(tmp_path) == last
    best = _touch(tmp_path / "best" / "weights.safetensors")
    assert resolve_weights_path(str(tmp_path)) == best
    assert resolve_weights_path(tmp_path / "last") == last
    assert resolve_weights_path(tmp_path / "best") == best
    assert resolve_weights_path(best) == best


def test_read_weights_of_a_run_folder_reads_its_best(tmp_path: Path) -> None:
    (tmp_path / "best").mkdir()
    write_safetensors(tmp_path / "best" / "weights.safetensors", ONE, metadata=METADATA)
    assert_same_tensors(read_weights(tmp_path).tensors, ONE)
    assert read_metadata(tmp_path) == METADATA


def test_resolve_weights_path_without_weights_raises(tmp_path: Path) -> None:
    with pytest.raises(WeightsNotFoundError, match="no weight file at") as missing:
        resolve_weights_path(tmp_path / "none.pdparams")
    with pytest.raises(WeightsNotFoundError, match="holds no weights") as empty:
        resolve_weights_path(tmp_path)
    assert missing.value.hint and empty.value.hint


# --- no weights -------------------------------------------------------------------------------------------------------


def _zip(path: Path) -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", "x")
    return path.read_bytes()


OTHERS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "an empty file"),
    "html": (b"<!DOCTYPE html>\n<html><body>404</body></html>", "an HTML page"),
    "html_after_space": (b"\xef\xbb\xbf\r\n  <HTML><head>", "an HTML page"),
    "xml": (b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "an XML document"),
    "json": (b'{"error": "not found"}', "a JSON text"),
    "text": ("ein Text \u00fcber alles\n".encode() * 100, "a text file"),
    "short_text": (b"x", "a text file"),
    "text_like_a_name": (b"class\nfoo\nbar\n", "a text file"),
    "git_lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "a Git LFS pointer"),
    "mp4": (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2", "an MP4 or MOV video"),
    "avi": (b"RIFF\0\0\0\0AVI LIST", "an AVI"),
    "mkv": (b"\x1a\x45\xdf\xa3\x9f", "a Matroska"),
    "png": (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    "jpeg": (b"\xff\xd8\xff\xe0", "a JPEG image"),
    "old_torch": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "a PyTorch file of the format before 1.6"),
    "pdf": (b"%PDF-1.4", "a PDF"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "an HDF5"),
    "npy": (b"\x93NUMPY\1\0", "a NumPy array"),
    "pdiparams": (struct.pack("<IQI", 0, 0, 0) + bytes(100), "a Paddle parameter file"),
    "random": (bytes([200, 7, 255, 3, 9, 0, 1]) * 100, "unknown data of 700 bytes that begins with c8 07 ff 03"),
}


@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors"])
def test_read_weights_of_another_kind_of_file_says_what_it_looks_like(tmp_path: Path, name: str, suffix: str) -> None:
    content, said = OTHERS[name]
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsFormatError) as caught:
        read_weights(path)
    assert f"looks like {said}" in caught.value.message
    assert str(path) in caught.value.message and caught.value.hint


@pytest.mark.parametrize("name", ["inference.onnx", "inference.json", "inference.yml"])
def test_read_weights_of_a_part_of_an_export_names_its_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "my export"
    folder.mkdir()
    (folder / "inference.yml").write_text("ppvcli: {}")
    (folder / name).write_bytes(b'{"unknown": 1}')
    with pytest.raises(WeightsFormatError, match="a part of an export") as caught:
        read_weights(folder / name)
    assert caught.value.hint == f"ppv predict takes the whole folder: --weights '{folder}'"


def test_read_weights_of_a_new_torch_file_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(_zip(tmp_path / "x.zip"))
    with pytest.raises(WeightsFormatError, match=r"a zip archive \(PyTorch"):
        read_weights(tmp_path / "a.pth")


def test_read_weights_of_a_real_video_says_so(shared_dir: Path) -> None:
    path = next(iter(sorted((shared_dir / "data" / "weizmann").rglob("*.avi"))))
    with pytest.raises(WeightsFormatError, match="looks like an AVI"):
        read_weights(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every file")
def test_read_weights_that_may_not_be_read_raises(tmp_path: Path) -> None:
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(ONE))
    (tmp_path / "a.pdparams").chmod(0)
    with pytest.raises(WeightsError, match="Permission denied"):
        read_weights(tmp_path / "a.pdparams")
    with pytest.raises(WeightsError, match="Permission denied"):
        read_metadata(tmp_path / "a.pdparams")


@pytest.mark.parametrize("suffix", [".pdparams", ".safetensors", ".bin", ""])
def test_read_weights_goes_by_content_not_by_suffix(tmp_path: Path, suffix: str) -> None:
    pickled, tensors = tmp_path / f"pickled{suffix}", tmp_path / f"tensors{suffix}"
    pickled.write_bytes(pickle.dumps(ONE, 2))
    write_safetensors(tensors, ONE)
    assert read_weights(pickled).form == "pdparams"
    assert read_weights(tensors).form == "safetensors"


@pytest.mark.parametrize("protocol", range(6))
def test_read_weights_every_pickle_protocol_is_recognised(tmp_path: Path, protocol: int) -> None:
    (tmp_path / "a.pdparams").write_bytes(pickle.dumps(ONE, protocol))
    assert_same_tensors(read_weights(tmp_path / "a.pdparams").tensors, ONE)


@settings(max_examples=300, deadline=None)
@given(
    head=st.sampled_from(
        [b"", b"\x80\x02", b"\x80\x05", b"\x1f\x8b", gzip.compress(bytes(2000)), b"\2\0\0\0\0\0\0\0{}"]
    ),
    tail=st.binary(max_size=600),
)
def test_read_weights_of_random_bytes_gives_our_error(
    tmp_path_factory: pytest.TempPathFactory, head: bytes, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.pdparams"
    path.write_bytes(head + tail)
    with pytest.raises(WeightsError):
        read_weights(path)
