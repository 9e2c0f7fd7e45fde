"""One clip, everything loaded, decode to answer: ours and the reference's path in turns, in one process, one thread.

    python tests/benchmarks/predict_warm.py --model pptsmv2 --rounds 15
    python tests/benchmarks/predict_warm.py --model pptsm_r50_k400_uniform --rounds 15
    python tests/benchmarks/predict_warm.py --model pptsmv2 --precision int8 --rounds 15

The reference's path is decord, Pillow, float passes and paddle.inference with oneDNN. Recipe weights. Printed: the
ratio of times, the difference of logits of the two (fp32: also of programs fed the same frames). `--quick`: 3 rounds.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import predict_models as shared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="pptsmv2")
    parser.add_argument("--runtime", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clip", default=str(shared.EXAMPLE))
    args = parser.parse_args()
    os.environ["PPV_HOME"] = str(shared.work_dir() / "home")
    weights = shared.recipe_weights(args.model)
    folder = shared.exported(args.model, formats="paddle")
    if args.precision == "int8":
        weights = shared.exported(args.model, formats="onnx", precision="fp32,int8")

    import numpy as np

    from ppvcli.deploy.predictor import Predictor
    from ppvcli.video.clip import load_frames

    ours = Predictor(
        None, weights=weights, threads=args.threads, runtime=args.runtime, precision=args.precision, device="cpu"
    )
    theirs = shared.reference_path(folder, ours.program.preprocess, threads=args.threads)
    engine = ours._engine(1)
    print(f"{ours.program.model}: {ours.program.runtime} {args.precision}, {args.threads} thread(s), {args.clip}")
    own_logits = ours._logits(load_frames(args.clip, ours.program.preprocess), engine)
    reference_logits = theirs(args.clip)
    print(
        f"logits from file, ours and the reference's path: differ by {np.abs(own_logits - reference_logits).max():.2g} "
        f"(span {np.ptp(reference_logits):.1f}), top-1 {own_logits.argmax()} and {reference_logits.argmax()}"
    )
    own: list[shared.Cost] = []
    reference: list[shared.Cost] = []

    def run_ours(clip: str) -> None:
        (prediction,) = ours.predict([clip])
        assert prediction.error is None

    for number in range((3 if args.quick else args.rounds) + 1):
        turns = [(run_ours, own), (theirs, reference)]
        for path_to_answer, costs in turns if number % 2 else reversed(turns):
            start, cpu = time.perf_counter(), time.process_time()
            path_to_answer(args.clip)
            if number:  # the first round warms up
                costs.append(shared.Cost(time.perf_counter() - start, time.process_time() - cpu))
    shared.show_ratios("warm, one clip, against the reference's path", own, reference)


if __name__ == "__main__":
    main()
