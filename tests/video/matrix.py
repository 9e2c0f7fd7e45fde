"""Small videos of every kind that could break a decoding plan: codecs, containers, times, damage. None is stored."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from tests.video.numbered import remux

Frames = npt.NDArray[np.uint8]

NUM_FRAMES = 36
CUTS = (13, 14, 27)
"""Where the picture changes altogether, so that encoders put key frames there."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One video of the matrix."""

    name: str
    codec: str
    options: Mapping[str, str] = field(default_factory=dict)
    pixel_format: str = "yuv420p"
    size: tuple[int, int] = (64, 48)
    container_options: Mapping[str, str] = field(default_factory=dict)
    planned: bool | None = False
    """Whether the plan has to be trusted; None where either is right."""
    rework: Callable[[Path], None] | None = None
    """What is done to the file after writing."""

    def write(self, folder: Path) -> Path:
        """The file of this row, made in `folder`."""
        path = folder / self.name
        frames = moving_frames(NUM_FRAMES, size=self.size)
        encode(
            path,
            frames,
            codec=self.codec,
            options=self.options,
            pixel_format=self.pixel_format,
            container_options=self.container_options,
        )
        if self.rework is not None:
            self.rework(path)
        return path


def moving_frames(num_frames: int, *, size: tuple[int, int], seed: int = 0) -> Frames:
    """Noise that drifts, with a block that moves over it; another noise after each of `CUTS`: uint8 [T, H, W, 3]."""
    width, height = size
    rng = np.random.default_rng(seed)
    frames = np.empty((num_frames, height, width, 3), dtype=np.uint8)
    wall = np.zeros((1, 1, 3))
    for number, frame in enumerate(frames):
        if number == 0 or number in CUTS:
            coarse = rng.integers(30, 220, size=((height + num_frames) // 8 + 2, (width + num_frames) // 8 + 2, 3))
            wall = np.kron(coarse, np.ones((8, 8, 1)))
        frame[:] = wall[number : number + height, number // 2 : number // 2 + width]
        left, top = number * 3 % (width - 16), number * 2 % (height - 16)
        frame[top : top + 14, left : left + 14] = (250, number * 7 % 256, 20)
    return frames


def encode(
    path: Path,
    frames: Frames,
    *,
    codec: str,
    options: Mapping[str, str],
    pixel_format: str = "yuv420p",
    container_options: Mapping[str, str] | None = None,
) -> None:
    """Writes a video with any encoder of PyAV."""
    with av.open(str(path), "w", options=dict(container_options or {})) as container:
        stream = container.add_stream(codec, rate=Fraction(25), options=dict(options))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def _rewrite(path: Path, change: Callable[[Path, Path], object]) -> None:
    source = path.with_name(f"source_{path.name}")
    path.rename(source)
    change(source, path)
    source.unlink()


def _trim(path: Path) -> None:
    _rewrite(path, lambda source, target: remux(source, target, cut_s=7 / 25))


def _start_late(path: Path) -> None:
    _rewrite(path, lambda source, target: remux(source, target, cut_s=-3.0))


def _vary_rate(path: Path) -> None:
    _rewrite(path, lambda source, target: remux(source, target, stretch_after_s=0.7))


def _with_times(times: Callable[[list[int]], Sequence[int]]) -> Callable[[Path], None]:
    """Gives the packets other presentation times: `times` makes them of the old ones, in decoding order."""

    def change(source: Path, target: Path) -> None:
        with av.open(str(source)) as old, av.open(str(target), "w") as new:
            stream = old.streams.video[0]
            copy = new.add_stream_from_template(stream)
            packets = [packet for packet in old.demux(stream) if packet.size]
            known = [packet.pts for packet in packets if packet.pts is not None]
            assert len(known) == len(packets)
            for place, (packet, time) in enumerate(zip(packets, times(known), strict=True)):
                packet.pts, packet.dts = time + 4000, place
                packet.stream = copy
                new.mux(packet)

    return lambda path: _rewrite(path, change)


def _begin_with_open_gop(path: Path) -> None:
    """Leaves out all before the first CRA picture: the pictures before it in the order of output lose references."""

    def change(source: Path, target: Path) -> None:
        with av.open(str(source)) as old, av.open(str(target), "w") as new:
            stream = old.streams.video[0]
            copy = new.add_stream_from_template(stream)
            packets = [packet for packet in old.demux(stream) if packet.size]
            kinds = [bytes(packet)[4] >> 1 for packet in packets]
            first = kinds.index(21)
            assert kinds[first + 1] in (8, 9)
            for packet in packets[first:]:
                packet.stream = copy
                new.mux(packet)

    _rewrite(path, change)


def _swap_nearest(times: list[int]) -> list[int]:
    return [times[place ^ 1] if place ^ 1 < len(times) else times[place] for place in range(len(times))]


def _repeat_some(times: list[int]) -> list[int]:
    return [times[place - place % 3] for place in range(len(times))]


def _rotate(path: Path) -> None:
    content = bytearray(path.read_bytes())
    one, unit = 1 << 16, 1 << 30
    struct.pack_into(">9i", content, content.index(b"tkhd") + 44, 0, one, 0, -one, 0, 0, 0, 0, unit)
    path.write_bytes(content)


def _claim_more_frames(path: Path) -> None:
    content = bytearray(path.read_bytes())
    for place in (content.index(b"avih") + 24, content.index(b"strh") + 40):
        struct.pack_into("<I", content, place, NUM_FRAMES + 15)
    path.write_bytes(content)


def _double_height(path: Path) -> None:
    """Claims twice the height in the header: FFmpeg then takes each picture for a field, and two for a frame."""
    content = bytearray(path.read_bytes())
    for place in (content.index(b"avih") + 44, content.index(b"strf") + 16):
        (height,) = struct.unpack_from("<I", content, place)
        struct.pack_into("<I", content, place, 2 * height)
    path.write_bytes(content)


def _append_larger(codec: str) -> Callable[[Path], None]:
    def append(path: Path) -> None:
        larger = path.with_name(f"larger_{path.name}")
        encode(larger, moving_frames(12, size=(96, 64)), codec=codec, options={"g": "6"})
        path.write_bytes(path.read_bytes() + larger.read_bytes())
        larger.unlink()

    return append


def _cut_off(share: float) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * share)])

    return cut


def damage_packets(path: Path, target: Path, *, seed: int, num_bytes: int) -> Path:
    """A copy of a video with `num_bytes` bytes inside its packets changed; the container stays whole."""
    content = bytearray(path.read_bytes())
    rng = np.random.default_rng(seed)
    with av.open(str(path)) as container:
        spans = [
            (packet.pos, packet.size)
            for packet in container.demux(video=0)
            if packet.pos is not None and packet.pos >= 0 and packet.size
        ]
    for _ in range(num_bytes):
        start, size = spans[int(rng.integers(0, len(spans)))]
        # headers are the beginning: half of the changes go there
        place = start + int(rng.integers(0, min(size, 12) if rng.random() < 0.5 else size))
        if place < len(content):
            content[place] ^= int(rng.integers(1, 256))
    target.write_bytes(content)
    return target


def pack_b_frames(path: Path) -> None:
    """Packs each B-frame into the packet of the picture before it, with an empty picture after, as DivX and XviD do."""

    def change(source: Path, target: Path) -> None:
        with av.open(str(source)) as old:
            stream = old.streams.video[0]
            pictures = [bytes(packet) for packet in old.demux(stream) if packet.size]
            with av.open(str(target), "w") as new:
                copy = new.add_stream_from_template(stream)
                packets = _packed(pictures)
                copy.codec_context.codec_tag = "XVID"
                copy.codec_context.extradata = packets[0][: packets[0].index(b"\0\0\1\xb6")]
                for number, data in enumerate(packets):
                    packet = av.Packet(data)
                    packet.pts = packet.dts = number
                    packet.time_base = Fraction(1, 25)
                    packet.is_keyframe = number == 0
                    packet.stream = copy
                    new.mux(packet)

    _rewrite(path, change)


def _packed(pictures: list[bytes]) -> list[bytes]:
    kinds = [data[data.index(b"\0\0\1\xb6") + 4] >> 6 for data in pictures]
    first = pictures[0].index(b"\0\0\1\xb6")
    pictures = [pictures[0][:first] + b"\0\0\1\xb2DivX503b1393p" + pictures[0][first:], *pictures[1:]]
    packets: list[bytes] = []
    place = 0
    while place < len(pictures):
        end = place + 1
        while end < len(pictures) and kinds[end] == 2:
            end += 1
        run = pictures[place:end]
        # one packet holds two pictures, the others one each, and an empty picture makes up the number
        packets += [b"".join(run[:2]), *run[2:], *([b"\0\0\1\xb6\x50\x40\x7f"] if len(run) > 1 else [])]
        place = end
    return packets


def _x264(**params: object) -> dict[str, str]:
    text = ":".join(f"{name.replace('_', '-')}={value}" for name, value in params.items())
    return {"x264-params": text, "preset": "veryfast"}


def x265(**params: object) -> dict[str, str]:
    """The options of libx265 for these of its own."""
    text = "".join(f":{name.replace('_', '-')}={value}" for name, value in params.items())
    return {"x265-params": f"log-level=none{text}", "preset": "veryfast"}


_OPEN_GOP = x265(keyint=10, bframes=3)
_SLICES = x265(keyint=12, slices=3, ctu=16)
_WAVEFRONTS = x265(keyint=12, wpp=1, pools=2, ctu=16)
_HEADERS = x265(keyint=10, repeat_headers=1, aud=1, hrd=1, hash=1, vbv_bufsize=500, vbv_maxrate=500)
_AV1 = {"preset": "10", "crf": "40", "g": "12"}
_VP9 = {"deadline": "realtime", "cpu-used": "8"}
_FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
_B_PYRAMID = _x264(keyint=12, bframes=4, b_pyramid="normal", b_adapt=0, ref=3)

ROWS = {
    row.name: row
    for row in (
        # H.264, kinds of coding
        Row(name="h264_intra.mp4", codec="libx264", options=_x264(keyint=1), planned=True),
        Row(name="h264_12.mp4", codec="libx264", options=_x264(keyint=12, min_keyint=12), planned=True),
        Row(name="h264_30.mp4", codec="libx264", options=_x264(keyint=30, bframes=2), planned=True),
        Row(name="h264_250.mp4", codec="libx264", options=_x264(keyint=250), planned=True),
        Row(name="h264_pyramid.mp4", codec="libx264", options=_B_PYRAMID, planned=True),
        Row(name="h264_no_b.mp4", codec="libx264", options=_x264(keyint=12, bframes=0), planned=True),
        Row(name="h264_open_gop.mp4", codec="libx264", options=_x264(keyint=9, open_gop=1, bframes=3), planned=True),
        Row(name="h264_refresh.mp4", codec="libx264", options=_x264(intra_refresh=1, keyint=10), planned=True),
        Row(name="h264_slices.mp4", codec="libx264", options=_x264(keyint=12, slices=3), planned=True),
        Row(
            name="h264_cavlc.mp4",
            codec="libx264",
            options=_x264(keyint=15, cabac=0, ref=5, weightp=2, weightb=1, no_deblock=1, bframes=3, b_adapt=0),
            planned=True,
        ),
        Row(name="h264_refs.mp4", codec="libx264", options=_x264(keyint=20, ref=8, bframes=5, b_adapt=0), planned=True),
        Row(name="h264_interlaced.mp4", codec="libx264", options=_x264(keyint=12, tff=1)),
        Row(name="h264_422.mp4", codec="libx264", options=_x264(keyint=12), pixel_format="yuv422p", planned=True),
        Row(name="h264_444.mp4", codec="libx264", options=_x264(keyint=12), pixel_format="yuv444p", planned=True),
        Row(name="h264_10bit.mp4", codec="libx264", options=_x264(keyint=12), pixel_format="yuv420p10le", planned=True),
        Row(name="h264_gray.mp4", codec="libx264", options=_x264(keyint=12), pixel_format="gray", planned=True),
        Row(name="h264_cropped.mp4", codec="libx264", options=_x264(keyint=12), size=(70, 54), planned=True),
        # H.264, containers
        Row(name="h264.mov", codec="libx264", options=_B_PYRAMID, planned=True),
        Row(name="h264_fragments.mp4", codec="libx264", options=_B_PYRAMID, container_options=_FRAGMENTS, planned=True),
        Row(name="h264.mkv", codec="libx264", options=_B_PYRAMID, planned=True),
        Row(name="h264.ts", codec="libx264", options=_B_PYRAMID, planned=True),
        Row(name="h264.flv", codec="libx264", options=_B_PYRAMID, planned=True),
        Row(name="h264.avi", codec="libx264", options=_x264(keyint=12, bframes=0), planned=True),
        Row(name="h264.h264", codec="libx264", options=_B_PYRAMID, planned=True),
        # H.264, times
        Row(name="h264_trimmed.mp4", codec="libx264", options=_x264(keyint=12, bframes=2), rework=_trim),
        Row(name="h264_late.mp4", codec="libx264", options=_B_PYRAMID, rework=_start_late, planned=True),
        Row(name="h264_late.ts", codec="libx264", options=_B_PYRAMID, rework=_start_late, planned=True),
        Row(name="h264_vfr.mp4", codec="libx264", options=_x264(keyint=12, bframes=0), rework=_vary_rate, planned=True),
        Row(
            name="h264_swapped.mkv",
            codec="libx264",
            options=_B_PYRAMID,
            rework=_with_times(_swap_nearest),
            planned=True,
        ),
        Row(
            name="h264_repeated.mkv",
            codec="libx264",
            options=_B_PYRAMID,
            rework=_with_times(_repeat_some),
            planned=True,
        ),
        Row(name="h264_rotated.mp4", codec="libx264", options=_B_PYRAMID, rework=_rotate, planned=True),
        # H.264, damage
        Row(name="h264_cut.mkv", codec="libx264", options=_B_PYRAMID, rework=_cut_off(0.7), planned=None),
        Row(name="h264_cut.ts", codec="libx264", options=_B_PYRAMID, rework=_cut_off(0.8), planned=None),
        Row(name="h264_two_sizes.ts", codec="libx264", options=_x264(keyint=12), rework=_append_larger("libx264")),
        Row(name="h264_two_sizes.h264", codec="libx264", options=_x264(keyint=12), rework=_append_larger("libx264")),
        # MPEG-4 part 2
        Row(name="mpeg4.avi", codec="mpeg4", options={"g": "12"}, planned=True),
        Row(name="mpeg4.mp4", codec="mpeg4", options={"g": "12"}, planned=True),
        Row(name="mpeg4_b.mp4", codec="mpeg4", options={"g": "12", "bf": "2"}, planned=True),
        Row(name="mpeg4_b.avi", codec="mpeg4", options={"g": "12", "bf": "2"}, planned=True),
        Row(name="mpeg4_b.mkv", codec="mpeg4", options={"g": "9", "bf": "3"}, planned=True),
        Row(
            name="mpeg4_packed.avi",
            codec="mpeg4",
            options={"g": "300", "bf": "2", "sc_threshold": "1000000000"},
            rework=pack_b_frames,
            planned=True,
        ),
        Row(name="mpeg4_odd.avi", codec="mpeg4", options={"g": "6"}, size=(67, 51), planned=True),
        Row(name="mpeg4_lies.avi", codec="mpeg4", options={"g": "12"}, rework=_claim_more_frames, planned=True),
        Row(name="mpeg4_cut.avi", codec="mpeg4", options={"g": "12"}, rework=_cut_off(0.8), planned=None),
        Row(name="mpeg4_two_sizes.ts", codec="mpeg4", options={"g": "12"}, rework=_append_larger("mpeg4")),
        # MJPEG
        Row(name="mjpeg.avi", codec="mjpeg", pixel_format="yuvj420p", planned=True),
        Row(name="mjpeg.mov", codec="mjpeg", pixel_format="yuvj422p", planned=True),
        Row(name="mjpeg.mkv", codec="mjpeg", pixel_format="yuvj444p", size=(67, 51), planned=True),
        Row(name="mjpeg_cut.avi", codec="mjpeg", pixel_format="yuvj420p", rework=_cut_off(0.7), planned=None),
        Row(name="mjpeg_fields.avi", codec="mjpeg", pixel_format="yuvj420p", rework=_double_height),
        # HEVC, kinds of coding
        Row(name="hevc_intra.mp4", codec="libx265", options=x265(keyint=1), planned=True),
        Row(name="hevc_250.mp4", codec="libx265", options=x265(keyint=250), planned=True),
        Row(name="hevc_open_gop.mp4", codec="libx265", options=_OPEN_GOP, planned=True),
        Row(name="hevc_closed_gop.mp4", codec="libx265", options=x265(keyint=10, open_gop=0), planned=True),
        Row(
            name="hevc_leading.mp4",
            codec="libx265",
            options=x265(keyint=10, min_keyint=10, open_gop=0, radl=2, bframes=3, b_adapt=0),
            planned=True,
        ),
        Row(name="hevc_short_gop.mp4", codec="libx265", options=x265(keyint=3, min_keyint=1, b_adapt=0), planned=True),
        Row(name="hevc_no_b.mp4", codec="libx265", options=x265(keyint=12, bframes=0), planned=True),
        Row(
            name="hevc_refs.mp4",
            codec="libx265",
            options=x265(keyint=20, ref=5, bframes=6, b_adapt=0, weightb=1),
            planned=True,
        ),
        Row(name="hevc_slices.mp4", codec="libx265", options=_SLICES, size=(96, 80), planned=True),
        Row(name="hevc_rows.mp4", codec="libx265", options=_WAVEFRONTS, size=(96, 80), planned=True),
        Row(name="hevc_layers.mp4", codec="libx265", options=x265(keyint=12, temporal_layers=1), planned=True),
        Row(name="hevc_headers.mp4", codec="libx265", options=_HEADERS, planned=True),
        Row(name="hevc_refresh.mp4", codec="libx265", options=x265(intra_refresh=1, keyint=10), planned=None),
        Row(name="hevc_lossless.mp4", codec="libx265", options=x265(keyint=12, lossless=1), planned=True),
        Row(
            name="hevc_tools.mp4",
            codec="libx265",
            options=x265(keyint=12, scaling_list="default", deblock="2,-1", tskip=1, cbqpoffs=2, temporal_mvp=0),
            planned=True,
        ),
        Row(name="hevc_wrapping.mp4", codec="libx265", options=x265(log2_max_poc_lsb=4, scenecut=0), planned=True),
        Row(name="hevc_422.mp4", codec="libx265", options=x265(keyint=12), pixel_format="yuv422p", planned=True),
        Row(name="hevc_444.mp4", codec="libx265", options=x265(keyint=12), pixel_format="yuv444p", planned=True),
        Row(name="hevc_10bit.mp4", codec="libx265", options=x265(keyint=12), pixel_format="yuv420p10le", planned=True),
        Row(name="hevc_gray.mp4", codec="libx265", options=x265(keyint=12), pixel_format="gray", planned=True),
        Row(name="hevc_cropped.mp4", codec="libx265", options=x265(keyint=12), size=(70, 54), planned=True),
        Row(name="hevc_interlaced.mp4", codec="libx265", options=x265(keyint=12, interlace="tff")),
        Row(name="hevc_recovery.mp4", codec="libx265", options=x265(keyint=10, idr_recovery_sei=1), planned=True),
        # HEVC, containers, times and damage
        Row(name="hevc.mp4", codec="libx265", options=_OPEN_GOP, planned=True),
        Row(name="hevc.mkv", codec="libx265", options=_OPEN_GOP, planned=True),
        Row(name="hevc.mov", codec="libx265", options=_OPEN_GOP, planned=True),
        Row(name="hevc.ts", codec="libx265", options=_OPEN_GOP, planned=True),
        Row(name="hevc.hevc", codec="libx265", options=_OPEN_GOP, planned=True),
        Row(name="hevc_fragments.mp4", codec="libx265", options=_OPEN_GOP, container_options=_FRAGMENTS, planned=True),
        Row(name="hevc_trimmed.mp4", codec="libx265", options=_OPEN_GOP, rework=_trim),
        Row(name="hevc_late.mp4", codec="libx265", options=_OPEN_GOP, rework=_start_late, planned=True),
        Row(
            name="hevc_repeated.mkv", codec="libx265", options=_OPEN_GOP, rework=_with_times(_repeat_some), planned=True
        ),
        Row(name="hevc_rotated.mp4", codec="libx265", options=_OPEN_GOP, rework=_rotate, planned=True),
        Row(name="hevc_begun.mkv", codec="libx265", options=_OPEN_GOP, rework=_begin_with_open_gop, planned=None),
        Row(name="hevc_cut.mkv", codec="libx265", options=_OPEN_GOP, rework=_cut_off(0.7), planned=None),
        Row(name="hevc_two_sizes.ts", codec="libx265", options=_HEADERS, rework=_append_larger("libx265")),
        # all others
        Row(name="vp8.webm", codec="libvpx", options={"g": "12", "auto-alt-ref": "1", "lag-in-frames": "12"}),
        Row(name="vp9.webm", codec="libvpx-vp9", options={**_VP9, "g": "12"}),
        Row(
            name="vp9_hidden.webm",
            codec="libvpx-vp9",
            options={"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"},
        ),
        Row(name="vp9_odd.webm", codec="libvpx-vp9", options=_VP9, size=(67, 51)),
        Row(name="vp9_cut.webm", codec="libvpx-vp9", options=_VP9, rework=_cut_off(0.7), planned=None),
        Row(name="av1.mp4", codec="libsvtav1", options=_AV1),
        Row(name="mpeg2.ts", codec="mpeg2video", options={"g": "12", "bf": "2"}),
        Row(name="animation.gif", codec="gif", pixel_format="rgb8"),
        Row(name="flv1.flv", codec="flv", options={"g": "12"}),
    )
}
