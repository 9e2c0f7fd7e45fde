"""Is `ppv` ever slower than plain sequential PyAV? Every video of the test matrix, 16 frames to RGB, one thread each.

    python tests/benchmarks/decode_matrix.py --rounds 9                              # 64x48, 36 frames, as in the tests
    python tests/benchmarks/decode_matrix.py --rounds 9 --size 320x240 --frames 180  # the size of UCF101
    python tests/benchmarks/decode_matrix.py --rounds 9 FILE...                      # these files instead

CPU milliseconds and the ratio PyAV / ppv, the median of pairs of runs that follow each other, each of --times clips in
a row; the lowest ratios first.
PyAV believes the header's number of frames and stops at the last wanted one; `ppv` knows the number.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ppvcli.video.bench.worker import Worker, WorkerError
from tests.benchmarks.decode import paired_runs
from tests.video import matrix


def videos(folder: Path, *, size: tuple[int, int] | None, num_frames: int) -> Iterator[Path]:
    """The files of the matrix, of another size and length."""
    matrix.NUM_FRAMES = num_frames
    for row in matrix.ROWS.values():
        yield (row if size is None else replace(row, size=size)).write(folder)


def measure(path: Path, workers: dict[str, Worker], *, rounds: int, times: int) -> tuple[float, float, str]:
    """PyAV / ppv, the milliseconds of ppv, and whether it had a plan. Raises: WorkerError."""
    runs = paired_runs(path, workers, [(lib, "none") for lib in workers], rounds=rounds, times=times)
    own, other = ([run.cpu_ms for run in runs[lib, "none"]] for lib in ("ppv", "pyav"))
    ratio = statistics.median(b / a for a, b in zip(own, other, strict=True))
    return ratio, statistics.median(own), runs["ppv", "none"][0].fallback or "plan"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--size", help="WxH, in place of each file's own")
    parser.add_argument("--frames", type=int, default=matrix.NUM_FRAMES)
    args = parser.parse_args()
    size = None
    if args.size is not None:
        width, height = map(int, args.size.split("x"))
        size = width, height
    found = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        paths = args.files or list(videos(folder, size=size, num_frames=args.frames))
        workers = {lib: stack.enter_context(Worker(lib, log_dir=folder, timeout_s=60.0)) for lib in ("ppv", "pyav")}
        for path in paths:
            try:
                found.append((*measure(path, workers, rounds=args.rounds, times=args.times), path.name))
            except WorkerError as error:
                print(f"left out: {path.name}: {error.message}")
    ratios = [ratio for ratio, *_ in found]
    print(f"\n{date.today()}: {len(found)} files, {args.rounds} rounds")
    print(f"PyAV / ppv: median {statistics.median(ratios):.2f}; below 0.95: {sum(ratio < 0.95 for ratio in ratios)}")
    print("\n| file | ppv, ms | PyAV / ppv | |\n|---|---|---|---|")
    for ratio, own_ms, how, name in sorted(found):
        print(f"| {name} | {own_ms:.1f} | {ratio:.2f} | {how} |")


if __name__ == "__main__":
    main()
