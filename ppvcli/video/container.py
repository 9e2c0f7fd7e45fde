"""Opens video files, and says precisely why one can't be opened: a step that all decoders share."""

from __future__ import annotations

import errno
import re
import shlex
import stat
from collections.abc import Mapping
from pathlib import Path

import av
import av.error
from av.stream import Disposition

from ppvcli.errors import (
    EmptyFileError,
    FrameTooLargeError,
    NotAVideoFileError,
    NoVideoStreamError,
    TruncatedVideoError,
    UnreadableVideoError,
    VideoNotFoundError,
)
from ppvcli.video.limits import Watch

CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "gif", "flv", "asf", "mpeg", "ogg", "mxf", "nut", "ivf", "rm", "dv", "wtv"),
    *("h264", "hevc", "obu", "av1", "mpegvideo", "m4v", "yuv4mpegpipe"),
    *("wav", "mp3", "flac", "aac", "ac3", "aiff"),
)
"""FFmpeg's names of the containers we open, sound files too, so that their error can say so. Not among them: playlists
(hls, dash, concat, sdp) and image sequences, which make FFmpeg open further files."""

OpenStream = tuple[av.container.InputContainer, av.VideoStream]
"""An open file and the stream that is read."""

MOST_PIXELS = 2**31 - 1
"""What FFmpeg takes for its own limit."""

FIRST_FRAME = "img_00001.jpg"
"""What a folder of frames holds; see `frame_folder.py`."""

FETCH_AGAIN = "play it in another program; if that fails too, fetch or copy it again"


_NOT_OF_THE_FILE = {
    errno.EMFILE: "fewer files at the same time, or a higher limit: ulimit -n 4096",
    errno.ENFILE: "the whole system has too many files open; end other programs",
    errno.ENOMEM: "memory is short; fewer workers or threads",
    errno.ESTALE: "the network drive has lost the file; try again",
}
"""Errors of the system that say nothing of a video -> hint."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SAVE_FIRST = "save the video into a file first"


def check_file(path: str | Path) -> None:
    """Passes if a regular file with something in it is at `path`.

    What is no path, an address or `-`, can be told only from text: a `Path` has lost it.

    Raises:
        VideoNotFoundError, NotAVideoFileError, EmptyFileError: it is not.
        UnreadableVideoError: the system does not let us look.
    """
    text, path = str(path), Path(path)
    if not text:
        raise VideoNotFoundError("no video: its name is empty", hint="a variable in the command may be empty")
    try:
        status = path.stat()
    except (OSError, ValueError) as error:  # what an address causes depends on the system
        if _ADDRESS.match(text):
            raise VideoNotFoundError(
                f"{text} is an address, and only local files are read", hint="download it, then give the file"
            ) from error
        if text == "-":
            raise NotAVideoFileError("- (standard input) is no regular file", hint=_SAVE_FIRST) from error
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise _nothing_at(path) from error
        raise UnreadableVideoError(
            f"can't look at {str(path)!r}: {error}", hint="check path and permissions"
        ) from error
    if stat.S_ISDIR(status.st_mode):
        raise _directory(path)
    if not stat.S_ISREG(status.st_mode):
        raise NotAVideoFileError(f"{path} is no regular file", hint=_SAVE_FIRST)
    if status.st_size == 0:
        raise EmptyFileError(f"{path} is empty: 0 bytes", hint="fetch or copy it again")


def _nothing_at(path: Path) -> VideoNotFoundError:
    return VideoNotFoundError(f"no video at {path}: nothing is there", hint="check the path")


def _directory(path: Path) -> NotAVideoFileError:
    if (path / FIRST_FRAME).is_file():
        return NotAVideoFileError(
            f"{path} is a folder of frames, not a video file",
            hint="predict takes video files; folders of frames are for training and evaluation: "
            "ppv eval --format frames --data DIR",
        )
    return NotAVideoFileError(
        f"{path} is a directory, not a video file", hint=f"name the files in it: {shlex.quote(str(path))}/*"
    )


def open_stream(path: Path, *, watch: Watch, options: Mapping[str, str] | None = None) -> OpenStream:
    """The open container and its first video stream (cover pictures don't count), set to one codec thread.

    Only the file itself is read: neither a URL nor another file that it names. `options` are further ones of FFmpeg.

    Raises:
        DecodeTimeoutError, FrameTooLargeError: more than the limits of `watch`.
        VideoNotFoundError: it is gone.
        UnreadableVideoError: no format we read, or damaged; or the system does not let us.
        TruncatedVideoError: an mp4 or mov whose end, and with it the index, is missing.
        NoVideoStreamError: sound or subtitles only.
    """
    own = {"protocol_whitelist": "file", "format_whitelist": ",".join(CONTAINERS)}
    try:
        container = av.open(
            str(path.absolute()),
            metadata_errors="ignore",
            options={**(options or {}), **own},
            timeout=watch.limits.timeout_s,
        )
    except av.error.ExitError as error:
        raise watch.timeout() from error
    except FileNotFoundError as error:  # since `check_file`
        raise _nothing_at(path) from error
    except PermissionError as error:
        hint = f"chmod u+r {shlex.quote(str(path))}"
        raise UnreadableVideoError(f"can't open {path}: permission denied", hint=hint) from error
    except (av.error.FFmpegError, OSError) as error:
        if error.errno in _NOT_OF_THE_FILE:
            raise UnreadableVideoError(
                f"can't open {path}: {error.strerror}", hint=_NOT_OF_THE_FILE[error.errno]
            ) from error
        if error.errno == errno.EINVAL:  # what the format whitelist answers
            raise UnreadableVideoError(
                f"can't open {path}: it is a playlist, an image or another format that is not read here",
                hint="give the video file itself",
            ) from error
        if missing := _missing_bytes(path):
            raise TruncatedVideoError(
                f"can't open {path}: the file is cut off, {missing} bytes and its index are missing at the end",
                hint="fetch or copy it again",
            ) from error
        raise UnreadableVideoError(
            f"can't open {path}: no known video format, or its header is damaged", hint=FETCH_AGAIN
        ) from error
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic:
            continue
        if stream.codec_context is None:
            container.close()
            raise UnreadableVideoError(f"can't decode {path}: its video codec is unknown", hint=FETCH_AGAIN)
        try:
            watch.check_size(stream.codec_context.width, stream.codec_context.height)
        except FrameTooLargeError:
            container.close()
            raise
        stream.codec_context.thread_count = 1
        # a frame size inside the stream may differ from the header's; the decoder must not make room for just any (it
        # counts its margins too, so that what is a little too large is left to the check of each frame)
        stream.codec_context.options = {"max_pixels": str(min(2 * watch.limits.max_pixels + (1 << 20), MOST_PIXELS))}
        return container, stream
    kinds = sorted({stream.type for stream in container.streams})
    container.close()
    raise NoVideoStreamError(
        f"{path} holds no video stream, only: {', '.join(kinds) or 'nothing'}", hint="give a file with moving pictures"
    )


def _missing_bytes(path: Path) -> int:
    """How many bytes an mp4 or mov lacks at its end; 0 for what is complete or another format.

    Such a file is a row of boxes, each with its length first; the index often comes last and nothing opens without it.
    """
    try:
        size, file = path.stat().st_size, path.open("rb")
    except OSError:
        return 0
    end = 0
    with file:
        while size - end >= 8:
            file.seek(end)
            header = file.read(16)
            length, kind = int.from_bytes(header[:4], "big"), header[4:8]
            if end == 0 and kind not in (b"ftyp", b"wide", b"mdat", b"moov", b"free", b"skip"):
                return 0
            length = int.from_bytes(header[8:], "big") if length == 1 else length
            if length < 8:
                return 0
            end += length
    return max(0, end - size)


def check_stream(path: Path, watch: Watch) -> None:
    """Refuses for every decoder what `SequentialReader` refuses."""
    container, _ = open_stream(path, watch=watch)
    container.close()
