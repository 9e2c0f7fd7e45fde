"""Looks for everything that is wrong with a data set before hours go into training on it."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ppvcli.datasets.annotations import Sample, Split
from ppvcli.datasets.workers import HAVE_WORKERS, Crew, Result, WorkerDiedError, map_here
from ppvcli.errors import VideoError
from ppvcli.files import write_text
from ppvcli.results import DataCheck
from ppvcli.video.check import check_clip
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits

_MAX_REMARK_BYTES = 4096


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
        elif result.size:
            doubtful.append((str(item.path), result.tobytes().decode("utf-8", errors="replace")))
        if on_clip is not None:
            on_clip(done, len(samples))
    return DataCheck(
        num_train=len(split.train),
        num_val=len(split.val),
        broken=tuple(broken),
        doubtful=tuple(doubtful),
        repeated=tuple(path for side in (split.train, split.val) for path in _repeated(side)),
        on_both_sides=tuple(_on_both_sides(split)),
        classes_without_train=_empty_classes(split.train, split.labels),
        classes_without_val=_empty_classes(split.val, split.labels),
    )


def write_check(check: DataCheck, path: Path) -> None:
    """Writes one problem a line, with tabs between its kind, the path or class, and the detail."""
    rows = [("problem", "what", "detail"), *check.problems]
    write_text(path, "".join("\t".join(" ".join(field.split()) for field in row) + "\n" for row in rows))


@dataclass(frozen=True)
class _Item:
    path: Path
    num_frames: int | None

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class _Checker:
    limits: DecodeLimits

    def __call__(self, item: _Item) -> npt.NDArray[np.uint8]:
        """The remark as UTF-8, or nothing."""
        remark = check_clip(item.path, item.num_frames, limits=self.limits) or ""
        return np.frombuffer(remark.encode("utf-8", errors="replace")[:_MAX_REMARK_BYTES], np.uint8)


def _results(items: Sequence[_Item], checker: _Checker, *, num_workers: int) -> Iterator[tuple[_Item, Result]]:
    """Of each item, in any order."""
    if num_workers == 0 or not HAVE_WORKERS:
        yield from zip(items, map_here(checker, items), strict=True)
        return
    remaining = list(items)
    while remaining:
        crew = Crew(checker, num_workers=num_workers, num_slots=8 * num_workers, max_bytes=_MAX_REMARK_BYTES)
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


def _repeated(samples: Iterable[Sample]) -> list[str]:
    return [str(path) for path, count in Counter(sample.path for sample in samples).items() if count > 1]


def _on_both_sides(split: Split) -> Iterator[tuple[str, str]]:
    """Files are compared by content where their sizes are the same; folders of frames by their names."""
    by_size: dict[int, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
    for side, samples in enumerate((split.train, split.val)):
        for path in dict.fromkeys(sample.path for sample in samples):
            size = path.stat().st_size if path.is_file() else -1
            by_size[size][side].append(path)
    for size, (train, val) in by_size.items():
        if not train or not val:
            continue
        key: Callable[[Path], object] = Path.resolve if size <= 0 else _content
        held_out = {key(path): path for path in val}
        yield from ((str(path), str(held_out[key(path)])) for path in train if key(path) in held_out)


def _content(path: Path) -> bytes:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.digest()


def _empty_classes(samples: Iterable[Sample], labels: Sequence[str]) -> tuple[str, ...]:
    present = {sample.label for sample in samples}
    return tuple(name for i, name in enumerate(labels) if i not in present)
