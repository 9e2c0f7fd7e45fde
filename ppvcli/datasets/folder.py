"""Labelled clips from one sub-folder per class, and splits that keep groups together."""

from __future__ import annotations

import os
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ppvcli.datasets.annotations import Format, Sample, faults_error
from ppvcli.errors import DatasetError
from ppvcli.specs import VIDEO_SUFFIXES
from ppvcli.video.frame_folder import last_frame_number

_NO_GROUPS = (
    "another --group-pattern or data.val_groups, or none of them; where a config has groups: "
    "--val-ratio 0.2 --set data.val_groups=null --set data.group_pattern=null"
)
_EXPECTED: dict[Format, str] = {
    "videos": f"known endings: {' '.join(sorted(VIDEO_SUFFIXES))}",
    "frames": "a clip is a folder with files img_00001.jpg, img_00002.jpg, ...",
}
MAX_ENDINGS = 5
"""That a message counts."""


def scan_class_folders(root: Path, *, format: Format = "videos") -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Every clip below the sub-folders of `root`, in sorted order, and the sub-folders' names as classes.

    With `frames` a clip is a folder with files `img_00001.jpg`, .... Hidden folders are left out, links are followed.

    Raises: DatasetError where there is no sub-folder, and for sub-folders without a clip, all at once.
    """
    if not root.is_dir():
        what = f"{root} is a file, not a folder" if root.exists() else f"no folder {root}"
        raise DatasetError(what, hint="--data DIR, with one sub-folder of clips per class")
    find = _find_videos if format == "videos" else _find_frame_folders
    clips = {folder: find(folder) for folder in _class_folders(root)}
    if not clips:
        if format == "videos":
            raise DatasetError(f"{root}: no sub-folder holds a video", hint="expected DIR/<class name>/<clip>.mp4")
        raise DatasetError(
            f"{root}: no sub-folder holds a folder of frames", hint="expected DIR/<class name>/<clip>/img_00001.jpg"
        )
    empty = [folder for folder, found in clips.items() if not found]
    if empty:
        frames = ""
        if format == "videos" and any(_find_frame_folders(folder) for folder in empty):
            frames = "for folders of frames, --set data.format=frames, with ppv eval --format frames; otherwise "
        raise faults_error(
            [f"{folder} holds no clip{_describe_content(folder)}" for folder in empty],
            hint=f"{frames}convert or rename the files, remove the folder, or name the clips in a CSV; "
            f"{_EXPECTED[format]}",
        )
    samples = (Sample(path, i, count) for i, found in enumerate(clips.values()) for path, count in found)
    return tuple(samples), tuple(folder.name for folder in clips)


def folders_with_clips(root: Path, *, format: Format) -> list[Path]:
    """The sub-folders that hold clips; a clip that is itself a folder (of frames) is none."""
    find = _find_videos if format == "videos" else _find_frame_folders
    return [folder for folder in _class_folders(root) if any(path != folder for path, _ in find(folder))]


def describe_unused(root: Path) -> tuple[str, ...]:
    """A line each about clips outside of class folders and about files in them that are no videos by their ending."""
    remarks = []
    if num_stray := sum(_is_video(path) for path in root.iterdir()):
        remarks.append(f"{root}: clips outside of class folders are not used: {num_stray}")
    endings: Counter[str] = Counter()
    for folder in _class_folders(root):
        endings += _count_endings(folder)
    for suffix in VIDEO_SUFFIXES:
        del endings[suffix]
    if endings:
        remarks.append(f"{root}: files with no ending of a video are not used: {_describe(endings)}")
    return tuple(remarks)


def split_by_ratio(samples: Sequence[Sample], val_ratio: float, *, seed: int) -> tuple[tuple[Sample, ...], ...]:
    """(train, val): of every class with two clips or more, about `val_ratio` of them, at least one on each side."""
    rng = np.random.default_rng(seed)
    val: set[int] = set()
    for label in sorted({sample.label for sample in samples}):
        members = [i for i, sample in enumerate(samples) if sample.label == label]
        num_val = min(max(round(len(members) * val_ratio), 1), len(members) - 1)
        val.update(rng.permutation(members)[:num_val].tolist())
    return _divide(samples, val)


def split_by_group(
    samples: Sequence[Sample], pattern: str, *, val_groups: Sequence[str] | None, val_ratio: float | None, seed: int
) -> tuple[tuple[Sample, ...], ...]:
    """(train, val) so that clips whose file names show the same group stand on one side.

    Either `val_groups` are held out by name, or whole groups in random order until `val_ratio` of the clips is reached.
    Raises: DatasetError for clips without a group and for held-out groups that no clip has.
    """
    groups = []
    for sample in samples:
        match = re.search(pattern, sample.path.name)
        if match is None or not match.group(1):
            raise DatasetError(
                f"group pattern '{pattern}' is not found in file name '{sample.path.name}'", hint=_NO_GROUPS
            )
        groups.append(match.group(1))
    num_clips = Counter(groups)
    names = sorted(num_clips)
    if val_groups is not None:
        unknown = sorted(set(val_groups) - set(names))
        if unknown:
            raise DatasetError(
                f"no clip of held-out groups {', '.join(unknown)}; groups: {', '.join(names[:30])}", hint=_NO_GROUPS
            )
        held_out = set(val_groups)
    else:
        held_out, num_held_out = set(), 0
        target = (val_ratio or 0.0) * len(samples)
        for name in np.random.default_rng(seed).permutation(names)[: len(names) - 1].tolist():
            if held_out and num_held_out >= target:
                break
            held_out.add(name)
            num_held_out += num_clips[name]
    return _divide(samples, {i for i, group in enumerate(groups) if group in held_out})


def walk_files(root: Path, *, without: Path | None = None) -> Iterator[Path]:
    """Every file below `root` but those below `without`, links to folders followed; hidden folders are left out."""
    return (parent / name for parent, _, names in _walk(root, without=without) for name in names)


def _walk(root: Path, *, without: Path | None = None) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, in sorted order and every folder once; links come last, and none leads to a folder above `root`."""
    top = root.resolve()
    seen = {*top.parents, *(() if without is None else (without.resolve(),))} - {top}
    tops = deque([root])
    while tops:
        for name, folders, files in os.walk(tops.popleft()):
            parent = Path(name)
            resolved = parent.resolve()
            if resolved in seen:
                folders.clear()
                continue
            seen.add(resolved)
            folders[:] = sorted(folder for folder in folders if not folder.startswith("."))
            yield parent, folders, sorted(files)
            tops += [parent / folder for folder in folders if (parent / folder).is_symlink()]


def _class_folders(root: Path) -> list[Path]:
    return [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith(".")]


def _is_video(path: Path) -> bool:
    """By its ending; `._walk.mp4` is none, but what macOS keeps beside `walk.mp4` on other disks."""
    return not path.name.startswith(".") and path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def _count_endings(folder: Path) -> Counter[str]:
    """Of the files below `folder` that are not hidden, in lower case."""
    files = (path for path in walk_files(folder) if path.is_file() and not path.name.startswith("."))
    return Counter(path.suffix.lower() for path in files)


def _describe(endings: Counter[str]) -> str:
    """Such as `5 .xyz, 2 .txt`; the most frequent first."""
    shown = [f"{count} {suffix or 'without ending'}" for suffix, count in endings.most_common(MAX_ENDINGS)]
    return ", ".join([*shown, "..."] if len(endings) > MAX_ENDINGS else shown)


def _describe_content(folder: Path) -> str:
    """Of a folder without a clip."""
    endings = _count_endings(folder)
    return f", but {_describe(endings)}" if endings else " and no other file"


def _find_videos(folder: Path) -> list[tuple[Path, int | None]]:
    return [(path, None) for path in sorted(walk_files(folder)) if _is_video(path)]


def _find_frame_folders(folder: Path) -> list[tuple[Path, int | None]]:
    found: list[tuple[Path, int | None]] = []
    for parent, folders, _ in _walk(folder):
        if num_frames := last_frame_number(parent):
            found.append((parent, num_frames))
            folders.clear()
    return sorted(found)


def _divide(samples: Sequence[Sample], val: set[int]) -> tuple[tuple[Sample, ...], ...]:
    train = tuple(sample for i, sample in enumerate(samples) if i not in val)
    if not train or not val:
        raise DatasetError(
            f"a split of {len(samples)} clips leaves one side empty: {len(train)} train, {len(val)} val",
            hint="add clips, two or more of a class; where groups are held out, clips of two or more groups",
        )
    return train, tuple(samples[i] for i in sorted(val))
