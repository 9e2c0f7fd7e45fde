"""UCF101 as lists that training reads: fetched or taken, checked, its sport classes selected, frames extracted.

`ucf101_folder.py` shows the result. What can be known beforehand is checked before anything is written; a set that was
there stays whole until a new one can take its place. Once all is done, the same call only compares hashes.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import filelock

from ppvcli.datasets.progress import Report
from ppvcli.datasets.ucf101_exchange import replacing_set, restore
from ppvcli.datasets.ucf101_folder import LABELS_NAME, Folder
from ppvcli.datasets.ucf101_job import Job
from ppvcli.datasets.ucf101_lists import SPLITS
from ppvcli.datasets.ucf101_record import DatasetRecord, Format, PreparedLists, read_record
from ppvcli.datasets.ucf101_source import forget_downloads, source_is_gone, tell_apart
from ppvcli.errors import DatasetError, UnknownNameError, UsageError
from ppvcli.files import holding
from ppvcli.weights.mirror import is_http

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
    num_damaged: int
    """Clips whose extraction found them cut off or damaged; they have the frames that they gave, `damaged.txt` names
    them."""
    classes_without_train: tuple[str, ...]
    """Classes of which not one training clip is there."""
    already_prepared: bool
    """Nothing was done: all of it was there, and unchanged."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the caller asks for; None is what the folder has already."""

    class_names: tuple[str, ...] | None
    sports: tuple[str, ...]
    """The classes where the folder has none."""
    source: Path | None
    split: int
    format: str | None
    num_workers: int
    allow_missing: bool
    force: bool


def prepare(out: Path, request: Request, *, report: Report) -> PreparedDataset:
    """The public function without its defaults, see `ppvcli.prepare_ucf101_66`."""
    _check_request(out, request)
    folder = Folder(root=out, home=out, report=report)
    folder.check_ours()
    try:
        with holding(out, wait=False):
            restore(folder)
            return _prepare(folder, request)
    except filelock.Timeout as error:
        raise DatasetError(f"another process is preparing {out}", hint="wait for it, or end it") from error
    except OSError as error:
        after = "starts over; the set is as it was" if request.force else "goes on where this one stopped"
        raise DatasetError(
            f"can't prepare {out}: {error.strerror or error}{f': {error.filename}' if error.filename else ''}",
            hint=f"with enough space and permissions there, the same command {after}",
        ) from error


def _check_request(out: Path, request: Request) -> None:
    if request.split not in SPLITS:
        raise UsageError(f"UCF101 has no split {request.split}", hint="--split 1, 2 or 3")
    if request.format is not None and request.format not in FORMATS:
        raise UnknownNameError("format", request.format, FORMATS, hint=f"--format {' or '.join(FORMATS)}")
    if request.num_workers < 1:
        raise UsageError(f"{request.num_workers} processes can't work", hint="--num-workers 1 or more")
    tell_apart(request.source)  # raises for what is no source
    if request.source is not None and request.source.resolve() in out.resolve().parents:
        raise UsageError(
            f"{out} is inside the source {request.source}, where every clip would then be twice",
            hint="choose a folder beside the source: --out DIR",
        )


def _prepare(folder: Folder, request: Request) -> PreparedDataset:
    record = _former_record(folder, request)
    job = Job(
        folder=folder,
        class_names=request.class_names or folder.class_names(request.sports, record),
        source=request.source or _former_source(record),
        split=request.split,
        format=_format(folder, request),
        num_workers=request.num_workers,
        allow_missing=request.allow_missing,
        report=folder.report,
    )
    if request.force:
        return _result(job, _replace_set(job), already_prepared=False)
    if not _has_same_classes(job):
        raise DatasetError(
            f"{folder.root} holds another selection of classes, see {folder.root / LABELS_NAME}",
            hint="keep to it, without --classes; or choose another folder, --out DIR; or replace all of it: --force",
        )
    former = _current_lists(job, record)
    if former is None:
        folder.begin()
    lists = former or job.run()
    shutil.rmtree(folder.work, ignore_errors=True)
    return _result(job, lists, already_prepared=former is not None)


def _former_record(folder: Folder, request: Request) -> DatasetRecord | None:
    try:
        return read_record(folder.root)
    except DatasetError:
        if request.force:
            return None
        raise


def _current_lists(job: Job, record: DatasetRecord | None) -> PreparedLists | None:
    """The lists that are asked for, if all that belongs to them is there. Raises: DatasetError for what was changed."""
    former = record.find(job.split, job.format) if record is not None else None
    if record is None or former is None or (former.num_missing and not job.allow_missing):
        return None
    return former if job.folder.is_current(record, former) else None


def _former_source(record: DatasetRecord | None) -> Path | None:
    return None if record is None or is_http(record.source) else Path(record.source)


def _format(folder: Folder, request: Request) -> Format:
    if request.format is not None:
        return "frames" if request.format == "frames" else "videos"
    formats = {format for _, format in folder.splits_and_formats()}
    return formats.pop() if len(formats) == 1 else "videos"


def _has_same_classes(job: Job) -> bool:
    """Whether the folder has no classes yet, or those of the job."""
    return job.folder.class_names(job.class_names, None) == job.class_names


def _replace_set(job: Job) -> PreparedLists:
    """A new set in place of the one that is there; of the same classes, with every split and format that it has."""
    _check_replaceable(job)
    asked = (job.split, job.format)
    others = [one for one in job.folder.splits_and_formats() if _has_same_classes(job) and one != asked]
    job.folder.begin()
    forget_downloads(job.folder.downloads)
    with replacing_set(job.folder) as new:
        for split, format in others:
            replace(job, folder=new, split=split, format=format).run()
        return replace(job, folder=new).run()


def _check_replaceable(job: Job) -> None:
    """Raises: DatasetError, UsageError where replacing the set can't go well, or would delete what is not ours."""
    if job.source is not None:
        if not job.source.exists():
            raise source_is_gone(job.source)
        source, doomed = job.source.resolve(), [path.resolve() for path in job.folder.entries()]
        if source == job.folder.root.resolve() or any(path in (source, *source.parents) for path in doomed):
            raise UsageError(
                f"--force would delete its own source {job.source}", hint="choose another folder: --out DIR"
            )
    stranger = next(job.folder.strangers(), None)
    if stranger is not None:
        raise UsageError(
            f"--force would delete {stranger}, which no preparation put there",
            hint="move it elsewhere, or choose another folder: --out DIR",
        )


def _result(job: Job, lists: PreparedLists, *, already_prepared: bool) -> PreparedDataset:
    rows = (job.folder.root / lists.train_list).read_text(encoding="utf-8").splitlines()
    trained = {int(row.rpartition(" ")[2]) for row in rows}
    return PreparedDataset(
        root=str(job.folder.root),
        split=lists.split,
        format=lists.format,
        train_list=lists.train_list,
        val_list=lists.val_list,
        labels=LABELS_NAME,
        num_train=lists.num_train,
        num_val=lists.num_val,
        num_classes=len(job.class_names),
        num_missing=lists.num_missing,
        num_damaged=len(job.folder.damaged()),
        classes_without_train=tuple(name for i, name in enumerate(job.class_names) if i not in trained),
        already_prepared=already_prepared,
    )
