"""Runs a program on given clips and compares its logits with the network's: in a child process, which may crash.

`check_program` is the parent's side; `main` is what the child does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppvcli.deploy.cache import CheckResult
from ppvcli.deploy.runtimes import EngineSettings, Precision, feed, load_engine
from ppvcli.errors import RuntimeFailedError
from ppvcli.processes import end_with, import_path
from ppvcli.specs import Preprocess
from ppvcli.weights.metadata import preprocess_from_json, preprocess_to_json

FP32_TOLERANCE = 1e-3
"""Largest difference of logits that a program of full precision may have."""
FP32_OF_SPAN = 0.01
"""Where that is less: of the smallest span that a clip's logits have."""
FP32_RELATIVE = 1e-5
"""Of the largest logit, where these are so large that float32 itself is coarser than FP32_TOLERANCE."""
REDUCED_TOLERANCES = {"bf16": 0.1, "int8": 0.5}
"""Share of the largest span that a clip's logits have: rounding errors grow with the size of what is computed, while a
clip that looks like no class has a small span. For 8 bits this finds what is broken: well calibrated ones differ by up
to 0.1 on clips of the calibrated kind and by 0.3 on others; whether that will do, the table of `ppv export --check`
shows."""
TIMED_RUNS = 3
_START_TIMEOUT_S = 300
_CLIP_TIMEOUT_S = 10


def check_program(
    runtime: str,
    program: Path,
    *,
    clips_path: Path,
    logits_nk: npt.NDArray[np.float32],
    preprocess: Preprocess,
    settings: EngineSettings,
    truth: Sequence[int] | None = None,
) -> CheckResult:
    """How a program compares with the logits of its network, clip by clip and two at a time.

    `clips_path` is a .npy file of uint8 [N, T, H, W, 3]: there may be more clips than fit into memory.

    Raises: RuntimeFailedError where it crashes, is refused, or answers differently beyond the tolerance.
    """
    with tempfile.TemporaryDirectory(prefix="ppv-check-") as folder:
        logits_path = Path(folder) / "logits.npy"
        np.save(logits_path, logits_nk)
        request = {
            "parent": os.getpid(),
            "runtime": runtime,
            "program": str(program),
            "clips": str(clips_path),
            "logits": str(logits_path),
            "preprocess": preprocess_to_json(preprocess),
            "settings": asdict(settings),
            "truth": truth if truth is None else list(truth),
        }
        timeout_s = _START_TIMEOUT_S + _CLIP_TIMEOUT_S * len(logits_nk)
        # the same modules as in this process, whatever its working directory and environment are
        code = f"import sys; sys.path[:] = {import_path()!r}; from ppvcli.deploy.check import main; main()"
        try:
            child = subprocess.run(
                [sys.executable, "-W", "ignore", "-c", code],
                input=json.dumps(request),
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
            )
        except subprocess.TimeoutExpired as error:
            raise RuntimeFailedError(f"{runtime} gives no answer to {program} in {timeout_s} s") from error
    if child.returncode != 0:
        said = [line for line in child.stderr.splitlines() if line.strip()]
        reason = f"signal {-child.returncode}" if child.returncode < 0 else said[-1] if said else "without a word"
        raise RuntimeFailedError(f"{runtime} crashes on the program {program}: {reason}")
    answer = json.loads(child.stdout.splitlines()[-1])
    if "error" in answer:
        raise RuntimeFailedError(answer["error"])
    result = CheckResult(**answer)
    allowed = _allowed(settings.precision, logits_nk)
    if not result.max_diff <= allowed:  # NaN too
        raise RuntimeFailedError(
            f"{runtime} answers differently from the network: logits differ by {result.max_diff:.2g}, "
            f"allowed are {allowed:.2g} for {settings.precision}"
        )
    return result


def _allowed(precision: Precision, logits_nk: npt.NDArray[np.float32]) -> float:
    spans_n = np.ptp(logits_nk, axis=1)
    if precision == "fp32":
        # weights that were never trained give logits all within 1e-3
        close = min(FP32_TOLERANCE, FP32_OF_SPAN * float(spans_n.min()))
        return max(close, FP32_RELATIVE * float(np.abs(logits_nk).max()))
    return REDUCED_TOLERANCES[precision] * float(spans_n.max())


def compare(
    runtime: str,
    program: Path,
    *,
    clips_nthwc: npt.NDArray[np.uint8],
    logits_nk: npt.NDArray[np.float32],
    preprocess: Preprocess,
    settings: EngineSettings,
    truth: Sequence[int] | None = None,
) -> CheckResult:
    """What `check_program` reports, measured in this process. Raises: RuntimeFailedError."""
    engine = load_engine(runtime, program, settings=settings)

    def prepared(start: int, end: int) -> npt.NDArray[Any]:
        return feed(engine, np.array(clips_nthwc[start:end]), preprocess=preprocess)

    one_by_one = np.concatenate([engine.run(prepared(i, i + 1)) for i in range(len(clips_nthwc))])
    first = prepared(0, 1)
    times_s = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        engine.run(first)
        times_s.append(time.perf_counter() - start)
    together = engine.run(prepared(0, 2))
    if one_by_one.shape != logits_nk.shape:
        raise RuntimeFailedError(f"{runtime} gives logits {one_by_one.shape}, the network {logits_nk.shape}")
    got, wanted = np.concatenate([one_by_one, together]), np.concatenate([logits_nk, logits_nk[:2]])
    return CheckResult(
        max_diff=float(np.abs(got - wanted).max()),
        num_clips=len(logits_nk),
        num_agree=int((one_by_one.argmax(axis=1) == logits_nk.argmax(axis=1)).sum()),
        num_correct=None if truth is None else int((one_by_one.argmax(axis=1) == np.array(truth)).sum()),
        top1_agrees=bool((got.argmax(axis=1) == wanted.argmax(axis=1)).all()),
        time_ms=min(times_s) * 1e3,
        threads=settings.threads,
    )


def main() -> None:
    """The child: a request on stdin, a `CheckResult` or an error as one line of JSON on stdout."""
    request = json.loads(sys.stdin.read())
    end_with(request["parent"])
    try:
        result = compare(
            request["runtime"],
            Path(request["program"]),
            clips_nthwc=np.load(request["clips"], mmap_mode="r"),
            logits_nk=np.load(request["logits"]),
            preprocess=preprocess_from_json(request["preprocess"]),
            settings=EngineSettings(**request["settings"]),
            truth=request["truth"],
        )
        answer = asdict(result)
    except RuntimeFailedError as error:
        answer = {"error": error.message}
    sys.stdout.write(json.dumps(answer) + "\n")
