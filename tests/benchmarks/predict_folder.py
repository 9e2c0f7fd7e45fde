"""A folder of clips, two cores: our predictor and PaddleX's loop over the same files, in turns, whole children.

    python tests/benchmarks/predict_folder.py --paddlex /path/to/venv/bin/python --rounds 3 --clips 100

50 clips of Weizmann and 50 of UCF101, PP-TSMv2 16 frames, recipe weights. Each child loads its model, answers one clip
to warm up, then times the folder. Printed: clips per second and their ratio. `--quick`: one round of 10 clips.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import predict_models as shared

OURS = """
import sys, time
from ppvcli.deploy.predictor import Predictor
weights, threads, *files = sys.argv[1:]
predictor = Predictor(weights=weights, threads=int(threads), device="cpu")
list(predictor.predict(files[:2]))
start, cpu = time.perf_counter(), time.process_time()
answers = list(predictor.predict(files))
seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
assert all(answer.error is None for answer in answers) and [answer.path for answer in answers] == files
print(seconds, cpu_seconds)
"""
THEIRS = """
import sys, time
from paddlex import create_model
name, folder, threads, *files = sys.argv[1:]
model = create_model(model_name=name, model_dir=folder, device="cpu", pp_option=None)
list(model.predict(files[0]))
start, cpu = time.perf_counter(), time.process_time()
for file in files:
    for result in model.predict(file):
        result.json
print(time.perf_counter() - start, time.process_time() - cpu)
"""


def clips(count: int) -> list[str]:
    """Half of each data set, taken evenly from the sorted lists."""
    weizmann = sorted((shared.CLIPS / "weizmann").glob("*/*.avi"))
    ucf101 = sorted(path for path in (shared.CLIPS / "ucf101" / "videos").rglob("*") if path.is_file())
    first = min(count // 2, len(weizmann))
    chosen = [
        path for paths, n in ((weizmann, first), (ucf101, count - first)) for path in paths[:: len(paths) // n][:n]
    ]
    return [str(path) for path in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clips", type=int, default=100)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--paddlex", help="python of an environment with paddlex[video]")
    args = parser.parse_args()
    files = clips(10 if args.quick else args.clips)
    weights = shared.recipe_weights("pptsmv2")
    ours = [sys.executable, "-W", "ignore", "-c", OURS, str(weights), str(args.threads), *files]
    theirs = None
    if args.paddlex:
        export = shared.exported("pptsmv2", formats="paddle")
        theirs = [args.paddlex, "-W", "ignore", "-c", THEIRS, shared.PADDLEX_NAME, str(export), str(args.threads)]
        theirs += files
    own: list[shared.Cost] = []
    paddlex: list[shared.Cost] = []
    for number in range(1 if args.quick else args.rounds):
        turns = [(ours, own), (theirs, paddlex)] if number % 2 == 0 else [(theirs, paddlex), (ours, own)]
        for command, costs in turns:
            if command is not None:
                costs.append(shared.Cost(*map(float, shared.run_python(command, threads=args.threads).split()[-2:])))
    print(
        f"{len(files)} clips, {args.threads} threads: ours {[round(len(files) / one.wall_s, 2) for one in own]} clips/s"
    )
    if theirs is not None:
        print(f"PaddleX {[round(len(files) / one.wall_s, 2) for one in paddlex]} clips/s")
        shared.show_ratios("folder, against PaddleX's loop", own, paddlex)


if __name__ == "__main__":
    main()
