"""The libraries that `bench_decode` compares: how each is found, and how each does the experiment with one thread.

The experiment is that of the publications: learn how many frames a video has, take the middle one of each of N
segments, decode these to RGB. A library is imported inside its function only: each runs in a process of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    import av
    import numpy as np
    import numpy.typing as npt

    Frames = npt.NDArray[np.uint8]

Decoded = TypeVar("Decoded")


class Sample(NamedTuple):
    """What the experiment gives for one video."""

    num_frames: int
    """What the library takes for the length of the video."""
    frames_thwc: Frames
    """uint8 [T, H, W, 3] RGB."""
    fallback: str | None = None
    """Why `ppv` decoded sequentially; None where it did not, and of other libraries."""
    damage: str | None = None
    """What sequential decoding for the exact frames complained of; None elsewhere."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """One way to decode the frames of a sample."""

    name: str
    how: str
    module: str
    """What is imported."""
    pip: str
    """What installs it."""
    read: Callable[[str, int], Sample]
    """(path, number of segments) -> the sample; raises whatever the library raises."""
    distribution: str | None = None
    """Tells apart what has the same import name."""
    num_threads: int = 1
    """Threads that decode at the same time, at most."""

    @property
    def is_installed(self) -> bool:
        """Whether it could be imported here; nothing is imported for that."""
        if self.distribution is None:
            return importlib.util.find_spec(self.module) is not None
        try:
            importlib.metadata.distribution(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return False
        return True

    def load(self) -> str:
        """Imports the library and returns its version.

        Raises:
            ImportError: it can't be imported, or another distribution took its import name.
        """
        version = str(getattr(importlib.import_module(self.module), "__version__", "unknown"))
        if self.distribution is not None:
            expected = importlib.metadata.version(self.distribution)
            if version.split("+")[0] != expected.split("+")[0]:  # builds add to it: torchcodec 0.12.0+cpu
                raise ImportError(
                    f"'import {self.module}' gives version {version}, not {self.distribution} {expected}: "
                    "another distribution with that import name was installed over it"
                )
        return version


def _read_ppv(path: str, num_segments: int) -> Sample:
    from ppvcli.video.decoding import open_video
    from ppvcli.video.limits import DecodeLimits
    from ppvcli.video.plan import PlannedReader
    from ppvcli.video.sampling import uniform_eval

    with open_video(path, limits=DecodeLimits(timeout_s=None)) as video:  # who starts the process watches the clock
        assert isinstance(video, PlannedReader)
        video.expect(lambda num_frames: uniform_eval(num_frames, num_segments))
        frames_thwc = video.read(uniform_eval(video.num_frames, num_segments))
        return Sample(video.num_frames, frames_thwc, fallback=video.fallback)


def _read_pyav(path: str, num_segments: int) -> Sample:
    import av
    import numpy as np
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    # conversion takes all cores since PyAV 17, which waits more than it works; older ones know no `threads`
    one_thread: dict[str, Any] = {"threads": 1} if int(av.__version__.split(".")[0]) >= 17 else {}

    def frames() -> Iterator[av.VideoFrame]:
        with av.open(path, metadata_errors="ignore") as container:
            container.streams.video[0].codec_context.thread_count = 1
            yield from container.decode(video=0)

    def to_rgb(frame: av.VideoFrame) -> Frames:
        frame_hwc = reformatter.reformat(frame, format="rgb24", **one_thread).to_ndarray().astype(np.uint8, copy=False)
        turns = round(frame.rotation / 90) % 4
        return np.rot90(frame_hwc, turns) if turns else frame_hwc

    with av.open(path, metadata_errors="ignore") as container:
        stream = container.streams.video[0]
        num_frames = stream.frames or sum(1 for packet in container.demux(stream) if packet.size)
    return _sample(num_frames, num_segments, frames=frames, convert=to_rgb)


def _read_opencv(path: str, num_segments: int) -> Sample:
    import cv2

    def frames() -> Iterator[Any]:
        capture = _open_opencv(path)
        while capture.grab():
            yield capture

    def retrieve(capture: Any) -> Frames:
        found, frame_bgr = capture.retrieve()
        if not found:
            raise RuntimeError("retrieve() gives no frame")
        return cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)

    return _sample(_count_opencv(path), num_segments, frames=frames, convert=retrieve)


def _read_opencv_naive(path: str, num_segments: int) -> Sample:
    import cv2

    def frames() -> Iterator[Frames]:
        capture = _open_opencv(path)
        while True:
            found, frame_bgr = capture.read()
            if not found:
                return
            yield cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)

    num_frames = _count_opencv(path)
    return _sample(num_frames, num_segments, frames=frames, convert=lambda frame_hwc: frame_hwc, to_the_end=True)


def _open_opencv(path: str) -> Any:
    import cv2

    cv2.setNumThreads(1)
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        raise RuntimeError("VideoCapture can't open it")
    return capture


def _count_opencv(path: str) -> int:
    import cv2

    capture = _open_opencv(path)
    claimed = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    if claimed > 0:
        return claimed
    count = 0
    while capture.grab():
        count += 1
    return count


def _read_decord(path: str, num_segments: int) -> Sample:
    import decord

    from ppvcli.video.sampling import uniform_eval

    video = decord.VideoReader(path, num_threads=1)
    return Sample(len(video), video.get_batch(uniform_eval(len(video), num_segments).tolist()).asnumpy())


def _read_torchcodec(path: str, num_segments: int) -> Sample:
    import torch
    from torchcodec.decoders import VideoDecoder

    from ppvcli.video.sampling import uniform_eval

    torch.set_num_threads(1)
    video = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=1)
    num_frames = len(video)
    batch = video.get_frames_at(indices=uniform_eval(num_frames, num_segments).tolist())
    return Sample(num_frames, batch.data.numpy())


def _sample(
    num_frames: int,
    num_segments: int,
    *,
    frames: Callable[[], Iterator[Decoded]],
    convert: Callable[[Decoded], Frames],
    to_the_end: bool = False,
) -> Sample:
    """Runs through the video up to the last wanted frame; once more, where it is shorter than was claimed."""
    import numpy as np

    from ppvcli.video.sampling import uniform_eval

    wanted = uniform_eval(num_frames, num_segments).tolist()
    taken: dict[int, Frames] = {}
    places, last, count = set(wanted), max(wanted), 0
    for index, frame in enumerate(frames()):
        count = index + 1
        if index in places:
            taken[index] = convert(frame)
        if index == last and not to_the_end:
            break
    if count == 0:
        raise RuntimeError("not one frame comes")
    if count <= last:
        return _sample(count, num_segments, frames=frames, convert=convert, to_the_end=to_the_end)
    return Sample(num_frames, np.stack([taken[index] for index in wanted]))


CONTESTANTS: dict[str, Contestant] = {
    one.name: one
    for one in (
        Contestant(name="ppv", how="packet plan, else sequential", module="ppvcli", pip="ppvcli", read=_read_ppv),
        Contestant(name="pyav", how="sequential", module="av", pip="av", read=_read_pyav),
        Contestant(name="opencv", how="grab/retrieve", module="cv2", pip="opencv-python", read=_read_opencv),
        Contestant(name="opencv-naive", how="decode all", module="cv2", pip="opencv-python", read=_read_opencv_naive),
        Contestant(
            name="decord", how="get_batch", module="decord", pip="decord", read=_read_decord, distribution="decord"
        ),
        Contestant(
            name="decord2", how="get_batch", module="decord", pip="decord2", read=_read_decord, distribution="decord2"
        ),
        Contestant(
            name="torchcodec",
            how="get_frames_at",
            module="torchcodec",
            pip="torch torchcodec",
            read=_read_torchcodec,
            distribution="torchcodec",
        ),
    )
}
"""Name on the command line -> contestant."""

DEFAULT_LIBS = ("ppv", "pyav", "opencv", "decord")
"""Compared where no list is given, and besides them, where installed, ..."""

ALSO_IF_INSTALLED = ("decord2", "torchcodec")
