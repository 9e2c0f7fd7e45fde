"""A clip as a folder of JPEG files, `img_00001.jpg` and so on, read like a video."""

from __future__ import annotations

import io
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from ppvcli.errors import FrameFileError, NotAVideoFileError, VideoError, VideoNotFoundError
from ppvcli.video.limits import Watch
from ppvcli.video.sequential import Choose, Frames, Indices, Keeper, Transform, check_indices, stack

FRAME_NAME = re.compile(r"img_(\d{5,})\.jpg")

_END_OF_IMAGE = b"\xff\xd9"


class FrameFolder:
    """The first `num_frames` frames of a folder; frame i is file i + 1.

    Decoded by OpenCV: the pixels of Pillow, with which the reference reads them, in a quarter of the time.

    Raises:
        VideoNotFoundError, NotAVideoFileError: no folder is at `folder`.
        FrameFileError: it ends before frame `num_frames`.
    """

    def __init__(self, folder: Path, num_frames: int, watch: Watch) -> None:
        self.num_frames = num_frames
        self.duration_s = 0.0  # pictures without a clock
        self.damage: str | None = None  # a damaged picture is an error
        self._folder = folder
        self._watch = watch
        if not folder.is_dir():
            if folder.exists():
                raise NotAVideoFileError(f"{folder} is no folder of frames", hint="data.format=videos reads files")
            raise VideoNotFoundError(f"no folder of frames at {folder}", hint="check the path")
        if not (folder / frame_name(num_frames)).is_file():
            raise self._missing(num_frames)

    def expect(self, choose: Choose) -> None:
        """Nothing to prepare."""

    def read(self, indices: Indices, *, transform: Transform | None = None) -> Frames:
        """The frames at `indices`, in that order: uint8 [N, H, W, 3] RGB, or what `transform` makes of each: [N, ...].

        Raises:
            FrameIndexError: an index below zero or past the last frame.
            FrameFileError: a file is missing, damaged, or of another size than the others.
            FrameTooLargeError, DecodeTimeoutError: more than the limits allow.
        """
        wanted = check_indices(indices, self._folder, num_frames=self.num_frames)
        keep = Keeper(convert=self._decode, transform=transform, path=self._folder, size_error=_sizes_differ)
        return stack(keep(wanted.numbers.tolist(), wanted.numbers), wanted)

    def close(self) -> None:
        """Nothing is held open."""

    def _decode(self, index: int) -> npt.NDArray[np.uint8]:
        import cv2

        self._watch.check_time()
        number = index + 1
        path = self._folder / frame_name(number)
        try:
            content = path.read_bytes()
        except FileNotFoundError as error:
            raise self._missing(number) from error
        except OSError as error:
            raise FrameFileError(f"can't read {path}: {error}") from error
        try:
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as header:
                self._watch.check_size(*header.size)
        except (OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise FrameFileError(f"{path} is no JPEG file ({len(content)} bytes)") from error
        # OpenCV fills up with grey what is cut off, so the end is looked for
        flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
        frame_bgr = cv2.imdecode(np.frombuffer(content, np.uint8), flags) if _END_OF_IMAGE in content[-256:] else None
        if frame_bgr is None:
            raise FrameFileError(f"{path} is cut off or damaged", hint="extract the frames of this clip again")
        return cv2.cvtColor(frame_bgr, cv2.COLOR_BGR2RGB)

    def _missing(self, number: int) -> VideoError:
        last = last_frame_number(self._folder)
        found = f"the folder ends at {frame_name(last)}" if last < number else f"it goes on to {frame_name(last)}"
        return FrameFileError(
            f"{self._folder / frame_name(number)} is missing: the data set says {self.num_frames} frames, {found}",
            hint="extract the frames of this clip again, or correct its row",
        )


def _sizes_differ(folder: Path, index: int, expected: tuple[int, ...], got: tuple[int, ...]) -> FrameFileError:
    return FrameFileError(
        f"the frames of {folder} differ in size: {frame_name(index + 1)} is {got[1]}x{got[0]}, "
        f"others are {expected[1]}x{expected[0]}"
    )


def frame_name(number: int) -> str:
    """The file name of a frame, numbered from 1: `img_00001.jpg`."""
    return f"img_{number:05d}.jpg"


def last_frame_number(folder: Path) -> int:
    """The highest number that a frame in `folder` has; 0 where there is none, or no folder."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries]
    except OSError:
        return 0
    return max((int(match[1]) for name in names if (match := FRAME_NAME.fullmatch(name))), default=0)
