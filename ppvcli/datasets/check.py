"""Looks for everything that is wrong with a data set before hours go into training on it."""

from __future__ import annotations

import hashlib
import os
import shlex
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ppvcli.datasets.annotations import Sample, Split
from ppvcli.datasets.workers import HAVE_WORKERS, Crew, Output, Result, WorkerDiedError, map_here
from ppvcli.errors import UnreadableVideoError, UsageError, VideoError
from ppvcli.files import check_writable, write_text
from ppvcli.results import DataCheck
from ppvcli.video.check import check_clip
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits

_HEADER = "problem\twhat\tdetail\n"

_Copy = tuple[str, str]
"""Path, other path."""
_Pair = tuple[str, str, str]
"""Path, other path, remark or class."""


def check_data(
    split: Split,
    *,
    num_workers: int = 1,
    limits: DecodeLimits = DEFAULT_LIMITS,
    on_clip: Callable[[int, int], None] | None = None,
) -> DataCheck:
    """Decodes every clip of both sides from beginning to end, however many are broken, and compares the sides.

    `on_clip(done, total)` is called after each clip. With workers (`num_workers` 1 or more) a clip that crashes the
    decoder is a finding like any other.
    """
    samples = list(dict.fromkeys(_Item(sample.path, sample.num_frames) for sample in (*split.train, *split.val)))
    broken: list[tuple[str, str]] = []
    doubtful: list[tuple[str, str]] = []
    for done, (item, result) in enumerate(_results(samples, _Checker(limits), num_workers=num_workers), start=1):
        if isinstance(result, VideoError):
            broken.append((str(item.path), result.message))
        elif result.note is not None:
            doubtful.append((str(item.path), result.note))
        if on_clip is not None:
            on_clip(done, len(samples))
    repeated, in_two_classes, on_both_sides = _find_copies(split, broken={Path(path) for path, _ in broken})
    return DataCheck(
        num_train=len(split.train),
        num_val=len(split.val),
        broken=tuple(broken),
        doubtful=tuple(doubtful),
        repeated=tuple(repeated),
        in_two_classes=tuple(in_two_classes),
        on_both_sides=tuple(on_both_sides),
        classes_without_train=_empty_classes(split.train, split.labels),
        classes_without_val=_empty_classes(split.val, split.labels),
    )


def check_report_path(path: Path) -> None:
    """Passes where `write_check` may write: to a new file in a folder that is there, or over an earlier report.

    Raises: UsageError.
    """
    if path.is_dir():
        hint = f"--out {shlex.quote(str(path / 'problems.tsv'))}"
        raise UsageError(f"can't write the problems to {path}: it is a folder", hint=hint)
    try:
        if path.exists() and not _is_report(path):
            raise UsageError(f"{path} is there and no list of problems", hint="--out with the name of a new file")
        if not path.parent.exists():
            hint = f"mkdir -p {shlex.quote(str(path.parent))}"
            raise UsageError(f"can't write {path}: no folder {path.parent}", hint=hint)
        check_writable(path.parent)
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_check(check: DataCheck, path: Path) -> None:
    """Writes one problem a line, with tabs between its kind, the path or class, and the detail.

    What is not UTF-8 in a file name is escaped: `w\\udcff1.avi` for the byte ff.

    Raises: UsageError where the disk refuses.
    """
    lines = ("\t".join(" ".join(field.split()) for field in row) + "\n" for row in check.problems)
    try:
        write_text(path, "".join([_HEADER, *lines]).encode("utf-8", errors="backslashreplace").decode())
    except OSError as error:
        raise _cannot_write(path, error) from error


def _is_report(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(_HEADER)) == _HEADER.encode()


def _cannot_write(path: Path, error: OSError) -> UsageError:
    return UsageError(f"can't write {path}: {error.strerror or error}", hint="--out with another place")


@dataclass(frozen=True)
class _Item:
    path: Path
    num_frames: int | None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class _Checker:
    limits: DecodeLimits

    def __call__(self, item: _Item) -> Output:
        """The remark, or None. Raises: VideoError, also where the system refuses."""
        try:
            return Output(check_clip(item.path, item.num_frames, limits=self.limits))
        except OSError as error:
            raise UnreadableVideoError(f"can't read {item}: {error}") from error


def _results(items: Sequence[_Item], checker: _Checker, *, num_workers: int) -> Iterator[tuple[_Item, Result]]:
    """Of each item, in any order."""
    if num_workers == 0 or not HAVE_WORKERS:
        yield from zip(items, map_here(checker, items), strict=True)
        return
    remaining = list(items)
    while remaining:
        crew = Crew(checker, num_workers=num_workers, num_slots=8 * num_workers, max_bytes=0)
        num_done = 0
        try:
            for item, result in zip(remaining, crew.map(remaining), strict=True):
                num_done += 1
                yield item, result
        except WorkerDiedError as error:
            if not isinstance(error.item, _Item):
                raise  # not the fault of a clip
            yield error.item, VideoError(f"the process that decoded {error.item} {error.how}")
            remaining = [item for item in remaining[num_done:] if item != error.item]
        else:
            return
        finally:
            crew.stop()


def _find_copies(split: Split, *, broken: Collection[Path]) -> tuple[list[_Copy], list[_Pair], list[_Pair]]:
    """The clips that are the same on one side, there in two classes, and on both sides."""
    repeated: list[_Copy] = []
    in_two_classes: list[_Pair] = []
    on_both_sides: list[_Pair] = []
    for train, val in _same_clips(split, broken=broken):
        for side in (train, val):
            for i, sample in enumerate(side[1:], start=1):
                other = _other_of(sample, side[:i])
                if other.label == sample.label:
                    repeated.append((str(sample.path), str(other.path)))
                else:
                    in_two_classes.append((str(sample.path), str(other.path), split.labels[other.label]))
        if val:
            on_both_sides += dict.fromkeys(_pair(sample, _other_of(sample, val), split.labels) for sample in train)
    return repeated, in_two_classes, on_both_sides


def _same_clips(split: Split, *, broken: Collection[Path]) -> Iterator[tuple[list[Sample], list[Sample]]]:
    """The samples of each clip, those to train on and those held out.

    Files are compared by content where their sizes are the same; by name what is broken, or can't be read any more, and
    folders of frames.
    """
    keys: dict[Path, object] = {sample.path: os.path.realpath(sample.path) for sample in (*split.train, *split.val)}
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in keys.keys() - broken:
        with suppress(OSError):
            if path.is_file():
                by_size[path.stat().st_size].append(path)
    for paths in by_size.values():
        for path in paths if len(paths) > 1 else ():
            with suppress(OSError):
                keys[path] = _content(path)
    clips: dict[object, tuple[list[Sample], list[Sample]]] = defaultdict(lambda: ([], []))
    for side, samples in enumerate((split.train, split.val)):
        for sample in samples:
            clips[keys[sample.path]][side].append(sample)
    yield from clips.values()


def _other_of(sample: Sample, others: Sequence[Sample]) -> Sample:
    """One of the others that are the same clip: of another class, if there is one."""
    return next((other for other in others if other.label != sample.label), others[0])


def _pair(sample: Sample, other: Sample, labels: Sequence[str]) -> _Pair:
    """A clip, another that is the same, and what both are said to show where that differs."""
    remark = "" if other.label == sample.label else f"as '{labels[other.label]}', not '{labels[sample.label]}'"
    return str(sample.path), str(other.path), remark


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def _empty_classes(samples: Iterable[Sample], labels: Sequence[str]) -> tuple[str, ...]:
    present = {sample.label for sample in samples}
    return tuple(name for i, name in enumerate(labels) if i not in present)
