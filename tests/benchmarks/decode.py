"""What 16 frames of a video cost as 224x224 crops, in `ppv` and in other libraries, with one thread each.

    python tests/benchmarks/decode.py --rounds 9            # the tables of docs/concepts/decoding.md
    python tests/benchmarks/decode.py --rounds 9 FILE...    # a row for each of these files

Table 1: CPU milliseconds per clip, and the ratio other / ppv, the median of pairs of runs that follow each other; over
several clips the median of theirs, with the lowest and the highest. `whole`: the other library's frames are scaled as a
whole with Pillow and then cropped, as the reference does; `box`: they go through our own resize and crop, so that
decoding alone differs. Table 2: videos per second of two processes.

The H.264 files are the clips of ../shared/data/clips, of Kinetics and HMDB51 (a rendered one without them),
scaled and encoded again with the defaults of libx264 but for the GOP, once, into --folder (half an hour); HEVC is one
of them by libx265.
"""

from __future__ import annotations

import argparse
import queue
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import date
from pathlib import Path
from typing import NamedTuple

import av
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ppvcli.video.bench.worker import Request, Run, Worker
from ppvcli.video.render import render_action, write_video

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
NUM_SEGMENTS = 16
TIMEOUT_S = 120.0
ROUNDS_A_START = 3


class Encoding(NamedTuple):
    """Of the files of a row."""

    size_wh: tuple[int, int]
    gop: int
    bar: float | None
    """What decord / ppv is to be at least."""
    codec: str = "H.264"
    seconds: int = 10

    @property
    def name(self) -> str:
        return f"{self.codec} {self.size_wh[1]}p GOP {self.gop}, {self.seconds} s"


ENCODINGS = (
    Encoding((340, 256), 12, 2.3),
    Encoding((340, 256), 30, 1.6),
    Encoding((340, 256), 250, 1.3),
    Encoding((1280, 720), 12, 2.3),
    Encoding((1280, 720), 30, 1.8),
    Encoding((1280, 720), 250, 1.6),
    Encoding((1920, 1080), 30, 1.6),
    Encoding((340, 256), 250, None, "HEVC"),
    Encoding((340, 256), 30, None, "HEVC", 60),
    Encoding((1280, 720), 30, None, "HEVC", 60),
)
ENCODERS = {"H.264": ("libx264", {}), "HEVC": ("libx265", {"preset": "veryfast", "x265-params": "log-level=error"})}
FRAMES_PER_S = 30
XVID_BAR, THROUGHPUT_BAR = 1.5, 2.0

RIVALS: tuple[tuple[str, str], ...] = (("decord", "whole"), ("decord", "box"), ("pyav", "box"), ("opencv", "box"))


def real_clips(folder: Path) -> list[Path]:
    """Files to encode again, or a rendered one of their kind."""
    paths = sorted([*(SHARED / "clips").glob("*.mp4"), *(SHARED / "clips").glob("*.avi")])
    if paths:
        return paths
    path = folder / "rendered.mp4"
    if not path.exists():
        images = [
            Image.fromarray(frame).resize((340, 256)) for frame in render_action("walk", num_frames=10 * FRAMES_PER_S)
        ]
        write_video(path, np.stack([np.asarray(image) for image in images]))
    return [path]


def encode(source: Path, encoding: Encoding, folder: Path) -> Path:
    """A clip there and back again, as often as it takes."""
    width, height = encoding.size_wh
    encoder, options = ENCODERS[encoding.codec]
    path = folder / f"{source.stem}_{encoder}_{height}p_gop{encoding.gop}_{encoding.seconds}s.mp4"
    if path.exists():
        return path
    with av.open(str(source), metadata_errors="ignore") as container:
        frames = [
            frame.reformat(width, height, "yuv420p", interpolation="BICUBIC") for frame in container.decode(video=0)
        ]
    there_and_back = frames + frames[-2:0:-1]
    partial = path.with_name(f"partial_{path.name}")
    with av.open(str(partial), "w") as container:
        stream = container.add_stream(encoder, rate=FRAMES_PER_S, options={**options, "g": str(encoding.gop)})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_type = "FRAME"  # as `ffmpeg` does; PyAV's SLICE makes of a picture as many slices
        for index in range(encoding.seconds * FRAMES_PER_S):
            planes = there_and_back[index % len(there_and_back)].to_ndarray()
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())
    return partial.replace(path)


def xvid_clips(folder: Path) -> list[Path]:
    """UCF101 files, or three rendered ones of their kind."""
    paths = sorted((SHARED / "ucf101" / "videos").glob("*/*.avi"))
    if paths:
        return paths
    for action in ("walk", "jack", "run"):
        path = folder / f"{action}.avi"
        if not path.exists():
            images = [Image.fromarray(frame).resize((320, 240)) for frame in render_action(action, num_frames=180)]
            write_video(path, np.stack([np.asarray(image) for image in images]), codec="mpeg4", options={"b": "600k"})
        paths.append(path)
    return paths


def paired_runs(
    path: Path, workers: dict[str, Worker], entries: Sequence[tuple[str, str]], *, rounds: int, times: int = 1
) -> dict[tuple[str, str], list[Run]]:
    """Runs of each (library, crops) of `entries` in turn, backwards every other round.

    All processes are started anew again and again, because the layout of its memory alone makes one some percent faster
    than the next. Each runs twice in its turn and the second time counts, as in a loader, which reads one clip after
    another: the first time the caches hold what another library left. `times` is how often it does the same in one run.
    """
    runs: dict[tuple[str, str], list[Run]] = {entry: [] for entry in entries}
    for number in range(rounds):
        if number % ROUNDS_A_START == 0:
            for worker in workers.values():
                worker.start()
        for lib, crops in entries if number % 2 else reversed(entries):
            request = Request(path=str(path), num_segments=NUM_SEGMENTS, crops=crops, times=times)  # type: ignore[arg-type]
            workers[lib].run(request)
            runs[lib, crops].append(workers[lib].run(request))
    return runs


def compare(name: str, paths: list[Path], workers: dict[str, Worker], *, bar: float | None, rounds: int) -> None:
    """One line of table 1: medians over the files of the medians over the rounds."""
    own_ms: list[float] = []
    other_ms: dict[tuple[str, str], list[float]] = {rival: [] for rival in RIVALS}
    ratios: dict[tuple[str, str], list[float]] = {rival: [] for rival in RIVALS}
    for path in paths:
        runs = paired_runs(path, workers, [("ppv", "box"), *RIVALS], rounds=rounds)
        own = [run.cpu_ms for run in runs["ppv", "box"]]
        own_ms.append(statistics.median(own))
        for rival in RIVALS:
            other = [run.cpu_ms for run in runs[rival]]
            other_ms[rival].append(statistics.median(other))
            ratios[rival].append(statistics.median(b / a for a, b in zip(own, other, strict=True)))
    cells = [name, f"{statistics.median(own_ms):.1f}"]
    for rival in RIVALS:
        span = f", {min(ratios[rival]):.2f} to {max(ratios[rival]):.2f}" if len(paths) > 1 else ""
        cells.append(f"{statistics.median(other_ms[rival]):.1f} ({statistics.median(ratios[rival]):.2f}x{span})")
    print(f"| {' | '.join(cells)} | {f'{bar}x' if bar else ''} |", flush=True)


def videos_per_s(workers: list[Worker], paths: list[Path], crops: str) -> float:
    """Of processes that each take the next file as soon as they are done."""
    waiting: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for path in paths:
        waiting.put(path)

    def work(worker: Worker) -> None:
        while True:
            try:
                path = waiting.get_nowait()
            except queue.Empty:
                return
            worker.run(Request(path=str(path), num_segments=NUM_SEGMENTS, crops=crops))  # type: ignore[arg-type]

    threads = [threading.Thread(target=work, args=(worker,)) for worker in workers]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(paths) / (time.perf_counter() - start)


def compare_throughput(paths: list[Path], folder: Path, *, rounds: int) -> None:
    """Table 2."""
    entries = [("ppv", "box"), *RIVALS[:2]]
    speeds: dict[tuple[str, str], list[float]] = {entry: [] for entry in entries}
    with ExitStack() as stack:
        pools: dict[str, list[Worker]] = {}
        for lib in ("ppv", "decord"):
            places = [folder / f"{lib}{number}" for number in range(2)]
            for place in places:
                place.mkdir(exist_ok=True)
            pools[lib] = [stack.enter_context(Worker(lib, log_dir=place, timeout_s=TIMEOUT_S)) for place in places]
        for number in range(rounds + 1):
            for lib, crops in entries if number % 2 else reversed(entries):
                speed = videos_per_s(pools[lib], paths, crops)
                if number:
                    speeds[lib, crops].append(speed)
    own = speeds["ppv", "box"]
    print(f"\nTwo processes, {len(paths)} XviD clips, videos per second (median of {rounds} rounds)\n")
    print("| library | videos/s | ppv / library | bar |\n|---|---|---|---|")
    print(f"| ppv | {statistics.median(own):.0f} | | |")
    for lib, crops in RIVALS[:2]:
        ratio = statistics.median(a / b for a, b in zip(own, speeds[lib, crops], strict=True))
        print(f"| {lib} ({crops}) | {statistics.median(speeds[lib, crops]):.0f} | {ratio:.2f}x | {THROUGHPUT_BAR}x |")


def rows(args: argparse.Namespace) -> Iterator[tuple[str, list[Path], float | None]]:
    """Name, files and bar of each line of table 1."""
    for path in args.files:
        yield path.name, [path], None
    if args.files:
        return
    clips = xvid_clips(args.folder)
    spread = clips[:: -(-len(clips) // args.xvid)]
    yield f"XviD 240p ({len(spread)} clips)", spread, XVID_BAR
    for encoding in ENCODINGS:
        sources = real_clips(args.folder)[: None if encoding.codec == "H.264" else 1]
        if args.only in encoding.name:
            yield encoding.name, [encode(source, encoding, args.folder) for source in sources], encoding.bar


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--xvid", type=int, default=12, help="XviD clips in table 1, spread over those there are")
    parser.add_argument(
        "--only", default="", help="rows of table 1 whose name contains this, or 'two processes' for table 2"
    )
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "ppv-decode-clips")
    args = parser.parse_args()
    args.folder.mkdir(exist_ok=True)
    with ExitStack() as stack:
        libs = ("ppv", *dict(RIVALS))
        workers = {lib: stack.enter_context(Worker(lib, log_dir=args.folder, timeout_s=TIMEOUT_S)) for lib in libs}
        versions = ", ".join(f"{lib} {worker.start()}" for lib, worker in workers.items())
        print(f"{date.today()}: {versions}; {args.rounds} rounds; CPU ms per clip of {NUM_SEGMENTS} frames\n")
        heads = [f"{lib} ({crops})" for lib, crops in RIVALS]
        print(f"| clip | ppv | {' | '.join(heads)} | bar |\n|{'---|' * (len(heads) + 3)}")
        for name, paths, bar in rows(args):
            if args.only in name:
                compare(name, paths, workers, bar=bar, rounds=args.rounds)
    if args.only in "two processes" and not args.files:
        compare_throughput(xvid_clips(args.folder), args.folder, rounds=args.rounds)


if __name__ == "__main__":
    main()
