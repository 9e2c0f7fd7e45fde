"""Entries of the cache: complete and sound, or absent."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ppvcli.deploy import cache
from ppvcli.deploy.cache import CheckResult, Entry, Record
from ppvcli.errors import CacheError
from ppvcli.specs import Crop, Preprocess, Resize, Sampling

FACTS = {"model": "m", "runtime": "onnxruntime", "precision": "fp32", "weights": "1234", "engine": "1.2.3"}
RECORD = Record(
    facts=FACTS,
    program="inference.onnx",
    labels=("a", "b"),
    preprocess=Preprocess(
        sampling=Sampling(mode="uniform", num_segments=8),
        resize=Resize(short_side=256, aspect="4:3"),
        crop=Crop(kind="center", rounding="round"),
    ),
    check=CheckResult(max_diff=1e-6, top1_agrees=True, num_clips=3, num_agree=3, time_ms=12.5, threads=2),
)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PPV_HOME", str(tmp_path))
    return tmp_path


def _write(record: Record = RECORD, *, program: bytes = b"program") -> Entry:
    with cache.locked(record.facts), cache.writing(record.facts) as folder:
        (folder / "inference.onnx").write_bytes(program)
        (folder / "more.bin").write_bytes(b"more")
        return cache.seal(folder, record)


def test_entry_that_was_written_is_found() -> None:
    assert cache.find(FACTS) is None
    written = _write()
    found = cache.find(FACTS)
    assert found == written
    assert found is not None
    assert (found.record.labels, found.record.preprocess, found.record.check) == (
        RECORD.labels,
        RECORD.preprocess,
        RECORD.check,
    )
    assert found.program.read_bytes() == b"program"


@pytest.mark.parametrize("name", FACTS)
def test_every_fact_makes_another_entry(name: str) -> None:
    _write()
    assert cache.find({**FACTS, name: "other"}) is None


def _edit_record(**fields: object) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        path = folder / cache.RECORD
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return edit


def _flip_a_byte(folder: Path) -> None:
    (folder / "inference.onnx").write_bytes(b"prograM")


BREAKAGES: dict[str, Callable[[Path], object]] = {
    "another byte": _flip_a_byte,
    "a byte less": lambda folder: (folder / "inference.onnx").write_bytes(b"progra"),
    "program gone": lambda folder: (folder / "inference.onnx").unlink(),
    "companion gone": lambda folder: (folder / "more.bin").unlink(),
    "no record": lambda folder: (folder / cache.RECORD).unlink(),
    "empty record": lambda folder: (folder / cache.RECORD).write_text(""),
    "record in the middle of a write": lambda folder: (folder / cache.RECORD).write_text('{"facts": {'),
    "record is a list": lambda folder: (folder / cache.RECORD).write_text("[1]"),
    "record is no text": lambda folder: (folder / cache.RECORD).write_bytes(b"\xff\xfe\x00"),
    "record is nested too deep": lambda folder: (folder / cache.RECORD).write_text("[" * 100_000),
    "record is huge": lambda folder: (folder / cache.RECORD).write_bytes(b" " * 10_000_001),
    "facts of another entry": _edit_record(facts={**FACTS, "weights": "9999"}),
    "program outside": _edit_record(files={"../x": "00"}, program="../x"),
    "program not hashed": _edit_record(files={}),
    "no labels": _edit_record(labels=[]),
    "impossible preprocessing": _edit_record(preprocess='{"sampling": 1}'),
    "check of another form": _edit_record(check={"max_diff": 1}),
}


@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_or_foreign_entry_counts_as_absent_and_is_replaced(breakage: str) -> None:
    entry = _write()
    BREAKAGES[breakage](entry.folder)
    assert cache.find(FACTS) is None
    _write(program=b"new")
    found = cache.find(FACTS)
    assert found is not None
    assert found.program.read_bytes() == b"new"


def test_failure_while_writing_leaves_nothing(home: Path) -> None:
    with pytest.raises(ZeroDivisionError), cache.writing(FACTS) as folder:
        (folder / "inference.onnx").write_bytes(b"half")
        _ = 1 / 0
    assert list(cache.cache_dir().iterdir()) == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EACCES, errno.EROFS])
def test_disk_that_takes_no_more_is_one_error_that_names_the_way_out(code: int) -> None:
    with pytest.raises(CacheError, match="can't write the compiled program") as caught, cache.writing(FACTS) as folder:
        raise OSError(code, "it says", str(folder))
    assert "PPV_HOME" in str(caught.value.hint)
    assert list(cache.cache_dir().iterdir()) == []


def test_home_that_is_a_file_is_one_error(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("PPV_HOME", str(home / "file"))
    with pytest.raises(CacheError, match="can't write"), cache.locked(FACTS):
        pass


def test_two_processes_write_an_entry_once(home: Path) -> None:
    code = """
import sys, time
from tests.deploy.test_cache import FACTS, RECORD
from ppvcli.deploy import cache
with cache.locked(FACTS):
    if cache.find(FACTS) is None:
        with cache.writing(FACTS) as folder:
            time.sleep(0.3)
            (folder / "inference.onnx").write_bytes(b"x")
            cache.seal(folder, RECORD)
        print("wrote")
"""
    repo = Path(__file__).resolve().parents[2]
    children = [
        subprocess.Popen([sys.executable, "-c", code], cwd=repo, stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    said = [child.communicate(timeout=60)[0] for child in children]
    assert sorted(said) == ["", "", "wrote\n"]
    assert [child.returncode for child in children] == [0, 0, 0]
    assert cache.find(FACTS) is not None


def test_choice_is_read_back_and_a_broken_one_counts_as_absent() -> None:
    facts = {**FACTS, "runtime": "auto"}
    assert cache.read_choice(facts) is None
    _write()  # makes the folder
    cache.write_choice(facts, "openvino", measured={"openvino": {"time_ms": 1.0}})
    choice = cache.read_choice(facts)
    assert choice is not None
    assert choice["runtime"] == "openvino"
    path = next(cache.cache_dir().glob("m-auto-*.json"))
    for text in ("", "{", "[]", json.dumps({"facts": {}, "runtime": "openvino"})):
        path.write_text(text)
        assert cache.read_choice(facts) is None
