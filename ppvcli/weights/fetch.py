"""Published weight files into the store: over the network or from a mirror, checked, and as safetensors.

One file goes: look in the store -> take its lock -> transfer (`download.py`) or mirror folder -> compare the sha256 ->
read by the safe reader -> write safetensors beside it -> move both the weights and their record into place.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import filelock

from ppvcli.errors import DownloadError, OfflineError, VerificationError, WeightsError
from ppvcli.weights import formats, store
from ppvcli.weights.download import (
    OTHER_COPY,
    WITHOUT_NETWORK,
    DownloadProgress,
    FileNotThereError,
    Report,
    Transfer,
    TransferPolicy,
)
from ppvcli.weights.mirror import check_mirror, find_in_folder, is_http, mirror_urls
from ppvcli.weights.partial import PartialFile
from ppvcli.weights.store import StoreRecord, WeightSource


def download_weights(
    sources: Sequence[WeightSource],
    *,
    mirror: str | Path | None = None,
    offline: bool = False,
    force: bool = False,
    progress: Report | None = None,
    policy: TransferPolicy | None = None,
) -> list[StoreRecord]:
    """The store records of the sources, in order, after fetching what is not in the store (`force`: everything).

    `mirror` (default: `PPV_WEIGHTS_MIRROR`) is an http(s) address or a folder to ask instead of the published address;
    `mirror.py` says under which names. `offline` forbids connections; a folder works with it. A file that differs from
    the pinned hash, or from the one recorded at the first download, is refused, with `force` too, and the stored one
    is kept.

    Raises: OfflineError, DownloadError, VerificationError (damaged entry, without `force`), UsageError (mirror).
    """
    place = str(mirror or os.environ.get("PPV_WEIGHTS_MIRROR") or "") or None
    if place is not None:
        check_mirror(place)
    job = _Job(
        mirror=place,
        offline=offline,
        force=force,
        report=progress or (lambda _: None),
        policy=policy or TransferPolicy(),
    )
    return [job.run(source) for source in sources]


@dataclass(frozen=True, kw_only=True)
class _Job:
    """The settings of one `download_weights` call; its methods are the steps of one file."""

    mirror: str | None
    offline: bool
    force: bool
    report: Report
    policy: TransferPolicy

    def run(self, source: WeightSource) -> StoreRecord:
        try:
            record = self._stored(source.name) or self._fetch(source)
        except OSError as error:
            raise DownloadError(
                f"cannot store {source.name} in {store.weights_dir()}: {error.strerror or error}",
                hint=store.home_hint(error),
            ) from error
        size = record.size_bytes
        self.report(DownloadProgress(name=record.name, stage="done", received_bytes=size, total_bytes=size))
        return record

    def _stored(self, name: str) -> StoreRecord | None:
        return None if self.force or store.find(name) is None else store.read_record(name)

    def _fetch(self, source: WeightSource) -> StoreRecord:
        folder = Path(self.mirror).expanduser() if self.mirror is not None and not is_http(self.mirror) else None
        if self.offline and folder is None:
            raise OfflineError(
                f"{source.name} may not be fetched offline: {source.url} would go to {store.weights_path(source.name)}",
                hint=WITHOUT_NETWORK,
            )
        store.weights_dir().mkdir(parents=True, exist_ok=True)
        with self._lock(source.name):
            record = self._stored(source.name)  # another process may have been faster
            if record is not None:
                return record
            if folder is not None:
                copy = find_in_folder(source.url, folder=folder)
                return self._take_in(source, path=copy, origin=str(copy), etag=None)
            return self._transfer(source)

    @contextlib.contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        lock = filelock.FileLock(store.weights_dir() / f"{name}.lock")
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            self.report(DownloadProgress(name=name, stage="wait", message="another process is fetching it"))
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _transfer(self, source: WeightSource) -> StoreRecord:
        part = PartialFile(store.weights_dir() / f"{source.name}.part")
        urls = [source.url] if self.mirror is None else mirror_urls(source.url, base=self.mirror)
        for url in urls:
            transfer = Transfer(
                name=source.name,
                url=url,
                part=part,
                target_path=store.weights_path(source.name),
                report=self.report,
                policy=self.policy,
            )
            try:
                version = transfer.run()
                break
            except FileNotThereError:
                if url == urls[-1]:
                    raise
        try:
            record = self._take_in(source, path=part.path, origin=version.url, etag=version.etag)
        except DownloadError:
            part.discard()  # its content is at fault: never go on from it
            raise
        part.discard()
        return record

    def _take_in(self, source: WeightSource, *, path: Path, origin: str, etag: str | None) -> StoreRecord:
        size = path.stat().st_size
        self.report(DownloadProgress(name=source.name, stage="convert", received_bytes=size, total_bytes=size))
        source_sha256 = store.file_sha256(path)
        _check_hash(source, source_sha256=source_sha256, origin=origin)
        try:
            tensors = formats.read_weights(path).tensors
        except WeightsError as error:
            raise DownloadError(f"{origin} is no usable weight file: {error.message}", hint=OTHER_COPY) from error
        converted = store.weights_path(source.name).with_suffix(".tmp")
        try:
            facts = {"url": source.url, "source_sha256": source_sha256}
            metadata = formats.WeightsMetadata(model=source.name, extra=facts)
            formats.write_safetensors(converted, tensors, metadata=metadata)
            record = StoreRecord(
                name=source.name,
                url=source.url,
                fetched_from=origin,
                source_sha256=source_sha256,
                source_size_bytes=size,
                etag=etag,
                sha256=store.file_sha256(converted),
                size_bytes=converted.stat().st_size,
                downloaded_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            )
            store.put(record, weights=converted)
        finally:
            converted.unlink(missing_ok=True)
        return record


def _check_hash(source: WeightSource, *, source_sha256: str, origin: str) -> None:
    if source.sha256 is not None:
        if source_sha256 != source.sha256:
            raise DownloadError(
                f"{origin} is not the published file of {source.name}: "
                f"sha256 {source_sha256}, expected {source.sha256}",
                hint=OTHER_COPY,
            )
        return
    try:
        record = store.read_record(source.name)
    except VerificationError:
        return  # the memory of the first download is lost
    if record is not None and source_sha256 != record.source_sha256:
        raise DownloadError(
            f"{origin} is not the file of {source.name} that was downloaded on {record.downloaded_at}: "
            f"sha256 {source_sha256}, then {record.source_sha256}",
            hint=f"to accept the new file, delete {store.record_path(source.name)} "
            f"and run: ppv download-weights {source.name} --force",
        )
