"""PaddleX ships models as tars; engines want files. Only files with the names of an export ever leave a tar."""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path, PurePosixPath

from ppvcli.deploy.publish import EXPORT_FILE
from ppvcli.errors import ExportError
from ppvcli.files import replacing_folder
from ppvcli.weights.store import file_sha256, home_dir, home_hint

_MAX_TOTAL_BYTES = 4 << 30


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
            if not _is_complete(folder, members):
                _extract(tar, members, folder)
    except (tarfile.TarError, EOFError) as error:
        raise ExportError(f"{path} is no readable tar: {error}", hint="download it once more") from error
    except OSError as error:
        raise ExportError(
            f"can't unpack {path} into {home_dir()}: {error.strerror or error}", hint=home_hint(error)
        ) from error
    return folder


def _members(path: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """File name -> member. Links, devices and files of other names are left."""
    found = [
        member
        for member in tar.getmembers()
        if member.isreg() and EXPORT_FILE.fullmatch(PurePosixPath(member.name).name)
    ]
    if len({PurePosixPath(member.name).parent for member in found}) != 1:
        raise ExportError(f"{path} is not an export: expected the files of one model, {len(found)} found")
    if sum(member.size for member in found) > _MAX_TOTAL_BYTES:
        raise ExportError(f"{path} is not an export: more than {_MAX_TOTAL_BYTES >> 30} GB unpacked")
    return {PurePosixPath(member.name).name: member for member in found}


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
