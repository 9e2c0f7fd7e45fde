"""One set or the other stands in the folder, complete, at whatever rename the exchange is ended."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ppvcli.datasets import ucf101_exchange
from ppvcli.datasets.ucf101_exchange import replacing_set, restore
from ppvcli.datasets.ucf101_folder import Folder

OLD = {
    "dataset.yaml": "old",
    "labels.txt": "old",
    "missing.txt": "old",
    "train_split2_videos.txt": "old",
    "videos/A/a.avi": "old",
    "frames/A/a/img_00001.jpg": "old",
}
NEW = {"dataset.yaml": "new", "labels.txt": "new", "videos/B/b.avi": "new", "ucfTrainTestlist/classInd.txt": "new"}
OTHER = {"NOTES.txt": "mine", "downloads/UCF101.rar": "fetched"}
NUM_RENAMES = 5 + 1 + 4 + 1
"""Five old entries aside, that folder, four new ones to their places, and the end."""


class KilledError(BaseException):
    """Where the process ends."""


def _write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)


def _read(root: Path) -> dict[str, str]:
    return {path.relative_to(root).as_posix(): path.read_text() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    _write(tmp_path / "out", {**OLD, **OTHER})
    return Folder(root=tmp_path / "out", home=tmp_path / "out", report=lambda _: None)


def _exchange(folder: Folder) -> None:
    folder.begin()
    with replacing_set(folder) as new:
        _write(new.root, NEW)


@pytest.fixture
def fail_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, BaseException], None]:
    """Makes the rename of that number, counted from 0, fail; those after it succeed."""
    rename = Path.replace

    def patch(number: int, error: BaseException) -> None:
        calls = iter(range(1000))

        def replace(path: Path, target: Any) -> Path:
            if next(calls) == number:
                raise error
            return rename(path, target)

        monkeypatch.setattr(Path, "replace", replace)

    return patch


def test_new_set_takes_the_place_of_the_old_one_and_of_nothing_else(folder: Folder) -> None:
    _exchange(folder)
    assert _read(folder.root) == {**NEW, **OTHER}
    assert not folder.work.exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError("no rename")], ids=["interrupted", "refused"])
@pytest.mark.parametrize("number", range(NUM_RENAMES))
def test_exchange_that_fails_at_any_rename_leaves_the_old_set(
    number: int, error: BaseException, folder: Folder, fail_at: Callable[[int, BaseException], None]
) -> None:
    fail_at(number, error)
    with pytest.raises(type(error)):
        _exchange(folder)
    assert _read(folder.root) == {**OLD, **OTHER}


@pytest.mark.parametrize("number", range(NUM_RENAMES))
def test_exchange_that_is_killed_at_any_rename_is_undone_by_the_next_run(
    number: int, folder: Folder, fail_at: Callable[[int, BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(number, KilledError())
    with monkeypatch.context() as dead:
        dead.setattr(ucf101_exchange, "restore", lambda folder: None)
        dead.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KilledError):
            _exchange(folder)
    restore(folder)
    folder.begin()
    assert _read(folder.root) == {**OLD, **OTHER}


@pytest.mark.parametrize("number", range(4 + 1 + 5))
def test_restore_that_is_killed_itself_is_taken_up_again(
    number: int, folder: Folder, fail_at: Callable[[int, BaseException], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_at(NUM_RENAMES - 1, KilledError())
    with monkeypatch.context() as dead:
        dead.setattr(ucf101_exchange, "restore", lambda folder: None)
        dead.setattr(shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(KilledError):
            _exchange(folder)
    fail_at(number, KilledError())
    with pytest.raises(KilledError):
        restore(folder)
    restore(folder)
    folder.begin()
    assert _read(folder.root) == {**OLD, **OTHER}


def test_block_that_fails_leaves_the_old_set_and_nothing_of_the_new_one(folder: Folder) -> None:
    folder.begin()
    with pytest.raises(KeyboardInterrupt), replacing_set(folder) as new:
        _write(new.root, NEW)
        raise KeyboardInterrupt
    assert _read(folder.root) == {**OLD, **OTHER}
