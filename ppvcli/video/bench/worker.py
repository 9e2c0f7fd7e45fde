"""One library in a process of its own: both ends of the pipe, on which each line is a JSON value.

The process loads its library, then answers one request after the other. Whatever else the library prints goes to a
log, so that it can't be taken for an answer; what it leaks, crashes or hangs is its own.
"""

from __future__ import annotations

import dataclasses
import json
import os
import queue
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Literal

from ppvcli.errors import FrameTooLargeError, PpvError
from ppvcli.processes import end_with, import_path, signal_name
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.bench.contestants import CONTESTANTS, Sample

if TYPE_CHECKING:
    from ppvcli.video.bench.contestants import Frames

EXACT = "exact"
"""The name of the process that reads sequentially, to know the right frames."""

START_TIMEOUT_S = 120.0
"""For loading a library, which on a cold disk may take longer than anything it does later."""

_RESIZE = Resize(backend="pillow", short_side=256, aspect="4:3")
_CROP = Crop(kind="center", rounding="round")

_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[2]); from ppvcli.video.bench import worker as w; w.serve()"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One sample to decode."""

    path: str
    num_segments: int
    crops: Literal["none", "box", "whole"] = "none"
    """Also make of each frame, within the measured time, the 224x224 pixels that PP-TSMv2 looks at: scale what these
    need alone, as we do (`box`), or the whole frame, as the reference does (`whole`)."""
    times: int = 1
    """It is done so many times, one right after the other, and what one takes on average is told: a millisecond alone
    would be measured with cold caches."""
    compare_with: str | None = None
    """File of the exact frames."""
    save_to: str | None = None
    """Where to write the frames as .npy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One sample, decoded."""

    wall_ms: float
    cpu_ms: float
    """Of all threads of the process."""
    num_frames: int
    """What the library takes for the length of the video."""
    peak_bytes: int | None
    """Largest resident memory of the process meanwhile (on macOS: since its start); None where the system can't say."""
    num_wrong: int | None = None
    """Frames of the sample that aren't equal, bit for bit, to the exact ones; None if not compared."""
    mean_diff: float = 0.0
    """How far these are off on average, in grey levels of 0..255."""
    fallback: str | None = None
    """As in `Sample`."""
    damage: str | None = None
    """As in `Sample`."""


class WorkerError(PpvError):
    """No answer: the library refused, crashed or took too long."""


class Worker:
    """The near end: starts the process when it is first needed, and again after a crash or a hang."""

    def __init__(self, lib: str, *, log_dir: Path, timeout_s: float) -> None:
        self.lib = lib
        self._timeout_s = timeout_s
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.Queue[str | None] = queue.Queue()
        self._log_path = log_dir / f"{lib}.log"

    def start(self) -> str:
        """The version of the library, once loaded. Raises: WorkerError where it can't be."""
        self.stop()
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-c", _START, self.lib, json.dumps(import_path()), str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                text=True,
            )
        self._answers = queue.Queue()
        threading.Thread(target=_pass_on, args=(self._process.stdout, self._answers), daemon=True).start()
        return str(self._answer("start", START_TIMEOUT_S)["version"])

    def run(self, request: Request) -> Run:
        """Decodes one sample. Raises: WorkerError."""
        if self._process is None:
            self.start()
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):  # it is dead, which the answer will tell
            self._process.stdin.write(json.dumps(dataclasses.asdict(request)) + "\n")
            self._process.stdin.flush()
        return Run(**self._answer("answer", self._timeout_s))

    def stop(self) -> None:
        """Ends the process, if it runs."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(OSError):  # what was not yet written can't be any more
                pipe.close()
        self._process = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def _answer(self, what: str, timeout_s: float) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=min(timeout_s, threading.TIMEOUT_MAX))
        except queue.Empty:
            self.stop()
            raise self._timeout(what, timeout_s) from None
        if line is None:
            raise WorkerError(self._last_words())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"], hint=answer["hint"])
        return answer

    def _timeout(self, what: str, timeout_s: float) -> WorkerError:
        if what == "start":
            return WorkerError(f"no start within {timeout_s:g} s, ended")
        if self.lib == EXACT:
            message = f"sequential decoding, which gives the exact frames, took more than {timeout_s:g} s"
            return WorkerError(message, hint="--timeout allows more seconds")
        return WorkerError(f"no answer within {timeout_s:g} s, ended (--timeout allows more)")

    def _last_words(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        self.stop()
        how = signal_name(-code) if code < 0 else f"exit code {code}"
        lines = self._log_path.read_text(errors="replace").strip().splitlines()
        return f"crashed: {how}{f' ({lines[-1].strip()})' if lines else ''}"


def _pass_on(lines: IO[str], answers: queue.Queue[str | None]) -> None:
    """Makes waiting for a line with a time limit possible on every system."""
    with suppress(ValueError):  # closed meanwhile
        for line in lines:
            answers.put(line)
    answers.put(None)


def serve() -> None:
    """The far end: loads the library named on the command line and answers until the pipe is closed.

    It ends with the process named there, too, be the library at work or hanging then.
    """
    end_with(int(sys.argv[3]))
    lib = sys.argv[1]
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def send(answer: dict[str, Any]) -> None:
        answers.write(json.dumps(answer) + "\n")
        answers.flush()

    try:
        send({"version": "" if lib == EXACT else CONTESTANTS[lib].load()})
    except Exception as error:
        send({"error": f"can't be loaded: {_one_line(error)}", "hint": None})
        return
    for line in sys.stdin:
        try:
            send(dataclasses.asdict(_measure(lib, Request(**json.loads(line)))))
        except Exception as error:
            send({"error": _one_line(error), "hint": _hint(error)})


def _measure(lib: str, request: Request) -> Run:
    _forget_peak()
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(request.times):
        sample = _read_exactly(request) if lib == EXACT else _read(lib, request)
    cpu_s, wall_s = time.process_time() - cpu, time.perf_counter() - wall
    peak_bytes = _peak_bytes()
    if request.save_to is not None:
        import numpy as np

        np.save(request.save_to, sample.frames_thwc)
    num_wrong, mean_diff = _compare(sample.frames_thwc, request.compare_with) if request.compare_with else (None, 0.0)
    return Run(
        wall_ms=wall_s * 1e3 / request.times,
        cpu_ms=cpu_s * 1e3 / request.times,
        num_frames=sample.num_frames,
        peak_bytes=peak_bytes,
        num_wrong=num_wrong,
        mean_diff=mean_diff,
        fallback=sample.fallback,
        damage=sample.damage,
    )


def _read(lib: str, request: Request) -> Sample:
    if request.crops == "none":
        return CONTESTANTS[lib].read(request.path, request.num_segments)
    from ppvcli.video.clip import load_frames
    from ppvcli.video.transforms import apply_resize_crop

    sampling = Sampling(mode="uniform", num_segments=request.num_segments)
    preprocess = Preprocess(sampling=sampling, resize=_RESIZE, crop=_CROP)
    if lib == "ppv" and request.crops == "box":  # its own composition of the same steps
        clip = load_frames(request.path, preprocess)
        return Sample(clip.num_frames, clip.frames_vthwc[0])
    sample = CONTESTANTS[lib].read(request.path, request.num_segments)
    if request.crops == "box":
        return Sample(sample.num_frames, apply_resize_crop(sample.frames_thwc, preprocess)[0])
    return Sample(sample.num_frames, _scale_whole_frames(sample.frames_thwc))


def _scale_whole_frames(frames_thwc: Frames) -> Frames:
    import numpy as np
    from PIL import Image

    from ppvcli.video.transforms import scaled_size

    height, width = scaled_size(*frames_thwc.shape[1:3], resize=_RESIZE)
    left, top = round((width - _CROP.size) / 2), round((height - _CROP.size) / 2)
    box = (left, top, left + _CROP.size, top + _CROP.size)
    images = [Image.fromarray(frame) for frame in frames_thwc]
    if images[0].size != (width, height):
        images = [image.resize((width, height), Image.Resampling.BILINEAR) for image in images]
    return np.stack([np.asarray(image.crop(box)) for image in images])


def _read_exactly(request: Request) -> Sample:
    from ppvcli.video.decoding import open_video
    from ppvcli.video.limits import DecodeLimits
    from ppvcli.video.sampling import uniform_eval

    with open_video(request.path, decoder="sequential", limits=DecodeLimits(timeout_s=None)) as video:
        frames_thwc = video.read(uniform_eval(video.num_frames, request.num_segments))
        return Sample(video.num_frames, frames_thwc, damage=video.damage)


def _compare(frames_thwc: Frames, exact_path: str) -> tuple[int, float]:
    """How many frames are not the exact ones, and by how much these are off on average (255 for another size)."""
    import numpy as np

    exact_thwc = np.load(exact_path, mmap_mode="r")
    if frames_thwc.shape != exact_thwc.shape:
        return len(exact_thwc), 255.0
    diffs = []
    for frame, exact in zip(frames_thwc, exact_thwc, strict=True):
        if not np.array_equal(frame, exact):
            diffs.append(float(np.mean(np.maximum(frame, exact) - np.minimum(frame, exact))))
    return len(diffs), sum(diffs) / len(diffs) if diffs else 0.0


def _forget_peak() -> None:
    """Linux keeps the peak of a process until told otherwise."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes() -> int | None:
    # not ru_maxrss on Linux: it starts with the memory of the process that started this one
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        if sys.platform != "darwin":
            return None
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM:")), None)


def _one_line(error: Exception) -> str:
    if isinstance(error, PpvError):
        return error.message
    lines = str(error).strip().splitlines()
    # libraries in C++ put the reason first, with a stack below it
    return f"{type(error).__name__}: {lines[0].strip()}" if lines else type(error).__name__


def _hint(error: Exception) -> str | None:
    if isinstance(error, MemoryError):
        return "--frames N takes fewer frames"
    if isinstance(error, FrameTooLargeError):  # its hint is an option of other commands
        return None
    return error.hint if isinstance(error, PpvError) else None
