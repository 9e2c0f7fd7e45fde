"""How fast libraries decode the frames that a network looks at, and whether these are the right ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from numbers import Integral, Real
from pathlib import Path

from ppvcli.arguments import as_names
from ppvcli.errors import PpvError, UnknownNameError, UsageError, VideoError, VideoNotFoundError
from ppvcli.results import DecodeContestant, DecodeReport
from ppvcli.specs import VIDEO_SUFFIXES
from ppvcli.video.bench.contestants import ALSO_IF_INSTALLED, CONTESTANTS, DEFAULT_LIBS
from ppvcli.video.bench.report import Series, make_report
from ppvcli.video.bench.worker import EXACT, Request, Run, Worker, WorkerError
from ppvcli.video.container import check_file

OnRun = Callable[[int, int], None]
"""Told (samples decoded, samples in all)."""

MAX_FRAMES = 10_000
"""Of a sample: frames of 1080p would take 60 GB."""


def bench_decode(
    files: str | Path | Sequence[str | Path] | None = None,
    libs: str | Sequence[str] | None = None,
    *,
    frames: int = 16,
    repeat: int = 10,
    base: str | None = None,
    timeout_s: float = 60.0,
    on_run: OnRun | None = None,
    on_report: Callable[[DecodeReport], None] | None = None,
) -> DecodeReport:
    """Speed, memory and exactness of decoding `frames` evenly spread frames of each video, library by library.

    Each library has a process of its own and one thread, and decodes a video once without being measured, then `repeat`
    times in turn with the others. A run opens the video, learns its length and decodes the middle frame of each
    segment to RGB. All its frames are compared with those of sequential decoding. A library that gives no answer for
    `timeout_s` is ended and has failed on that video; sequential decoding may take no longer, either.

    `files` are videos and folders of videos; None renders some. `libs` are names of `CONTESTANTS`, or one; None takes
    `ppv`, `pyav`, `opencv` and `decord`, and whichever of the others is installed. What is not installed is reported as
    such. `base` is the library that speeds are relative to; None takes the first one that can be used. Paths without a
    video, and videos that can't be decoded, are in `failures` of the report.

    `on_report` gets the report, even where Ctrl-C ends the call: then that of the videos that were done.

    Raises:
        UnknownNameError: a library that is none of ours.
        UsageError: no path, no library to measure, a base that can't take part, or a number of frames, of runs or of
            seconds that is none.
    """
    names = _check_names(None if libs is None else as_names(libs))
    if base is not None and base not in names:
        raise UsageError(f"the base {base} is not among the libraries: {', '.join(names)}", hint=f"--base {names[0]}")
    _check_numbers(frames, repeat, timeout_s=timeout_s)
    frames, repeat = int(frames), int(repeat)  # NumPy's would be no JSON
    paths, missing = ([], []) if files is None else list_videos(files)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ppv-bench-")))
        workers = {
            name: stack.enter_context(Worker(name, log_dir=folder, timeout_s=timeout_s)) for name in (EXACT, *names)
        }
        contestants = [_start(workers[name]) for name in names]
        rivals = [workers[one.lib] for one in contestants if one.error is None]
        base = _choose_base(base, contestants)
        labels = _render_corpus(folder) if files is None else {path: str(path) for path in paths}
        found = _Found(failures=missing)
        try:
            _measure_all(
                labels,
                workers[EXACT],
                rivals,
                frames=frames,
                repeat=repeat,
                exact_path=folder / "exact.npy",
                on_run=on_run,
                found=found,
            )
        finally:
            report = make_report(
                contestants,
                found.series,
                found.failures,
                damaged=found.damaged,
                base=base,
                num_segments=frames,
                num_runs=repeat,
            )
            if on_report is not None:
                on_report(report)
    return report


def list_videos(files: str | Path | Iterable[str | Path]) -> tuple[list[Path], list[tuple[str, PpvError]]]:
    """The videos at the paths, in order, those of a folder and its sub-folders by name; (path, error) of other paths.

    Raises: UsageError: no path.
    """
    places = [files] if isinstance(files, (str, Path)) else list(files)
    if not places:
        raise UsageError("no video given", hint="ppv bench-decode clip.mp4, or no files to have some rendered")
    paths: list[Path] = []
    errors: dict[str, PpvError] = {}
    for place in places:
        try:
            paths += _videos_at(place)
        except VideoError as error:
            errors[str(place)] = error
    return list(dict.fromkeys(paths)), list(errors.items())


def _videos_at(place: str | Path) -> list[Path]:
    path = Path(place)
    if not str(place) or not path.is_dir():
        check_file(place)
        return [path]
    found = sorted(each for each in path.rglob("*") if each.suffix.lower() in VIDEO_SUFFIXES and each.is_file())
    if not found:
        suffixes = " ".join(sorted(VIDEO_SUFFIXES))
        raise VideoNotFoundError(f"no video in the folder {path}", hint=f"looked for {suffixes}; or name the files")
    return found


def _check_numbers(frames: int, repeat: int, *, timeout_s: float) -> None:
    if not isinstance(frames, Integral) or not 1 <= frames <= MAX_FRAMES:
        raise UsageError(
            f"frames must be a whole number from 1 to {MAX_FRAMES}, got {frames!r}",
            hint="--frames 16, as a network asks for",
        )
    if not isinstance(repeat, Integral) or repeat < 1:
        raise UsageError(f"repeat must be a whole number of 1 or more, got {repeat!r}", hint="--repeat 10")
    if not isinstance(timeout_s, Real) or not timeout_s > 0:
        raise UsageError(f"the timeout must be above 0 seconds, got {timeout_s!r}", hint="--timeout 60")


def _check_names(libs: Sequence[str] | None) -> list[str]:
    known = ", ".join(CONTESTANTS)
    if libs is None:
        return [*DEFAULT_LIBS, *(name for name in ALSO_IF_INSTALLED if CONTESTANTS[name].is_installed)]
    if not libs:
        raise UsageError("no library given", hint=f"use some of: {known}")
    for name in libs:
        if name not in CONTESTANTS:
            raise UnknownNameError("library", name, CONTESTANTS, hint=f"use some of: {known}")
    return list(dict.fromkeys(libs))


def _start(worker: Worker) -> DecodeContestant:
    """What the process says once it has loaded its library, or why it can't take part."""
    facts = CONTESTANTS[worker.lib]
    contestant = DecodeContestant(lib=facts.name, how=facts.how, num_threads=facts.num_threads)
    if not facts.is_installed:
        return replace(contestant, error="not installed", hint=f"pip install {facts.pip}")
    try:
        return replace(contestant, version=worker.start())
    except WorkerError as error:
        return replace(contestant, error=error.message, hint=f"pip install --force-reinstall {facts.pip}")


def _choose_base(base: str | None, contestants: Sequence[DecodeContestant]) -> str:
    usable = [one.lib for one in contestants if one.error is None]
    if not usable:
        reasons = "; ".join(f"{one.lib}: {one.error}" for one in contestants)
        raise UsageError(f"no library to measure: {reasons}", hint=contestants[0].hint)
    if base is None:
        return usable[0]
    chosen = next(one for one in contestants if one.lib == base)
    if chosen.error is not None:
        raise UsageError(f"{base} can't be the base: {chosen.error}", hint=chosen.hint)
    return base


def _render_corpus(folder: Path) -> dict[Path, str]:
    from ppvcli.video.bench.corpus import write_corpus

    return {path: path.name for path in write_corpus(folder)}


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What is known so far; the lists grow video by video, so that Ctrl-C costs only the one at work."""

    failures: list[tuple[str, PpvError]]
    """(path, error) of what is no video, or can't be decoded sequentially."""
    damaged: list[tuple[str, str]] = field(default_factory=list)
    series: list[Series] = field(default_factory=list)


def _measure_all(
    labels: Mapping[Path, str],
    exact: Worker,
    rivals: Sequence[Worker],
    *,
    frames: int,
    repeat: int,
    exact_path: Path,
    on_run: OnRun | None,
    found: _Found,
) -> None:
    """All runs on all videos; `labels` is how the user knows them."""
    runs_per_video = len(rivals) * (repeat + 1)
    for number, (path, label) in enumerate(labels.items()):
        request = Request(path=str(path.absolute()), num_segments=frames)
        try:
            damage = exact.run(replace(request, save_to=str(exact_path))).damage
        except WorkerError as error:
            hint = error.hint and error.hint.replace(request.path, label)
            found.failures.append((label, WorkerError(error.message.replace(request.path, label), hint=hint)))
            continue

        def tell(done: int, before: int = number * runs_per_video) -> None:
            if on_run is not None:
                on_run(before + done, len(labels) * runs_per_video)

        request = replace(request, compare_with=str(exact_path))
        found.series.extend(
            replace(one, path=label, error=None if one.error is None else one.error.replace(request.path, label))
            for one in _measure(request, rivals, repeat=repeat, tell=tell)
        )
        if damage is not None:
            found.damaged.append((label, damage))


def _measure(request: Request, rivals: Sequence[Worker], *, repeat: int, tell: Callable[[int], None]) -> list[Series]:
    """The runs of all libraries on one video, in turn; each round begins with another one."""
    runs: dict[str, list[Run]] = {worker.lib: [] for worker in rivals}
    errors: dict[str, str] = {}
    for number in range(repeat + 1):
        shift = number % len(rivals)
        for place, worker in enumerate([*rivals[shift:], *rivals[:shift]], start=1):
            if worker.lib not in errors:
                try:
                    runs[worker.lib].append(worker.run(request))
                except WorkerError as error:
                    errors[worker.lib] = error.message
            tell(number * len(rivals) + place)
    return [Series(path=request.path, lib=lib, runs=tuple(runs[lib]), error=errors.get(lib)) for lib in runs]
