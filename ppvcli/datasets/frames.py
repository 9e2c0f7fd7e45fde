"""Clips into folders of JPEG files, several processes side by side.

A folder of frames appears under its name complete or not at all: a worker writes beside it, counts, and renames. The
frames are those of `ppvcli.video.decoding`, numbered from 1 without gaps.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ppvcli.datasets.workers import HAVE_WORKERS, Crew, Output, WorkerDiedError, map_here
from ppvcli.errors import DatasetError, VideoError
from ppvcli.video.frame_folder import FRAME_NAME, frame_name
from ppvcli.video.sequential import Frames

JPEG_QUALITY = 95
"""Of OpenCV's encoder, with colour at half resolution (4:2:0); what the reference's extraction has."""

_FRAMES_AT_ONCE = 256


@dataclass(frozen=True, kw_only=True)
class FrameJob:
    """One clip and the folder that its frames go to."""

    clip: Path
    folder: Path
    work_dir: Path
    """Where the folder grows, on the same disk."""


@dataclass(frozen=True, kw_only=True)
class FrameResult:
    """What a clip gave, or why it gave nothing."""

    job: FrameJob
    num_frames: int = 0
    sha256: str = ""
    """As `frames_sha256` has it."""
    damage: str | None = None
    """What decoding complained of; None too where the frames were there already."""
    error: str | None = None


def extract_frames(jobs: Sequence[FrameJob], *, num_workers: int) -> Generator[FrameResult, None, None]:
    """A result for each job, in order; with one worker the work happens in this process.

    Raises: DatasetError if a worker process dies; OSError, as for a full disk.
    """
    if num_workers == 1 or len(jobs) <= 1 or not HAVE_WORKERS:
        results = map_here(extract_clip, jobs)
    else:
        num_workers = min(num_workers, len(jobs))
        crew = Crew(extract_clip, num_workers=num_workers, num_slots=8 * num_workers, max_bytes=0)
        results = crew.map(jobs)
    try:
        for job, result in zip(jobs, results, strict=True):
            if isinstance(result, VideoError):
                yield FrameResult(job=job, error=result.message)
            else:
                num_frames, sha256, damage = result.note
                yield FrameResult(job=job, num_frames=num_frames, sha256=sha256, damage=damage)
    except WorkerDiedError as error:
        clip = f" while it read {error.item.clip}" if isinstance(error.item, FrameJob) else ""
        raise DatasetError(
            f"a process that extracts frames {error.how}{clip}",
            hint="run the same command again, with fewer: --num-workers 1",
        ) from error


def extract_clip(job: FrameJob) -> Output:
    """Writes all frames of a clip, unless its folder is there; gives their number, hash and damage.

    Raises: VideoError for a clip that can't be decoded.
    """
    if job.folder.is_dir():
        return Output((count_frames(job.folder), frames_sha256(job.folder), None))
    growing = job.work_dir / f"{job.folder.name}-{os.getpid()}"
    shutil.rmtree(growing, ignore_errors=True)
    growing.mkdir(parents=True)
    try:
        num_frames, damage = _write_frames(job.clip, growing)
    except VideoError:
        shutil.rmtree(growing, ignore_errors=True)
        raise
    if count_frames(growing) != num_frames:
        raise DatasetError(f"wrote {num_frames} frames of {job.clip} to {growing}, but they are not all there")
    sha256 = frames_sha256(growing)
    job.folder.parent.mkdir(parents=True, exist_ok=True)
    growing.replace(job.folder)
    return Output((num_frames, sha256, damage))


def count_frames(folder: Path) -> int:
    """How many frames a folder holds: N, if they are numbered 1 to N, else -1."""
    numbers = sorted(int(match[1]) for path in folder.iterdir() if (match := FRAME_NAME.fullmatch(path.name)))
    return len(numbers) if numbers == list(range(1, len(numbers) + 1)) else -1


def frames_sha256(folder: Path) -> str:
    """Of the names and contents of all frames: what `sha256sum img_*.jpg | sha256sum` says in the folder."""
    names = sorted(path.name for path in folder.iterdir() if FRAME_NAME.fullmatch(path.name))
    rows = (f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    return hashlib.sha256("".join(rows).encode()).hexdigest()


def _write_frames(clip: Path, folder: Path) -> tuple[int, str | None]:
    """The number of frames, and what decoding complained of."""
    import cv2

    from ppvcli.video.decoding import open_video

    def write(frame_hwc: Frames, number: int) -> None:
        bgr = cv2.cvtColor(frame_hwc, cv2.COLOR_RGB2BGR)
        _, encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        (folder / frame_name(number)).write_bytes(encoded.tobytes())

    with open_video(clip) as video:
        while True:
            num_frames = video.num_frames
            try:
                for start in range(0, num_frames, _FRAMES_AT_ONCE):
                    some = video.read(range(start, min(start + _FRAMES_AT_ONCE, num_frames)))
                    for number, frame_hwc in enumerate(some, start=start + 1):
                        write(frame_hwc, number)
            except VideoError:
                if video.num_frames == num_frames:
                    raise
            if video.num_frames == num_frames:
                return num_frames, video.damage
            for path in folder.iterdir():  # a damaged clip turned out to have other frames: it is read again
                path.unlink()
