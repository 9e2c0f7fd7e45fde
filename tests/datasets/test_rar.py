"""RAR archives through the programs that are here, and through doubles of those that are not."""

from __future__ import annotations

import os
import shutil
import stat
import sys
import time
from pathlib import Path

import pytest

from ppvcli.datasets.archive import Limits, unpack
from ppvcli.errors import DatasetError
from tests.datasets.fake_ucf101 import Entry, write_rar

FILE, FOLDER = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
GOOD: list[Entry] = [("U", b"", FOLDER), ("U/A/v A.avi", b"one" * 1000, FILE), ("U/B/b.avi", b"two", FILE)]
LIMITS = Limits(max_bytes=10_000, max_files=10)
REAL = ("bsdtar", "unar")

# a program with the interface of bsdtar: it "reads" archives of lines `name=content`, and says how it was called
DOUBLE = f"""#!{sys.executable}
import os, pathlib, sys, time
if "--version" in sys.argv:
    print("bsdtar 0.1 - a double")
    sys.exit()
rows = pathlib.Path(sys.argv[-1]).read_text().splitlines()[1:]
for row in rows:
    name, _, content = row.partition("=")
    if "-tf" in sys.argv:
        print(name)
    elif name == "FAIL":
        sys.exit("double: it is damaged")
    elif name == "LINK":
        os.symlink("/etc", "LINK")
    elif name == "GROW":
        with open("GROW", "wb") as file:
            for _ in range(1000):
                file.write(bytes(1000))
                file.flush()
                time.sleep(0.01)
    else:
        path = pathlib.Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
"""


def _unpack(archive: Path, *, limits: Limits = LIMITS) -> tuple[Path, str]:
    target = archive.parent / "target"
    target.mkdir(exist_ok=True)
    return target, unpack(archive, target, limits=limits, on_file=lambda done, total: None)


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder in PATH, empty."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def _install(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)


def _link_real(folder: Path, name: str) -> None:
    for program in (name, "lsar") if name == "unar" else (name,):
        path = shutil.which(program, path=os.defpath)
        if path is None:
            pytest.skip(f"needs {program}")
        (folder / program).symlink_to(path)


def _fake_archive(tmp_path: Path, *rows: str) -> Path:
    path = tmp_path / "a.rar"
    path.write_bytes(b"Rar!\x1a\x07\x00\n" + "\n".join(rows).encode())
    return path


# --- real programs ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", REAL)
def test_rar_is_unpacked_by_the_program_that_is_there(program: str, programs: Path, tmp_path: Path) -> None:
    _link_real(programs, program)
    target, used = _unpack(write_rar(tmp_path / "a.rar", GOOD))
    assert _contents(target) == {"U/A/v A.avi": b"one" * 1000, "U/B/b.avi": b"two"}
    assert used.startswith(program)
    assert any(char.isdigit() for char in used)


HOSTILE: dict[str, list[Entry]] = {
    "parent": [("../evil", b"x", FILE)],
    "absolute": [("/evil", b"x", FILE)],
    "link": [("U/l", b"/etc", stat.S_IFLNK | 0o777)],
}


@pytest.mark.parametrize("program", REAL)
@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_rar_is_refused(program: str, what: str, programs: Path, tmp_path: Path) -> None:
    _link_real(programs, program)
    with pytest.raises(DatasetError, match="is refused because of its entry"):
        _unpack(write_rar(tmp_path / "a.rar", HOSTILE[what]))
    assert not (tmp_path / "evil").exists()
    assert not Path("/evil").exists()


@pytest.mark.parametrize("program", REAL)
def test_damaged_rar_is_an_error_that_quotes_the_program(program: str, programs: Path, tmp_path: Path) -> None:
    _link_real(programs, program)
    archive = write_rar(tmp_path / "a.rar", GOOD)
    archive.write_bytes(archive.read_bytes()[:1000])
    with pytest.raises(DatasetError, match=rf"can't unpack .*a\.rar \({program}: .+\)"):
        _unpack(archive)


def test_program_without_rar_gives_way_to_the_next(programs: Path, tmp_path: Path) -> None:
    _link_real(programs, "unar")
    _install(programs, "bsdtar", f"#!{sys.executable}\nimport sys; sys.exit('no RAR in here')")
    _, used = _unpack(write_rar(tmp_path / "a.rar", GOOD))
    assert used.startswith("unar")


# --- doubles ----------------------------------------------------------------------------------------------------------


def test_no_program_at_all_names_them_and_how_to_install_one(programs: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="none of the programs bsdtar, unar, 7z, 7zz, unrar is there") as caught:
        _unpack(write_rar(tmp_path / "a.rar", GOOD))
    hint = str(caught.value.hint)
    assert all(text in hint for text in ("apt-get install libarchive-tools", "brew install", "--source FOLDER"))


def test_double_of_bsdtar_is_chosen_from_the_path(programs: Path, tmp_path: Path) -> None:
    _install(programs, "bsdtar", DOUBLE)
    target, used = _unpack(_fake_archive(tmp_path, "U/a.avi=one"))
    assert (_contents(target), used) == ({"U/a.avi": b"one"}, "bsdtar 0.1 - a double")


def test_program_that_fails_in_the_middle_leaves_nothing_to_the_next(programs: Path, tmp_path: Path) -> None:
    _install(programs, "bsdtar", DOUBLE)
    with pytest.raises(DatasetError, match="bsdtar: double: it is damaged"):
        _unpack(_fake_archive(tmp_path, "U/a.avi=one", "FAIL="))
    assert list((tmp_path / "target").iterdir()) == []


@pytest.mark.parametrize("row", ["../evil=x", "/evil=x"])
def test_hostile_name_is_refused_before_anything_is_unpacked(row: str, programs: Path, tmp_path: Path) -> None:
    _install(programs, "bsdtar", DOUBLE)
    with pytest.raises(DatasetError, match="leads outside"):
        _unpack(_fake_archive(tmp_path, "U/a.avi=one", row))
    assert list((tmp_path / "target").iterdir()) == []
    assert not (tmp_path / "evil").exists()


def test_link_that_the_program_made_is_found_afterwards(programs: Path, tmp_path: Path) -> None:
    _install(programs, "bsdtar", DOUBLE)
    with pytest.raises(DatasetError, match=r"entry 'LINK'.*link"):
        _unpack(_fake_archive(tmp_path, "LINK="))


def test_archive_that_grows_past_the_limit_is_stopped_midway(programs: Path, tmp_path: Path) -> None:
    _install(programs, "bsdtar", DOUBLE)
    start = time.monotonic()
    with pytest.raises(DatasetError, match="more than 10000 bytes"):
        _unpack(_fake_archive(tmp_path, "GROW="))
    assert time.monotonic() - start < 5, "the double writes for 10 s"
    size = (tmp_path / "target" / "GROW").stat().st_size
    time.sleep(0.1)
    assert (tmp_path / "target" / "GROW").stat().st_size == size < 1_000_000, "it was not ended"


def test_too_many_names_are_refused(programs: Path, tmp_path: Path) -> None:
    _install(programs, "bsdtar", DOUBLE)
    with pytest.raises(DatasetError, match="more than 10 files"):
        _unpack(_fake_archive(tmp_path, *(f"U/{i}=x" for i in range(11))))


@pytest.mark.parametrize(
    ("heading", "is_used"),
    [
        ("UNRAR 6.11 freeware", False),
        ("UNRAR 5.61 beta 1 freeware", False),
        ("UNRAR 6.12 freeware", True),
        ("UNRAR 7.00 freeware", True),
        ("unrar-free 0.1.1", False),
    ],
)
def test_unrar_is_used_only_since_it_is_safe(heading: str, is_used: bool, programs: Path, tmp_path: Path) -> None:
    text = DOUBLE.replace('"--version" in sys.argv', "len(sys.argv) == 1").replace('"-tf"', '"lb"')
    _install(programs, "unrar", text.replace("bsdtar 0.1 - a double", heading))
    archive = _fake_archive(tmp_path, "U/a.avi=one")
    if is_used:
        assert _unpack(archive)[1] == heading
        return
    with pytest.raises(DatasetError, match=r"unrar: .* is not the unrar 6\.12 or newer"):
        _unpack(archive)
