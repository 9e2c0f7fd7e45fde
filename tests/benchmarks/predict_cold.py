"""From the command line to the answer on one clip, whole processes: `ppv predict --json` and PaddleX, in turns.

    python tests/benchmarks/predict_cold.py --rounds 7 --paddlex /path/to/a/venv/with/paddlex/bin/python

PP-TSMv2 16 frames with recipe weights, compiled before. PaddleX runs our export in a script of five lines. Printed:
wall seconds of both and their ratio. `--quick` is one round; without `--paddlex` only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.benchmarks import predict_models as shared

SCRIPT = """
import sys
from paddlex import create_model
model = create_model(model_name=sys.argv[1], model_dir=sys.argv[2], device="cpu")
for result in model.predict(sys.argv[3]):
    print(result.json)
"""


def wall_s(command: list[str], *, threads: int) -> tuple[float, str]:
    start = time.perf_counter()
    stdout = shared.run_python(command, threads=threads)
    return time.perf_counter() - start, stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--paddlex", help="python of an environment with paddlex[video]")
    parser.add_argument("--clip", default=str(shared.EXAMPLE))
    args = parser.parse_args()
    weights = shared.recipe_weights("pptsmv2")
    ours = [sys.executable, "-m", "ppvcli", "predict", args.clip, "--weights", str(weights), "--json"]
    ours += ["--threads", str(args.threads)]
    theirs = None
    if args.paddlex:
        export = shared.exported("pptsmv2", formats="paddle")
        theirs = [args.paddlex, "-W", "ignore", "-c", SCRIPT, shared.PADDLEX_NAME, str(export), args.clip]
    _, stdout = wall_s(ours, threads=args.threads)  # compiles
    print("ours:", json.loads(stdout)[0]["top"][0])
    if theirs is not None:
        _, stdout = wall_s(theirs, threads=args.threads)
        print("PaddleX:", stdout.strip()[:200])
    own_s: list[float] = []
    paddlex_s: list[float] = []
    for number in range(1 if args.quick else args.rounds):
        turns = [(ours, own_s), (theirs, paddlex_s)] if number % 2 == 0 else [(theirs, paddlex_s), (ours, own_s)]
        for command, times in turns:
            if command is not None:
                times.append(wall_s(command, threads=args.threads)[0])
    print(f"cold ppv predict: median {statistics.median(own_s):.2f} s, min {min(own_s):.2f} s, {args.threads} threads")
    if theirs is not None:
        shared.show_ratios("cold, against PaddleX", own_s, paddlex_s, unit="s")
    code = (
        "import sys; from ppvcli.cli.app import main; main(sys.argv[1:]); print(*sorted(sys.modules), file=sys.stderr)"
    )
    modules = subprocess.run(
        [sys.executable, "-c", code, *ours[3:]],
        cwd=shared.REPO,
        env=shared.environment(args.threads),
        capture_output=True,
        text=True,
        check=True,
    ).stderr.split()
    print("imported of paddle, pydantic, rich:", sorted({"paddle", "pydantic", "rich"} & set(modules)))


if __name__ == "__main__":
    main()
