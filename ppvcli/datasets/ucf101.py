"""UCF101 as lists that training reads: fetched or taken, checked, its sport classes selected, frames extracted.

`ucf101_folder.py` shows the result. Every file and folder of frames is complete or not there, `dataset.yaml` comes
last: after an interruption the same call goes on, and once all is done it only compares hashes.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import filelock

import ppvcli
from ppvcli.datasets.frames import JPEG_QUALITY, FrameJob, extract_frames
from ppvcli.datasets.progress import PrepareProgress, Report, Stage, file_sha256
from ppvcli.datasets.ucf101_folder import LABELS_NAME, LISTS_DIR, MISSING_NAME, Folder
from ppvcli.datasets.ucf101_lists import (
    LIST_NAMES,
    SPLITS,
    ListedClip,
    SplitLists,
    check_classes,
    read_split_lists,
)
from ppvcli.datasets.ucf101_record import (
    DatasetRecord,
    Format,
    PreparedLists,
    read_record,
)
from ppvcli.datasets.ucf101_source import VIDEOS_URL, Places, Source
from ppvcli.errors import DatasetError, UnknownNameError, UsageError
from ppvcli.files import write_text

FORMATS: tuple[Format, ...] = ("videos", "frames")


@dataclass(frozen=True, kw_only=True)
class PreparedDataset:
    """What lies in the folder now; the lists are relative to `root`, as a training config wants them."""

    root: str
    split: int
    format: Format
    train_list: str
    val_list: str
    labels: str
    num_train: int
    num_val: int
    num_classes: int
    num_missing: int
    """Clips that are listed but absent or unreadable; `missing.txt` names them."""
    classes_without_train: tuple[str, ...]
    """Classes of which not one training clip is there."""
    already_prepared: bool
    """Nothing was done: all of it was there, and unchanged."""


def prepare(
    out: Path,
    class_names: Sequence[str],
    *,
    source: Path | None,
    split: int,
    format: str,
    num_workers: int,
    allow_missing: bool,
    force: bool,
    report: Report,
) -> PreparedDataset:
    """The public function without its defaults, see `ppvcli.prepare_ucf101_66`."""
    if split not in SPLITS:
        raise UsageError(f"UCF101 has no split {split}", hint="--split 1, 2 or 3")
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS, hint=f"--format {' or '.join(FORMATS)}")
    if num_workers < 1:
        raise UsageError(f"{num_workers} processes can't work", hint="--num-workers 1 or more")
    source = source or _former_source(out, force=force)
    if force and source is not None and out.resolve() in (source.resolve(), *source.resolve().parents):
        raise UsageError(f"--force would delete its own source {source}", hint="choose another folder: --out DIR")
    job = _Job(
        folder=Folder(root=out, report=report),
        class_names=tuple(class_names),
        source=source,
        split=split,
        format="frames" if format == "frames" else "videos",
        num_workers=num_workers,
        allow_missing=allow_missing,
        report=report,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(out / ".prepare.lock").acquire(blocking=False):
            if force:
                job.folder.clear()
            return job.run()
    except filelock.Timeout as error:
        raise DatasetError(f"another process is preparing {out}", hint="wait for it, or end it") from error
    except OSError as error:
        raise DatasetError(
            f"can't prepare {out}: {error.strerror or error}{f': {error.filename}' if error.filename else ''}",
            hint="with enough space and permissions there, the same command goes on where this one stopped",
        ) from error


def _former_source(out: Path, *, force: bool) -> Path | None:
    """The source of the last run, if it is still there."""
    try:
        record = read_record(out)
    except DatasetError:
        if force:
            return None
        raise
    return Path(record.source) if record is not None and Path(record.source).exists() else None


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The settings of one call; its methods are the steps."""

    folder: Folder
    class_names: tuple[str, ...]
    source: Path | None
    split: int
    format: Format
    num_workers: int
    allow_missing: bool
    report: Report

    def run(self) -> PreparedDataset:
        record = read_record(self.folder.root)
        self._check_same_classes()
        if record is not None:
            former = record.find(self.split, self.format)
            may_stay = former is not None and (self.allow_missing or not former.num_missing)
            if former is not None and may_stay and self.folder.is_current(record, former):
                return self._result(former, already_prepared=True)
        self.folder.begin()
        places = Places(downloads=self.folder.downloads, work=self.folder.work, out=self.folder.root)
        source = Source(self.source, places, recorded=record.files if record else (), report=self.report)
        listed = self._split_lists(source, record)
        check_classes(self.class_names, listed.class_names)
        selected = [clip for clip in listed.clips if clip.class_name in self.class_names]
        missing = self._place_clips(selected, source)
        self._check_missing(missing)
        placed = [clip for clip in selected if clip.path not in missing]
        num_frames: dict[str, int] = {}
        if self.format == "frames":
            num_frames, broken = self._extract_frames(placed)
            missing |= broken
            self._check_missing(missing)
        hashes = self.folder.hash_clips(placed, compare=record is not None)
        lists = self._write_lists([clip for clip in placed if clip.path not in missing], num_frames, missing)
        self.folder.write_record(
            record,
            lists,
            source=str(self.source.resolve()) if self.source else VIDEOS_URL,
            archives=source.files(),
            unpacked_by=source.unpacked_by(),
            class_names=self.class_names,
            hashes=hashes,
        )
        shutil.rmtree(self.folder.work, ignore_errors=True)
        return self._result(lists, already_prepared=False)

    def _check_same_classes(self) -> None:
        labels = self.folder.root / LABELS_NAME
        if labels.is_file() and labels.read_text(encoding="utf-8").splitlines() != list(self.class_names):
            raise DatasetError(
                f"{self.folder.root} holds another selection of classes, see {labels}",
                hint="choose another folder (--out DIR), or replace it: --force",
            )

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

    def _place_clips(self, clips: Sequence[ListedClip], source: Source) -> dict[str, str]:
        """Brings every clip to its place; the reason by path for those that can't be had."""
        absent = [clip for clip in clips if not _has_content(self.folder.clip(clip))]
        if not absent:
            return {}
        found = source.clips()
        missing = {}
        for clip in absent:
            origin = found.get(clip.file_name.casefold())
            if origin is None or not _has_content(origin):
                missing[clip.path] = "not in the source" if origin is None else "empty in the source"
        self._check_missing(missing)
        wanted = [clip for clip in absent if clip.path not in missing]
        for done, clip in enumerate(wanted, start=1):
            self.folder.retire(self.folder.frames(clip))  # they may be of another file
            self._place(clip, found[clip.file_name.casefold()], movable=source.movable)
            self._tell("clips", done, len(wanted))
        return missing

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
        """Writes or removes `missing.txt`. Raises: DatasetError where nothing may be missing."""
        path = self.folder.root / MISSING_NAME
        if not missing:
            path.unlink(missing_ok=True)
            return
        write_text(path, "".join(f"{clip}\t{reason}\n" for clip, reason in sorted(missing.items())))
        if not self.allow_missing:
            raise DatasetError(
                f"{len(missing)} clips that split {self.split} lists are missing or unreadable; {path} names them",
                hint="complete the source, or go on without them: --allow-missing",
            )

    def _extract_frames(self, clips: Sequence[ListedClip]) -> tuple[dict[str, int], dict[str, str]]:
        """(number of frames, reason of those that can't be decoded), each by the clip's path."""
        paths = {self.folder.frames(clip): clip.path for clip in clips}
        jobs = [
            FrameJob(clip=self.folder.clip(clip), folder=folder, work_dir=self.folder.work / "frames")
            for folder, clip in zip(paths, clips, strict=True)
        ]
        num_frames, broken = {}, {}
        for done, result in enumerate(extract_frames(jobs, num_workers=self.num_workers), start=1):
            path = paths[result.job.folder]
            if result.error is not None:
                broken[path] = result.error
            elif result.num_frames < 1:
                self.folder.refuse_changed([self.folder.relative(result.job.folder)])
            else:
                num_frames[path] = result.num_frames
            self._tell("frames", done, len(jobs))
        return num_frames, broken

    def _write_lists(
        self, clips: Sequence[ListedClip], num_frames: dict[str, int], missing: dict[str, str]
    ) -> PreparedLists:
        rows: dict[str, list[str]] = {"train": [], "val": []}
        for clip in clips:
            path = self.folder.relative(self.folder.clip(clip))
            if self.format == "frames":
                path = f"{self.folder.relative(self.folder.frames(clip))} {num_frames[clip.path]}"
            rows["train" if clip.in_train else "val"].append(f"{path} {self.class_names.index(clip.class_name)}\n")
        names = {side: f"{side}_split{self.split}_{self.format}.txt" for side in rows}
        for side, name in names.items():
            if not rows[side]:
                raise DatasetError(f"not one clip is there for {name}", hint="complete the source")
            write_text(self.folder.root / name, "".join(rows[side]))
        write_text(self.folder.root / LABELS_NAME, "".join(f"{name}\n" for name in self.class_names))
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
            num_frames=sum(num_frames.values()) if is_frames else None,
            jpeg_quality=JPEG_QUALITY if is_frames else None,
            prepared_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            versions=_versions(),
        )

    def _result(self, lists: PreparedLists, *, already_prepared: bool) -> PreparedDataset:
        rows = (self.folder.root / lists.train_list).read_text(encoding="utf-8").splitlines()
        trained = {int(row.rpartition(" ")[2]) for row in rows}
        return PreparedDataset(
            root=str(self.folder.root),
            split=self.split,
            format=self.format,
            train_list=lists.train_list,
            val_list=lists.val_list,
            labels=LABELS_NAME,
            num_train=lists.num_train,
            num_val=lists.num_val,
            num_classes=len(self.class_names),
            num_missing=lists.num_missing,
            classes_without_train=tuple(name for i, name in enumerate(self.class_names) if i not in trained),
            already_prepared=already_prepared,
        )

    def _tell(self, stage: Stage, done: int, total: int) -> None:
        self.report(PrepareProgress(stage=stage, done=done, total=total))


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _versions() -> dict[str, str]:
    import av
    import cv2

    versions = {"av": av.__version__, "opencv": cv2.__version__}
    return {"ppvcli": ppvcli.__version__, "python": platform.python_version(), **versions}
