"""Where the time of one clip goes, warm: open, plan, decode, resize, feed, run; one thread, one engine after another.

    python tests/benchmarks/predict_profile.py --rounds 15

PP-TSMv2 16 frames, recipe weights. `open`: the file and its stream; `plan`: until the frames to take are known (here
that is counting them, which decodes the video once); `decode`: the wanted frames as RGB; `resize`: scaled and cropped;
`feed`: to what the engine takes; `run`: the network. Medians in ms. `--quick`: 3 rounds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import predict_models as shared

STAGES = ("open", "plan", "decode", "resize", "feed", "run")
LIMIT_MS = 170
"""Of the network alone at fp32 on the core of the reference measurements (112 GFLOP/s)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("clips", nargs="*", default=None)
    args = parser.parse_args()
    os.environ["PPV_HOME"] = str(shared.work_dir() / "home")
    weights = shared.recipe_weights("pptsmv2")

    import av
    import numpy as np

    from ppvcli.deploy.predictor import Predictor
    from ppvcli.deploy.runtimes import RUNTIMES, runtime_version
    from ppvcli.video.decoding import open_video
    from ppvcli.video.sampling import eval_indices
    from ppvcli.video.transforms import apply_resize_crop, normalize

    clips = args.clips or [str(shared.EXAMPLE), str(shared.clip_720p())]
    predictors = {
        name: Predictor(weights=weights, runtime=name, threads=1, device="cpu")
        for name in RUNTIMES
        if runtime_version(name) is not None
    }
    preprocess = next(iter(predictors.values())).program.preprocess
    for clip in clips:
        with av.open(clip) as container:
            stream = container.streams.video[0]
            about = f"{stream.codec_context.name} {stream.width}x{stream.height}"
        times: dict[str, dict[str, list[float]]] = {name: {stage: [] for stage in STAGES} for name in predictors}
        for _ in range((3 if args.quick else args.rounds) + 1):
            for name, predictor in predictors.items():
                engine = predictor._engine(1)
                marks = [time.perf_counter()]
                with open_video(clip) as video:
                    marks.append(time.perf_counter())
                    indices = eval_indices(preprocess.sampling, video.num_frames)
                    marks.append(time.perf_counter())
                    frames_thwc = video.read(np.unique(indices))
                    marks.append(time.perf_counter())
                frames_vthwc = apply_resize_crop(frames_thwc, preprocess)
                marks.append(time.perf_counter())
                feed = frames_vthwc if engine.takes == "uint8" else normalize(frames_vthwc, preprocess)
                feed = np.ascontiguousarray(feed)
                marks.append(time.perf_counter())
                engine.run(feed)
                marks.append(time.perf_counter())
                for stage, first, last in zip(STAGES, marks, marks[1:], strict=False):
                    times[name][stage].append((last - first) * 1e3)
        print(f"{Path(clip).name} ({about}), 1 thread, {len(times[next(iter(times))]['run']) - 1} rounds")
        for name, stages in times.items():
            medians = {stage: statistics.median(values[1:]) for stage, values in stages.items()}
            parts = "  ".join(f"{stage} {value:.1f}" for stage, value in medians.items())
            share = LIMIT_MS / medians["run"]
            print(f"  {name:12} {parts}  sum {sum(medians.values()):.1f}  ({share:.0%} of the core's limit)")


if __name__ == "__main__":
    main()
