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
from ppvcli.results import DecodeContestant, DecodedFile, DecodeReport, DecodeSpeed
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
    assert "16 frames of a video, 1 run; speed is relative to pyav" in lines


def test_broken_video_is_an_error_on_stderr_and_the_rest_is_measured(clips: Path, ppv: Ppv, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    answer = ppv("bench-decode", broken, clips / "a.mp4", "--libs", "pyav", "--repeat", 1)
    assert answer.exit_code == 1
    error, hint = answer.stderr.splitlines()
    assert error == f"error: can't open {broken}: no known video format, or its header is damaged"
    assert hint == "hint: play it in another program; if that fails too, fetch or copy it again"
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
        (["text.mp4", "--libs", "pyav"], 1, "can't open text.mp4: no known video format", "play it in another program"),
        ([".", "--libs", "PYAV"], 2, "unknown library 'PYAV'; nearest: pyav", "use some of: ppv, pyav"),
        (["empty", "--libs", "pyav"], 1, "no video in the folder empty", "looked for .3g2 .3gp"),
        (["--plot", "x.jpg"], 2, "can't plot into x.jpg", "choose a name that ends in .png"),
        (["--plot", "empty"], 2, "can't plot into empty: it is a folder", "--plot empty/bench.png"),
        (["--timeout", "0"], 2, "the timeout must be above 0 seconds, got 0", "--timeout 60"),
        (["--timeout", "nan"], 2, "the timeout must be above 0 seconds, got nan", "--timeout 60"),
        (["--frames", "100000000000"], 2, "frames must be a whole number from 1 to 10000", "--frames 16"),
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
    Path("empty").mkdir()
    Path("text.mp4").write_bytes(b"no video at all")
    answer = ppv("bench-decode", *args)
    assert (answer.exit_code, answer.stdout) == (exit_code, "")
    assert answer.stderr.startswith(f"error: {error}")
    assert f"\nhint: {hint}" in answer.stderr


@pytest.mark.parametrize("content", [b"no video at all", None], ids=["broken", "gone"])
def test_json_without_a_video_that_can_be_read_is_a_report_of_failures(
    content: bytes | None, ppv: Ppv, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    if content is not None:
        path.write_bytes(content)
    answer = ppv("bench-decode", path, "--libs", "pyav", "--json")
    report = json.loads(answer.stdout)
    assert (answer.exit_code, report["files"], [failure[0] for failure in report["failures"]]) == (1, [], [str(path)])
    error, hint = answer.stderr.splitlines()
    assert error == f"error: {report['failures'][0][1]}"
    assert [hint] == [f"hint: {text}" for text in report["hints"]]


def test_damaged_video_is_a_warning_and_in_the_json(ppv: Ppv, tmp_path: Path) -> None:
    path = tmp_path / "cut.avi"
    write_video(path, render_action("walk", num_frames=40), codec="mpeg4")
    path.write_bytes(path.read_bytes()[:-4000])
    answer = ppv("bench-decode", path, "--libs", "pyav", "--repeat", 1, "--json")
    ((damaged, what),) = json.loads(answer.stdout)["damaged"]
    assert (answer.exit_code, damaged) == (0, str(path))
    expected = f"warning: {path} is damaged ({what}): a library that shows other frames of it may be right\n"
    assert answer.stderr == expected


# --- any report -------------------------------------------------------------------------------------------------------

REASON = "DECORDError: [00:00:00] /src/video/video_reader.cc:151: Check failed: st_nb >= 0 (-1381258232 vs. 0)"


def _speed(ms: float) -> DecodeSpeed:
    return DecodeSpeed(median_ms=ms, p95_ms=ms + 1, cpu_ms=ms + 2, frames_per_s=123456, ratio=0.123, cpu_ratio=1.0)


@pytest.fixture
def report(monkeypatch: pytest.MonkeyPatch) -> DecodeReport:
    """One of long numbers, a library with wrong frames and one that fails, in place of any measuring."""

    def row(path: str, lib: str, speed: DecodeSpeed, **facts: Any) -> DecodedFile:
        return DecodedFile(path=path, lib=lib, speed=speed, peak_bytes=12345 << 20, **facts)

    files = (
        row("a.mp4", "opencv-naive", _speed(123456.7), num_wrong=0),
        DecodedFile(path="a.mp4", lib="decord", error=REASON),
        row("b.mp4", "opencv-naive", _speed(9.5), num_wrong=0),
        row("b.mp4", "decord", _speed(8.5), num_wrong=16, mean_diff=255.0),
        row("c.mp4", "opencv-naive", _speed(7.5), num_wrong=2, mean_diff=0.01),
        row("c.mp4", "ppv", _speed(7.5), num_wrong=0, fallback="interlaced"),
    )
    one = DecodeContestant(lib="opencv-naive", how="decode all", version="1", num_threads=1, num_files=2)
    decord = replace(one, lib="decord", num_files=1, num_failed=1, num_compared=16, num_wrong=16)
    made = DecodeReport(
        num_segments=16,
        num_runs=1,
        base="opencv-naive",
        contestants=(one, decord, replace(one, lib="ppv")),
        files=files,
        num_common=1,
    )

    def run(*args: object, on_report: Callable[[DecodeReport], None], **settings: object) -> DecodeReport:
        on_report(made)
        return made

    monkeypatch.setattr("ppvcli.video.bench.run.bench_decode", run)
    return made


@pytest.mark.parametrize(
    ("columns", "heading", "first"),
    [
        (40, "frames", "exact"),
        (60, "speed frames", "0.12x exact"),
        (70, "median ms speed frames", "123456.7 0.12x exact"),
        (80, "median ms frames/s speed frames", "123456.7 123456 0.12x exact"),
        (
            *(100, "median ms p95 CPU frames/s speed MiB frames"),
            "123456.7 123457.7 123458.7 123456 0.12x 12345 exact",
        ),
    ],
)
@pytest.mark.usefixtures("report")
def test_table_leaves_out_columns_where_narrow_but_no_verdict_and_no_digit(
    columns: int, heading: str, first: str, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "is_terminal", lambda stream: stream is sys.stdout)
    monkeypatch.setenv("COLUMNS", str(columns))
    answer = ppv("bench-decode")
    lines = [" ".join(line.split()) for line in answer.stdout.splitlines()]
    assert lines[:3] == ["a.mp4", heading, f"opencv-naive {first}"]
    libs = ("opencv-naive ", "decord ", "ppv ")
    verdicts = ["exact", "failed", "exact", "16 off by 255.0", "2 off by <0.1", "exact"]
    verdicts += ["exact", "16 of 16 off, failed on 1 of 2 videos", "exact"]
    rows = [line for line in lines if line.startswith(libs) and "thread" not in line]
    assert len(rows) == len(verdicts)
    assert all(row.endswith(f" {verdict}") for row, verdict in zip(rows, verdicts, strict=True))
    assert "c.mp4 (ppv decodes it sequentially: interlaced)" in lines
    assert f"warning: decord failed on a.mp4: {REASON}\n" in answer.stderr


@pytest.mark.usefixtures("report")
def test_lines_have_the_reasons_of_failures_and_of_sequential_decoding(ppv: Ppv) -> None:
    rows = {(row["file"], row["lib"]): row for row in _cells(ppv("bench-decode").stdout)}
    assert rows["a.mp4", "decord"]["frames"] == REASON
    assert (rows["c.mp4", "ppv"]["frames"], rows["c.mp4", "ppv"]["fallback"]) == ("exact", "interlaced")
    assert rows["b.mp4", "decord"]["fallback"] == ""


def test_interrupted_command_shows_the_videos_that_were_done(
    report: DecodeReport, ppv: Ppv, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*args: object, on_report: Callable[[DecodeReport], None], **settings: object) -> None:
        on_report(report)
        raise KeyboardInterrupt

    monkeypatch.setattr("ppvcli.video.bench.run.bench_decode", run)
    answer = ppv("bench-decode", "--json")
    assert (answer.exit_code, len(json.loads(answer.stdout)["files"])) == (130, 6)
    assert answer.stderr.splitlines()[-1] == "error: interrupted"


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
