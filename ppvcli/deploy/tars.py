"""PaddleX ships models as tars; engines want files. Only files with the names of an export ever leave a tar."""

from __future__ import annotations

import lzma
import shutil
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from ppvcli.deploy.publish import EXPORT_FILE
from ppvcli.errors import ExportError
from ppvcli.files import replacing_folder
from ppvcli.weights.formats import EXPORT_DESCRIPTION
from ppvcli.weights.store import file_sha256, home_dir, home_hint

_MAX_TOTAL_BYTES = 4 << 30
_CHUNK_BYTES = 1 << 20
_DAMAGES = (tarfile.TarError, zlib.error, lzma.LZMAError, EOFError)


def holds_export(path: Path) -> bool:
    """Whether a file is a tar, packed by gzip, bzip2, xz or not at all, with an `inference.yml` in it.

    One that is damaged before that counts if it has another file of an export.
    """
    has_program = False
    try:
        with tarfile.open(path) as tar:
            for member in _regular_files(path, tar):
                if _file_name(member) == EXPORT_DESCRIPTION:
                    return True
                has_program = has_program or EXPORT_FILE.fullmatch(_file_name(member)) is not None
    except (*_DAMAGES, OSError, ExportError):
        return has_program
    return False


def unpack(path: Path) -> Path:
    """The folder in the cache with the export of a tar: one folder's `inference*` files, whatever else there is.

    A folder that an earlier call has left is used again if it has every file in full size.

    Raises: ExportError for a file that is no tar, holds no export, is damaged or too large; or where the cache can't be
    written.
    """
    try:
        folder = home_dir() / "exports" / file_sha256(path)[:32]
        with tarfile.open(path) as tar:
            members = _members(path, tar)
            _read_to_end(tar)
            if not _is_complete(folder, members):
                _extract(tar, members, folder)
    except _DAMAGES as error:
        raise _unreadable(path, error) from error
    except OSError as error:
        if error.errno is None:  # not the disk's: gzip and bzip2 say so that a file is damaged
            raise _unreadable(path, error) from error
        raise ExportError(
            f"can't unpack {path} into {home_dir()}: {error.strerror or error}", hint=home_hint(error)
        ) from error
    return folder


def _members(path: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """File name -> member. Links, devices and files of other names are left."""
    found = [member for member in _regular_files(path, tar) if EXPORT_FILE.fullmatch(_file_name(member))]
    if len({PurePosixPath(member.name).parent for member in found}) != 1:
        raise ExportError(f"{path} is not an export: expected the files of one model, {len(found)} found")
    return {_file_name(member): member for member in found}


def _regular_files(path: Path, tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """The members that are files. Raises: ExportError before more is unpacked than an export ever holds."""
    num_bytes = 0
    for member in tar:
        num_bytes += member.size
        if num_bytes > _MAX_TOTAL_BYTES:
            raise ExportError(f"{path} is not an export: more than {_MAX_TOTAL_BYTES >> 30} GB unpacked")
        if member.isreg():
            yield member


def _read_to_end(tar: tarfile.TarFile) -> None:
    """Of a packed tar the checksum, which stands behind its last member."""
    assert tar.fileobj is not None
    for _ in range(_MAX_TOTAL_BYTES // _CHUNK_BYTES):
        if not tar.fileobj.read(_CHUNK_BYTES):
            return
    raise tarfile.ReadError(f"more than {_MAX_TOTAL_BYTES >> 30} GB behind its last file")


def _file_name(member: tarfile.TarInfo) -> str:
    return PurePosixPath(member.name).name


def _unreadable(path: Path, error: Exception) -> ExportError:
    reason = (str(error).splitlines() or ["it is cut off"])[0].rstrip(":")  # tarfile says every format that it tried
    return ExportError(f"{path} is no readable tar: {reason}", hint="download or pack it once more")


def _is_complete(folder: Path, members: dict[str, tarfile.TarInfo]) -> bool:
    if not folder.is_dir():
        return False
    return {file.name: file.stat().st_size for file in folder.iterdir()} == {
        name: member.size for name, member in members.items()
    }


def _extract(tar: tarfile.TarFile, members: dict[str, tarfile.TarInfo], folder: Path) -> None:
    try:
        with replacing_folder(folder) as temporary:
            for name, member in members.items():
                source = tar.extractfile(member)
                assert source is not None
                with source, (temporary / name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except OSError:
        if not _is_complete(folder, members):  # else another process was faster
            raise
