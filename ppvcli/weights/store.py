"""The cache of downloaded weights: `<home>/weights/<name>.safetensors` and, beside it, a record `<name>.json`.

The record is what the download saw (address, sha256, size, ETag, date). A weight file is handed out only after its
whole sha256 was compared with it: 100 MB take about 0.1 s, little beside building a network from them, so there is no
cheaper check that trusts time stamps. A record without a weight file is no entry, but still holds the hash that the
next download of the published file must have.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ppvcli.errors import VerificationError, WeightsNotFoundError

_BLOCK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class WeightSource:
    """A published weight file and the name it gets in the store."""

    name: str
    url: str
    sha256: str | None = None
    """Pinned hash of the published file; None: what the first download brings is recorded."""


@dataclass(frozen=True, kw_only=True)
class StoreRecord:
    """Where a weight file of the store came from and what it must look like."""

    name: str
    url: str
    """The published address."""
    fetched_from: str
    """Where the bytes came from: `url`, or an address or path of a mirror."""
    source_sha256: str
    """Of the published file, before conversion."""
    source_size_bytes: int
    etag: str | None
    sha256: str
    """Of the safetensors file in the store."""
    size_bytes: int
    """Of the safetensors file in the store."""
    downloaded_at: str
    """ISO 8601, UTC."""


def home_dir() -> Path:
    """The folder for everything ppv keeps: `PPV_HOME`, else the cache folder of the platform."""
    if home := os.environ.get("PPV_HOME"):
        return Path(home).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_cache_dir("ppvcli", appauthor=False))


def home_hint(error: OSError) -> str:
    """What to try where the folder of everything can't be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "free some space there, or choose another folder: PPV_HOME=FOLDER"
    return "choose a folder that may be written: PPV_HOME=FOLDER"


def weights_dir() -> Path:
    """The folder of the store; it may not exist yet."""
    return home_dir() / "weights"


def weights_path(name: str) -> Path:
    """Where the weights of a model are, or would be."""
    return weights_dir() / f"{name}.safetensors"


def record_path(name: str) -> Path:
    """Where the record of a model is, or would be."""
    return weights_dir() / f"{name}.json"


def list_names() -> list[str]:
    """Names with a weight file in the store, sorted; whether the files are sound is for `verify`."""
    return sorted(path.stem for path in weights_dir().glob("*.safetensors"))


def state(name: str) -> Literal["absent", "stored", "damaged"]:
    """A quick look without hashing: `damaged` means no readable record or another size than recorded."""
    try:
        _check_size(name)
    except WeightsNotFoundError:
        return "absent"
    except VerificationError:
        return "damaged"
    return "stored"


def find(name: str) -> Path | None:
    """The weight file of a model, verified, or None if the store has none.

    Raises: VerificationError if there is a file that is not what was downloaded.
    """
    try:
        verify(name)
    except WeightsNotFoundError:
        return None
    return weights_path(name)


def verify(name: str) -> StoreRecord:
    """The record of a stored model, after comparing size and sha256 of the whole file with it.

    Raises: WeightsNotFoundError, VerificationError.
    """
    record = _check_size(name)
    try:
        digest = file_sha256(weights_path(name))
    except FileNotFoundError:
        raise _absent(name) from None
    if digest != record.sha256:
        raise _damaged(name, f"its sha256 is {digest}, recorded was {record.sha256}")
    return record


def read_record(name: str) -> StoreRecord | None:
    """The record of a model, or None if there is none; its weight file is not looked at.

    Raises: VerificationError if the record can't be read.
    """
    try:
        fields = json.loads(record_path(name).read_text(encoding="utf-8"))
        record = StoreRecord(**fields)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:  # not UTF-8, not JSON, or other fields than ours
        raise _damaged(name, f"its record {record_path(name)} can't be read") from error
    if record.name != name:
        raise _damaged(name, f"its record {record_path(name)} is of {record.name}")
    return record


def put(record: StoreRecord, *, weights: Path) -> None:
    """Moves a finished weight file of the store's folder and its record to their final names.

    The order keeps readers of other processes safe without a lock: at every moment they see the old entry, none, or the
    new one, and a crash in between leaves none.
    """
    new_record = weights.with_name(f"{record.name}.json.tmp")
    try:
        new_record.write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n", encoding="utf-8")
        weights_path(record.name).unlink(missing_ok=True)
        new_record.replace(record_path(record.name))
        weights.replace(weights_path(record.name))
    finally:
        new_record.unlink(missing_ok=True)


def remove(name: str) -> None:
    """Deletes a model's weights and record, and with the record the memory of the published file's hash."""
    for path in (weights_path(name), record_path(name)):
        path.unlink(missing_ok=True)


def file_sha256(path: Path) -> str:
    """The sha256 of a file, as 64 hex digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _check_size(name: str) -> StoreRecord:
    try:
        size_bytes = weights_path(name).stat().st_size
    except FileNotFoundError:
        raise _absent(name) from None
    record = read_record(name)
    if record is None:
        raise _damaged(name, "it has no record of where it came from")
    if size_bytes != record.size_bytes:
        raise _damaged(name, f"it has {size_bytes} bytes, recorded were {record.size_bytes}")
    return record


def _absent(name: str) -> WeightsNotFoundError:
    return WeightsNotFoundError(
        f"{name} is not in the store ({weights_path(name)})", hint=f"ppv download-weights {name}"
    )


def _damaged(name: str, fault: str) -> VerificationError:
    return VerificationError(
        f"the stored weights {weights_path(name)} can't be trusted: {fault}",
        hint=f"ppv download-weights {name} --force",
    )
