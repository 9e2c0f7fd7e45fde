"""Videos whose frames carry their number, so that a wrong frame is seen whatever a codec does to its colours."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from ppvcli.video.render import write_video

Frames = npt.NDArray[np.uint8]

NUM_FRAMES = 40
NUM_BITS = 8


@dataclass(frozen=True, kw_only=True)
class Format:
    """One way to write a video, and who reads it right."""

    name: str
    codec: str
    pixel_format: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    opencv: bool = True
    decord: bool = True

    def write(self, path: Path, frames_thwc: Frames) -> Path:
        write_video(path, frames_thwc, codec=self.codec, pixel_format=self.pixel_format, options=self.options)
        return path


_QUIET_X265 = {"x265-params": "log-level=none"}
_AV1 = {"preset": "8", "crf": "20"}  # faster presets of this encoder draw single blocks a frame late

FORMATS = {
    one.name: one
    for one in (
        Format(name="h264.mp4", codec="libx264", options={"g": "12", "bf": "2"}),
        Format(name="h264.mov", codec="libx264"),
        Format(name="h264.mkv", codec="libx264"),
        Format(name="h264.ts", codec="libx264", decord=False),
        Format(name="h264.avi", codec="libx264", options={"bf": "0"}, decord=False),
        Format(name="hevc.mp4", codec="libx265", options=_QUIET_X265),
        Format(name="hevc.mkv", codec="libx265", options=_QUIET_X265),
        Format(name="hevc.ts", codec="libx265", options=_QUIET_X265, decord=False),
        Format(name="vp9.webm", codec="libvpx-vp9"),
        Format(name="vp9.mp4", codec="libvpx-vp9"),
        Format(name="av1.mp4", codec="libsvtav1", options=_AV1, opencv=False, decord=False),
        Format(name="av1.webm", codec="libsvtav1", options=_AV1, opencv=False, decord=False),
        Format(name="mpeg4.avi", codec="mpeg4"),
        Format(name="mpeg4_b_frames.avi", codec="mpeg4", options={"bf": "2"}, decord=False),
        Format(name="mpeg4.mp4", codec="mpeg4", options={"bf": "2"}),
        Format(name="mpeg2.ts", codec="mpeg2video", options={"bf": "2"}, decord=False),
        Format(name="animation.gif", codec="gif", pixel_format="rgb8", decord=False),
        Format(name="lossless.avi", codec="rawvideo", pixel_format="bgr24"),
    )
}


def numbered_frames(num_frames: int = NUM_FRAMES, *, width: int = 96, height: int = 64) -> Frames:
    """Frames with their number in binary (white blocks on grey, lowest bit first) over a block that moves."""
    frames = np.full((num_frames, height, width, 3), 60, dtype=np.uint8)
    for number, frame in enumerate(frames):
        for bit in range(NUM_BITS):
            if number >> bit & 1:
                frame[8:40, 8 + bit * 10 : 16 + bit * 10] = 230
        frame[44:60, number * 3 % 80 : number * 3 % 80 + 16] = (200, 30, 30)
    return frames


def numbers_of(frames: Frames) -> list[int]:
    """What the blocks say, frame by frame."""
    return [
        sum(1 << bit for bit in range(NUM_BITS) if frame[14:34, 10 + bit * 10 : 14 + bit * 10].mean() > 145)
        for frame in frames
    ]


def remux(
    source: Path,
    target: Path,
    *,
    stretch_after_s: float | None = None,
    cut_s: float = 0.0,
    container_options: dict[str, str] | None = None,
) -> Path:
    """The same packets with other times: the first `cut_s` cut off, everything after `stretch_after_s` slowed down."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=container_options or {}) as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        for packet in old.demux(stream):
            if packet.dts is None or packet.pts is None:
                continue
            assert packet.time_base is not None
            cut = round(cut_s / packet.time_base)
            late = stretch_after_s is not None and packet.pts * packet.time_base > stretch_after_s
            packet.pts = (packet.pts - cut) * (3 if late else 1)
            packet.dts = (packet.dts - cut) * (3 if late else 1)
            packet.stream = copy
            new.mux(packet)
    return target
