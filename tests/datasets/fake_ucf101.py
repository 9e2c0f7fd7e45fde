"""A UCF101 without footage: the official lists by their rules, complete, clips drawn, and archives of any kind."""

from __future__ import annotations

import os
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from ppvcli.datasets.progress import file_sha256
from ppvcli.models.zoo import load_labels
from ppvcli.video.render import write_video
from tests.small_model import moving_block

CLASSES = load_labels("ucf101")
NUM_CLIPS = 13_320
NUM_GROUPS = 25
VAL_GROUPS = {1: range(1, 8), 2: range(8, 15), 3: range(15, 22)}
"""Groups of people who are tested, by split, as in the official lists."""

Entry = tuple[str, bytes, int]
"""Name, content, and type with permissions, as `st_mode` has them."""


SELECTED = ("HandstandPushups", "Basketball")
"""Two classes of which `write_source` has clips."""


def listed_paths() -> list[str]:
    """`Class/v_Class_gNN_cNN.avi` of 13,320 clips; the file names of HandstandPushups are spelt in their own way."""
    paths = []
    for index, name in enumerate(CLASSES):
        spelt = "HandStandPushups" if name == "HandstandPushups" else name
        for i in range(NUM_CLIPS // len(CLASSES) + (index < NUM_CLIPS % len(CLASSES))):
            paths.append(f"{name}/v_{spelt}_g{i % NUM_GROUPS + 1:02d}_c{i // NUM_GROUPS + 1:02d}.avi")
    return paths


def write_lists(folder: Path, paths: Sequence[str] | None = None) -> Path:
    """The seven files, with the rows of all three splits."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(CLASSES, start=1)))
    for split, groups in VAL_GROUPS.items():
        sides: dict[str, list[str]] = {"train": [], "test": []}
        for path in paths or listed_paths():
            is_val = int(path.rsplit("_g", 1)[1][:2]) in groups
            label = "" if is_val else f" {CLASSES.index(path.split('/')[0]) + 1}"
            sides["test" if is_val else "train"].append(f"{path}{label}\n")
        for side, rows in sides.items():
            (folder / f"{side}list0{split}.txt").write_text("".join(rows))
    return folder


def write_clips(folder: Path, paths: Iterable[str], *, num_frames: int = 3) -> Path:
    """One drawn clip under all these paths, as hard links."""
    folder.mkdir(parents=True, exist_ok=True)
    first = folder.parent / f"drawn_{num_frames}.avi"
    if not first.exists():
        write_video(first, moving_block(num_frames), codec="mpeg4")
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(first, folder / path)
    return folder


def selected_paths() -> list[str]:
    """One clip each of 13 groups of the two selected classes; their other clips are listed and absent."""
    return [p for p in listed_paths() if p.split("/")[0] in SELECTED and re.search(r"_g\d[13579]_c01\.", p)]


def write_source(folder: Path) -> Path:
    """A folder as UCF101 unpacks, with the selected clips and one of a class that is not selected."""
    write_lists(folder / "ucfTrainTestlist")
    write_clips(folder / "UCF-101", [*selected_paths(), "Typing/v_Typing_g01_c01.avi"])
    return folder


def tree(folder: Path) -> dict[str, str]:
    """The hash of every file, without the record, which has a date, and the lock."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("dataset.yaml", ".lock")
    }


def files_below(folder: Path) -> list[Entry]:
    """The files of a folder as entries of an archive."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.read_bytes(), stat.S_IFREG | 0o644) for path in paths]


def write_zip(path: Path, entries: Iterable[Entry]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content, mode in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = mode << 16
            archive.writestr(info, content)
    return path


_TAR_TYPES = {
    stat.S_IFDIR: tarfile.DIRTYPE,
    stat.S_IFREG: tarfile.REGTYPE,
    stat.S_IFLNK: tarfile.SYMTYPE,
    stat.S_IFCHR: tarfile.CHRTYPE,
    stat.S_IFBLK: tarfile.BLKTYPE,
    stat.S_IFIFO: tarfile.FIFOTYPE,
    0: tarfile.LNKTYPE,
}


def write_tar(path: Path, entries: Iterable[Entry]) -> Path:
    """Mode 0 is a hard link; a link's content is its target."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content, mode in entries:
            info = tarfile.TarInfo(name)
            info.type, info.mode = _TAR_TYPES[stat.S_IFMT(mode)], stat.S_IMODE(mode)
            if info.type in (tarfile.SYMTYPE, tarfile.LNKTYPE):
                info.linkname = content.decode()
                archive.addfile(info)
                continue
            info.size = len(content)
            with (path.parent / "content").open("w+b") as file:
                file.write(content)
                file.seek(0)
                archive.addfile(info, file)
    return path


def write_rar(path: Path, entries: Iterable[Entry]) -> Path:
    """A RAR 4 archive as one from Unix, nothing compressed. Source: the "RAR archive format" note of RARLAB."""
    blocks = [b"Rar!\x1a\x07\x00", _rar_block(0x73, 0, bytes(6))]
    for name, content, mode in entries:
        raw_name = name.replace("/", "\\").encode()
        flags = 0x8000 | (0xE0 if stat.S_ISDIR(mode) else 0)
        sizes = (len(content), len(content), 3, zlib.crc32(content), 0x4A214A21)
        head = struct.pack("<IIBIIBBHI", *sizes, 20, 0x30, len(raw_name), mode) + raw_name
        blocks.append(_rar_block(0x74, flags, head) + content)
    path.write_bytes(b"".join([*blocks, _rar_block(0x7B, 0x4000, b"")]))
    return path


def _rar_block(kind: int, flags: int, body: bytes) -> bytes:
    head = struct.pack("<BHH", kind, flags, 7 + len(body)) + body
    return struct.pack("<H", zlib.crc32(head) & 0xFFFF) + head


WRITERS = {"a.zip": write_zip, "a.tar": write_tar, "a.tar.gz": write_tar, "a.rar": write_rar}
