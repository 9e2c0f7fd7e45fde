"""Which frames of a video form its clips: pure arithmetic on frame counts, 0-based, always in [0, num_frames).

Glossary: a video of L frames gives `num_clips` clips of T frames each (T = `num_segments`). A segment is one of T equal
parts of the video; a window is a run of frames a fixed `frame_interval` apart.
Source: the samplers of the reference as described in SPEC.md 4.2; `window` is our own (EFFLITE0.md).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ppvcli.errors import NoFramesError, UsageError
from ppvcli.specs import Sampling

Indices = npt.NDArray[np.int64]

DENSE_SPAN = 64
"""Frames that one clip of dense sampling covers."""


def eval_indices(sampling: Sampling, num_frames: int, *, shift: int = 1) -> Indices:
    """The frames looked at when a video is evaluated: int64 [num_clips, T]; `shift` as in `dense_eval`.

    Raises:
        NoFramesError: `num_frames` is below one.
        UsageError: more than one clip asked of a mode that has only one, or `window` without an interval.
    """
    num_segments = _check(sampling, num_frames)
    if sampling.num_clips > 1 and sampling.mode not in ("dense", "window"):
        raise UsageError(f"sampling '{sampling.mode}' gives one clip per video, not {sampling.num_clips}")
    if sampling.mode == "dense":
        return dense_eval(num_frames, num_segments, num_clips=sampling.num_clips, shift=shift)
    if sampling.mode == "window":
        return window_eval(num_frames, num_segments, interval=_interval(sampling), num_clips=sampling.num_clips)
    single = {"uniform": uniform_eval, "select_left": select_left_eval, "linspace": linspace}[sampling.mode]
    return single(num_frames, num_segments)[np.newaxis]


def train_indices(sampling: Sampling, num_frames: int, rng: np.random.Generator, *, shift: int = 1) -> Indices:
    """One random clip of the video for training: int64 [1, T], whatever `num_clips` says; `shift` as in `dense_eval`.

    Raises:
        NoFramesError: `num_frames` is below one.
        UsageError: `window` without an interval.
    """
    num_segments = _check(sampling, num_frames)
    if sampling.mode == "linspace":
        clip = linspace(num_frames, num_segments)
    elif sampling.mode == "window":
        clip = window_train(num_frames, num_segments, interval=_interval(sampling), rng=rng)
    elif sampling.mode == "dense":
        clip = dense_train(num_frames, num_segments, rng=rng, shift=shift)
    else:
        draw = {"uniform": uniform_train, "select_left": select_left_train}[sampling.mode]
        clip = draw(num_frames, num_segments, rng=rng)
    return clip[np.newaxis]


def uniform_eval(num_frames: int, num_segments: int) -> Indices:
    """The middle frame (the left one of two) of each segment of floor(L/T) frames: int64 [T].

    A video shorter than T frames is looped: 0, 1, .., L-1, 0, .. (the reference asks for files that don't exist).
    >>> uniform_eval(131, 8).tolist()
    [7, 23, 39, 55, 71, 87, 103, 119]
    """
    steps = np.arange(num_segments, dtype=np.int64)
    length = num_frames // num_segments
    return steps * length + (length - 1) // 2 if length > 0 else steps % num_frames


def uniform_train(num_frames: int, num_segments: int, *, rng: np.random.Generator) -> Indices:
    """One random frame of each segment of floor(L/T) frames: int64 [T]; short videos as in `uniform_eval`."""
    length = num_frames // num_segments
    if length == 0:
        return uniform_eval(num_frames, num_segments)
    return np.arange(num_segments, dtype=np.int64) * length + rng.integers(0, length, size=num_segments)


def select_left_eval(num_frames: int, num_segments: int) -> Indices:
    """The frame at the middle of each segment of L/T frames (a fraction, not rounded): int64 [T].

    The reference gives T float zeros where L <= T, which its own readers refuse; here the same formula spreads over the
    short video. Floating point in the reference's order of operations: integers would differ where it rounds down.
    >>> select_left_eval(131, 8).tolist()
    [8, 24, 40, 57, 73, 90, 106, 122]
    """
    length = num_frames / num_segments
    return (length / 2 + length * np.arange(num_segments)).astype(np.int64)


def select_left_train(num_frames: int, num_segments: int, *, rng: np.random.Generator) -> Indices:
    """One random frame of each segment of floor(L/T) frames: int64 [T]; L < T as in `select_left_eval`."""
    if num_frames < num_segments:
        return select_left_eval(num_frames, num_segments)
    return uniform_train(num_frames, num_segments, rng=rng)


def linspace(num_frames: int, num_segments: int) -> Indices:
    """T frames from the first to the last, evenly spaced and rounded down: int64 [T], in training too.

    >>> linspace(131, 5).tolist()
    [0, 32, 65, 97, 130]
    """
    return np.linspace(0, num_frames - 1, num_segments).astype(np.int64)


def dense_eval(num_frames: int, num_segments: int, *, num_clips: int, shift: int = 1) -> Indices:
    """`num_clips` clips with starts spread over the video, each T frames 64//T apart: int64 [num_clips, T].

    The reference counts these frames from 1, as its frame files are numbered, and uses the number as the index into a
    video: off by one, but published figures on videos and the goldens include it, so `shift` is 1. Frame folders want 0
    (file number = index + 1). Where that runs past the last frame, which the reference does not survive, ours wraps.
    One clip alone starts in the middle of the possible starts.
    """
    num_starts = max(1, num_frames - DENSE_SPAN + 1)
    if num_clips == 1:
        starts = np.array([(num_starts - 1) // 2])
    else:
        starts = np.linspace(0, num_starts - 1, num_clips).astype(np.int64)
    return _dense(starts, num_frames, num_segments=num_segments, shift=shift)


def dense_train(num_frames: int, num_segments: int, *, rng: np.random.Generator, shift: int = 1) -> Indices:
    """One clip of T frames 64//T apart from a random start: int64 [T]; `shift` as in `dense_eval`.

    The reference never draws the last start that fits; ours does.
    """
    start = rng.integers(0, max(1, num_frames - DENSE_SPAN + 1), size=1)
    return _dense(start, num_frames, num_segments=num_segments, shift=shift)[0]


def window_eval(num_frames: int, num_segments: int, *, interval: int, num_clips: int) -> Indices:
    """T frames `interval` apart, taken from the middle, or from `num_clips` evenly spread starts: int64 [num_clips, T].

    Where the window is longer than the video, every clip is T frames spread evenly over the whole of it.
    >>> window_eval(61, 8, interval=4, num_clips=1).tolist()
    [[16, 20, 24, 28, 32, 36, 40, 44]]
    """
    last_start = num_frames - ((num_segments - 1) * interval + 1)
    if last_start < 0:
        return np.tile(_spread(num_frames, num_segments), (num_clips, 1))
    clips = np.arange(num_clips, dtype=np.int64)
    starts = clips * last_start // (num_clips - 1) if num_clips > 1 else np.array([last_start // 2])
    return _windows(starts, num_segments, interval=interval)


def window_train(num_frames: int, num_segments: int, *, interval: int, rng: np.random.Generator) -> Indices:
    """T frames `interval` apart from a random start: int64 [T]; short videos as in `window_eval`."""
    last_start = num_frames - ((num_segments - 1) * interval + 1)
    if last_start < 0:
        return _spread(num_frames, num_segments)
    return _windows(rng.integers(0, last_start + 1, size=1), num_segments, interval=interval)[0]


def _dense(starts: Indices, num_frames: int, *, num_segments: int, shift: int) -> Indices:
    interval = max(1, DENSE_SPAN // num_segments)
    return (_windows(starts, num_segments, interval=interval) + shift) % num_frames


def _windows(starts: Indices, num_segments: int, *, interval: int) -> Indices:
    return starts[:, np.newaxis] + np.arange(num_segments, dtype=np.int64) * interval


def _spread(num_frames: int, num_segments: int) -> Indices:
    return (2 * np.arange(num_segments, dtype=np.int64) + 1) * num_frames // (2 * num_segments)


def _check(sampling: Sampling, num_frames: int) -> int:
    if num_frames < 1:
        raise NoFramesError(f"can't sample {sampling.num_segments} frames of a video of {num_frames} frames")
    if sampling.num_segments < 1 or sampling.num_clips < 1:
        raise UsageError(f"sampling needs at least one frame and one clip, got {sampling}")
    return sampling.num_segments


def _interval(sampling: Sampling) -> int:
    if sampling.frame_interval is None or sampling.frame_interval < 1:
        raise UsageError(f"sampling 'window' needs a frame_interval of 1 or more, got {sampling.frame_interval}")
    return sampling.frame_interval
