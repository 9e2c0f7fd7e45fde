from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from ppvcli.specs import VIDEO_SUFFIXES
from ppvcli.video.check import check_clip
from ppvcli.video.render import render_action

CONTAINERS = {
    **dict.fromkeys((".f4v", ".m4v", ".mov", ".mp4", ".qt"), ("mov", "libx264")),
    **dict.fromkeys((".3g2", ".3gp"), ("3gp", "mpeg4")),
    **dict.fromkeys((".avi", ".divx"), ("avi", "mpeg4")),
    **dict.fromkeys((".m2t", ".m2ts", ".mts", ".ts"), ("mpegts", "libx264")),
    **dict.fromkeys((".mpeg", ".mpg", ".vob"), ("vob", "mpeg2video")),
    **dict.fromkeys((".asf", ".wmv"), ("asf", "wmv2")),
    **dict.fromkeys((".rm", ".rmvb"), ("rm", "rv20")),
    ".dv": ("dv", "dvvideo"),
    ".flv": ("flv", "flv"),
    ".gif": ("gif", "gif"),
    ".m2v": ("mpeg2video", "mpeg2video"),
    ".mkv": ("matroska", "libx264"),
    ".mxf": ("mxf", "mpeg2video"),
    ".ogv": ("ogg", "libvpx"),
    ".webm": ("webm", "libvpx"),
    ".wtv": ("wtv", "mpeg2video"),
}
"""Suffix -> FFmpeg's muxer and an encoder for what such files hold."""


@pytest.fixture(scope="module")
def frames_thwc() -> np.ndarray:
    """Of the one size that DV knows at 25 frames a second."""
    frames = np.zeros((3, 576, 720, 3), np.uint8)
    frames[:, :144, :180] = render_action("bend", num_frames=3)
    return frames


@pytest.mark.parametrize("suffix", sorted(VIDEO_SUFFIXES))
def test_every_ending_that_makes_a_clip_stands_for_files_that_are_decoded(
    suffix: str, frames_thwc: np.ndarray, tmp_path: Path
) -> None:
    muxer, codec = CONTAINERS[suffix]
    path = tmp_path / f"clip{suffix}"
    with av.open(str(path), "w", format=muxer) as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height = 720, 576
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        for frame_hwc in frames_thwc:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame_hwc, format="rgb24")))
        container.mux(stream.encode())
    assert check_clip(path) is None
