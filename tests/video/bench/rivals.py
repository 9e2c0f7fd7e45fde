"""Contestants that behave badly on purpose, for the processes of `bench_decode` in tests."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ppvcli.video.bench.contestants import CONTESTANTS, Contestant, Sample


def _hang(path: str, num_segments: int) -> Sample:
    time.sleep(3600)
    raise AssertionError


def _crash(path: str, num_segments: int) -> Sample:
    print("about to fall", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)
    raise AssertionError


def _crash_on_avi(path: str, num_segments: int) -> Sample:
    return _crash(path, num_segments) if Path(path).suffix == ".avi" else _exact(path, num_segments)


def _refuse(path: str, num_segments: int) -> Sample:
    raise RuntimeError(f"no codec for {Path(path).suffix}\nstack trace")


def _exact(path: str, num_segments: int) -> Sample:
    return CONTESTANTS["pyav"].read(path, num_segments)


def _chatter(path: str, num_segments: int) -> Sample:
    print("frame 1 ok")
    os.write(1, b'{"error": "not an answer"}\n')
    return _exact(path, num_segments)


def _one_late(path: str, num_segments: int) -> Sample:
    """The first frame is missing, and the second is there twice."""
    sample = _exact(path, num_segments)
    frames = sample.frames_thwc.copy()
    frames[0] = frames[1]
    return Sample(sample.num_frames - 1, frames)


def _half_size(path: str, num_segments: int) -> Sample:
    sample = _exact(path, num_segments)
    return Sample(sample.num_frames, np.ascontiguousarray(sample.frames_thwc[:, ::2, ::2]))


def _nap(path: str, num_segments: int) -> Sample:
    time.sleep(0.15)
    return _exact(path, num_segments)


def _toil(path: str, num_segments: int) -> Sample:
    end = time.process_time() + 0.15
    while time.process_time() < end:
        pass
    return _exact(path, num_segments)


def _hoard_on_avi(path: str, num_segments: int) -> Sample:
    if Path(path).suffix == ".avi":
        np.ones(200 << 20, dtype=np.uint8).sum()
    return _exact(path, num_segments)


def _eat_all(path: str, num_segments: int) -> Sample:
    return Sample(1, np.empty((1 << 50, 1, 1, 3), dtype=np.uint8))


_PLAIN = Contestant(name="", how="badly", module="av", pip="bad-decoder", read=_exact)

RIVALS = {
    **{
        name: replace(_PLAIN, name=name, read=read)
        for name, read in {
            "hangs": _hang,
            "crashes": _crash,
            "crashes-on-avi": _crash_on_avi,
            "refuses": _refuse,
            "chatters": _chatter,
            "one-late": _one_late,
            "half-size": _half_size,
            "naps": _nap,
            "toils": _toil,
            "hoards-on-avi": _hoard_on_avi,
            "eats-all": _eat_all,
        }.items()
    },
    "absent": replace(_PLAIN, name="absent", module="no_module_has_this_name"),
    "no-distribution": replace(_PLAIN, name="no-distribution", distribution="no-distribution-has-this-name"),
    # what is imported as `av` is of PyAV, not of NumPy, as with decord and decord2
    "shadowed": replace(_PLAIN, name="shadowed", distribution="numpy"),
}


def serve() -> None:
    """What a process of `bench_decode` runs in tests."""
    from ppvcli.video.bench import worker

    CONTESTANTS.update(RIVALS)
    worker.serve()
