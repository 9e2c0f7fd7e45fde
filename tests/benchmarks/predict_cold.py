"""From the command line to the answer on one clip, whole processes: `ppv predict --json` and PaddleX, in turns.

    python tests/benchmarks/predict_cold.py --rounds 7 --paddlex /path/to/a/venv/with/paddlex/bin/python

PP-TSMv2 16 frames with recipe weights, compiled before. PaddleX runs our export in a script of five lines. Printed:
seconds of wall and CPU time of both and their ratio. `--quick` is one round; without `--paddlex` only ours is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
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


def run(command: list[str], *, threads: int) -> tuple[shared.Cost, str]:
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    stdout = shared.run_python(command, threads=threads)
    wall_s, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return shared.Cost(wall_s, cpu_s), stdout


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
    _, stdout = run(ours, threads=args.threads)  # compiles
    print("ours:", json.loads(stdout)[0]["top"][0])
    if theirs is not None:
        _, stdout = run(theirs, threads=args.threads)
        print("PaddleX:", stdout.strip()[:200])
    own: list[shared.Cost] = []
    paddlex: list[shared.Cost] = []
    for number in range(1 if args.quick else args.rounds):
        turns = [(ours, own), (theirs, paddlex)] if number % 2 == 0 else [(theirs, paddlex), (ours, own)]
        for command, costs in turns:
            if command is not None:
                costs.append(run(command, threads=args.threads)[0])
    wall_s = [cost.wall_s for cost in own]
    print(
        f"cold ppv predict: median {statistics.median(wall_s):.2f} s, min {min(wall_s):.2f} s, {args.threads} threads"
    )
    if theirs is not None:
        shared.show_ratios("cold, against PaddleX", own, paddlex)
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
