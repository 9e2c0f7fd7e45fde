"""`dataset.yaml`: what was prepared, from what, by what, with sizes and hashes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import yaml
from pydantic import TypeAdapter, ValidationError

from ppvcli.errors import DatasetError
from ppvcli.files import write_text

RECORD_NAME = "dataset.yaml"

Format = Literal["videos", "frames"]


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file that the data set was made from."""

    name: str
    origin: str
    """An address or a path."""
    size_bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class PreparedLists:
    """One split in one format, as it lies in the folder."""

    split: int
    format: Format
    train_list: str
    val_list: str
    num_train: int
    num_val: int
    num_missing: int
    """Clips that are listed but absent or unreadable."""
    list_sha256: dict[str, str]
    """By file name."""
    num_frames: int | None
    jpeg_quality: int | None
    """Both None for videos."""
    prepared_at: str
    versions: dict[str, str]


@dataclass(frozen=True, kw_only=True)
class DatasetRecord:
    """Everything that `dataset.yaml` says."""

    name: str
    source: str
    """The folder, archive or address that was asked for."""
    unpacked_by: str | None
    files: tuple[SourceFile, ...]
    """Archives and split lists."""
    num_listed: int
    num_classes: int
    labels_sha256: str
    num_clips: int
    clips_bytes: int
    clips_sha256: str
    """Of `videos.sha256`, which has the sha256 of every clip."""
    frames_sha256: str | None = None
    """Of `frames.sha256`, which has that of every folder of frames; None without frames, and in early records."""
    prepared: tuple[PreparedLists, ...]

    def find(self, split: int, format: Format) -> PreparedLists | None:
        """The lists of that split and format, if they were prepared."""
        return next((one for one in self.prepared if (one.split, one.format) == (split, format)), None)

    def with_lists(self, lists: PreparedLists) -> DatasetRecord:
        """The record with these lists in place of the former ones of their split and format."""
        others = [one for one in self.prepared if (one.split, one.format) != (lists.split, lists.format)]
        return replace(self, prepared=(*others, lists))


_ADAPTER = TypeAdapter(DatasetRecord)


def read_record(folder: Path) -> DatasetRecord | None:
    """The record of a prepared folder, or None where there is none. Raises: DatasetError for one that is damaged."""
    path = folder / RECORD_NAME
    try:
        return _ADAPTER.validate_python(yaml.safe_load(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise DatasetError(f"{path} is damaged: {reason}", hint="--force prepares the folder anew") from error


def write_record(folder: Path, record: DatasetRecord) -> None:
    """Replaces the record of a folder, at once."""
    tree = _ADAPTER.dump_python(record, mode="json")
    write_text(folder / RECORD_NAME, yaml.safe_dump(tree, sort_keys=False, allow_unicode=True))
