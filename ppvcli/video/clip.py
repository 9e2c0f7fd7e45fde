"""The only composition of sample -> decode -> transform: train, eval, predict, export checks and benchmarks call it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ppvcli.specs import Preprocess
from ppvcli.video.decoding import open_video
from ppvcli.video.sampling import eval_indices, train_indices
from ppvcli.video.transforms import Augment, apply_resize_crop, augment_frames, normalize


@dataclass(frozen=True, kw_only=True)
class ClipFrames:
    """The pictures a network will look at for one video, and where they came from."""

    frames_vthwc: npt.NDArray[np.uint8]
    """uint8 [V, T, H, W, 3] RGB; V = crops x clips, crop-major."""
    num_frames: int
    """Frames that decoding the whole video yields."""
    duration_s: float
    indices: npt.NDArray[np.int64]
    """The frames taken: int64 [num_clips, T]."""
    timings_ms: dict[str, float]
    """Wall time of `decode` (opening and counting included) and `transform`."""


def load_clip(path: str | Path, preprocess: Preprocess, *, decoder: str = "pyav") -> npt.NDArray[np.float32]:
    """The network's input for one video: float32 [V, T, 3, H, W]. Raises: as `load_frames`."""
    return normalize(load_frames(path, preprocess, decoder=decoder).frames_vthwc, preprocess)


def load_frames(path: str | Path, preprocess: Preprocess, *, decoder: str = "pyav") -> ClipFrames:
    """All views of one video as the eval preprocessing takes them, before normalisation.

    View order is crop-major, as the reference stacks it: all clips of the first crop, then all of the second.

    Raises:
        VideoError: the file can't give the frames; see `open_video` for the kinds.
        UsageError: the preprocessing contradicts itself or does not fit the frame size.
    """
    start = time.perf_counter()
    with open_video(path, decoder=decoder) as video:
        num_frames, duration_s = video.num_frames, video.duration_s
        indices = eval_indices(preprocess.sampling, num_frames)
        unique, inverse = np.unique(indices, return_inverse=True)
        frames_thwc = video.read(unique)
    decoded = time.perf_counter()
    crops = apply_resize_crop(frames_thwc, preprocess)
    if len(unique) != indices.size or unique.tolist() != indices.ravel().tolist():
        crops = crops[:, inverse.ravel()]
    views = crops.reshape(len(crops) * len(indices), indices.shape[1], *crops.shape[2:])
    return ClipFrames(
        frames_vthwc=views,
        num_frames=num_frames,
        duration_s=duration_s,
        indices=indices,
        timings_ms=_timings(start, decoded),
    )


def load_train_frames(
    path: str | Path, preprocess: Preprocess, augment: Augment, *, rng: np.random.Generator, decoder: str = "pyav"
) -> ClipFrames:
    """One random, augmented clip of a video (V = 1), before normalisation. Raises: as `load_frames`."""
    start = time.perf_counter()
    with open_video(path, decoder=decoder) as video:
        num_frames, duration_s = video.num_frames, video.duration_s
        indices = train_indices(preprocess.sampling, num_frames, rng)
        frames_thwc = video.read(indices[0])
    decoded = time.perf_counter()
    clip_thwc = augment_frames(frames_thwc, preprocess, augment, rng=rng)
    return ClipFrames(
        frames_vthwc=clip_thwc[np.newaxis],
        num_frames=num_frames,
        duration_s=duration_s,
        indices=indices,
        timings_ms=_timings(start, decoded),
    )


def _timings(start: float, decoded: float) -> dict[str, float]:
    return {"decode": (decoded - start) * 1e3, "transform": (time.perf_counter() - decoded) * 1e3}
