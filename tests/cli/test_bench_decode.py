"""`ppv bench-decode`: its lines, table, JSON and refusals; the measuring itself is tested in tests/video."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ppvcli.cli import output
from ppvcli.cli.bench_decode import COLUMNS, complete_libs
from ppvcli.video.bench.corpus import CORPUS
from ppvcli.video.render import render_action, write_video

Ppv = Callable[..., Any]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, render_action("walk", num_frames=20))
    return folder


def _cells(stdout: str) -> list[dict[str, str]]:
    header, *lines = stdout.splitlines()
    assert tuple(header.split("\t")) == COLUMNS
    rows = [line.split("\t") for line in lines]
    assert {len(row) for row in rows} == {len(COLUMNS)}
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def test_command_of_the_issue_works_as_typed(ppv: Ppv, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    corpus = [replace(video, num_frames=6) for video in CORPUS[:3]]
    monkeypatch.setattr("ppvcli.video.bench.corpus.CORPUS", corpus)
    answer = ppv("bench-decode", "--libs", "opencv,decord,pyav")
    assert (answer.exit_code, answer.stderr) == (0, "")
    rows = _cells(answer.stdout)
    videos = [video.name for video in corpus]
    libs = ["opencv", "decord", "pyav"]
    assert [(row["file"], row["lib"]) for row in rows] == [(name, lib) for name in [*videos, "total"] for lib in libs]
    assert all(row["frames"] == "exact" for row in rows if row["lib"] != "decord")
    assert rows[0]["ratio"] == "1.000", "the first library is the base"


def test_lines_of_a_folder_have_numbers_for_each_video_and_in_total(clips: Path, ppv: Ppv) -> None:
    answer = ppv("bench-decode", clips, "--libs", "pyav,ppv", "--frames", 4, "--repeat", 2, "--base", "ppv")
    assert (answer.exit_code, answer.stderr) == (0, "")
    rows = _cells(answer.stdout)
    assert [row["file"] for row in rows] == [str(clips / "a.mp4")] * 2 + [str(clips / "b.mp4")] * 2 + ["total"] * 2
    for row in rows:
        assert row["frames"] == "exact"
        assert 0 < float(row["median_ms"]) <= float(row["p95_ms"])
        assert min(float(row[name]) for name in ("cpu_ms", "frames_per_s", "ratio", "cpu_ratio")) > 0
        assert row["threads"] == "1"
        assert row["version"]
    assert [row["ratio"] for row in rows if row["lib"] == "ppv"] == ["1.000"] * 3


def test_json_is_the_report_and_nothing_else(clips: Path, ppv: Ppv) -> None:
    answer = ppv("bench-decode", clips / "a.mp4", "--libs", "pyav,opencv", "--frames", 3, "--repeat", 1, "--json")
    assert (answer.exit_code, answer.stderr) == (0, "")
    report = json.loads(answer.stdout)
    assert (report["num_segments"], report["num_runs"], report["base"], report["num_common"]) == (3, 1, "pyav", 1)
    assert [one["lib"] for one in report["contestants"]] == ["pyav", "opencv"]
    assert [(row["lib"], row["num_wrong"], row["num_frames"]) for row in report["files"]] == [
        ("pyav", 0, 20),
        ("opencv", 0, 20),
    ]
    assert report["files"][1]["speed"]["ratio"] > 0


def test_library_that_is_not_installed_is_a_line_with_what_installs_it(
    clips: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide_torchcodec(monkeypatch)
    answer = ppv("bench-decode", clips / "a.mp4", "--libs", "torchcodec,pyav", "--repeat", 1)
    assert (answer.exit_code, answer.stderr) == (0, "")
    rows = _cells(answer.stdout)
    (missing,) = (row for row in rows if row["lib"] == "torchcodec")
    assert missing["frames"] == "not installed: pip install torch torchcodec"
    assert {row["lib"] for row in rows if row["file"] != "total"} == {"pyav"}


def test_table_on_a_terminal_fits_and_says_what_was_measured(
    clips: Path, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    _hide_torchcodec(monkeypatch)
    monkeypatch.setattr(output, "is_terminal", lambda stream: stream is sys.stdout)
    monkeypatch.setenv("COLUMNS", "80")
    answer = ppv("bench-decode", clips, "--libs", "pyav,opencv-naive,torchcodec", "--repeat", 1)
    assert (answer.exit_code, answer.stderr) == (0, "")
    lines = answer.stdout.splitlines()
    assert max(len(line) for line in lines) <= 80
    words = [line.split() for line in lines]
    assert [row[0] for row in words if row[-1:] == ["exact"]] == ["pyav", "opencv-naive"] * 3
    assert sum("median ms" in line for line in lines) == 1
    assert "total: 2 videos that all of them decode" in {line.strip() for line in lines}
    assert "torchcodec: not installed: pip install torch torchcodec" in lines
    assert any(line.endswith(": decode all, 1 thread") for line in lines)
    assert "16 frames of a video, 1 runs; speed is relative to pyav" in lines


def test_broken_video_is_an_error_on_stderr_and_the_rest_is_measured(clips: Path, ppv: Ppv, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    answer = ppv("bench-decode", broken, clips / "a.mp4", "--libs", "pyav", "--repeat", 1)
    assert answer.exit_code == 1
    error, hint = answer.stderr.splitlines()
    assert error == f"error: can't open {broken}: no known video format, or its header is damaged"
    assert hint == "hint: check the paths; fetch or copy damaged files again"
    assert [row["file"] for row in _cells(answer.stdout)] == [str(clips / "a.mp4"), "total"]


@pytest.mark.parametrize(
    ("args", "exit_code", "error", "hint"),
    [
        (
            ["--libs", "opencv,decrod"],
            2,
            "unknown library 'decrod'; nearest: decord, decord2",
            "use some of: ppv, pyav",
        ),
        (["--libs", ","], 2, "no library given", "use some of: ppv, pyav"),
        (["--libs", "pyav", "--base", "ppv"], 2, "the base ppv is not among the libraries: pyav", "--base pyav"),
        (["gone.mp4", "--libs", "pyav"], 1, "no video at gone.mp4: nothing is there", "check the path"),
        ([".", "--libs", "pyav"], 1, "no video in the folder .", "looked for .3g2 .3gp"),
        (["--plot", "x.jpg"], 2, "can't plot into x.jpg", "choose a name that ends in .png"),
        (["--frames", "0"], 2, "invalid value for '--frames': ", "ppv bench-decode --help"),
    ],
)
def test_request_that_makes_no_sense_is_refused(
    args: list[str],
    exit_code: int,
    error: str,
    hint: str,
    ppv: Ppv,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = ppv("bench-decode", *args)
    assert (answer.exit_code, answer.stdout) == (exit_code, "")
    assert answer.stderr.startswith(f"error: {error}")
    assert f"\nhint: {hint}" in answer.stderr


def test_plot_is_written_beside_the_lines(clips: Path, ppv: Ppv, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="plots need the extra 'plot'")
    answer = ppv("bench-decode", clips, "--libs", "pyav", "--repeat", 1, "--plot", tmp_path / "bench.png")
    assert (answer.exit_code, answer.stderr) == (0, "")
    assert len(_cells(answer.stdout)) == 3
    assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("dec", ["decord", "decord2"]),
        ("opencv,de", ["opencv,decord", "opencv,decord2"]),
        ("pyav,torch", ["pyav,torchcodec"]),
    ],
)
def test_completion_offers_libraries_after_each_comma(typed: str, offered: list[str]) -> None:
    assert complete_libs(typed) == offered


def _hide_torchcodec(monkeypatch: pytest.MonkeyPatch) -> None:
    from ppvcli.video.bench.contestants import CONTESTANTS

    hidden = replace(CONTESTANTS["torchcodec"], distribution="no-distribution-has-this-name")
    monkeypatch.setitem(CONTESTANTS, "torchcodec", hidden)
