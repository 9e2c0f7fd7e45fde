"""Whether a clip is whole: all of it is decoded, not only the frames that a sample needs."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ppvcli.errors import FrameFileError, counted
from ppvcli.video.container import check_file
from ppvcli.video.frame_folder import FrameFolder, last_frame_number
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits, Watch
from ppvcli.video.sampling import linspace
from ppvcli.video.sequential import SequentialReader

_NUM_CONVERTED = 8
_FRAMES_AT_ONCE = 64


def check_clip(path: Path, num_frames: int | None = None, *, limits: DecodeLimits = DEFAULT_LIMITS) -> str | None:
    """Decodes a whole video, or a folder of `num_frames` frames; a remark if it is usable, but damaged or odd.

    Raises: VideoError where it can't be used.
    """
    watch = Watch(path, limits)
    return _check_video(path, watch) if num_frames is None else _check_folder(path, num_frames, watch)


def _check_video(path: Path, watch: Watch) -> str | None:
    check_file(path)
    video = SequentialReader(path, watch)
    try:
        video.expect(lambda count: linspace(count, _NUM_CONVERTED))
        video.read(np.unique(linspace(video.num_frames, _NUM_CONVERTED)))
        return (
            f"damaged ({video.damage}): {counted(video.num_frames, 'frame')} can be decoded" if video.damage else None
        )
    finally:
        video.close()


def _check_folder(path: Path, num_frames: int, watch: Watch) -> str | None:
    folder = FrameFolder(path, num_frames, watch)
    size_hw = folder.read([0]).shape[1:3]
    for start in range(0, num_frames, _FRAMES_AT_ONCE):
        frames_thwc = folder.read(range(start, min(start + _FRAMES_AT_ONCE, num_frames)))
        if frames_thwc.shape[1:3] != size_hw:
            raise FrameFileError(f"the frames of {path} differ in size, from number {start + 1} on")
    last = last_frame_number(path)
    return f"the folder holds {last} frames, the list says {num_frames}" if last > num_frames else None
