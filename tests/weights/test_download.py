"""Transfers from a real server on this machine, which breaks off, stalls, lies and changes its mind."""

from __future__ import annotations

import contextlib
import json
import pickle
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import requests
import urllib3
from safetensors.numpy import load_file

from ppvcli.errors import DownloadError, NoConnectionError, OfflineError
from ppvcli.weights import store
from ppvcli.weights.download import DownloadProgress, TransferPolicy, redirect_target
from ppvcli.weights.fetch import download_weights
from ppvcli.weights.formats import read_weights
from ppvcli.weights.store import StoreRecord, WeightSource
from tests.weights.conftest import PUBLISHED, weight_file
from tests.weights.file_server import Answer, FileServer, say, serve, then

HASTY = TransferPolicy(
    num_attempts=3,
    progress_bytes=200_000,
    first_wait_s=0.002,
    max_wait_s=0.02,
    connect_timeout_s=2,
    read_timeout_s=0.3,
    max_bytes=1_000_000,
)
HALF = len(PUBLISHED) // 2
REPO = Path(__file__).resolve().parents[2]


def _fetch(source: WeightSource, *, progress: Callable[[DownloadProgress], None] | None = None) -> StoreRecord:
    (record,) = download_weights([source], progress=progress, policy=HASTY)
    return record


def _assert_stored(source: WeightSource, content: bytes, store_dir: Path) -> None:
    """The published tensors are in the store, and nothing but them, their record and the lock."""
    copy = store_dir.parent / "expected.pdparams"
    copy.write_bytes(content)
    expected = read_weights(copy).tensors
    stored = load_file(store.weights_path(source.name))
    assert {key: tensor.tobytes() for key, tensor in stored.items()} == {k: t.tobytes() for k, t in expected.items()}
    names = {path.name for path in store_dir.iterdir()} - {f"{source.name}.lock"}
    assert names == {f"{source.name}.safetensors", f"{source.name}.json"}


def _assert_not_stored(source: WeightSource) -> None:
    assert store.find(source.name) is None
    assert not store.record_path(source.name).exists()


def test_download_from_healthy_server_stores_tensors_and_record(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    record = _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert record == store.verify(source.name)
    assert (record.url, record.fetched_from, record.etag) == (source.url, source.url, '"v1"')
    assert record.source_size_bytes == len(PUBLISHED)
    assert [request.path for request in server.requests] == ["/release/TSM/some.pdparams"]


def test_download_of_stored_weights_asks_no_server(source: WeightSource, server: FileServer) -> None:
    first = _fetch(source)
    assert _fetch(source) == first
    assert len(server.requests) == 1


def test_download_with_force_asks_again(source: WeightSource, server: FileServer) -> None:
    _fetch(source)
    download_weights([source], force=True, policy=HASTY)
    assert len(server.requests) == 2


# --- transfers that break ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [serve(num_bytes=HALF), serve(num_bytes=HALF, stall=True)], ids=["cut", "stalled"])
def test_download_broken_midway_resumes_by_range(
    broken: Answer, source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    server.answers = [broken]
    start = time.monotonic()
    _fetch(source)
    assert time.monotonic() - start < 8, "the transfer waited for the server, which is silent for 10 s"
    _assert_stored(source, PUBLISHED, store_dir)
    first, second = server.requests
    assert first.range is None
    assert second.range is not None
    assert second.if_range == '"v1"'
    assert 0 < int(second.range.removeprefix("bytes=").removesuffix("-")) <= HALF


def test_download_broken_in_a_former_run_goes_on(source: WeightSource, server: FileServer, store_dir: Path) -> None:
    server.answers = [serve(num_bytes=HALF)] + [say(503)] * 2
    with pytest.raises(DownloadError, match="503"):
        _fetch(source)
    _assert_not_stored(source)
    kept = (store_dir / "some_model.part").stat().st_size
    assert 0 < kept <= HALF
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert server.requests[-1].range == f"bytes={kept}-"


def test_download_broken_at_one_address_starts_over_at_another(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    server.answers = [serve(num_bytes=HALF)] + [say(503)] * 2
    with pytest.raises(DownloadError):
        _fetch(source)
    download_weights([source], mirror=f"{server.base}/copies", policy=HASTY)
    _assert_stored(source, PUBLISHED, store_dir)
    assert server.requests[3].path == "/copies/release/TSM/some.pdparams"
    assert server.requests[3].range is None


def test_download_resumed_by_last_modified_where_there_is_no_etag(source: WeightSource, server: FileServer) -> None:
    server.etag = None
    date = "Wed, 01 Mar 2023 00:00:00 GMT"
    body = PUBLISHED[:HALF]
    server.answers = [say(200, body, Last_Modified=date, Content_Length=str(len(PUBLISHED)))]
    _fetch(source)
    assert server.requests[1].if_range == date


def test_download_without_etag_and_date_starts_over(source: WeightSource, server: FileServer, store_dir: Path) -> None:
    server.etag = None
    server.answers = [serve(num_bytes=HALF)]
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert [request.range for request in server.requests] == [None, None]


def test_download_from_server_without_ranges_starts_over(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    server.answers = [serve(num_bytes=HALF), serve(ranges=False)]
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert server.requests[1].range is not None


@pytest.mark.parametrize("check_if_range", [True, False], ids=["checks If-Range", "ignores If-Range"])
def test_download_of_file_that_changes_between_attempts_brings_the_new_one(
    check_if_range: bool, source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    new = weight_file(2)

    def change() -> None:
        server.content, server.etag = new, '"v2"'

    server.answers = [serve(num_bytes=HALF), then(change, serve(check_if_range=check_if_range))]
    record = _fetch(source)
    _assert_stored(source, new, store_dir)
    assert record.etag == '"v2"'


def test_download_of_file_that_became_shorter_starts_over(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    short = weight_file(2)[:1000]  # not a whole weight file: only the transfer is looked at

    def shrink() -> None:
        server.content = short

    server.answers = [serve(num_bytes=HALF), then(shrink, serve(check_if_range=False))]
    with pytest.raises(DownloadError, match="no usable weight file"):
        _fetch(source)
    assert [request.range is None for request in server.requests] == [True, False, True]


def test_download_resumed_at_another_offset_than_asked_starts_over(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    total = len(PUBLISHED)
    wrong = say(206, PUBLISHED[10:], ETag='"v1"', Content_Range=f"bytes 10-{total - 1}/{total}")
    server.answers = [serve(num_bytes=HALF), wrong]
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert server.requests[2].range is None


def test_download_complete_but_not_stored_needs_no_second_transfer(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    def interrupt(event: DownloadProgress) -> None:
        if event.stage == "convert":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fetch(source, progress=interrupt)
    _assert_not_stored(source)
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert len(server.requests) == 1


def test_download_interrupted_by_the_user_resumes(source: WeightSource, server: FileServer, store_dir: Path) -> None:
    def interrupt(event: DownloadProgress) -> None:
        if event.received_bytes > HALF:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        _fetch(source, progress=interrupt)
    _assert_not_stored(source)
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert server.requests[1].range is not None


def test_download_without_length_is_taken_to_its_end(source: WeightSource, server: FileServer, store_dir: Path) -> None:
    server.answers = [serve(with_length=False)]
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)


def test_download_that_gets_further_each_time_outlasts_the_attempts(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    server.content = weight_file(3, num_rows=128)
    server.answers = [serve(num_bytes=250_000)] * 5
    _fetch(source)
    _assert_stored(source, server.content, store_dir)
    assert len(server.requests) > HASTY.num_attempts


# --- answers that are no file -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [500, 502, 503, 429, 408])
def test_download_with_passing_server_fault_is_tried_again(code: int, source: WeightSource, server: FileServer) -> None:
    server.answers = [say(code), say(code)]
    events: list[DownloadProgress] = []
    _fetch(source, progress=events.append)
    assert len(server.requests) == 3
    retries = [event.message for event in events if event.stage == "retry"]
    assert len(retries) == 2
    assert str(code) in retries[0]


def test_download_with_lasting_server_fault_fails_after_all_attempts(source: WeightSource, server: FileServer) -> None:
    server.answers = [say(500)] * 10
    with pytest.raises(DownloadError, match=r"500 .*\(3 attempts\)") as caught:
        _fetch(source)
    assert len(server.requests) == HASTY.num_attempts
    assert str(store.weights_path(source.name)) in caught.value.message
    assert "ppv predict --demo" in str(caught.value.hint)


@pytest.mark.parametrize("code", [401, 403, 404, 410])
def test_download_refused_by_server_fails_at_once(code: int, source: WeightSource, server: FileServer) -> None:
    server.answers = [say(code)] * 2
    with pytest.raises(DownloadError, match=str(code)) as caught:
        _fetch(source)
    assert len(server.requests) == 1
    assert source.url in caught.value.message
    _assert_not_stored(source)


def test_download_waits_grow_and_follow_retry_after(
    source: WeightSource, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr("ppvcli.weights.download.time.sleep", waits.append)
    past = "Wed, 01 Mar 2023 00:00:00 GMT"
    server.answers = [say(500), say(503, Retry_After=past), say(503, Retry_After="7"), say(503, Retry_After="3600")]
    policy = TransferPolicy(num_attempts=5, first_wait_s=1, max_wait_s=20)
    download_weights([source], policy=policy)
    assert waits == [1, 2, 7, 20]


def test_download_from_nowhere_says_so(store_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer(b"") as stopped:
        url = f"{stopped.base}/some.pdparams"
    with pytest.raises(DownloadError, match=r"no connection to 127\.0\.0\.1"):
        _fetch(WeightSource(name="some_model", url=url))


PAGE = b"\n<!DOCTYPE html><html>Please log in</html>"


@pytest.mark.parametrize(
    "answer",
    [
        say(200, b"Please log in", Content_Type="text/html; charset=utf-8"),
        say(200, PAGE, Content_Type="application/octet-stream"),
    ],
    ids=["by type", "by content"],
)
def test_download_of_web_page_is_refused(answer: Answer, source: WeightSource, server: FileServer) -> None:
    server.answers = [answer]
    with pytest.raises(DownloadError, match="web page"):
        _fetch(source)
    assert len(server.requests) == 1
    _assert_not_stored(source)
    _fetch(source)
    assert server.requests[1].range is None


@pytest.mark.parametrize(
    ("content", "reason"),
    [(PUBLISHED[:1000], "no usable weight file"), (b"cos\nsystem\n(S'true'\ntR.", "system"), (b"", "0 of")],
    ids=["cut at the source", "hostile pickle", "empty"],
)
def test_download_of_bad_file_is_refused_and_forgotten(
    content: bytes, reason: str, source: WeightSource, server: FileServer
) -> None:
    server.content = content
    with pytest.raises(DownloadError, match=reason):
        _fetch(source)
    _assert_not_stored(source)
    server.content = PUBLISHED
    _fetch(source)
    assert server.requests[-1].range is None


def test_download_shorter_than_promised_each_time_fails(source: WeightSource, server: FileServer) -> None:
    server.answers = [say(200, PUBLISHED[:1000], Content_Length="5000") for _ in range(HASTY.num_attempts)]
    with pytest.raises(DownloadError, match="attempts"):
        _fetch(source)
    _assert_not_stored(source)


@contextlib.contextmanager
def _closing_at_once() -> Iterator[tuple[int, list[int]]]:
    """The port of a server that takes connections and closes them, and a number for each one taken."""
    taken: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve_nobody() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listener.accept()
                    taken.append(len(taken))
                    connection.recv(4096)
                    connection.close()

        thread = threading.Thread(target=serve_nobody, daemon=True)
        thread.start()
        yield listener.getsockname()[1], taken
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(5)


def test_download_that_breaks_off_in_the_handshake_is_tried_again(store_dir: Path) -> None:
    with _closing_at_once() as (port, taken), pytest.raises(DownloadError, match=r"\(3 attempts\)") as caught:
        _fetch(WeightSource(name="some_model", url=f"https://127.0.0.1:{port}/a.pdparams"))
    assert len(taken) == 3
    assert not isinstance(caught.value, NoConnectionError)
    assert "certificate" not in str(caught.value.hint)


def test_download_from_a_server_with_a_wrong_certificate_is_not_tried_again(
    store_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def distrust(*_: object, **__: object) -> None:
        cause = urllib3.exceptions.SSLError(ssl.SSLCertVerificationError(1, "certificate verify failed"))
        raise requests.exceptions.SSLError(urllib3.exceptions.MaxRetryError(Mock(), "/a.pdparams", cause))

    monkeypatch.setattr(requests.Session, "get", distrust)
    with pytest.raises(DownloadError, match=r"no safe connection to https://some\.where") as caught:
        _fetch(WeightSource(name="some_model", url="https://some.where/a.pdparams"))
    assert "REQUESTS_CA_BUNDLE" in str(caught.value.hint)


@pytest.mark.parametrize("with_length", [True, False])
def test_download_larger_than_the_cap_is_refused(with_length: bool, source: WeightSource, server: FileServer) -> None:
    server.content = PUBLISHED * 4
    server.answers = [serve(with_length=with_length)]
    with pytest.raises(DownloadError, match="larger than 1000000 bytes"):
        _fetch(source)
    assert not store.weights_dir().joinpath("some_model.part").exists()


# --- redirects --------------------------------------------------------------------------------------------------------


def test_download_follows_redirect_and_resumes_through_it(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    moved = say(302, Location="/elsewhere/file")
    server.answers = [moved, serve(num_bytes=HALF), moved]
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert server.requests[1].path == "/elsewhere/file"
    assert server.requests[3].range is not None


def test_download_redirected_in_circles_fails(source: WeightSource, server: FileServer) -> None:
    server.answers = [say(302, Location="/round")] * 20
    with pytest.raises(DownloadError, match="redirects more than"):
        _fetch(source)


def test_download_redirected_to_a_local_file_is_refused(source: WeightSource, server: FileServer) -> None:
    server.answers = [say(302, Location="file:///etc/passwd")]
    with pytest.raises(DownloadError, match="not safe to follow"):
        _fetch(source)


@pytest.mark.parametrize(
    ("url", "location", "target"),
    [
        ("https://a/x", "https://b/y", "https://b/y"),
        ("https://a/x/y", "z", "https://a/x/z"),
        ("http://a/x", "https://b/y", "https://b/y"),
        ("http://a/x", "http://b/y", "http://b/y"),
        ("https://a/x", "http://a/x", None),
        ("https://a/x", "ftp://a/x", None),
    ],
)
def test_redirect_target_leaving_https_is_refused(url: str, location: str, target: str | None) -> None:
    if target is not None:
        assert redirect_target(url, location=location) == target
        return
    with pytest.raises(DownloadError, match="not safe"):
        redirect_target(url, location=location)


# --- other processes --------------------------------------------------------------------------------------------------

_SCRIPT = """
import sys
from ppvcli.errors import PpvError
from ppvcli.weights.fetch import download_weights
from ppvcli.weights.store import WeightSource
limit = int(sys.argv[2])
if limit:
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    (record,) = download_weights([WeightSource(name="some_model", url=sys.argv[1])])
except PpvError as error:
    sys.exit(f"{type(error).__name__}: {error.message} | {error.hint}")
print(record.sha256)
"""


def _start_process(source: WeightSource, *, max_file_bytes: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _SCRIPT, source.url, str(max_file_bytes)]
    return subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for 20 s"
        time.sleep(0.01)


def test_download_by_two_processes_at_once_transfers_once(
    source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    server.answers = [serve(before_body=lambda: time.sleep(1.0))]  # time for the other process to come
    processes = [_start_process(source) for _ in range(2)]
    outputs = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert len(server.requests) == 1
    assert {stdout.strip() for stdout, _ in outputs} == {store.verify(source.name).sha256}


def test_download_of_killed_process_is_resumed(source: WeightSource, server: FileServer, store_dir: Path) -> None:
    server.answers = [serve(num_bytes=HALF, stall=True)]
    process = _start_process(source)
    part = store_dir / "some_model.part"
    _wait_until(lambda: part.exists() and part.stat().st_size > 0)
    process.kill()
    process.communicate(timeout=20)
    _assert_not_stored(source)
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert server.requests[1].range is not None


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files, which Windows lacks")
@pytest.mark.parametrize("room_ratio", [0.5, 1.2], ids=["transfer", "conversion"])
def test_download_onto_full_disk_fails_clearly_and_leaves_no_entry(
    room_ratio: float, source: WeightSource, server: FileServer, store_dir: Path
) -> None:
    half_precision = {"backbone.conv.weight": np.ones((64, 1152), np.float16)}  # takes twice the bytes in the store
    server.content = pickle.dumps(half_precision, protocol=4)
    process = _start_process(source, max_file_bytes=int(room_ratio * len(server.content)))
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "File too large" in stderr
    assert str(store_dir) in stderr
    assert "Traceback" not in stderr
    _assert_not_stored(source)
    _fetch(source)
    _assert_stored(source, server.content, store_dir)


# --- progress ---------------------------------------------------------------------------------------------------------


def test_download_reports_growing_bytes_and_ends_with_done(source: WeightSource, server: FileServer) -> None:
    server.answers = [serve(num_bytes=HALF)]
    events: list[DownloadProgress] = []
    _fetch(source, progress=events.append)
    stages = [event.stage for event in events]
    assert list(dict.fromkeys(stages)) == ["transfer", "retry", "convert", "done"]
    received = [event.received_bytes for event in events if event.stage == "transfer"]
    assert received == sorted(received)
    assert received[0] == 0
    assert received[-1] == len(PUBLISHED)
    assert {event.total_bytes for event in events if event.stage == "transfer"} == {len(PUBLISHED)}


def test_offline_without_stored_weights_names_everything_needed(source: WeightSource, server: FileServer) -> None:
    with pytest.raises(OfflineError) as caught:
        download_weights([source], offline=True)
    message, hint = caught.value.message, str(caught.value.hint)
    assert all(text in message for text in (source.name, source.url, str(store.weights_path(source.name))))
    assert "ppv predict --demo" in hint
    assert "tsm_efflite0_weizmann" in hint
    assert server.requests == []


def test_offline_with_stored_weights_gives_them(source: WeightSource) -> None:
    record = _fetch(source)
    assert download_weights([source], offline=True) == [record]


def test_part_without_its_description_is_not_trusted(source: WeightSource, server: FileServer, store_dir: Path) -> None:
    store_dir.mkdir(parents=True)
    (store_dir / "some_model.part").write_bytes(b"bytes of unknown origin")
    (store_dir / "some_model.part.json").write_text(json.dumps({"url": source.url}))
    _fetch(source)
    _assert_stored(source, PUBLISHED, store_dir)
    assert server.requests[0].range is None
