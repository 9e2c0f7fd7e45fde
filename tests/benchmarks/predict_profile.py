"""Where the time of one clip goes, warm: open, plan, decode, resize, feed, run; one thread, one engine after another.

    python tests/benchmarks/predict_profile.py --rounds 15

PP-TSMv2 16 frames, recipe weights. `open`: the file and its stream; `plan`: demuxing and reading headers, until the
number of frames is known; `decode`: the wanted frames as RGB; `resize`: scaled and cropped; `feed`: to what the engine
takes; `run`: the network. Medians of CPU time in ms. `--quick`: 3 rounds.
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
    from ppvcli.video.container import open_stream
    from ppvcli.video.decoding import open_video
    from ppvcli.video.limits import DEFAULT_LIMITS, Watch
    from ppvcli.video.plan import quick_options
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
                start = time.process_time()
                watch = Watch(Path(clip), DEFAULT_LIMITS)
                open_stream(Path(clip), watch=watch, options=quick_options(Path(clip)))[0].close()
                marks = [start, time.process_time()]
                with open_video(clip) as video:
                    indices = eval_indices(preprocess.sampling, video.num_frames)
                    marks.append(time.process_time())
                    frames_thwc = video.read(np.unique(indices))
                    marks.append(time.process_time())
                frames_vthwc = apply_resize_crop(frames_thwc, preprocess)
                marks.append(time.process_time())
                feed = frames_vthwc if engine.takes == "uint8" else normalize(frames_vthwc, preprocess)
                feed = np.ascontiguousarray(feed)
                marks.append(time.process_time())
                engine.run(feed)
                marks.append(time.process_time())
                for stage, first, last in zip(STAGES, marks, marks[1:], strict=False):
                    times[name][stage].append((last - first) * 1e3)
                times[name]["plan"][-1] -= times[name]["open"][-1]  # which `open_video` does again
        print(f"{Path(clip).name} ({about}), 1 thread, {len(times[next(iter(times))]['run']) - 1} rounds")
        for name, stages in times.items():
            medians = {stage: statistics.median(values[1:]) for stage, values in stages.items()}
            parts = "  ".join(f"{stage} {value:.1f}" for stage, value in medians.items())
            share = LIMIT_MS / medians["run"]
            print(f"  {name:12} {parts}  sum {sum(medians.values()):.1f}  ({share:.0%} of the core's limit)")


if __name__ == "__main__":
    main()
