"""What a training step of tsm_efflite0 costs with and without the MKL setting of `ppv train`, in paired processes.

    python tests/benchmarks/train_step.py --rounds 5

Each round starts one process per setting, in alternating order; a process does a warm-up step and three counted ones
(batch 6, 8 frames, 160x192, four frozen stages, one thread). Printed: CPU seconds per step, and their ratio.
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

SETTINGS = {"plain": {}, "tuned": {"MKL_DEBUG_CPU_TYPE": "5"}}


def measure() -> list[float]:
    """CPU seconds of three steps in this process."""
    import numpy as np
    import paddle
    import paddle.nn.functional as F

    from ppvcli.engine.trainer import set_train_mode
    from ppvcli.models.build import build_network
    from ppvcli.models.zoo import get_model_row

    network = build_network(get_model_row("tsm_efflite0").network, 10)
    network.backbone.freeze_stages(4)
    set_train_mode(network, freeze_batchnorm=True)
    parameters = [parameter for parameter in network.parameters() if not parameter.stop_gradient]
    optimizer = paddle.optimizer.AdamW(1e-4, parameters=parameters)
    rng = np.random.default_rng(0)
    clips = paddle.to_tensor(rng.standard_normal((6, 8, 3, 160, 192)).astype(np.float32))
    labels = paddle.to_tensor(np.arange(6))
    seconds = []
    for _ in range(4):
        start = time.process_time()
        F.cross_entropy(network(clips), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
        seconds.append(time.process_time() - start)
    return seconds[1:]


def run_child(setting: dict[str, str]) -> float:
    """Median CPU seconds per step of a process with that environment."""
    environment = {key: value for key, value in os.environ.items() if key != "MKL_DEBUG_CPU_TYPE"}
    result = subprocess.run(
        [sys.executable, __file__, "--child"],
        env={**environment, "OMP_NUM_THREADS": "1", **setting},
        capture_output=True,
        text=True,
        check=True,
    )
    return statistics.median(json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(measure()))
        return
    ratios = []
    for number in range(args.rounds):
        order = list(SETTINGS) if number % 2 == 0 else list(reversed(SETTINGS))
        seconds = {name: run_child(SETTINGS[name]) for name in order}
        ratios.append(seconds["plain"] / seconds["tuned"])
        figures = ", ".join(f"{name} {value:.2f} s" for name, value in sorted(seconds.items()))
        print(f"round {number + 1}: {figures}, ratio {ratios[-1]:.2f}")
    print(f"plain / tuned: median {statistics.median(ratios):.2f}, min {min(ratios):.2f}, max {max(ratios):.2f}")


if __name__ == "__main__":
    main()
