"""From the runs of `bench_decode` to the numbers that are shown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ppvcli.errors import PpvError
from ppvcli.results import DecodeContestant, DecodedFile, DecodeReport, DecodeSpeed
from ppvcli.video.bench.worker import Run
from ppvcli.video.sampling import uniform_eval


@dataclass(frozen=True, kw_only=True)
class Series:
    """All runs of one library on one video."""

    path: str
    lib: str
    runs: tuple[Run, ...]
    """The first one is the warm-up."""
    error: str | None = None
    """Why there are not all of them."""

    @property
    def counted(self) -> tuple[Run, ...]:
        return self.runs[1:]


Pair = tuple[Series, Series]
"""A library and the base on the same video."""


def make_report(
    contestants: Sequence[DecodeContestant],
    series: Sequence[Series],
    failures: Sequence[tuple[str, PpvError]],
    *,
    damaged: Sequence[tuple[str, str]] = (),
    base: str,
    num_segments: int,
    num_runs: int,
) -> DecodeReport:
    """Totals of each library over the videos that all of them could read, and the figures of each video."""
    videos: dict[str, dict[str, Series]] = {}
    for one in series:
        videos.setdefault(one.path, {})[one.lib] = one
    able = {
        one.lib for one in series if one.error is None
    }  # who fails on every video must not leave nothing to compare
    common = [row for row in videos.values() if all(row[lib].error is None for lib in able)] if able else []
    files = tuple(_file_row(one, videos[one.path][base], num_segments=num_segments) for one in series)
    totals = []
    for contestant in contestants:
        own = [row for row in files if row.lib == contestant.lib]
        pairs = [(row[contestant.lib], row[base]) for row in common] if contestant.lib in able else []
        totals.append(_total(contestant, own, pairs, num_segments=num_segments))
    return DecodeReport(
        num_segments=num_segments,
        num_runs=num_runs,
        base=base,
        contestants=tuple(totals),
        files=files,
        num_common=len(common),
        failures=tuple((path, error.message) for path, error in failures),
        hints=tuple(dict.fromkeys(error.hint for _, error in failures if error.hint is not None)),
        damaged=tuple(damaged),
    )


def _file_row(one: Series, base: Series, *, num_segments: int) -> DecodedFile:
    if one.error is not None:
        return DecodedFile(path=one.path, lib=one.lib, error=one.error)
    worst = max(one.runs, key=lambda run: (run.num_wrong or 0, run.mean_diff))
    return DecodedFile(
        path=one.path,
        lib=one.lib,
        speed=_speed([(one, base)], num_segments=num_segments),
        peak_bytes=_largest(run.peak_bytes for run in one.runs),
        num_frames=worst.num_frames,
        num_wrong=worst.num_wrong,
        mean_diff=worst.mean_diff,
        fallback=worst.fallback,
    )


def _total(
    contestant: DecodeContestant, own: Sequence[DecodedFile], pairs: Sequence[Pair], *, num_segments: int
) -> DecodeContestant:
    done = [row for row in own if row.error is None]
    return replace(
        contestant,
        speed=_speed(pairs, num_segments=num_segments) if pairs else None,
        num_files=len(done),
        num_failed=len(own) - len(done),
        num_compared=num_segments * len(done),
        num_wrong=sum(row.num_wrong or 0 for row in done),
        peak_bytes=_largest(row.peak_bytes for row in done),
    )


def _speed(pairs: Sequence[Pair], *, num_segments: int) -> DecodeSpeed:
    runs = [run for one, _ in pairs for run in one.counted]
    num_frames = sum(_num_distinct(one.counted[0].num_frames, num_segments) for one, _ in pairs)
    sum_ms = sum(statistics.median(run.wall_ms for run in one.counted) for one, _ in pairs)
    comparable = all(base.error is None for _, base in pairs)
    return DecodeSpeed(
        median_ms=statistics.median(run.wall_ms for run in runs),
        p95_ms=percentile([run.wall_ms for run in runs], 0.95),
        cpu_ms=statistics.median(run.cpu_ms for run in runs),
        frames_per_s=num_frames / sum_ms * 1e3,
        ratio=_ratio(pairs, lambda run: run.wall_ms) if comparable else None,
        cpu_ratio=_ratio(pairs, lambda run: run.cpu_ms) if comparable else None,
    )


def _num_distinct(num_frames: int, num_segments: int) -> int:
    """Frames of a sample; a short video has some of them several times, which costs next to nothing."""
    return len(set(uniform_eval(num_frames, num_segments).tolist()))


def _ratio(pairs: Sequence[Pair], cost: Callable[[Run], float]) -> float:
    """Geometric mean over the videos of the median over the rounds: one slow moment of the machine hits a round."""
    return statistics.geometric_mean(
        statistics.median(cost(b) / cost(a) for a, b in zip(one.counted, base.counted, strict=True))
        for one, base in pairs
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of them lie, linear between neighbours.

    >>> percentile([3.0, 1.0, 2.0], 0.75)
    2.5
    """
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low, high = math.floor(place), math.ceil(place)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def _largest(sizes: Iterable[int | None]) -> int | None:
    return max((size for size in sizes if size is not None), default=None)
