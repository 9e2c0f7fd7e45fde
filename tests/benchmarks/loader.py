"""How long training waits for clips: this package's loader against the reference's design, in pairs within one run.

    python tests/benchmarks/loader.py --data ../shared/data [--clips 48] [--batch 8] [--rounds 3]

Every contestant delivers the same PP-TSM training clips (8 frames, the reference's crops, 224x224) as float32 batches,
normalised. All the time between asking for a batch and having it counts as waiting, normalisation here included.

* `ppvcli`: the package: workers decode by plan and send uint8 through shared memory; normalised on arrival.
* `paddle, pipes` and `paddle, shared memory`: the same clips and the same uint8 through paddle.io.DataLoader.
* `reference design`: workers decode with decord, scale whole frames with Pillow, pass three times over float32 (divide,
  subtract, divide), and send float32 through paddle.io.DataLoader.

A step of the network is a sleep, as of a GPU that computes. Before the timed epochs each contestant has one to warm up.
`ratio` is the median over pairs of epochs: waiting of the reference design by waiting of the contestant. CPU time of a
clip is measured in one process, without any loader; unlike the rest it hardly depends on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import decord
import numpy as np
import paddle
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from ppvcli.datasets.annotations import Sample
from ppvcli.datasets.folder import scan_class_folders
from ppvcli.datasets.loader import ClipItem, ClipLoader, ClipReader
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.limits import DEFAULT_LIMITS
from ppvcli.video.multi_scale import MultiScale, draw_box
from ppvcli.video.transforms import Augment, normalize

RESIZE = Resize(short_side=256, aspect="4:3")
MULTI_SCALE = MultiScale(size=256, num_points=13, repeat_places=False)
PREPROCESS = Preprocess(
    sampling=Sampling(mode="uniform", num_segments=8), resize=RESIZE, crop=Crop(kind="center", rounding="round")
)
AUGMENT = Augment(flip_ratio=0.5, multi_scale=MULTI_SCALE)
SEED = 0
STEPS_MS = (0, 1000)

Epoch = Callable[[int], Iterator[np.ndarray]]


class OurClips(paddle.io.Dataset):
    """The package's clips for Paddle's loader."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__()
        self.samples = samples
        self.reader = ClipReader(preprocess=PREPROCESS, augment=AUGMENT, seed=SEED, limits=DEFAULT_LIMITS)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> np.ndarray:
        return self.reader(ClipItem(path=self.samples[index].path, num_frames=None, epoch=0, index=index)).array[0]


class ReferenceDesign(paddle.io.Dataset):
    """Decodes, scales, crops and normalises a clip in a worker, frame by frame and step by step."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__()
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> np.ndarray:
        video = decord.VideoReader(str(self.samples[index].path))
        length = len(video) // 8
        indices = [i * length + random.randint(0, length - 1) for i in range(8)]
        frames = [Image.fromarray(frame) for frame in video.get_batch(indices).asnumpy()]
        width, height = frames[0].size
        scaled = (341, 256) if width >= height else (256, 341)
        frames = [frame.resize(scaled, Image.Resampling.BILINEAR) for frame in frames]
        box = draw_box((scaled[1], scaled[0]), MULTI_SCALE, rng=np.random.default_rng(random.randrange(2**32)))
        frames = [frame.crop(box).resize((256, 256), Image.Resampling.BILINEAR) for frame in frames]
        left, top = random.randint(0, 32), random.randint(0, 32)
        frames = [frame.crop((left, top, left + 224, top + 224)) for frame in frames]
        if random.random() < 0.5:
            frames = [frame.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for frame in frames]
        clip = np.stack([np.asarray(frame) for frame in frames]).transpose(0, 3, 1, 2).astype(np.float32)
        clip /= np.float32(255)
        clip -= np.array(PREPROCESS.mean, np.float32).reshape(3, 1, 1)
        clip /= np.array(PREPROCESS.std, np.float32).reshape(3, 1, 1)
        return clip


@dataclass(frozen=True)
class Measured:
    epoch_s: float
    first_s: float
    wait_s: float


def ours(samples: Sequence[Sample], *, num_workers: int, batch_size: int) -> Epoch:
    loader = ClipLoader(samples, PREPROCESS, batch_size=batch_size, num_workers=num_workers, augment=AUGMENT, seed=SEED)
    return lambda epoch: (normalize(batch.frames_nvthwc[:, 0], PREPROCESS) for batch in loader.epoch(epoch))


def through_paddle(
    dataset: paddle.io.Dataset, *, num_workers: int, batch_size: int, shared_memory: bool
) -> Callable[[int], Iterator[paddle.Tensor]]:
    return lambda epoch: iter(
        paddle.io.DataLoader(
            dataset,
            batch_size=batch_size,
            shuffle=True,
            num_workers=num_workers,
            use_shared_memory=shared_memory,
            collate_fn=np.stack,
        )
    )


def contestants(samples: Sequence[Sample], *, num_workers: int, batch_size: int) -> dict[str, Epoch]:
    def paddle_epoch(dataset: paddle.io.Dataset, *, shared_memory: bool) -> Epoch:
        epoch = through_paddle(dataset, num_workers=num_workers, batch_size=batch_size, shared_memory=shared_memory)
        return lambda number: (batch.numpy() for batch in epoch(number))

    def normalised(epoch: Epoch) -> Epoch:
        return lambda number: (normalize(batch, PREPROCESS) for batch in epoch(number))

    return {
        "ppvcli": ours(samples, num_workers=num_workers, batch_size=batch_size),
        "paddle, pipes": normalised(paddle_epoch(OurClips(samples), shared_memory=False)),
        "paddle, shared memory": normalised(paddle_epoch(OurClips(samples), shared_memory=True)),
        "reference design": paddle_epoch(ReferenceDesign(samples), shared_memory=True),
    }


def cpu_ms(dataset: OurClips | ReferenceDesign) -> float:
    """Median CPU time of a clip, decoding to the last step of a worker."""
    times = []
    for index in range(len(dataset)):
        start = time.process_time()
        dataset[index]
        times.append((time.process_time() - start) * 1e3)
    return statistics.median(times)


def measure(epoch: Epoch, number: int, *, step_ms: int, num_batches: int) -> Measured:
    start = time.perf_counter()
    wait_s, first_s, count = 0.0, 0.0, 0
    batches = epoch(number)
    while True:
        asked = time.perf_counter()
        batch = next(batches, None)
        waited = time.perf_counter() - asked
        if batch is None:
            break
        assert batch.shape[1:] == (8, 3, 224, 224)
        assert batch.dtype == np.float32
        first_s = first_s or waited
        wait_s += waited
        count += 1
        time.sleep(step_ms / 1000)
    assert count == num_batches
    return Measured(time.perf_counter() - start, first_s, wait_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["weizmann", "ucf101/videos"])
    parser.add_argument("--clips", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, batches of {args.batch}")
    titles = f"{'clips/s':>9}{'waiting':>9}{'1st batch':>11}{'ratio':>7}"
    for name in args.sets:
        found, _ = scan_class_folders(args.data / name)
        samples = tuple(found[i] for i in np.random.default_rng(0).permutation(len(found))[: args.clips])
        num_batches = -(-len(samples) // args.batch)
        for key, dataset in (("ppvcli", OurClips(samples)), ("reference design", ReferenceDesign(samples))):
            print(f"{name}: {cpu_ms(dataset):.1f} ms of CPU time per clip ({key})")
        print(f"{'data':9}{'workers':>8}{'step':>8}  {'loader':22}{titles}")
        for num_workers in (1, 2):
            runners = contestants(samples, num_workers=num_workers, batch_size=args.batch)
            for epoch in runners.values():
                measure(epoch, 0, step_ms=0, num_batches=num_batches)
            for step_ms in STEPS_MS:
                if step_ms:
                    runners = {key: runners[key] for key in ("ppvcli", "reference design")}
                results: dict[str, list[Measured]] = {key: [] for key in runners}
                for number in range(args.rounds):
                    names = list(runners)
                    for key in names[number % len(names) :] + names[: number % len(names)]:
                        results[key].append(measure(runners[key], number + 1, step_ms=step_ms, num_batches=num_batches))
                for key, rows in results.items():
                    pairs = zip(results["reference design"], rows, strict=True)
                    ratio = statistics.median(other.wait_s / own.wait_s for other, own in pairs)
                    epoch_s = statistics.median(row.epoch_s for row in rows)
                    share = statistics.median(row.wait_s / row.epoch_s for row in rows)
                    first_s = statistics.median(row.first_s for row in rows)
                    print(
                        f"{name.split('/')[0]:9}{num_workers:8}{step_ms:5} ms  {key:22}{len(samples) / epoch_s:9.1f}"
                        f"{share:9.0%}{first_s * 1e3:8.0f} ms{ratio:7.2f}",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
