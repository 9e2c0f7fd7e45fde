"""`ppv download-weights`: from a mirror folder, and once from a real server, into the test's own store."""

from __future__ import annotations

import io
import json
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from rich.console import Console

from ppvcli.cli import output
from ppvcli.cli.download_weights import fetch_weights
from ppvcli.errors import UnknownNameError
from ppvcli.models.backbones import BACKBONES
from ppvcli.models.zoo import ALIASES, ZOO
from ppvcli.weights import store
from tests.weights.conftest import PUBLISHED, weight_file
from tests.weights.file_server import FileServer, say, serve

Ppv = Callable[..., Any]
PUBLISHED_NAMES = [row.name for row in ZOO.values() if row.url is not None]


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPV_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("PPV_WEIGHTS_MIRROR", raising=False)


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    """A folder with files for `tsm_k400` and `pptsmv2_k400_8f`, and nothing else."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    for seed, name in enumerate(("tsm_k400", "pptsmv2_k400_8f")):
        (folder / PurePosixPath(str(ZOO[name].url)).name).write_bytes(weight_file(seed, num_rows=1))
    return folder


# --- download ---------------------------------------------------------------------------------------------------------


def test_download_weights_from_folder_prints_where_they_are(ppv: Ppv, mirror: Path) -> None:
    answer = ppv("download-weights", "tsm", "pptsmv2_k400_8f", "--mirror", mirror)
    assert answer.exit_code == 0, answer.stderr
    lines = answer.stdout.splitlines()
    assert [line.split(": ")[0] for line in lines] == ["tsm_k400", "pptsmv2_k400_8f"]
    assert str(store.weights_path("tsm_k400")) in lines[0]
    assert answer.stderr == ""
    assert store.list_names() == ["pptsmv2_k400_8f", "tsm_k400"]


def test_download_weights_as_json_prints_json_only(ppv: Ppv, mirror: Path) -> None:
    answer = ppv("download-weights", "tsm", "tsm_k400", "--mirror", mirror, "--json")
    path = store.weights_path("tsm_k400")
    expected = [{"name": "tsm_k400", "path": str(path), "size_bytes": path.stat().st_size}]
    assert json.loads(answer.stdout) == expected


def test_download_weights_with_one_failure_does_the_others_and_exits_1(ppv: Ppv, mirror: Path) -> None:
    answer = ppv("download-weights", "tsm_ucf101", "tsm", "--mirror", mirror, "--json")
    assert answer.exit_code == 1
    failed, stored = json.loads(answer.stdout)
    assert (failed["name"], stored["name"]) == ("tsm_ucf101", "tsm_k400")
    assert "TSM_ucf101_nchw.pdparams" in failed["error"]
    assert answer.stderr.startswith("error: the mirror has no copy of https://")


def test_download_weights_without_connection_tries_the_first_only(
    ppv: Ppv, mirror: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda _: None)
    ppv("download-weights", "tsm", "--mirror", mirror)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nowhere = f"http://127.0.0.1:{listener.getsockname()[1]}"
    answer = ppv("download-weights", "tsn", "tsm", "pptsm", "--mirror", nowhere, "--json")
    assert answer.exit_code == 1
    first, stored, last = json.loads(answer.stdout)
    assert "(5 attempts)" in first["error"]
    assert stored["name"] == "tsm_k400" and "path" in stored
    assert last["error"].endswith("is not tried after that")


def test_download_weights_all_tries_every_published_model(ppv: Ppv, mirror: Path) -> None:
    answer = ppv("download-weights", "--all", "--mirror", mirror, "--json")
    results = {result["name"]: "path" in result for result in json.loads(answer.stdout)}
    assert list(results) == PUBLISHED_NAMES
    # the NHWC row has the file of tsm_k400
    assert [name for name, done in results.items() if done] == ["tsm_k400", "tsm_k400_nhwc", "pptsmv2_k400_8f"]
    assert answer.exit_code == 1


def test_download_weights_offline_says_what_works_instead(ppv: Ppv) -> None:
    answer = ppv("download-weights", "pptsmv2", "--offline")
    assert answer.exit_code == 1
    assert answer.stdout == ""
    row = ZOO[ALIASES["pptsmv2"]]
    for text in (row.name, row.url, str(store.weights_path(row.name)), "ppv predict --demo", "tsm_efflite0_weizmann"):
        assert text in answer.stderr


def test_download_weights_of_bundled_model_has_nothing_to_do(ppv: Ppv) -> None:
    answer = ppv("download-weights", "tsm_efflite0_weizmann")
    assert answer.exit_code == 0
    assert "part of the package" in answer.stdout


def test_download_weights_of_backbones_by_name(ppv: Ppv, mirror: Path) -> None:
    (mirror / "ResNet50_pretrain.pdparams").write_bytes(weight_file(3, num_rows=1))
    answer = ppv("download-weights", "resnet50", "efflite0", "--mirror", mirror)
    assert answer.exit_code == 0, answer.stderr
    stored, from_pip = answer.stdout.splitlines()
    assert stored.startswith(f"resnet50: {store.weights_path('resnet50')}")
    assert from_pip == "efflite0: nothing to download: from pip: ppvcli[efflite0]"
    assert ppv("download-weights", "--verify").stdout.startswith("resnet50: ok, as downloaded on ")
    answer = ppv("download-weights", "resnet101_vd_ssld", "--offline")
    assert answer.exit_code == 1
    assert "PaddleVideo-release2.2/ResNet101_vd_ssld_pretrained.pdparams" in answer.stderr
    assert "unknown model 'resnet5'; nearest: resnet50" in ppv("download-weights", "resnet5").stderr


def test_download_weights_of_damaged_entry_needs_force(ppv: Ppv, mirror: Path) -> None:
    ppv("download-weights", "tsm", "--mirror", mirror)
    path = store.weights_path("tsm_k400")
    path.write_bytes(path.read_bytes()[:-1])
    answer = ppv("download-weights", "tsm", "--mirror", mirror)
    assert answer.exit_code == 1
    assert "hint: ppv download-weights tsm_k400 --force" in answer.stderr
    assert ppv("download-weights", "tsm", "--mirror", mirror, "--force").exit_code == 0
    assert store.find("tsm_k400") == path


@pytest.mark.parametrize(
    ("args", "word"),
    [
        ([], "no model named"),
        (["tsm", "--all"], "NAME and --all"),
        (["tsm", "--list"], "NAME and --list"),
        (["--all", "--list"], "--all and --list"),
        (["--list", "--force"], "--list and --force"),
        (["--list", "--verify"], "--list and --verify"),
        (["--verify", "--offline"], "--verify and --offline"),
        (["--verify", "--mirror", "x"], "--verify and --mirror"),
        (["tsm", "--mirror", "no/such/folder"], "no/such/folder"),
        (["pptsmv"], "unknown model 'pptsmv'; nearest: pptsmv2"),
        (["pptsmv2_k400_16f_lta"], "no weights of pptsmv2_k400_16f_lta"),
        (["tsm_efflite0"], "no weights of tsm_efflite0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_download_weights_that_makes_no_sense_exits_2(args: list[str], word: str, ppv: Ppv) -> None:
    answer = ppv("download-weights", *args)
    assert answer.exit_code == 2
    assert word in answer.stderr
    assert answer.stdout == ""


# --- list and verify --------------------------------------------------------------------------------------------------


def test_list_without_terminal_is_one_plain_line_per_model(ppv: Ppv, mirror: Path) -> None:
    ppv("download-weights", "tsm", "--mirror", mirror)
    store.weights_path("pptsmv2_k400_8f").write_bytes(b"no record beside it")
    answer = ppv("download-weights", "--list")
    assert answer.exit_code == 0
    heading, *lines = answer.stdout.splitlines()
    assert heading.split()[0] == "model"
    assert [line.split()[0] for line in lines] == [*ZOO, *BACKBONES]
    of = {line.split()[0]: line for line in lines}
    assert " ".join(of["tsm_k400"].split()) == "tsm_k400 (tsm) 8 frames x 1 crop 71.06 K400 stored 0.0 MB"
    assert "damaged" in of["pptsmv2_k400_8f"]
    assert "not stored" in of["tsn_k400_8seg"]
    assert "in the package" in of["tsm_efflite0_weizmann"]
    assert "none published" in of["tsm_efflite0"]
    assert "10 clips x 3 crops" in of["pptsm_r101_k400_dense"]
    assert " ".join(of["resnet50"].split()) == "resnet50 ImageNet, for tsn and tsm not stored"
    assert "from pip" in of["efflite0"]


def test_list_on_terminal_has_the_same_words(ppv: Ppv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda _: True)
    monkeypatch.setenv("COLUMNS", "140")
    answer = ppv("download-weights", "--list")
    assert answer.exit_code == 0
    assert answer.stdout.startswith("model  ")
    assert all(word in answer.stdout for word in (*ZOO, "one video is", "75.16 K400", "not stored"))


@pytest.mark.parametrize("columns", [40, 60, 80])
@pytest.mark.parametrize("command", ["download-weights --list", "train --list-configs"])
def test_list_on_a_narrow_terminal_breaks_no_name(
    command: str, columns: int, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = ppv(*command.split()).stdout.splitlines()
    names = [line.split("  ")[0] for line in plain[1:]]
    monkeypatch.setattr(output, "is_terminal", lambda stream: stream is sys.stdout)
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = ppv(*command.split()).stdout.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == names
    assert max(map(len, lines)) <= columns
    words = {word.rstrip(",;") for line in lines for word in line.split()}
    assert {word.rstrip(",;") for line in plain[1:] for word in line.split()} <= words


def test_list_as_json_has_the_facts_of_every_row(ppv: Ppv, mirror: Path) -> None:
    ppv("download-weights", "tsm", "--mirror", mirror)
    rows = {row["name"]: row for row in json.loads(ppv("download-weights", "--list", "--json").stdout)}
    assert list(rows) == [*ZOO, *BACKBONES]
    stored = rows["tsm_k400"]
    assert stored["weights"] == "stored"
    assert stored["size_bytes"] == store.weights_path("tsm_k400").stat().st_size
    dense = rows["pptsm_r101_k400_dense"]
    assert (dense["num_segments"], dense["num_views"], dense["claimed_top1"]) == (8, 30, 77.15)
    assert dense["aliases"] == ["pptsm"]
    assert dense["url"] == ZOO["pptsm_r101_k400_dense"].url
    assert (dense["weights"], dense["size_bytes"]) == ("not stored", None)
    assert rows["resnet101_vd_ssld"]["backbone_of"] == ["pptsn", "pptsm"]


def test_verify_reports_each_stored_model_and_exits_1_for_a_damaged_one(ppv: Ppv, mirror: Path) -> None:
    ppv("download-weights", "tsm", "pptsmv2_k400_8f", "--mirror", mirror)
    answer = ppv("download-weights", "--verify")
    assert answer.exit_code == 0
    assert [line.split(", ")[0] for line in answer.stdout.splitlines()] == ["pptsmv2_k400_8f: ok", "tsm_k400: ok"]
    path = store.weights_path("tsm_k400")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    answer = ppv("download-weights", "--verify")
    assert answer.exit_code == 1
    assert "sha256" in answer.stderr
    assert [line.split(":")[0] for line in answer.stdout.splitlines()] == ["pptsmv2_k400_8f"]
    assert ppv("download-weights", "pptsmv2_k400_8f", "--verify").exit_code == 0


def test_verify_of_an_empty_store_says_that_it_is_empty(ppv: Ppv) -> None:
    assert ppv("download-weights", "--verify") == (0, "", f"no weights are stored in {store.weights_dir()}\n")


def test_verify_of_absent_model_exits_1(ppv: Ppv) -> None:
    answer = ppv("download-weights", "tsm", "--verify")
    assert answer.exit_code == 1
    assert "tsm_k400 is not in the store" in answer.stderr


# --- progress ---------------------------------------------------------------------------------------------------------


def test_progress_without_terminal_is_a_line_per_event(ppv: Ppv) -> None:
    with FileServer(PUBLISHED) as server:
        server.answers = [say(404), serve(num_bytes=len(PUBLISHED) // 2)]
        answer = ppv("download-weights", "tsm", "--mirror", server.base)
    assert answer.exit_code == 0, answer.stderr
    first, second, third = answer.stderr.splitlines()
    assert first == f"tsm_k400: fetching {server.base}/TSM_k400.pdparams, 0.4 MB"
    assert "next attempt in 0.5 s" in second
    assert third.startswith("tsm_k400: fetching ")


def test_progress_on_terminal_shows_size_and_trouble(ppv: Ppv, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(output, "is_terminal", lambda _: True)
    monkeypatch.setattr(
        output, "stderr_console", lambda: Console(file=screen, force_terminal=True, width=140, highlight=False)
    )
    with FileServer(PUBLISHED) as server:
        server.answers = [say(503)]
        answer = ppv("download-weights", "tsm", "--mirror", server.base)
    assert answer.exit_code == 0
    assert "the server answers 503" in screen.getvalue()
    assert "tsm_k400: checking" in screen.getvalue()
    assert "395.7/395.7 kB" in screen.getvalue()
    assert "B/s" in screen.getvalue()


# --- what other commands use ------------------------------------------------------------------------------------------


def test_fetch_weights_downloads_once_and_only_what_is_published(mirror: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", str(mirror))
    fetch_weights("tsm_efflite0_weizmann")
    fetch_weights("tsm_efflite0")
    assert store.list_names() == []
    fetch_weights("tsm")
    monkeypatch.setenv("PPV_WEIGHTS_MIRROR", "no/such/folder")
    fetch_weights("tsm")
    assert store.list_names() == ["tsm_k400"]
    with pytest.raises(UnknownNameError):
        fetch_weights("tsmm")
