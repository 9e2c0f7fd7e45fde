"""Archives from strangers into an empty folder: regular files and folders below it, and nothing else.

A name that leads outside, a link, a device, a file that comes twice, and more bytes or files than the caller allows are
refused, whatever program unpacks. Unpack into a temporary folder; after an error it holds a part of the archive.
"""

from __future__ import annotations

import gzip
import lzma
import os
import re
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from ppvcli.errors import DatasetError

_RAR_START = b"Rar!\x1a\x07"
_CHUNK_BYTES = 1 << 20
_ZIP_ENCRYPTED = 0x1

_DAMAGES = (
    *(zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError),
    *(EOFError, NotImplementedError),
)

OnFile = Callable[[int, int | None], None]
"""Called with the number of files unpacked so far, and how many there are in all (None: unknown)."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive may hold."""

    max_bytes: int
    max_files: int


def is_archive(path: Path) -> bool:
    """Whether the file begins like an archive that `unpack` reads."""
    return path.is_file() and (is_rar(path) or zipfile.is_zipfile(path) or tarfile.is_tarfile(path))


def is_rar(path: Path) -> bool:
    """Whether the file begins like a RAR archive of any version."""
    with path.open("rb") as file:
        return file.read(len(_RAR_START)) == _RAR_START


def unpack(archive: Path, target: Path, *, limits: Limits, on_file: OnFile) -> str:
    """Unpacks into the empty folder `target`; returns the program that did it, with its version.

    Raises: DatasetError for an archive that is damaged, of no known kind, or holds what is refused.
    """
    from ppvcli.datasets import rar

    if is_rar(archive):
        return rar.unpack_rar(archive, target, limits=limits, on_file=on_file)
    try:
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(archive) as opened:
                _write_all(_zip_entries(opened, archive), target, archive=archive, limits=limits, on_file=on_file)
            return "Python zipfile"
        if tarfile.is_tarfile(archive):
            with tarfile.open(archive, "r:*") as tar:
                _write_all(_tar_entries(tar, archive), target, archive=archive, limits=limits, on_file=on_file)
                _read_to_end(tar, archive=archive, limits=limits)
            return "Python tarfile"
    except _DAMAGES as error:
        raise DatasetError(f"can't unpack {archive}: {error}", hint="is it complete? fetch or copy it again") from error
    raise DatasetError(f"{archive} is no archive that is read here", hint="give a .rar, .zip or .tar(.gz) file")


def check_name(name: str, *, archive: Path) -> PurePosixPath:
    """The name of an entry as a relative path. Raises: DatasetError if it leads outside, or anywhere else."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = re.match(r"[A-Za-z]:", name)
    if path.is_absolute() or drive or ".." in path.parts or any(ord(char) < 32 for char in name):
        raise refusal(archive, name, "its name leads outside the folder to unpack into, or is no file name")
    return path


def check_counts(num_files: int, num_bytes: int, *, archive: Path, limits: Limits) -> None:
    """Raises: DatasetError if the archive is larger than it may be."""
    if num_files > limits.max_files:
        raise DatasetError(f"{archive} is refused: more than {limits.max_files} files")
    if num_bytes > limits.max_bytes:
        raise DatasetError(f"{archive} is refused: more than {limits.max_bytes} bytes when unpacked")


def check_tree(folder: Path, *, archive: Path) -> None:
    """Raises: DatasetError if anything below `folder` is not a folder or a file of its own."""
    for path in _walk(folder):
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            continue
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise refusal(
                archive, path.relative_to(folder).as_posix(), "it is a link, a device or another special file"
            )


def measure_tree(folder: Path) -> tuple[int, int]:
    """(number of files, sum of their bytes) below a folder into which another process may be writing."""
    num_files = num_bytes = 0
    for path in _walk(folder):
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue
        if not stat.S_ISDIR(status.st_mode):
            num_files, num_bytes = num_files + 1, num_bytes + status.st_size
    return num_files, num_bytes


def refusal(archive: Path, name: str, reason: str) -> DatasetError:
    """The error for an entry that must not be unpacked."""
    return DatasetError(
        f"{archive} is refused because of its entry '{name}': {reason}",
        hint="get the archive from its publisher; nothing of it was taken over",
    )


def _walk(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):  # does not follow links
        yield from (Path(parent) / name for name in (*folders, *files))


# --- zip and tar ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class _Entry:
    """One regular file of an archive."""

    path: PurePosixPath
    open: Callable[[], IO[bytes] | None]
    num_entries: int | None
    """Files of the whole archive; None: unknown."""


def _zip_entries(opened: zipfile.ZipFile, archive: Path) -> Iterator[_Entry]:
    infos = opened.infolist()
    num_files = sum(not info.is_dir() for info in infos)
    for info in infos:
        path = check_name(info.filename, archive=archive)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise refusal(archive, info.filename, "it is a link, a device or another special file")
        if info.flag_bits & _ZIP_ENCRYPTED:
            raise DatasetError(f"can't unpack {archive}: '{info.filename}' is encrypted")
        if not info.is_dir():
            yield _Entry(path=path, open=lambda info=info: opened.open(info), num_entries=num_files)  # type: ignore[misc]


def _tar_entries(tar: tarfile.TarFile, archive: Path) -> Iterator[_Entry]:
    for member in tar:
        path = check_name(member.name, archive=archive)
        if member.isdir():
            continue
        if not member.isreg():
            raise refusal(archive, member.name, "it is a link, a device or another special file")
        yield _Entry(path=path, open=lambda member=member: tar.extractfile(member), num_entries=None)  # type: ignore[misc]


def _read_to_end(tar: tarfile.TarFile, *, archive: Path, limits: Limits) -> None:
    """A compressed tar shows whether it is damaged behind its last entry, where the checksum stands."""
    num_bytes = 0
    while tar.fileobj is not None and (chunk := tar.fileobj.read(_CHUNK_BYTES)):
        num_bytes += len(chunk)
        check_counts(0, num_bytes, archive=archive, limits=limits)


def _write_all(entries: Iterable[_Entry], target: Path, *, archive: Path, limits: Limits, on_file: OnFile) -> None:
    num_bytes = 0
    for num_files, entry in enumerate(entries, start=1):
        check_counts(num_files, num_bytes, archive=archive, limits=limits)
        path = target / entry.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("xb")
        except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
            raise refusal(archive, str(entry.path), "it comes twice") from error
        with file, entry.open() or open(os.devnull, "rb") as source:  # noqa: PTH123
            while chunk := source.read(_CHUNK_BYTES):  # a header may lie about the size: count what comes out
                num_bytes += len(chunk)
                check_counts(num_files, num_bytes, archive=archive, limits=limits)
                file.write(chunk)
        on_file(num_files, entry.num_entries)
