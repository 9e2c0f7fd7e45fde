"""The cache of weights on disk."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from pathlib import Path

import platformdirs
import pytest

from ppvcli.errors import VerificationError, WeightsNotFoundError
from ppvcli.weights import store
from ppvcli.weights.store import StoreRecord

CONTENT = b"the content is no matter of the store"


@pytest.fixture
def record(store_dir: Path) -> StoreRecord:
    """The record of an entry `some_model` that has just been put into the store."""
    store_dir.mkdir(parents=True)
    finished = store_dir / "finished.tmp"
    finished.write_bytes(CONTENT)
    record = StoreRecord(
        name="some_model",
        url="https://weights.invalid/some.pdparams",
        fetched_from="https://weights.invalid/some.pdparams",
        source_sha256="0" * 64,
        source_size_bytes=9,
        etag=None,
        sha256=store.file_sha256(finished),
        size_bytes=len(CONTENT),
        downloaded_at="2026-01-01T00:00:00+00:00",
    )
    store.put(record, weights=finished)
    return record


def test_home_dir_follows_environment_else_platform(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path))
    assert store.home_dir() == tmp_path
    monkeypatch.setenv("PPV_HOME", "~/somewhere")
    assert store.home_dir() == Path.home() / "somewhere"
    monkeypatch.delenv("PPV_HOME")
    assert store.home_dir() == Path(platformdirs.user_cache_dir("ppvcli", appauthor=False))


def test_file_sha256_of_known_text_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert store.file_sha256(tmp_path / "abc") == expected


def test_entry_put_into_store_is_found_and_verified(record: StoreRecord, store_dir: Path) -> None:
    path = store.find("some_model")
    assert path is not None
    assert path.read_bytes() == CONTENT
    assert store.verify("some_model") == record
    assert store.state("some_model") == "stored"
    assert store.list_names() == ["some_model"]
    assert sorted(p.name for p in store_dir.iterdir()) == ["some_model.json", "some_model.safetensors"]


def test_empty_store_has_nothing(store_dir: Path) -> None:
    assert store.find("some_model") is None
    assert store.read_record("some_model") is None
    assert store.state("some_model") == "absent"
    assert store.list_names() == []
    with pytest.raises(WeightsNotFoundError) as caught:
        store.verify("some_model")
    assert caught.value.hint == "ppv download-weights some_model"


def _flip_byte(path: Path) -> None:
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def _set_field(path: Path, name: str, value: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))


DAMAGES = {
    "flipped bit": (lambda: _flip_byte(store.weights_path("some_model")), "stored", "its sha256 is"),
    "shorter": (lambda: store.weights_path("some_model").write_bytes(b"x"), "damaged", "it has 1 bytes"),
    "no record": (lambda: store.record_path("some_model").unlink(), "damaged", "no record"),
    "cut record": (lambda: store.record_path("some_model").write_text('{"name": "so'), "damaged", "can't be read"),
    "binary record": (lambda: store.record_path("some_model").write_bytes(b"\xff\xfe\x00"), "damaged", "can't be read"),
    "record is a list": (lambda: store.record_path("some_model").write_text("[]"), "damaged", "can't be read"),
    "unknown field": (lambda: _set_field(store.record_path("some_model"), "colour", 1), "damaged", "can't be read"),
    "other name": (lambda: _set_field(store.record_path("some_model"), "name", "tsm"), "damaged", "is of tsm"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_entry_is_never_handed_out(damage: str, record: StoreRecord) -> None:
    inflict, state, reason = DAMAGES[damage]
    inflict()
    assert store.state("some_model") == state  # the quick look does not hash
    for look in (store.find, store.verify):
        with pytest.raises(VerificationError, match=reason) as caught:
            look("some_model")
        assert caught.value.hint == "ppv download-weights some_model --force"


def test_record_without_weights_is_no_entry_but_readable(record: StoreRecord) -> None:
    store.weights_path("some_model").unlink()
    assert store.find("some_model") is None
    assert store.state("some_model") == "absent"
    assert store.read_record("some_model") == record


def test_put_that_fails_midway_leaves_no_entry(record: StoreRecord, store_dir: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put(record, weights=store_dir / "missing.tmp")
    assert store.find("some_model") is None
    assert [path.name for path in store_dir.iterdir()] == ["some_model.json"]


def test_put_that_cannot_begin_leaves_no_temporary_record(record: StoreRecord, store_dir: Path) -> None:
    store.remove("some_model")
    store.weights_path("some_model").mkdir()  # can't be replaced by a file
    with pytest.raises(OSError, match="some_model"):
        store.put(record, weights=store_dir / "finished.tmp")
    assert [path.name for path in store_dir.iterdir()] == ["some_model.safetensors"]


@pytest.mark.parametrize("ask", [store.state, store.find, store.verify])
def test_entry_that_goes_while_it_is_looked_at_is_absent(
    ask: Callable[[str], object], record: StoreRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = store.read_record

    def read_and_lose(name: str) -> StoreRecord | None:
        store.weights_path(name).unlink()
        return read(name)

    monkeypatch.setattr(store, "read_record", read_and_lose)
    if ask is store.verify:
        with pytest.raises(WeightsNotFoundError):
            ask("some_model")
    else:
        assert ask("some_model") in (None, "stored")  # `state` had looked before
    monkeypatch.setattr(store, "read_record", read)
    assert store.state("some_model") == "absent"


def test_removed_entry_leaves_nothing(record: StoreRecord, store_dir: Path) -> None:
    store.remove("some_model")
    store.remove("some_model")
    assert list(store_dir.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "start"),
    [
        (errno.ENOSPC, "free some space there"),
        (errno.EACCES, "choose a folder that may be written"),
        (errno.EROFS, "choose a folder that may be written"),
    ],
)
def test_hint_about_a_home_fits_what_is_wrong_with_it(code: int, start: str) -> None:
    hint = store.home_hint(OSError(code, "it says"))
    assert hint.startswith(start)
    assert hint.endswith("PPV_HOME=FOLDER")
