"""The only composition of sample -> decode -> transform: train, eval, predict, export checks and benchmarks call it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ppvcli.errors import VideoError
from ppvcli.specs import Preprocess
from ppvcli.video.decoding import VideoReader, open_video
from ppvcli.video.frame_folder import FrameFolder
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits, Watch
from ppvcli.video.sampling import eval_indices, train_indices
from ppvcli.video.sequential import Frames, Transform
from ppvcli.video.transforms import Augment, crop_frame, draw_augment, normalize


@dataclass(frozen=True, kw_only=True)
class ClipFrames:
    """The pictures a network will look at for one video, and where they came from."""

    frames_vthwc: npt.NDArray[np.uint8]
    """uint8 [V, T, H, W, 3] RGB; V = crops x clips, crop-major."""
    num_frames: int
    """Frames that decoding the whole video yields."""
    duration_s: float
    """0 for a folder of frames."""
    indices: npt.NDArray[np.int64]
    """The frames taken: int64 [num_clips, T]."""
    damage: str | None
    """What decoding complained of: the file is cut off or damaged, and whole it may have more frames."""
    timings_ms: dict[str, float]
    """Wall time of `decode` (opening, counting and all waiting included) and `transform`."""


def load_clip(
    path: str | Path, preprocess: Preprocess, *, decoder: str = "pyav", limits: DecodeLimits = DEFAULT_LIMITS
) -> npt.NDArray[np.float32]:
    """The network's input for one video: float32 [V, T, 3, H, W]. Raises: as `load_frames`."""
    return normalize(load_frames(path, preprocess, decoder=decoder, limits=limits).frames_vthwc, preprocess)


def load_frames(
    path: str | Path,
    preprocess: Preprocess,
    *,
    num_frames: int | None = None,
    decoder: str = "pyav",
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> ClipFrames:
    """All views of one video as the eval preprocessing takes them, before normalisation.

    With `num_frames`, `path` is a folder of so many frames, `img_00001.jpg` and so on, which no decoder reads. View
    order is crop-major, as the reference stacks it: all clips of the first crop, then all of the second.

    Raises:
        VideoError: the file can't give the frames; see `open_video` for the kinds.
        UsageError: the preprocessing contradicts itself or does not fit the frame size.
    """
    watch = _Stopwatch()
    shift = _dense_shift(num_frames)
    with _open_clip(path, num_frames, decoder=decoder, limits=limits) as video:
        indices, frames_nchwc = _sample(
            video,
            lambda count: eval_indices(preprocess.sampling, count, shift=shift),
            transform=lambda: watch.timed(lambda frame_hwc: crop_frame(frame_hwc, preprocess)),
        )
        crops = np.moveaxis(frames_nchwc, 1, 0)
        frames_vthwc = crops.reshape(len(crops) * len(indices), indices.shape[1], *crops.shape[2:])
        return _clip_frames(video, indices, frames_vthwc, watch=watch)


def load_train_frames(
    path: str | Path,
    preprocess: Preprocess,
    augment: Augment,
    *,
    rng: np.random.Generator,
    num_frames: int | None = None,
    decoder: str = "pyav",
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> ClipFrames:
    """One random, augmented clip of a video (V = 1), before normalisation; arguments and errors as `load_frames`."""
    watch = _Stopwatch()
    shift = _dense_shift(num_frames)
    state = rng.bit_generator.state

    def draw(count: int) -> npt.NDArray[np.int64]:
        rng.bit_generator.state = state  # the same random numbers, should it be asked again
        return train_indices(preprocess.sampling, count, rng, shift=shift)

    def draw_transform() -> Transform:
        return watch.timed(_once_seen(lambda frame_hw: draw_augment(frame_hw, preprocess, augment, rng=rng)))

    limits = replace(limits, threads=1)  # of several, any might draw first
    with _open_clip(path, num_frames, decoder=decoder, limits=limits) as video:
        indices, frames_thwc = _sample(video, draw, transform=draw_transform)
        return _clip_frames(video, indices, frames_thwc[np.newaxis], watch=watch)


@contextmanager
def _open_clip(
    path: str | Path, num_frames: int | None, *, decoder: str, limits: DecodeLimits
) -> Iterator[VideoReader]:
    if num_frames is None:
        with open_video(path, decoder=decoder, limits=limits) as video:
            yield video
    else:
        yield FrameFolder(Path(path), num_frames, Watch(Path(path), limits))


def _clip_frames(
    video: VideoReader, indices: npt.NDArray[np.int64], frames_vthwc: Frames, *, watch: _Stopwatch
) -> ClipFrames:
    return ClipFrames(
        frames_vthwc=frames_vthwc,
        num_frames=video.num_frames,
        duration_s=video.duration_s,
        damage=video.damage,
        indices=indices,
        timings_ms=watch.timings_ms(),
    )


def _dense_shift(num_frames: int | None) -> int:
    """What dense sampling adds to its indices: see `dense_eval`."""
    return 1 if num_frames is None else 0


def _sample(
    video: VideoReader, choose: Callable[[int], npt.NDArray[np.int64]], *, transform: Callable[[], Transform]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint8]]:
    """What `choose` takes of so many frames, and these frames, transformed, one after the other.

    A damaged file may turn out to have another number of frames only when they are decoded; then it chooses again.
    """
    video.expect(choose)
    while True:
        num_frames = video.num_frames
        indices = choose(num_frames)
        try:
            frames = video.read(indices.ravel(), transform=transform())
        except VideoError:  # past the end, perhaps
            if video.num_frames == num_frames:
                raise
        else:
            if video.num_frames == num_frames:
                return indices, frames


def _once_seen(draw: Callable[[tuple[int, int]], Transform]) -> Transform:
    """A transform that is drawn when the first frame shows how large frames are."""
    drawn: dict[tuple[int, int], Transform] = {}

    def transform(frame_hwc: Frames) -> Frames:
        frame_hw = (frame_hwc.shape[0], frame_hwc.shape[1])
        if frame_hw not in drawn:
            drawn[frame_hw] = draw(frame_hw)
        return drawn[frame_hw](frame_hwc)

    return transform


class _Stopwatch:
    """What of the time since its making was spent in transforms; those of other threads run beside it."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._thread = threading.get_ident()
        self._transform_s = 0.0

    def timed(self, transform: Transform) -> Transform:
        def timed(frame_hwc: Frames) -> Frames:
            if threading.get_ident() != self._thread:
                return transform(frame_hwc)
            start = time.perf_counter()
            try:
                return transform(frame_hwc)
            finally:
                self._transform_s += time.perf_counter() - start

        return timed

    def timings_ms(self) -> dict[str, float]:
        elapsed_s = time.perf_counter() - self._start
        return {"decode": (elapsed_s - self._transform_s) * 1e3, "transform": self._transform_s * 1e3}
