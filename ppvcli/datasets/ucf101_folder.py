"""The folder of a prepared UCF101: where everything stands in it, and whether it still is as recorded.

videos/<Class>/<clip>.avi                  the selected clips: moved out of the archive, or linked to the source
frames/<Class>/<clip>/img_00001.jpg        their frames, for `format="frames"`
{train,val}_split<N>_{videos,frames}.txt   what a training config names, and labels.txt
dataset.yaml, videos.sha256, missing.txt   what was done, the hash of every clip, and what is missing
ucfTrainTestlist/, downloads/              the official lists, and what was fetched
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppvcli.datasets.frames import count_frames
from ppvcli.datasets.progress import PrepareProgress, Report, file_sha256
from ppvcli.datasets.ucf101_lists import LIST_NAMES, NUM_CLIPS, ListedClip
from ppvcli.datasets.ucf101_record import RECORD_NAME, DatasetRecord, PreparedLists, SourceFile, write_record
from ppvcli.errors import DatasetError
from ppvcli.files import write_text

LABELS_NAME = "labels.txt"
MISSING_NAME = "missing.txt"
HASHES_NAME = "videos.sha256"
LISTS_DIR = "ucfTrainTestlist"


@dataclass(frozen=True, kw_only=True)
class Folder:
    """The paths of the folder `root`; nothing in it is ever half there under its final name."""

    root: Path
    report: Report

    @property
    def work(self) -> Path:
        """What grows; emptied by every run."""
        return self.root / ".work"

    @property
    def downloads(self) -> Path:
        """What was fetched; kept."""
        return self.root / "downloads"

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

    # --- tidying ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Deletes what a run that ended early left behind, but for an archive that is unpacked in full."""
        self.work.mkdir(exist_ok=True)
        for path in (*self.work.iterdir(), *self.root.glob(".tmp-*")):
            if not path.is_dir():
                path.unlink()
            elif not path.name.startswith("unpacked-"):
                shutil.rmtree(path, ignore_errors=True)

    def clear(self) -> None:
        """Takes back what former runs made, downloads excepted."""
        names = (RECORD_NAME, LABELS_NAME, MISSING_NAME, HASHES_NAME)
        files = [self.root / name for name in names]
        for path in (*files, *self.root.glob("*_split[123]_*.txt"), *self.downloads.glob("*.json")):
            if not path.name.endswith(".part.json"):
                path.unlink(missing_ok=True)
        for name in ("videos", "frames", LISTS_DIR):
            self.retire(self.root / name)
        shutil.rmtree(self.work, ignore_errors=True)

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

    def clip_hashes(self) -> dict[str, str]:
        """The recorded sha256 of every clip, by its path below the folder."""
        path = self.root / HASHES_NAME
        if not path.is_file():
            return {}
        rows = (line.partition("  ") for line in path.read_text(encoding="utf-8").splitlines())
        return {name: sha256 for sha256, _, name in rows}

    def hash_clips(self, clips: Sequence[ListedClip], *, compare: bool) -> dict[str, str]:
        """Writes `videos.sha256` in the form of sha256sum. Raises: DatasetError (`compare`) for a clip that changed."""
        former = self.clip_hashes() if compare else {}
        hashes = {}
        for done, clip in enumerate(clips, start=1):
            hashes[self.relative(self.clip(clip))] = file_sha256(self.clip(clip))
            self.report(PrepareProgress(stage="hash", done=done, total=len(clips)))
        self.refuse_changed([path for path, sha256 in hashes.items() if former.get(path, sha256) != sha256])
        rows = (f"{sha256}  {path}\n" for path, sha256 in sorted(hashes.items()))
        write_text(self.root / HASHES_NAME, "".join(rows))
        return hashes

    def list_hashes(self, record: DatasetRecord) -> dict[str, str]:
        """The recorded sha256 of the official lists, by their path below the folder."""
        return {f"{LISTS_DIR}/{file.name}": file.sha256 for file in record.files if file.name in LIST_NAMES}

    def is_current(self, record: DatasetRecord, lists: PreparedLists) -> bool:
        """Whether all of it is there. Raises: DatasetError for what was changed since."""
        texts = {LABELS_NAME: record.labels_sha256, HASHES_NAME: record.clips_sha256, **lists.list_sha256}
        texts |= self.list_hashes(record)
        if not all((self.root / name).is_file() for name in texts):
            return False
        self.refuse_changed([name for name, sha256 in texts.items() if file_sha256(self.root / name) != sha256])
        hashes = self.clip_hashes()
        if not all((self.root / path).is_file() for path in hashes):
            return False
        changed = []
        for done, (path, sha256) in enumerate(hashes.items(), start=1):
            changed += [path] if file_sha256(self.root / path) != sha256 else []
            self.report(PrepareProgress(stage="verify", done=done, total=len(hashes)))
        self.refuse_changed(changed)
        return lists.format == "videos" or self._frames_are_current(lists)

    def _frames_are_current(self, lists: PreparedLists) -> bool:
        changed = []
        for name in (lists.train_list, lists.val_list):
            for row in (self.root / name).read_text(encoding="utf-8").splitlines():
                folder, num_frames, _ = row.rsplit(" ", 2)
                if not (self.root / folder).is_dir():
                    return False
                changed += [folder] if count_frames(self.root / folder) != int(num_frames) else []
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
