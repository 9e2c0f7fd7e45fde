"""CPU time of the decoding plan against sequential PyAV and decord: 16 uniform frames to 224 crops, one thread each.

`python -m tests.benchmarks.decode_plan FILE...` measures; `--make FOLDER --source CLIP` first encodes a clip as H.264
of 256, 720 and 1080 lines with key frames every 12, 30 and 250 frames. Rounds are interleaved, ratios paired by round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from ppvcli.models.zoo import get_model_row
from ppvcli.video.decoding import open_video
from ppvcli.video.sampling import uniform_eval
from ppvcli.video.transforms import apply_resize_crop

Frames = npt.NDArray[np.uint8]

NUM_SEGMENTS = 16
PREPROCESS = get_model_row("pptsmv2").preprocess
VARIANTS = (
    *((340, 256, gop, 300, "medium") for gop in (12, 30, 250)),
    *((1280, 720, gop, 300, "veryfast") for gop in (12, 30, 250)),
    (1920, 1080, 30, 250, "veryfast"),
)
"""Width, height, frames between key frames, frames, preset of x264 (crf 23)."""


def read_by(decoder: str) -> Callable[[Path], Frames]:
    """A function that reads with one of our decoders."""

    def read(path: Path) -> Frames:
        with open_video(path, decoder=decoder) as video:
            video.expect(lambda num_frames: uniform_eval(num_frames, NUM_SEGMENTS))
            return video.read(uniform_eval(video.num_frames, NUM_SEGMENTS))

    return read


def read_by_decord(path: Path) -> Frames:
    """decord with one thread, by itself."""
    import decord

    video = decord.VideoReader(str(path), num_threads=1)
    frames: Frames = video.get_batch(uniform_eval(len(video), NUM_SEGMENTS).tolist()).asnumpy()
    return frames


READERS: dict[str, Callable[[Path], Frames]] = {
    "pyav": read_by("pyav"),
    "sequential": read_by("sequential"),
    "decord": read_by_decord,
}


def measure(path: Path, *, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of CPU time of each reader in each round."""
    times: dict[str, list[float]] = {name: [] for name in READERS}
    for number in range(rounds + 1):
        for name, read in READERS.items():
            start = time.process_time()
            apply_resize_crop(read(path), PREPROCESS)
            if number:  # the first round warms up
                times[name].append((time.process_time() - start) * 1e3)
    return times


def make(folder: Path, source: Path) -> Iterator[Path]:
    """Encodes `source` once for each of `VARIANTS`."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, height, gop, num_frames, preset in VARIANTS:
        path = folder / f"h264_{height}_gop{gop}.mp4"
        with av.open(str(source)) as old, av.open(str(path), "w") as new:
            stream = new.add_stream("libx264", rate=25, options={"g": str(gop), "crf": "23", "preset": preset})
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            for _, frame in zip(range(num_frames), old.decode(video=0), strict=False):
                scaled = frame.reformat(width, height, "yuv420p", interpolation="BICUBIC").to_ndarray()
                new.mux(stream.encode(av.VideoFrame.from_ndarray(scaled, format="yuv420p")))
            new.mux(stream.encode())
        yield path


def main() -> None:
    """The command line of this module."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.decode_plan")
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--make", type=Path, metavar="FOLDER")
    parser.add_argument("--source", type=Path, metavar="CLIP")
    arguments = parser.parse_args()
    files = list(arguments.files)
    if arguments.make is not None:
        files += make(arguments.make, arguments.source)
    ratios: dict[str, list[float]] = {name: [] for name in READERS}
    for path in files:
        times = measure(path, rounds=arguments.rounds)
        line = f"{path.name:40s} pyav {statistics.median(times['pyav']):8.1f} ms"
        for name in ("sequential", "decord"):
            ratio = statistics.median(b / a for a, b in zip(times["pyav"], times[name], strict=True))
            ratios[name].append(ratio)
            line += f"   {name} {statistics.median(times[name]):8.1f} ms = {ratio:.2f}x"
        print(line, flush=True)
    for name in ("sequential", "decord"):
        print(f"{name}: median of {len(files)} files {statistics.median(ratios[name]):.2f}x")


if __name__ == "__main__":
    main()
