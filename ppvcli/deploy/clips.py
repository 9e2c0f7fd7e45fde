"""The clips that an export is checked and calibrated with: the user's, and rendered ones."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ppvcli.datasets.annotations import read_lines
from ppvcli.errors import DatasetError
from ppvcli.specs import VIDEO_SUFFIXES, Preprocess
from ppvcli.video.clip import load_frames
from ppvcli.video.render import render_action, write_video

Clip = npt.NDArray[np.uint8]
"""uint8 [T, H, W, 3] RGB: one view of a video, before normalisation."""

RENDERED_ACTIONS = ("wave2", "walk")


@dataclass(frozen=True, kw_only=True)
class Clips:
    """Videos that a user has named."""

    paths: tuple[Path, ...]
    truth: tuple[int, ...] | None = None
    """Their class indices, where a list says them."""


def find_clips(source: str | Path, *, purpose: str) -> Clips:
    """The videos of a folder (and below), of a list with rows `path` or `path label`, or the one that `source` is.

    Paths in a list are relative to its folder. `purpose`, such as "calibration", is for the error message.

    Raises: DatasetError where there is no video, or a list names files that are not there or labels only some.
    """
    source = Path(source)
    if source.is_dir():
        files = sorted(path for path in source.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file())
        if not files:
            raise DatasetError(f"{purpose}: no video in the folder {source}")
        return Clips(paths=tuple(files))
    if not source.is_file():
        raise DatasetError(
            f"{purpose}: no folder, list or video at {source}", hint="a folder of clips, or a file with one path a line"
        )
    if source.suffix.lower() in VIDEO_SUFFIXES:
        return Clips(paths=(source,))
    return _read_clip_list(source, purpose=purpose)


def _read_clip_list(source: Path, *, purpose: str) -> Clips:
    lines = [line.strip() for line in read_lines(source) if line.strip()]
    paths, labels, missing, plain = [], [], [], []
    for line in lines:
        name, _, label = line.rpartition(" ")
        path = source.parent / line
        if not path.is_file() and label.isdecimal():
            path = source.parent / name.strip()
            labels.append(int(label))
        else:
            plain.append(line)
        paths.append(path)
        if not path.is_file():
            missing.append(line)
    if missing:
        raise DatasetError(
            f"{purpose}: {len(missing)} of {len(lines)} clips in {source} are not there, first: {missing[0]}",
            hint=f"paths are relative to {source.parent}",
        )
    if not paths:
        raise DatasetError(f"{purpose}: the list {source} names no clip")
    if labels and plain:
        raise DatasetError(
            f"{purpose}: {len(plain)} of {len(lines)} rows of {source} have no label, first: {plain[0]}",
            hint="a row is `path label`, or all are `path`",
        )
    return Clips(paths=tuple(paths), truth=tuple(labels) or None)


def load_first_views(clips: Clips, preprocess: Preprocess) -> Iterator[Clip]:
    """One view of each video, the first of those that evaluation takes. Raises: VideoError."""
    for path in clips.paths:
        yield load_frames(path, preprocess).frames_vthwc[0]


def rendered_views(preprocess: Preprocess) -> list[Clip]:
    """The first view of a figure doing each of RENDERED_ACTIONS."""
    with tempfile.TemporaryDirectory(prefix="ppv-rendered-") as folder:
        paths = [Path(folder) / f"{action}.mp4" for action in RENDERED_ACTIONS]
        for path, action in zip(paths, RENDERED_ACTIONS, strict=True):
            write_video(path, render_action(action))
        return list(load_first_views(Clips(paths=tuple(paths)), preprocess))
