"""What is done with a published file besides moving its bytes: hashes, mirrors, damaged entries."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from ppvcli.errors import DownloadError, OfflineError, UsageError, VerificationError
from ppvcli.weights import store
from ppvcli.weights.download import TransferPolicy
from ppvcli.weights.fetch import download_weights
from ppvcli.weights.formats import read_metadata
from ppvcli.weights.store import WeightSource
from tests.weights.conftest import PUBLISHED, weight_file
from tests.weights.file_server import FileServer, say

HASTY = TransferPolicy(num_attempts=2, first_wait_s=0.002, max_wait_s=0.02, read_timeout_s=0.3)
SHA256 = hashlib.sha256(PUBLISHED).hexdigest()
FAR = WeightSource(name="some_model", url="https://weights.invalid/release/TSM/some.pdparams")


def test_fetch_takes_the_folder_of_a_mirror_as_a_path(store_dir: Path, tmp_path: Path) -> None:
    (tmp_path / "mirror").mkdir()
    (tmp_path / "mirror" / "some.pdparams").write_bytes(PUBLISHED)
    (record,) = download_weights([FAR], mirror=tmp_path / "mirror")
    assert record.fetched_from == str(tmp_path / "mirror" / "some.pdparams")


def test_fetch_from_a_mirror_that_is_no_address_says_so(store_dir: Path) -> None:
    with pytest.raises(UsageError, match=r"the mirror 'http://\[x' is neither"):
        download_weights([FAR], mirror="http://[x")


# --- hashes -----------------------------------------------------------------------------------------------------------


def test_fetch_of_the_pinned_file_records_its_hash(source: WeightSource) -> None:
    (record,) = download_weights([replace(source, sha256=SHA256)], policy=HASTY)
    assert record.source_sha256 == SHA256


def test_fetch_of_another_than_the_pinned_file_is_refused(source: WeightSource, server: FileServer) -> None:
    server.content = weight_file(2)
    with pytest.raises(DownloadError, match=f"expected {SHA256}"):
        download_weights([replace(source, sha256=SHA256)], policy=HASTY)
    assert store.find(source.name) is None
    server.content = PUBLISHED
    download_weights([replace(source, sha256=SHA256)], policy=HASTY)
    assert server.requests[1].range is None


def test_fetch_with_force_of_another_than_the_recorded_file_keeps_the_stored_one(
    source: WeightSource, server: FileServer
) -> None:
    (first,) = download_weights([source], policy=HASTY)
    server.content, server.etag = weight_file(2), '"v2"'
    with pytest.raises(DownloadError, match=first.source_sha256) as caught:
        download_weights([source], force=True, policy=HASTY)
    assert store.verify(source.name) == first
    assert str(store.record_path(source.name)) in str(caught.value.hint)
    store.record_path(source.name).unlink()  # what the hint says
    (second,) = download_weights([source], force=True, policy=HASTY)
    assert second.source_sha256 == hashlib.sha256(server.content).hexdigest()


def test_fetch_after_weights_were_deleted_still_remembers_their_hash(source: WeightSource, server: FileServer) -> None:
    download_weights([source], policy=HASTY)
    store.weights_path(source.name).unlink()
    server.content, server.etag = weight_file(2), '"v2"'
    with pytest.raises(DownloadError, match="is not the file of some_model that was downloaded on"):
        download_weights([source], policy=HASTY)
    server.content, server.etag = PUBLISHED, '"v1"'
    download_weights([source], policy=HASTY)
    assert store.find(source.name) is not None


@pytest.mark.parametrize("part", ["weights", "record"])
def test_fetch_over_damaged_entry_needs_force(part: str, source: WeightSource) -> None:
    (first,) = download_weights([source], policy=HASTY)
    path = store.weights_path(source.name) if part == "weights" else store.record_path(source.name)
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(VerificationError) as caught:
        download_weights([source], policy=HASTY)
    assert caught.value.hint == "ppv download-weights some_model --force"
    download_weights([source], force=True, policy=HASTY)
    assert store.verify(source.name).source_sha256 == first.source_sha256


def test_stored_file_names_its_model_and_source(source: WeightSource) -> None:
    download_weights([source], policy=HASTY)
    metadata = read_metadata(store.weights_path(source.name))
    assert metadata is not None
    assert metadata.model == source.name
    assert metadata.extra == {"url": source.url, "source_sha256": SHA256}


# --- mirrors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["release/TSM/some.pdparams", "some.pdparams"])
@pytest.mark.parametrize("offline", [False, True])
def test_fetch_from_mirror_folder_needs_no_network(place: str, offline: bool, tmp_path: Path, store_dir: Path) -> None:
    copy = tmp_path / "mirror" / place
    copy.parent.mkdir(parents=True)
    copy.write_bytes(PUBLISHED)
    (record,) = download_weights([FAR], mirror=str(tmp_path / "mirror"), offline=offline)
    assert (record.url, record.fetched_from, record.source_sha256) == (FAR.url, str(copy), SHA256)
    assert copy.read_bytes() == PUBLISHED
    assert sorted(path.suffix for path in store_dir.iterdir() if path.suffix != ".lock") == [".json", ".safetensors"]


def test_fetch_from_mirror_folder_without_the_file_names_the_places(tmp_path: Path, store_dir: Path) -> None:
    with pytest.raises(DownloadError, match=r"TSM.some\.pdparams and .*some\.pdparams"):
        download_weights([FAR], mirror=str(tmp_path))


def test_fetch_with_mirror_in_environment_uses_it(
    tmp_path: Path, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "some.pdparams").write_bytes(PUBLISHED)
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", str(tmp_path))
    (record,) = download_weights([FAR])
    assert record.fetched_from == str(tmp_path / "some.pdparams")


def test_fetch_from_mirror_address_tries_path_then_name(server: FileServer, source: WeightSource) -> None:
    server.answers = [say(404)]
    (record,) = download_weights([FAR], mirror=f"{server.base}/copies/", policy=HASTY)
    assert [request.path for request in server.requests] == [
        "/copies/release/TSM/some.pdparams",
        "/copies/some.pdparams",
    ]
    assert (record.url, record.fetched_from) == (FAR.url, f"{server.base}/copies/some.pdparams")


def test_fetch_from_mirror_address_without_the_file_fails(server: FileServer, source: WeightSource) -> None:
    server.answers = [say(404), say(404)]
    with pytest.raises(DownloadError, match="404"):
        download_weights([FAR], mirror=server.base, policy=HASTY)


def test_fetch_from_mirror_address_offline_is_refused(server: FileServer, source: WeightSource) -> None:
    with pytest.raises(OfflineError):
        download_weights([FAR], mirror=server.base, offline=True)
    assert server.requests == []


def test_fetch_from_mirror_with_other_content_than_recorded_is_refused(
    source: WeightSource, server: FileServer, tmp_path: Path
) -> None:
    (first,) = download_weights([source], policy=HASTY)
    (tmp_path / "some.pdparams").write_bytes(weight_file(2))
    with pytest.raises(DownloadError, match=first.source_sha256):
        download_weights([source], mirror=str(tmp_path), force=True)
    assert store.verify(source.name) == first


@pytest.mark.parametrize("mirror", ["no/such/folder", "ftp://host/x", "file:///tmp"])
def test_fetch_with_unusable_mirror_is_a_usage_error(mirror: str, store_dir: Path) -> None:
    with pytest.raises(UsageError, match="neither"):
        download_weights([FAR], mirror=mirror)


def test_fetch_into_unwritable_place_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "file"))
    with pytest.raises(DownloadError, match="cannot store some_model in") as caught:
        download_weights([FAR])
    assert "PPV_HOME" in str(caught.value.hint)


def test_fetch_that_cannot_finish_leaves_the_transfer_but_nothing_half_made(
    source: WeightSource, store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(store, "put", fail)
        with pytest.raises(DownloadError, match="No space left on device"):
            download_weights([source], policy=HASTY)
    assert {path.name for path in store_dir.iterdir()} - {"some_model.lock"} == {
        "some_model.part",
        "some_model.part.json",
    }


def test_fetch_of_several_answers_in_order(source: WeightSource, server: FileServer) -> None:
    sources = [replace(source, name=name) for name in ("b_model", "a_model")]
    assert [record.name for record in download_weights(sources, policy=HASTY)] == ["b_model", "a_model"]
    assert store.list_names() == ["a_model", "b_model"]
