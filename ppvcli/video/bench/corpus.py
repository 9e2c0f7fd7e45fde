"""Rendered videos for `bench_decode` where no files are given: the formats of action data sets, in a few seconds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageChops

from ppvcli.video.render import HEIGHT, WIDTH, render_action, write_video

Frames = npt.NDArray[np.uint8]

NOISE_LEVELS = 3.0
"""Standard deviation. Without the noise of a sensor, files are a tenth as large as real ones and decode too easily."""


@dataclass(frozen=True, kw_only=True)
class CorpusVideo:
    """One video to write."""

    name: str
    codec: str
    size_wh: tuple[int, int]
    num_frames: int = 200
    options: Mapping[str, str] = field(default_factory=dict)


def _h264(name: str, *, gop: int) -> CorpusVideo:
    options = {"g": str(gop), "preset": "superfast", "bf": "2"}
    return CorpusVideo(name=name, codec="libx264", size_wh=(340, 256), options=options)


CORPUS = (
    CorpusVideo(name="mpeg4_240p.avi", codec="mpeg4", size_wh=(320, 240), options={"g": "12", "b": "600k"}),
    _h264("h264_256p_gop12.mp4", gop=12),
    _h264("h264_256p_gop30.mp4", gop=30),
    _h264("h264_256p_gop250.mp4", gop=250),
    _h264("h264_256p.ts", gop=30),
    CorpusVideo(
        name="hevc_256p.mp4",
        codec="libx265",
        size_wh=(340, 256),
        options={"preset": "superfast", "x265-params": "log-level=none:keyint=30:crf=22"},
    ),
    CorpusVideo(
        name="vp9_360p.webm",
        codec="libvpx-vp9",
        size_wh=(640, 360),
        num_frames=100,
        options={"deadline": "realtime", "cpu-used": "8", "g": "60", "b": "800k"},
    ),
    CorpusVideo(
        name="h264_720p_gop30.mp4",
        codec="libx264",
        size_wh=(1280, 720),
        num_frames=100,
        options={"g": "30", "preset": "superfast", "bf": "2", "crf": "28"},
    ),
)
"""XviD as in UCF101 and HMDB51, H.264 as in Kinetics, and formats that some libraries read wrong."""


def write_corpus(folder: Path) -> list[Path]:
    """Renders and encodes the corpus into `folder`; formats for which FFmpeg has no encoder here are left out."""
    paths = []
    action = render_action("walk", num_frames=max(video.num_frames for video in CORPUS))
    filmed: tuple[object, Frames] = (None, action)
    for video in CORPUS:
        if video.codec not in av.codecs_available:
            continue
        if filmed[0] != (video.size_wh, video.num_frames):  # neighbours often show the same
            filmed = (video.size_wh, video.num_frames), _as_filmed(action[: video.num_frames], video.size_wh)
        write_video(folder / video.name, filmed[1], codec=video.codec, options=video.options)
        paths.append(folder / video.name)
    return paths


def _as_filmed(frames_thwc: Frames, size_wh: tuple[int, int]) -> Frames:
    """The frames as a hand-held camera of that size would see them: uint8 [T, H, W, 3]."""
    width, height = size_wh
    rng = np.random.default_rng(0)
    grain = Image.fromarray(rng.normal(128.5, NOISE_LEVELS, size=(height + 64, width + 64)).astype(np.uint8))
    grain = grain.convert("RGB")
    result = np.empty((len(frames_thwc), height, width, 3), dtype=np.uint8)
    for index, frame_hwc in enumerate(frames_thwc):
        left, top = 6 + 5 * math.sin(index / 17), 4 + 3 * math.sin(index / 11)
        box = (left, top, left + WIDTH - 12, top + HEIGHT - 8)
        image = Image.fromarray(frame_hwc).resize(size_wh, Image.Resampling.BILINEAR, box=box)
        x, y = rng.integers(0, 64, size=2).tolist()
        result[index] = np.asarray(ImageChops.add(image, grain.crop((x, y, x + width, y + height)), offset=-128))
    return result
