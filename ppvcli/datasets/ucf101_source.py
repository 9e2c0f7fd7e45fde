"""Where the clips and split lists of UCF101 come from: a folder, an archive, or the publisher."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ppvcli.datasets.archive import Limits, OnFile, is_archive, unpack
from ppvcli.datasets.folder import walk_files
from ppvcli.datasets.progress import PrepareProgress, Report, file_sha256
from ppvcli.datasets.ucf101_lists import LIST_NAMES
from ppvcli.datasets.ucf101_record import SourceFile
from ppvcli.errors import DatasetError
from ppvcli.files import write_text
from ppvcli.weights.download import DownloadProgress, Transfer, TransferPolicy
from ppvcli.weights.mirror import is_http
from ppvcli.weights.partial import PartialFile

VIDEOS_URL = "https://www.crcv.ucf.edu/data/UCF101/UCF101.rar"
LISTS_URL = "https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip"

_VIDEOS_NAME, _LISTS_NAME = Path(VIDEOS_URL).name, Path(LISTS_URL).name
_LISTS_FOLDER = "ucfTrainTestlist"
_LIMITS = Limits(max_bytes=20 << 30, max_files=30_000)  # UCF101 has 6.9 GB in 13,320 files and 102 folders
_LISTS_LIMITS = Limits(max_bytes=64 << 20, max_files=100)
_POLICY = TransferPolicy(max_bytes=8 << 30)  # the archive has 6.93 GB
_STAMP = ".source.json"


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders that a source may write to, all on one disk."""

    downloads: Path
    """Kept: what was fetched."""
    work: Path
    """Temporary: what is being unpacked."""
    out: Path
    """The data set itself, which is never looked through for clips."""


class Source:
    """The clips and lists behind `given`; None fetches both from the publisher. Works only as far as asked."""

    def __init__(self, given: Path | None, places: Places, *, recorded: Sequence[SourceFile], report: Report) -> None:
        self._files: dict[str, SourceFile] = {}
        self._given = given
        self._places = places
        self._recorded = {file.name: file for file in recorded}
        self._report = report

    @property
    def is_gone(self) -> bool:
        """Whether the source of the last run, which nobody named again, is no longer there."""
        return self._given is not None and not self._given.exists()

    @cached_property
    def _parts(self) -> tuple[Path | None, Path | None]:
        if self._given is not None and self.is_gone:
            raise source_is_gone(self._given)
        return tell_apart(self._given)

    @property
    def _folder(self) -> Path | None:
        return self._parts[0]

    @property
    def _archive(self) -> Path | None:
        return self._parts[1]

    @property
    def movable(self) -> bool:
        """Whether the clips are ours to move: unpacked for this purpose alone."""
        return self._folder is None

    def files(self) -> dict[str, SourceFile]:
        """The archives that this run, or one that ended early, has read, by name."""
        stamps = [*self._unpacked_stamps(), *_download_stamps(self._places.downloads)]
        trees = [_read_json(path) for path in stamps if path.is_file()]
        files = [SourceFile(**tree.get("file", tree)) for tree in trees]
        return {**{file.name: file for file in files}, **self._files}

    def unpacked_by(self) -> str | None:
        """The program that unpacked the archive of clips; None where no archive was unpacked."""
        return next((_read_json(path)["unpacked_by"] for path in self._unpacked_stamps()), None)

    def _unpacked_stamps(self) -> list[Path]:
        return sorted(self._places.work.glob(f"unpacked-*/{_STAMP}"))

    def lists_folder(self) -> Path:
        """A folder with the seven files of the split lists. Raises: DatasetError, DownloadError."""
        near = self._folder or (self._archive.parent if self._archive else self._places.downloads)
        for folder in (near, near / _LISTS_FOLDER):
            if _has_lists(folder):
                return folder
        if (near / _LISTS_NAME).is_file():
            return self._lists_in(self._take(near / _LISTS_NAME, origin=str((near / _LISTS_NAME).absolute())))
        if self._folder is not None or self._archive is not None:
            root = self._folder or self._unpacked()
            for folder in sorted({path.parent for path in walk_files(root, without=self._places.out)}):
                if _has_lists(folder):
                    return folder
            self.clips()  # whoever names the wrong folder should not wait for a download first
        return self._lists_in(self._download(LISTS_URL))

    def clips(self) -> dict[str, Path]:
        """Every clip by its file name in lower case. Raises: DatasetError, DownloadError."""
        found: dict[str, Path] = {}
        for path in walk_files(self._folder or self._unpacked(), without=self._places.out):
            if not _is_clip(path):
                continue
            other = found.get(path.name.casefold())
            if other is None or _is_at_home(path) > _is_at_home(other):
                found[path.name.casefold()] = path
        if not found:
            raise DatasetError(
                f"no .avi clip in {self._folder or self._archive or _VIDEOS_NAME}",
                hint=f"--source FOLDER with the clips of UCF101 in it, or {_VIDEOS_NAME}",
            )
        return found

    def _lists_in(self, archive: Path) -> Path:
        folder = Path(tempfile.mkdtemp(prefix="lists-", dir=self._places.work))
        unpack(archive, folder, limits=_LISTS_LIMITS, on_file=lambda done, total: None)
        for parent in sorted({path.parent for path in walk_files(folder)}):
            if _has_lists(parent):
                return parent
        raise DatasetError(f"{archive} does not hold the split lists: {', '.join(LIST_NAMES)}")

    def _unpacked(self) -> Path:
        archive = (
            self._take(self._archive, origin=str(self._archive.absolute()))
            if self._archive
            else self._download(VIDEOS_URL)
        )
        folder = self._places.work / f"unpacked-{self._files[archive.name].sha256[:16]}"
        if not folder.is_dir():
            growing = Path(tempfile.mkdtemp(prefix="unpacking-", dir=self._places.work))
            try:
                program = unpack(archive, growing, limits=_LIMITS, on_file=self._on_file(archive.name))
                stamp = {"unpacked_by": program, "file": asdict(self._files[archive.name])}
                write_text(growing / _STAMP, json.dumps(stamp))
            except BaseException:
                shutil.rmtree(growing, ignore_errors=True)
                raise
            growing.replace(folder)
        return folder

    def _on_file(self, name: str) -> OnFile:
        def report(done: int, total: int | None) -> None:
            self._report(PrepareProgress(stage="extract", name=name, done=done, total=total))

        return report

    def _download(self, url: str) -> Path:
        name = Path(url).name
        path, stamp = self._places.downloads / name, self._places.downloads / f"{name}.json"
        if stamp.is_file() and name not in self._recorded:  # a former run came no further
            self._recorded[name] = SourceFile(**_read_json(stamp))
        if not path.is_file():
            self._places.downloads.mkdir(parents=True, exist_ok=True)
            part = PartialFile(self._places.downloads / f"{name}.part")
            Transfer(
                name=name,
                url=url,
                part=part,
                target_path=path,
                report=self._on_transfer,
                policy=_POLICY,
                kind="archive of UCF101",
                other_way=f"fetch it in another way and give it: --source {_VIDEOS_NAME}, with {_LISTS_NAME} beside it",
                without_network="without network, give a folder that has the clips: --source FOLDER",
            ).run()
            part.path.replace(path)
            part.discard()
        self._take(path, origin=url)
        write_text(stamp, json.dumps(asdict(self._files[name]), indent=2) + "\n")
        return path

    def _on_transfer(self, event: DownloadProgress) -> None:
        self._report(
            PrepareProgress(
                stage="download",
                name=event.name,
                done=event.received_bytes,
                total=event.total_bytes,
                unit="bytes",
                message="" if event.stage == "transfer" else event.message,
            )
        )

    def _take(self, archive: Path, *, origin: str) -> Path:
        """The archive, after its hash was compared with the recorded one, if there is one."""
        if archive.name in self._files:
            return archive
        sha256 = file_sha256(archive, report=self._report)
        former = self._recorded.get(archive.name)
        if former is not None and former.sha256 != sha256:
            raise DatasetError(
                f"{archive} is not the file that the data set was made from: sha256 {sha256}, then {former.sha256}",
                hint="delete it to fetch it again, or accept it: --force" if is_http(origin) else "accept it: --force",
            )
        size_bytes = archive.stat().st_size
        self._files[archive.name] = SourceFile(name=archive.name, origin=origin, size_bytes=size_bytes, sha256=sha256)
        return archive


def tell_apart(given: Path | None) -> tuple[Path | None, Path | None]:
    """(folder, archive): one of them, or none where nothing is given. Raises: DatasetError for what is no source."""
    if given is None:
        return None, None
    if given.is_dir():
        archive = given / _VIDEOS_NAME
        holds_clips = any(_is_clip(path) for path in walk_files(given))
        return (None, archive) if archive.is_file() and not holds_clips else (given, None)
    if not given.exists():
        raise DatasetError(f"no source {given}: nothing is there", hint="--source FOLDER_OR_ARCHIVE, or leave it out")
    if not is_archive(given):
        raise DatasetError(f"the source {given} is neither a folder nor an archive", hint="--source UCF101.rar")
    return None, given


def source_is_gone(path: Path) -> DatasetError:
    """The error for a source that the last run had and that is no longer there."""
    return DatasetError(
        f"the source of the last run is gone: {path}",
        hint="say where it is now: --source FOLDER_OR_ARCHIVE; a download goes to another folder: --out DIR",
    )


def forget_downloads(downloads: Path) -> None:
    """Takes the archives in the folder as they are now, whatever their hashes were."""
    for path in _download_stamps(downloads):
        path.unlink(missing_ok=True)


def _download_stamps(downloads: Path) -> list[Path]:
    return [downloads / f"{name}.json" for name in (_VIDEOS_NAME, _LISTS_NAME)]


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _has_lists(folder: Path) -> bool:
    return all((folder / name).is_file() for name in LIST_NAMES)


def _is_clip(path: Path) -> bool:
    """Whether the file has the name of a clip of UCF101, `v_Archery_g01_c01.avi`."""
    name = path.name.lower()
    return name.startswith("v_") and name.endswith(".avi")


def _is_at_home(path: Path) -> bool:
    """Whether a clip stands in the folder of its own class: `v_Archery_g01_c01.avi` in `Archery`."""
    return f"_{path.parent.name}_".casefold() in path.name.casefold()
