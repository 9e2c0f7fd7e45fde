"""Archives that are what they should be, and archives that want out of their folder."""

from __future__ import annotations

import os
import stat
import zipfile
from pathlib import Path

import pytest

from ppvcli.datasets.archive import Limits, check_tree, is_archive, measure_tree, unpack
from ppvcli.errors import DatasetError
from tests.datasets.fake_ucf101 import Entry, write_tar, write_zip

FILE, FOLDER, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
GOOD: list[Entry] = [("d/", b"", FOLDER), ("d/with space.avi", b"one" * 1000, FILE), ("d/e/ü.avi", b"two", FILE)]
LIMITS = Limits(max_bytes=10_000, max_files=10)
PYTHON_WRITERS = {"a.zip": write_zip, "a.tar": write_tar, "a.tar.gz": write_tar}


def _unpack(archive: Path, *, limits: Limits = LIMITS) -> Path:
    target = archive.parent / "target"
    target.mkdir()
    unpack(archive, target, limits=limits, on_file=lambda done, total: None)
    return target


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", PYTHON_WRITERS)
def test_archive_of_files_gives_them_all(name: str, tmp_path: Path) -> None:
    archive = PYTHON_WRITERS[name](tmp_path / name, GOOD)
    assert is_archive(archive)
    assert _contents(_unpack(archive)) == {"d/with space.avi": b"one" * 1000, "d/e/ü.avi": b"two"}


def test_unpacking_tells_every_file(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", GOOD)
    (tmp_path / "target").mkdir()
    told: list[tuple[int, int | None]] = []
    program = unpack(archive, tmp_path / "target", limits=LIMITS, on_file=lambda *event: told.append(event))
    assert (program, told) == ("Python zipfile", [(1, 2), (2, 2)])


HOSTILE: dict[str, list[Entry]] = {
    "parent": [("../evil", b"x", FILE)],
    "parent inside": [("d/../../evil", b"x", FILE)],
    "absolute": [("/evil", b"x", FILE)],
    "backslash": [("..\\evil", b"x", FILE)],
    "drive": [("C:\\evil", b"x", FILE)],
    "control": [("d/e\nvil", b"x", FILE)],
    "link": [("evil", b"/etc/passwd", LINK)],
    "link to a folder, then through it": [("d", b"..", LINK), ("d/evil", b"x", FILE)],
    "twice": [("evil", b"x", FILE), ("evil", b"y", FILE)],
    "file as folder": [("d", b"x", FILE), ("d/evil", b"y", FILE)],
}
HOSTILE_TAR: dict[str, list[Entry]] = {
    "hard link": [("good", b"x", FILE), ("evil", b"good", 0)],
    "device": [("evil", b"", stat.S_IFCHR | 0o644)],
    "disk": [("evil", b"", stat.S_IFBLK | 0o644)],
    "pipe": [("evil", b"", stat.S_IFIFO | 0o644)],
}
CASES = [
    *((name, entries) for name in PYTHON_WRITERS for entries in HOSTILE.values()),
    *((name, entries) for name in ("a.tar", "a.tar.gz") for entries in HOSTILE_TAR.values()),
]
IDS = [
    *(f"{name}: {what}" for name in PYTHON_WRITERS for what in HOSTILE),
    *(f"{name}: {what}" for name in ("a.tar", "a.tar.gz") for what in HOSTILE_TAR),
]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("name", "entries"), CASES, ids=IDS)
def test_hostile_archive_is_refused_and_writes_nothing_outside(name: str, entries: list[Entry], tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    archive = PYTHON_WRITERS[name](folder / name, entries)
    with pytest.raises(DatasetError, match="is refused because of its entry"):
        _unpack(archive)
    assert [path.name for path in tmp_path.iterdir()] == ["inner"]
    assert {path.name for path in folder.iterdir()} <= {name, "target", "content"}
    assert not Path("/evil").exists()
    assert not any(path.is_symlink() for path in folder.rglob("*"))


@pytest.mark.parametrize("name", PYTHON_WRITERS)
@pytest.mark.parametrize("limits", [Limits(max_bytes=3002, max_files=9), Limits(max_bytes=9999, max_files=1)])
def test_archive_larger_than_allowed_is_refused(name: str, limits: Limits, tmp_path: Path) -> None:
    archive = PYTHON_WRITERS[name](tmp_path / name, GOOD)
    with pytest.raises(DatasetError, match="refused: more than"):
        _unpack(archive, limits=limits)


def test_bomb_is_stopped_by_what_comes_out_of_it(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("zeros", bytes(50 << 20), FILE)])
    assert archive.stat().st_size < 100_000
    with pytest.raises(DatasetError, match="more than 10000 bytes"):
        _unpack(archive)
    assert (tmp_path / "target" / "zeros").stat().st_size <= LIMITS.max_bytes


@pytest.mark.parametrize("name", PYTHON_WRITERS)
def test_damaged_archive_is_an_error_with_its_name(name: str, tmp_path: Path) -> None:
    archive = PYTHON_WRITERS[name](tmp_path / name, [("d/a.avi", os.urandom(5000), FILE)])
    content = bytearray(archive.read_bytes())
    if name == "a.tar":
        del content[3000:]
    else:
        content[2000:2100] = bytes(100)
    archive.write_bytes(content)
    with pytest.raises(DatasetError, match="can't unpack"):
        _unpack(archive)


def test_encrypted_zip_is_refused(tmp_path: Path) -> None:
    archive = write_zip(tmp_path / "a.zip", [("a", b"x", FILE)])
    content = bytearray(archive.read_bytes())
    content[6] |= 1  # in the local header and in the directory at the end
    content[content.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(content)
    assert zipfile.ZipFile(archive).infolist()[0].flag_bits & 1
    with pytest.raises(DatasetError, match="'a' is encrypted"):
        _unpack(archive)


def test_other_file_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("hello " * 200)
    assert not is_archive(tmp_path / "a.txt")
    assert not is_archive(tmp_path)
    with pytest.raises(DatasetError, match="is no archive"):
        _unpack(tmp_path / "a.txt")


@pytest.mark.parametrize("kind", ["link", "hard link", "pipe"])
def test_tree_with_more_than_files_is_refused(kind: str, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"x")
    check_tree(tmp_path, archive=Path("a.rar"))
    make = {"link": lambda p: p.symlink_to("a"), "hard link": lambda p: os.link(tmp_path / "d/a", p), "pipe": os.mkfifo}
    make[kind](tmp_path / "d" / "b")
    with pytest.raises(DatasetError, match=r"a\.rar is refused because of its entry 'd/"):
        check_tree(tmp_path, archive=Path("a.rar"))


def test_measure_tree_counts_files_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a").write_bytes(b"xyz")
    (tmp_path / "b").write_bytes(b"x")
    assert measure_tree(tmp_path) == (2, 4)
