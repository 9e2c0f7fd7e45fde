"""The folder of a prepared UCF101: where everything stands in it, and whether it still is as recorded.

videos/<Class>/<clip>.avi                  the selected clips: moved out of the archive, or linked to the source
frames/<Class>/<clip>/img_00001.jpg        their frames, for `format="frames"`
{train,val}_split<N>_{videos,frames}.txt   what a training config names, and labels.txt
dataset.yaml, {videos,frames}.sha256       what was done, and the hash of every clip and folder of frames
missing.txt, damaged.txt                   which clips are missing, and which gave frames but are damaged
ucfTrainTestlist/, downloads/              the official lists, and what was fetched
.ppv-prepare/                              what grows; it stays where a run ended early
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppvcli.datasets.frames import frames_sha256
from ppvcli.datasets.progress import PrepareProgress, Report, file_sha256
from ppvcli.datasets.ucf101_lists import LIST_NAMES, NUM_CLIPS, SPLITS, ListedClip, read_split_lists
from ppvcli.datasets.ucf101_record import (
    RECORD_NAME,
    DatasetRecord,
    Format,
    PreparedLists,
    SourceFile,
    read_record,
    write_record,
)
from ppvcli.errors import DatasetError, UsageError
from ppvcli.files import LOCK_NAME, write_text
from ppvcli.video.frame_folder import FRAME_NAME

LABELS_NAME = "labels.txt"
MISSING_NAME = "missing.txt"
DAMAGED_NAME = "damaged.txt"
HASHES_NAME = "videos.sha256"
FRAME_HASHES_NAME = "frames.sha256"
LISTS_DIR = "ucfTrainTestlist"

_DOWNLOADS_DIR = "downloads"
_LIST_FILE = re.compile(r"(train|val)_split([123])_(videos|frames)\.txt")
_ENTRIES = {
    *(RECORD_NAME, LABELS_NAME, MISSING_NAME, DAMAGED_NAME, HASHES_NAME, FRAME_HASHES_NAME),
    *(LISTS_DIR, "videos", "frames"),
}


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The paths of the folder `root`; nothing in it is ever half there under its final name."""

    root: Path
    home: Path
    """The folder that the user named: `root`, or what the set in `root` shall replace. Downloads lie there."""
    report: Report

    @property
    def work(self) -> Path:
        """What grows; its name says that it is ours."""
        return self.root / ".ppv-prepare"

    @property
    def downloads(self) -> Path:
        """What was fetched; kept."""
        return self.home / _DOWNLOADS_DIR

    @property
    def refusal(self) -> Path:
        """Where a run that may miss no clip lists what it misses; outlives a set that is given up."""
        return self.root / MISSING_NAME if self.root == self.home else self.home / self.work.name / MISSING_NAME

    @property
    def lists(self) -> Path:
        """The official split lists."""
        return self.root / LISTS_DIR

    def clip(self, clip: ListedClip) -> Path:
        """Where a clip belongs."""
        return self.root / "videos" / clip.path

    def frames(self, clip: ListedClip) -> Path:
        """Where the frames of a clip belong."""
        return self.root / "frames" / clip.class_name / Path(clip.file_name).stem

    def relative(self, path: Path) -> str:
        """A path of the folder as lists and records have it."""
        return path.relative_to(self.root).as_posix()

    # --- what is ours -------------------------------------------------------------------------------------------------

    def check_ours(self) -> None:
        """Raises: UsageError for a folder with things in it that no preparation made."""
        if not self.root.exists() or self.work.is_dir() or self._has_record():
            return
        if not self.root.is_dir():
            raise UsageError(f"{self.root} is a file, not a folder for a data set", hint="choose another: --out DIR")
        others = {path.name for path in self.root.iterdir()} - {LOCK_NAME}
        if self.downloads.is_dir() and all("UCF101" in path.name for path in self.downloads.iterdir()):
            others.discard(_DOWNLOADS_DIR)
        if others:
            raise UsageError(
                f"{self.root} holds other things than a prepared data set, such as {min(others)}",
                hint="choose another folder, new or empty: --out DIR",
            )

    def _has_record(self) -> bool:
        try:
            return read_record(self.root) is not None
        except DatasetError:  # damaged, or of another program
            return (self.root / HASHES_NAME).is_file()

    def entries(self) -> list[Path]:
        """What preparations made, by its place at the top of the folder; downloads are not part of the set."""
        return [path for path in self.root.iterdir() if path.name in _ENTRIES or _LIST_FILE.fullmatch(path.name)]

    def splits_and_formats(self) -> list[tuple[int, Format]]:
        """Of the lists that are there."""
        found = {_LIST_FILE.fullmatch(path.name) for path in self.root.glob("*.txt")}
        return sorted({(int(match[2]), "frames" if match[3] == "frames" else "videos") for match in found if match})

    def strangers(self) -> Iterator[Path]:
        """Files and links below the folder's entries that no preparation put there."""
        clips = {name.removeprefix("videos/") for name in self.hashes(HASHES_NAME)} | self._listed()
        stems = {clip.rpartition(".")[0] for clip in clips}
        for entry in self.entries():
            for parent, folders, files in os.walk(entry):
                place = Path(parent).relative_to(entry).as_posix()
                links = [name for name in folders if (Path(parent) / name).is_symlink()]
                for name in (*files, *links):
                    if entry.name == "frames":
                        is_known = place in stems and FRAME_NAME.fullmatch(name) is not None
                    else:
                        is_known = f"{place}/{name}" in clips if entry.name == "videos" else name in LIST_NAMES
                    if not is_known:
                        yield Path(parent) / name

    def _listed(self) -> set[str]:
        try:
            return {clip.path for clip in read_split_lists(self.lists, SPLITS[0]).clips}  # each split lists all clips
        except DatasetError:
            return set()

    def class_names(self, default: Sequence[str], record: DatasetRecord | None) -> tuple[str, ...]:
        """The classes of the set that is there, or of one that was begun, else `default`.

        Raises: DatasetError where `labels.txt` was changed or deleted since.
        """
        path = self.root / LABELS_NAME
        content = path.read_bytes() if path.is_file() else "".join(f"{name}\n" for name in default).encode()
        if record is not None and hashlib.sha256(content).hexdigest() != record.labels_sha256:
            raise DatasetError(
                f"{path} is {'not as it was prepared' if path.is_file() else 'gone'}, so the classes are not known",
                hint="name them: --classes FILE",
            )
        return tuple(content.decode().splitlines())

    def damaged(self) -> dict[str, str]:
        """What decoding complained of, by the path of each damaged clip that gave its frames."""
        path = self.root / DAMAGED_NAME
        rows = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        return {clip: damage for clip, _, damage in (row.partition("\t") for row in rows)}

    # --- tidying ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Deletes what a run that ended early left behind, but for an archive that is unpacked in full."""
        self.work.mkdir(exist_ok=True)
        for path in (*self.work.iterdir(), *self.root.glob(".tmp-[0-9]*-????????-*")):
            if not path.is_dir():
                path.unlink()
            elif not path.name.startswith("unpacked-"):
                shutil.rmtree(path, ignore_errors=True)

    def retire(self, folder: Path) -> None:
        """Deletes a folder, which leaves its place at once, complete."""
        if not folder.exists():
            return
        self.work.mkdir(exist_ok=True)
        old = self.work / f"old-{folder.name}"
        shutil.rmtree(old, ignore_errors=True)
        folder.replace(old)
        shutil.rmtree(old)

    # --- hashes -------------------------------------------------------------------------------------------------------

    def hashes(self, name: str) -> dict[str, str]:
        """The sha256 that HASHES_NAME or FRAME_HASHES_NAME has of every clip or folder, by its path below `root`."""
        path = self.root / name
        if not path.is_file():
            return {}
        rows = (line.partition("  ") for line in path.read_text(encoding="utf-8").splitlines())
        return {name: sha256 for sha256, _, name in rows}

    def hash_clips(self, clips: Sequence[ListedClip], *, compare: bool) -> dict[str, str]:
        """Writes `videos.sha256` in the form of sha256sum. Raises: DatasetError (`compare`) for a clip that changed."""
        former = self.hashes(HASHES_NAME) if compare else {}
        hashes = {}
        for done, clip in enumerate(clips, start=1):
            hashes[self.relative(self.clip(clip))] = file_sha256(self.clip(clip))
            self.report(PrepareProgress(stage="hash", done=done, total=len(clips)))
        self.refuse_changed([path for path, sha256 in hashes.items() if former.get(path, sha256) != sha256])
        self.write_hashes(HASHES_NAME, hashes)
        return hashes

    def write_hashes(self, name: str, hashes: Mapping[str, str]) -> None:
        """Writes what `hashes` reads, in the form of sha256sum."""
        rows = (f"{sha256}  {path}\n" for path, sha256 in sorted(hashes.items()))
        write_text(self.root / name, "".join(rows))

    def list_hashes(self, record: DatasetRecord) -> dict[str, str]:
        """The recorded sha256 of the official lists, by their path below the folder."""
        return {f"{LISTS_DIR}/{file.name}": file.sha256 for file in record.files if file.name in LIST_NAMES}

    def is_current(self, record: DatasetRecord, lists: PreparedLists) -> bool:
        """Whether all of it is there, with its hashes. Raises: DatasetError for what was changed since."""
        texts = {LABELS_NAME: record.labels_sha256, HASHES_NAME: record.clips_sha256, **lists.list_sha256}
        texts |= self.list_hashes(record)
        is_frames = lists.format == "frames"
        if is_frames and record.frames_sha256 is not None:
            texts[FRAME_HASHES_NAME] = record.frames_sha256
        if not all((self.root / name).is_file() for name in texts):
            return False
        self.refuse_changed([name for name, sha256 in texts.items() if file_sha256(self.root / name) != sha256])
        hashes = self.hashes(HASHES_NAME) | (self.hashes(FRAME_HASHES_NAME) if is_frames else {})
        was_early = is_frames and record.frames_sha256 is None  # before frames had hashes
        if was_early or not all((self.root / path).exists() for path in hashes):
            return False
        changed = []
        for done, (path, sha256) in enumerate(hashes.items(), start=1):
            changed += [path] if _sha256(self.root / path) != sha256 else []
            self.report(PrepareProgress(stage="verify", done=done, total=len(hashes)))
        self.refuse_changed(changed)
        return True

    def write_record(
        self,
        former: DatasetRecord | None,
        lists: PreparedLists,
        *,
        source: str,
        archives: Mapping[str, SourceFile],
        unpacked_by: str | None,
        class_names: Sequence[str],
        hashes: Mapping[str, str],
    ) -> None:
        """Writes `dataset.yaml`: what `former` says, with these lists; `hashes` are those of the clips."""
        files = {file.name: file for file in former.files} if former else {}
        files |= archives
        for name in LIST_NAMES:
            path = self.lists / name
            size_bytes, sha256 = path.stat().st_size, file_sha256(path)
            files[name] = SourceFile(name=name, origin=self.relative(path), size_bytes=size_bytes, sha256=sha256)
        of_frames = former.frames_sha256 if former else None
        if lists.format == "frames":
            of_frames = file_sha256(self.root / FRAME_HASHES_NAME)
        record = DatasetRecord(
            name=f"UCF101, {len(class_names)} classes",
            source=source,
            unpacked_by=unpacked_by or (former.unpacked_by if former else None),
            files=tuple(files.values()),
            num_listed=NUM_CLIPS,
            num_classes=len(class_names),
            labels_sha256=file_sha256(self.root / LABELS_NAME),
            num_clips=len(hashes),
            clips_bytes=sum((self.root / path).stat().st_size for path in hashes),
            clips_sha256=file_sha256(self.root / HASHES_NAME),
            frames_sha256=of_frames,
            prepared=former.prepared if former else (),
        )
        write_record(self.root, record.with_lists(lists))

    def refuse_changed(self, names: Sequence[str]) -> None:
        """Raises: DatasetError if there are any."""
        if names:
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
            raise DatasetError(
                f"{self.root}: not as it was prepared: {shown}",
                hint="delete what is wrong and run the same command again, or prepare all of it anew: --force",
            )


def _sha256(path: Path) -> str:
    """Of a clip, or of a folder of frames."""
    return frames_sha256(path) if path.is_dir() else file_sha256(path)
