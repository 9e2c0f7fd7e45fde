from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from ppvcli.files import replacing, replacing_folder, write_text


def test_replacing_moves_what_was_written(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with replacing(tmp_path / "a.txt") as temporary:
        assert temporary.suffix == ".txt"
        temporary.write_text("new", encoding="utf-8")
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_keeps_the_old_file_and_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(type(error)), replacing(tmp_path / "a.txt") as temporary:
        temporary.write_text("half", encoding="utf-8")
        raise error
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_failure_of_the_flush_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="shows on other systems what Windows does by itself")
def test_file_is_open_for_writing_when_it_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    flush = os.fsync

    def windows_fsync(descriptor: int) -> None:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(9, "Bad file descriptor")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", windows_fsync)
    write_text(tmp_path / "a.txt", "new")
    with replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "b.txt").write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*.txt")] == ["a.txt", "b.txt"]


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "in place of another"])
def test_replacing_folder_moves_what_was_written(is_new: bool, tmp_path: Path) -> None:
    target = tmp_path / "parent" / "folder"
    if not is_new:
        target.mkdir(parents=True)
        (target / "old").touch()
    with replacing_folder(target) as temporary:
        (temporary / "new").touch()
        assert [path.name for path in target.glob("*")] == ([] if is_new else ["old"])
    assert [path.name for path in target.iterdir()] == ["new"]
    assert [path.name for path in target.parent.iterdir()] == ["folder"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failure_keeps_the_old_folder_and_leaves_nothing(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    with pytest.raises(type(error)), replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "half").touch()
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old"]


def test_move_that_fails_brings_the_old_folder_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").touch()
    move = Path.rename

    def fail_once(path: Path, target: Path) -> Path:
        if path.name.startswith(".tmp-") and (path / "new").exists():
            raise OSError(5, "Input/output error")
        return move(path, target)

    monkeypatch.setattr(Path, "rename", fail_once)
    with pytest.raises(OSError, match="Input/output"), replacing_folder(tmp_path / "folder") as temporary:
        (temporary / "new").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["old"]
