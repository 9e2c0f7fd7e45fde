"""The steps that make one split in one format: lists taken, clips placed, frames extracted, all of it recorded.

Every file and folder of frames is complete or not there, `dataset.yaml` comes last: after an interruption the same
steps go on where they stopped.
"""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import ppvcli
from ppvcli.datasets.frames import JPEG_QUALITY, FrameJob, FrameResult, extract_frames
from ppvcli.datasets.progress import PrepareProgress, Report, Stage, file_sha256
from ppvcli.datasets.ucf101_folder import (
    DAMAGED_NAME,
    FRAME_HASHES_NAME,
    HASHES_NAME,
    LABELS_NAME,
    LISTS_DIR,
    MISSING_NAME,
    Folder,
)
from ppvcli.datasets.ucf101_lists import LIST_NAMES, ListedClip, SplitLists, check_classes, read_split_lists
from ppvcli.datasets.ucf101_record import DatasetRecord, Format, PreparedLists, read_record
from ppvcli.datasets.ucf101_source import VIDEOS_URL, Places, Source
from ppvcli.errors import DatasetError
from ppvcli.files import write_text


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be made; its methods are the steps."""

    folder: Folder
    class_names: tuple[str, ...]
    source: Path | None
    """None: the publisher."""
    split: int
    format: Format
    num_workers: int
    allow_missing: bool
    report: Report

    def run(self) -> PreparedLists:
        """Adds the lists to what is in the folder. Raises: DatasetError, UnknownNameError, DownloadError, OSError."""
        record = read_record(self.folder.root)
        places = Places(downloads=self.folder.downloads, work=self.folder.work, out=self.folder.home)
        source = Source(self.source, places, recorded=record.files if record else (), report=self.report)
        listed = self._split_lists(source, record)
        check_classes(self.class_names, listed.class_names)
        selected = [clip for clip in listed.clips if clip.class_name in self.class_names]
        origins, missing = self._find_absent(selected, source)
        self._check_missing(missing)
        write_text(self.folder.root / LABELS_NAME, "".join(f"{name}\n" for name in self.class_names))
        self._place_clips(origins, source)
        placed = [clip for clip in selected if clip.path not in missing]
        frames: dict[str, FrameResult] = {}
        if self.format == "frames":
            frames = self._extract_frames(placed)
            missing |= {path: result.error for path, result in frames.items() if result.error is not None}
            self._check_missing(missing)
        hashes = self.folder.hash_clips(placed, compare=record is not None)
        if self.format == "frames":
            whole = [result for result in frames.values() if result.error is None]
            sha256s = {self.folder.relative(result.job.folder): result.sha256 for result in whole}
            self.folder.write_hashes(FRAME_HASHES_NAME, sha256s)
        lists = self._write_lists([clip for clip in placed if clip.path not in missing], frames, missing)
        self.folder.write_record(
            record,
            lists,
            source=str(self.source.resolve()) if self.source else VIDEOS_URL,
            archives=source.files(),
            unpacked_by=source.unpacked_by(),
            class_names=self.class_names,
            hashes=hashes,
        )
        return lists

    def _split_lists(self, source: Source, record: DatasetRecord | None) -> SplitLists:
        """The official lists, which are then in the folder too."""
        kept = self.folder.lists
        if kept.is_dir():
            recorded = self.folder.list_hashes(record) if record is not None else {}
            texts = {path: self.folder.root / path for path in recorded}
            self.folder.refuse_changed([p for p, text in texts.items() if file_sha256(text) != recorded[p]])
            return read_split_lists(kept, self.split)
        origin = source.lists_folder()
        listed = read_split_lists(origin, self.split)
        growing = self.folder.work / LISTS_DIR
        growing.mkdir()
        for done, name in enumerate(LIST_NAMES, start=1):
            shutil.copyfile(origin / name, growing / name)
            self._tell("lists", done, len(LIST_NAMES))
        growing.replace(kept)
        return listed

    def _find_absent(
        self, clips: Sequence[ListedClip], source: Source
    ) -> tuple[dict[ListedClip, Path], dict[str, str]]:
        """(where the source has each clip that is not in its place, the reason by path for those that can't be had)."""
        absent = [clip for clip in clips if not _has_content(self.folder.clip(clip))]
        if not absent:
            return {}, {}
        recorded = self.folder.hashes(HASHES_NAME)
        was_there = any(self.folder.relative(self.folder.clip(clip)) in recorded for clip in absent)
        if self.allow_missing and source.is_gone and not was_there:
            return {}, {clip.path: "not in the source, which is gone now" for clip in absent}
        found = source.clips()
        origins, missing = {}, {}
        for clip in absent:
            origin = found.get(clip.file_name.casefold())
            if origin is not None and _has_content(origin):
                origins[clip] = origin
            else:
                missing[clip.path] = "not in the source" if origin is None else "empty in the source"
        return origins, missing

    def _place_clips(self, origins: Mapping[ListedClip, Path], source: Source) -> None:
        for done, (clip, origin) in enumerate(origins.items(), start=1):
            self.folder.retire(self.folder.frames(clip))  # they may be of another file
            self._place(clip, origin, movable=source.movable)
            self._tell("clips", done, len(origins))

    def _place(self, clip: ListedClip, origin: Path, *, movable: bool) -> None:
        target = self.folder.clip(clip)
        target.parent.mkdir(parents=True, exist_ok=True)
        if movable:
            origin.replace(target)
            return
        growing = self.folder.work / clip.file_name
        growing.unlink(missing_ok=True)
        try:
            os.link(origin.resolve(), growing)
        except OSError:  # another disk, or one without links
            shutil.copyfile(origin, growing)
        growing.replace(target)

    def _check_missing(self, missing: dict[str, str]) -> None:
        """Writes or removes `missing.txt`. Raises: DatasetError where none may be missing."""
        path = self.folder.refusal if missing and not self.allow_missing else self.folder.root / MISSING_NAME
        _write_reasons(path, missing)
        if missing and not self.allow_missing:
            raise DatasetError(
                f"{len(missing)} clips that split {self.split} lists are missing or unreadable; {path} names them",
                hint="complete the source, or go on without them: --allow-missing",
            )

    def _extract_frames(self, clips: Sequence[ListedClip]) -> dict[str, FrameResult]:
        """What each clip gave, by its path. Raises: DatasetError for frames that are not as they were prepared."""
        paths = {self.folder.frames(clip): clip.path for clip in clips}
        jobs = [
            FrameJob(clip=self.folder.clip(clip), folder=folder, work_dir=self.folder.work / "frames")
            for folder, clip in zip(paths, clips, strict=True)
        ]
        # of these alone: an encoder of another version writes other bytes
        there = {path for folder, path in paths.items() if folder.is_dir()}
        recorded = self.folder.hashes(FRAME_HASHES_NAME)
        damaged = {path: damage for path, damage in self.folder.damaged().items() if path in there}
        _write_reasons(self.folder.root / DAMAGED_NAME, damaged)
        num_unknown = sum(self.folder.relative(folder) not in recorded for folder in paths if paths[folder] in there)
        if num_unknown:
            message = f"{num_unknown} folders are there already, without recorded hashes: taken as they are"
            self.report(PrepareProgress(stage="frames", total=len(jobs), message=message))
        frames, changed = {}, []
        # closed at once: after an interruption no worker may write on
        with contextlib.closing(extract_frames(jobs, num_workers=self.num_workers)) as results:
            for done, result in enumerate(results, start=1):
                path, name = paths[result.job.folder], self.folder.relative(result.job.folder)
                if path in there and (result.num_frames < 1 or result.sha256 != recorded.get(name, result.sha256)):
                    changed.append(name)
                if result.damage is not None:  # told at once: a run that goes on does not decode it again
                    damaged[path] = result.damage
                    _write_reasons(self.folder.root / DAMAGED_NAME, damaged)
                frames[path] = result
                self._tell("frames", done, len(jobs))
        self.folder.refuse_changed(changed)
        return frames

    def _write_lists(
        self, clips: Sequence[ListedClip], frames: Mapping[str, FrameResult], missing: dict[str, str]
    ) -> PreparedLists:
        rows: dict[str, list[str]] = {"train": [], "val": []}
        for clip in clips:
            path = self.folder.relative(self.folder.clip(clip))
            if self.format == "frames":
                path = f"{self.folder.relative(self.folder.frames(clip))} {frames[clip.path].num_frames}"
            rows["train" if clip.in_train else "val"].append(f"{path} {self.class_names.index(clip.class_name)}\n")
        names = {side: f"{side}_split{self.split}_{self.format}.txt" for side in rows}
        for side, name in names.items():
            if not rows[side]:
                raise DatasetError(f"not one clip is there for {name}", hint="complete the source")
            write_text(self.folder.root / name, "".join(rows[side]))
        is_frames = self.format == "frames"
        return PreparedLists(
            split=self.split,
            format=self.format,
            train_list=names["train"],
            val_list=names["val"],
            num_train=len(rows["train"]),
            num_val=len(rows["val"]),
            num_missing=len(missing),
            list_sha256={name: file_sha256(self.folder.root / name) for name in names.values()},
            num_frames=sum(result.num_frames for result in frames.values()) if is_frames else None,
            jpeg_quality=JPEG_QUALITY if is_frames else None,
            prepared_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=_versions(),
        )

    def _tell(self, stage: Stage, done: int, total: int) -> None:
        self.report(PrepareProgress(stage=stage, done=done, total=total))


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _write_reasons(path: Path, reasons: Mapping[str, str]) -> None:
    """A line for each clip; no file where there is none."""
    if reasons:
        write_text(path, "".join(f"{clip}\t{reason}\n" for clip, reason in sorted(reasons.items())))
    else:
        path.unlink(missing_ok=True)


def _versions() -> dict[str, str]:
    import av
    import cv2

    versions = {"av": av.__version__, "opencv": cv2.__version__}
    return {"ppvcli": ppvcli.__version__, "python": platform.python_version(), **versions}
