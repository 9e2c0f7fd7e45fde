"""`bench_decode`: each library in its own process, and the numbers that come of it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import os
import re
import select
import signal
import subprocess
import sys
import wave
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

import ppvcli
from ppvcli.errors import UnknownNameError, UsageError, VideoNotFoundError
from ppvcli.results import DecodeContestant, DecodeReport
from ppvcli.video.bench import worker as bench_worker
from ppvcli.video.bench.contestants import CONTESTANTS
from ppvcli.video.bench.corpus import CORPUS, write_corpus
from ppvcli.video.bench.plot import check_plot_path, plot_report
from ppvcli.video.bench.report import Series, make_report, percentile
from ppvcli.video.bench.run import bench_decode, list_videos
from ppvcli.video.bench.worker import Request, Run, Worker, WorkerError
from ppvcli.video.decoding import open_video, read_frames
from ppvcli.video.plan import PLANNED_BYTES, PLANNED_PIXELS
from ppvcli.video.sampling import uniform_eval
from tests.video.bench.rivals import RIVALS
from tests.video.numbered import FORMATS, NUM_FRAMES, numbered_frames

Video = Callable[[str], Path]

REPO = Path(__file__).resolve().parents[3]

EVERYWHERE = ("ppv", "pyav", "opencv", "opencv-naive")
"""Contestants that our own dependencies bring on every platform."""


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the contestants of `rivals` known, here and in the processes."""
    for name, rival in RIVALS.items():
        monkeypatch.setitem(CONTESTANTS, name, rival)
    start = bench_worker._START
    assert start.endswith("from ppvcli.video.bench import worker as w; w.serve()")
    start = start.replace("ppvcli.video.bench import worker", "tests.video.bench import rivals")
    monkeypatch.setattr(bench_worker, "_START", start)


def _row(report: DecodeReport, lib: str, path: Path) -> Any:
    (row,) = (row for row in report.files if (row.lib, row.path) == (lib, str(path)))
    return row


def _total(report: DecodeReport, lib: str) -> DecodeContestant:
    (one,) = (one for one in report.contestants if one.lib == lib)
    return one


# --- the libraries ----------------------------------------------------------------------------------------------------


def test_every_library_that_comes_with_us_is_exact_and_fully_reported(numbered_video: Video) -> None:
    paths = [numbered_video(name) for name in ("h264.mp4", "mpeg4.avi", "vp9.webm", "mpeg2.ts")]
    report = ppvcli.bench_decode(paths, EVERYWHERE, frames=5, repeat=2)
    assert (report.num_segments, report.num_runs, report.num_common, report.failures) == (5, 2, 4, ())
    assert report.base == "ppv"
    assert [(row.path, row.lib) for row in report.files] == [(str(path), lib) for path in paths for lib in EVERYWHERE]
    for row in report.files:
        assert (row.error, row.num_wrong, row.mean_diff) == (None, 0, 0.0), row
        assert row.num_frames == NUM_FRAMES
        assert row.speed is not None
        assert 0 < row.speed.median_ms <= row.speed.p95_ms
        assert row.speed.frames_per_s == pytest.approx(5 / row.speed.median_ms * 1e3)
    for one in report.contestants:
        assert (one.num_files, one.num_failed, one.num_compared, one.num_wrong) == (4, 0, 20, 0)
        assert (one.version, one.num_threads, one.error) == (_total(report, one.lib).version, one.num_threads, None)
        assert one.speed is not None
    assert _total(report, "pyav").version == av.__version__
    assert _total(report, "ppv").version == ppvcli.__version__
    base = _total(report, "ppv").speed
    assert base is not None
    assert (base.ratio, base.cpu_ratio) == (1.0, 1.0)


@pytest.mark.parametrize("name", ["h264.ts", "h264.mp4"])
def test_wrong_frames_of_decord_are_counted(name: str, numbered_video: Video) -> None:
    pytest.importorskip("decord", reason="decord has no wheel for this platform")
    path = numbered_video(name)
    indices = uniform_eval(NUM_FRAMES, 8)
    report = bench_decode(path, ["decord"], frames=8, repeat=1)
    row = _row(report, "decord", path)
    assert row.error is None
    theirs = read_frames(path, indices, decoder="decord") if row.num_frames == NUM_FRAMES else None
    if name == "h264.mp4":
        assert (row.num_frames, row.num_wrong) == (NUM_FRAMES, 0)
    else:
        assert row.num_wrong > 0
        assert row.mean_diff > 1
    if theirs is not None:
        diffs = theirs != read_frames(path, indices)
        assert row.num_wrong == int(diffs.any(axis=(1, 2, 3)).sum())


@pytest.mark.parametrize("lib", EVERYWHERE)
@pytest.mark.parametrize(("num_segments", "expected"), [(3, [6, 19, 32]), (50, [*range(40), *range(10)])])
def test_contestant_reads_the_middle_frame_of_each_segment(
    lib: str, num_segments: int, expected: list[int], numbered_video: Video
) -> None:
    path = numbered_video("h264.mp4")
    sample = CONTESTANTS[lib].read(str(path), num_segments)
    assert sample.num_frames == NUM_FRAMES
    assert np.array_equal(sample.frames_thwc, read_frames(path, expected))


@pytest.mark.parametrize("lib", ["pyav", "opencv", "opencv-naive"])
def test_contestant_survives_a_header_that_claims_too_many_frames(
    lib: str, numbered_video: Video, tmp_path: Path
) -> None:
    path = tmp_path / "claims.avi"
    data = bytearray(numbered_video("mpeg4.avi").read_bytes())
    for header, offset in ((b"avih", 8 + 16), (b"strh", 8 + 32)):  # their number of frames
        place = data.index(header) + offset
        assert int.from_bytes(data[place : place + 4], "little") == NUM_FRAMES
        data[place : place + 4] = (4 * NUM_FRAMES).to_bytes(4, "little")
    path.write_bytes(data)
    sample = CONTESTANTS[lib].read(str(path), 4)
    assert sample.num_frames == NUM_FRAMES
    assert np.array_equal(sample.frames_thwc, read_frames(path, [4, 14, 24, 34]))


@pytest.mark.usefixtures("rivals")
def test_library_that_is_not_there_is_listed_with_what_installs_it(numbered_video: Video) -> None:
    report = bench_decode(numbered_video("h264.mp4"), ["absent", "no-distribution", "pyav"], repeat=1)
    for name in ("absent", "no-distribution"):
        one = _total(report, name)
        assert (one.error, one.hint, one.version, one.speed) == ("not installed", "pip install bad-decoder", None, None)
    assert report.base == "pyav"
    assert {row.lib for row in report.files} == {"pyav"}
    assert _total(report, "pyav").speed is not None


@pytest.mark.usefixtures("rivals")
def test_library_whose_import_name_another_one_took_is_listed_as_such(numbered_video: Video) -> None:
    one = _total(bench_decode(numbered_video("h264.mp4"), ["shadowed", "pyav"], repeat=1), "shadowed")
    assert one.error is not None
    assert f"'import av' gives version {av.__version__}, not numpy {np.__version__}" in one.error
    assert one.speed is None


def test_version_of_a_certain_build_is_the_library_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # torchcodec 0.12.0 says that it is 0.12.0+cpu
    monkeypatch.setattr(av, "__version__", f"{importlib.metadata.version('av')}+cpu")
    contestant = replace(CONTESTANTS["pyav"], distribution="av")
    assert contestant.load().endswith("+cpu")
    monkeypatch.setattr(av, "__version__", "0.0+cpu")
    with pytest.raises(ImportError, match=r"version 0\.0\+cpu, not av"):
        contestant.load()


def test_default_libraries_are_the_four_of_ours_and_what_is_installed(
    numbered_video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ppvcli.video.bench.run.DEFAULT_LIBS", ("pyav", "opencv"))
    monkeypatch.setattr("ppvcli.video.bench.run.ALSO_IF_INSTALLED", ("opencv-naive", "absent"))
    monkeypatch.setitem(CONTESTANTS, "absent", RIVALS["absent"])
    report = bench_decode(numbered_video("h264.mp4"), repeat=1)
    assert [one.lib for one in report.contestants] == ["pyav", "opencv", "opencv-naive"]


# --- the processes ----------------------------------------------------------------------------------------------------


PARENT = """
from pathlib import Path

from ppvcli.video.bench import worker
from ppvcli.video.bench.worker import Request, Worker

worker._START = worker._START.replace("ppvcli.video.bench import worker", "tests.video.bench import rivals")
with Worker("hangs", log_dir=Path({folder!r}), timeout_s=60) as hanging:
    hanging.start()
    print(hanging._process.pid, flush=True)
    hanging.run(Request(path="clip.mp4", num_segments=1))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing tells of the end of another's child")
def test_library_that_hangs_ends_with_its_killed_parent(tmp_path: Path) -> None:
    script = PARENT.format(folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", script], cwd=REPO, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = os.pidfd_open(int(parent.stdout.readline()))
        parent.kill()
    poll = select.poll()
    poll.register(worker, select.POLLIN)
    ended = bool(poll.poll(10_000))
    if not ended:
        signal.pidfd_send_signal(worker, signal.SIGKILL)
    os.close(worker)
    assert ended


@pytest.mark.usefixtures("rivals")
def test_library_that_hangs_is_ended_and_the_others_are_measured(numbered_video: Video) -> None:
    path = numbered_video("h264.mp4")
    report = bench_decode(path, ["hangs", "pyav"], repeat=1, timeout_s=4)
    assert _row(report, "hangs", path).error == "no answer within 4 s, ended (--timeout allows more)"
    assert (_total(report, "hangs").num_files, _total(report, "hangs").num_failed) == (0, 1)
    assert _row(report, "pyav", path).num_wrong == 0
    speed = _total(report, "pyav").speed
    assert speed is not None
    assert speed.ratio is None, "there is no time of the base to compare with"


@pytest.mark.parametrize("timeout_s", [math.inf, 1e300])
def test_timeout_without_end_is_waited_for(timeout_s: float, numbered_video: Video) -> None:
    report = bench_decode(numbered_video("h264.mp4"), ["pyav"], repeat=1, timeout_s=timeout_s)
    assert _total(report, "pyav").num_files == 1


def test_sequential_decoding_that_takes_too_long_is_named_with_what_allows_more(
    numbered_video: Video, tmp_path: Path
) -> None:
    path = numbered_video("h264.mp4")
    report = bench_decode(path, ["pyav"], repeat=1, timeout_s=1e-6)
    error = "sequential decoding, which gives the exact frames, took more than 1e-06 s"
    assert (report.failures, report.hints) == (((str(path), error),), ("--timeout allows more seconds",))


@pytest.mark.usefixtures("rivals")
def test_frames_that_memory_does_not_hold_are_told_with_what_takes_fewer(numbered_video: Video, tmp_path: Path) -> None:
    request = Request(path=str(numbered_video("h264.mp4")), num_segments=1)
    with Worker("eats-all", log_dir=tmp_path, timeout_s=30) as worker, pytest.raises(WorkerError) as caught:
        worker.run(request)
    assert "Unable to allocate" in caught.value.message
    assert caught.value.hint == "--frames N takes fewer frames"


@pytest.mark.usefixtures("rivals")
def test_library_that_crashes_on_one_video_is_started_again_for_the_next(numbered_video: Video) -> None:
    names = ("mpeg4.avi", "h264.mp4")
    avi, mp4 = (numbered_video(name) for name in names)
    report = bench_decode([avi, mp4], ["pyav", "crashes-on-avi", "refuses"], repeat=2)
    row = _row(report, "crashes-on-avi", avi)
    assert (row.error, row.speed) == ("crashed: SIGSEGV (about to fall)", None)
    assert _row(report, "crashes-on-avi", mp4).num_wrong == 0
    assert _row(report, "refuses", mp4).error == "RuntimeError: no codec for .mp4"
    assert report.num_common == 1, "the totals are about the video that all read, but who fails on all does not count"
    pyav, refuses = _total(report, "pyav"), _total(report, "refuses")
    assert pyav.speed == _row(report, "pyav", mp4).speed
    assert (refuses.speed, refuses.num_failed) == (None, 2)


@pytest.mark.usefixtures("rivals")
def test_output_of_a_library_is_not_taken_for_its_answer(
    numbered_video: Video, capfd: pytest.CaptureFixture[str]
) -> None:
    path = numbered_video("h264.mp4")
    row = _row(bench_decode(path, ["chatters"], repeat=1), "chatters", path)
    assert (row.error, row.num_wrong) == (None, 0)
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("rivals")
def test_other_frames_and_other_sizes_are_told(numbered_video: Video) -> None:
    path = numbered_video("h264.mp4")
    report = bench_decode(path, ["one-late", "half-size"], frames=4, repeat=1)
    late, half = _row(report, "one-late", path), _row(report, "half-size", path)
    exact = read_frames(path, uniform_eval(NUM_FRAMES, 4)).astype(int)
    assert (late.num_wrong, late.num_frames) == (1, NUM_FRAMES - 1)
    assert late.mean_diff == pytest.approx(np.abs(exact[0] - exact[1]).mean())
    assert (half.num_wrong, half.mean_diff) == (4, 255.0)
    assert (_total(report, "one-late").num_wrong, _total(report, "one-late").num_compared) == (1, 4)


@pytest.mark.usefixtures("rivals")
def test_wall_time_counts_waiting_and_cpu_time_does_not(numbered_video: Video) -> None:
    path = numbered_video("h264.mp4")
    report = bench_decode(path, ["naps", "toils"], frames=2, repeat=2)
    naps, toils = _row(report, "naps", path).speed, _row(report, "toils", path).speed
    assert naps.median_ms >= 150
    assert naps.cpu_ms < 100
    assert toils.cpu_ms >= 150
    assert toils.cpu_ratio < 1


@pytest.mark.usefixtures("rivals")
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells the peak since a moment")
def test_peak_memory_is_that_of_the_video_and_not_of_the_comparison(numbered_video: Video) -> None:
    avi, mp4 = numbered_video("mpeg4.avi"), numbered_video("h264.mp4")
    report = bench_decode([avi, mp4], ["hoards-on-avi"], repeat=1)
    much, little = (_row(report, "hoards-on-avi", path).peak_bytes for path in (avi, mp4))
    assert much - little > 190 << 20
    assert _total(report, "hoards-on-avi").peak_bytes == much


def test_rounds_take_turns_and_begin_with_another_library_each(
    numbered_video: Video, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    told: list[tuple[int, int]] = []
    run = Worker.run

    def record(worker: Worker, request: Request) -> Run:
        order.append(worker.lib)
        return run(worker, request)

    monkeypatch.setattr(Worker, "run", record)
    libs = ["pyav", "opencv", "opencv-naive"]
    report = bench_decode(
        numbered_video("h264.mp4"), libs, repeat=2, on_run=lambda done, total: told.append((done, total))
    )
    warm_up, *counted = (order[1 + 3 * i : 4 + 3 * i] for i in range(3))
    assert (order[0], warm_up) == ("exact", libs)
    assert counted == [["opencv", "opencv-naive", "pyav"], ["opencv-naive", "pyav", "opencv"]]
    assert len(order) == 10
    assert told == [(done, 9) for done in range(1, 10)]
    assert report.num_runs == 2


def test_entries_of_the_path_that_no_import_looks_at_do_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, tmp_path])
    with Worker("pyav", log_dir=tmp_path, timeout_s=30) as worker:
        assert worker.start() == av.__version__


def test_crops_are_those_that_a_network_looks_at(numbered_video: Video, tmp_path: Path) -> None:
    frames = {}
    request = Request(path=str(numbered_video("h264.mp4")), num_segments=4, save_to=str(tmp_path / "frames.npy"))
    for lib, crops in (("ppv", "box"), ("pyav", "box"), ("ppv", "whole"), ("pyav", "whole")):
        with Worker(lib, log_dir=tmp_path, timeout_s=30) as worker:
            worker.run(replace(request, crops=crops))
        frames[lib, crops] = np.load(tmp_path / "frames.npy").astype(int)
    assert frames["ppv", "box"].shape == (4, 224, 224, 3)
    assert np.array_equal(frames["ppv", "box"], frames["pyav", "box"])
    assert np.array_equal(frames["ppv", "whole"], frames["pyav", "whole"])
    # Pillow rounds to grey levels between its two passes, and may order them in another way
    assert np.abs(frames["ppv", "box"] - frames["ppv", "whole"]).max() <= 2


def test_processes_are_gone_afterwards(numbered_video: Video, monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    start = Worker.start

    def record(worker: Worker) -> str:
        version = start(worker)
        started.append(worker._process)
        return version

    monkeypatch.setattr(Worker, "start", record)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench_decode(numbered_video("h264.mp4"), ["pyav", "opencv"], repeat=1, on_run=interrupt)
    assert len(started) == 3
    assert all(process is not None and process.poll() is not None for process in started)


def test_interrupted_call_hands_over_the_videos_that_were_done(numbered_video: Video) -> None:
    first, second = numbered_video("h264.mp4"), numbered_video("mpeg4.avi")
    reports: list[DecodeReport] = []

    def interrupt(done: int, total: int) -> None:
        if done == 3:  # of 4: the second video is at work
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        bench_decode([first, second], ["pyav"], repeat=1, on_run=interrupt, on_report=reports.append)
    (report,) = reports
    assert [row.path for row in report.files] == [str(first)]
    assert _total(report, "pyav").speed == _row(report, "pyav", first).speed


# --- the videos -------------------------------------------------------------------------------------------------------


def test_broken_video_is_reported_and_the_others_are_measured(numbered_video: Video, tmp_path: Path) -> None:
    broken, good = tmp_path / "broken.mp4", numbered_video("h264.mp4")
    broken.write_bytes(b"no video at all")
    report = bench_decode([broken, good], ["pyav"], repeat=1)
    ((path, error),) = report.failures
    assert path == str(broken)
    assert error.startswith(f"can't open {broken}")
    assert [row.path for row in report.files] == [str(good)]
    assert report.num_common == 1


@pytest.mark.parametrize("content", [b"no video at all", None], ids=["broken", "gone"])
def test_nothing_but_broken_videos_leaves_an_empty_report(content: bytes | None, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    if content is not None:
        broken.write_bytes(content)
    report = bench_decode(broken, ["pyav"], repeat=1)
    assert (report.files, report.num_common, len(report.failures)) == ((), 0, 1)
    assert report.to_dict()["contestants"][0]["speed"] is None


def test_hints_are_those_of_the_failures_and_each_once(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("sound.wav", "text.mp4", "more.mp4", "gone.mp4")]
    with wave.open(str(paths[0]), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes(bytes(16000))
    for path in paths[1:3]:
        path.write_bytes(b"no video at all")
    report = bench_decode(paths, ["pyav"], repeat=1)
    assert len(report.failures) == 4
    again = "play it in another program; if that fails too, fetch or copy it again"
    assert report.hints == ("check the path", "give a file with moving pictures", again)


def test_damaged_video_is_told_and_measured_all_the_same(numbered_video: Video, tmp_path: Path) -> None:
    whole, cut = numbered_video("mpeg4.avi"), tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[:-3000])
    report = bench_decode([whole, cut], ["ppv"], repeat=1)
    with open_video(cut, decoder="sequential") as video:
        assert 0 < video.num_frames < NUM_FRAMES
        assert video.damage is not None
        assert report.damaged == ((str(cut), video.damage),)
    assert _row(report, "ppv", cut).num_wrong == 0


def test_video_that_ppv_decodes_sequentially_is_told_with_the_reason(numbered_video: Video, tmp_path: Path) -> None:
    frames = numbered_frames(80, width=192, height=128)  # small ones are not worth a plan
    assert frames.size // 3 > PLANNED_PIXELS
    paths = [FORMATS[name].write(tmp_path / name, frames) for name in ("h264.mp4", "vp9.mp4")]
    for path in paths:
        padding = PLANNED_BYTES.to_bytes(4, "big") + b"free" + bytes(PLANNED_BYTES - 8)
        path.write_bytes(path.read_bytes() + padding)
    report = bench_decode(paths, ["ppv", "pyav"], repeat=1)
    reasons = [_row(report, "ppv", path).fallback for path in paths]
    assert reasons == [None, "vp9 is always decoded sequentially"]
    assert [_row(report, "pyav", path).fallback for path in paths] == [None, None]


def test_without_files_a_corpus_is_rendered_and_named_without_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = [replace(video, num_frames=6) for video in CORPUS]
    monkeypatch.setattr("ppvcli.video.bench.corpus.CORPUS", corpus)
    report = bench_decode(None, ["pyav", "opencv"], frames=4, repeat=1)
    assert [row.path for row in report.files[::2]] == [video.name for video in CORPUS]
    assert all(row.num_wrong == 0 for row in report.files), report.files


def test_corpus_has_the_formats_that_its_names_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [replace(video, num_frames=30) for video in CORPUS if video.size_wh[1] < 300]
    monkeypatch.setattr("ppvcli.video.bench.corpus.CORPUS", small)
    paths = write_corpus(tmp_path)
    assert [path.name for path in paths] == [video.name for video in small]
    for path in paths:
        codec, height = path.stem.split("_")[:2]
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            keyframes = [
                i for i, packet in enumerate(p for p in container.demux(stream) if p.size) if packet.is_keyframe
            ]
            assert (stream.codec_context.name, f"{stream.height}p") == (codec, height)
        if "gop12" in path.stem or codec == "mpeg4":
            assert keyframes == [0, 12, 24]
        else:
            assert keyframes == [0]


def test_list_of_a_folder_is_every_video_below_it_in_order(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/z.AVI", "a/notes.txt", "c.webm"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    single = tmp_path / "a" / "notes.txt"
    single.write_bytes(b"x")
    (tmp_path / "b.mp4").write_bytes(b"x")
    paths, others = list_videos([single, tmp_path, tmp_path / "b.mp4"])
    assert others == []
    names = [path.relative_to(tmp_path).as_posix() for path in paths]
    assert names == ["a/notes.txt", "a/z.AVI", "b.mp4", "c.webm"]


def test_list_of_a_folder_without_videos_says_so(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    paths, ((place, error),) = list_videos(tmp_path)
    assert (paths, place) == ([], str(tmp_path))
    assert isinstance(error, VideoNotFoundError)
    assert error.message == f"no video in the folder {tmp_path}"


def test_paths_without_a_video_are_reported_and_the_others_are_measured(
    numbered_video: Video, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.mp4").write_bytes(numbered_video("h264.mp4").read_bytes())
    (tmp_path / "text.mp4").write_bytes(b"no video at all")
    (tmp_path / "nothing").mkdir()
    (tmp_path / "empty.mp4").touch()
    paths = ["gone.mp4", "text.mp4", "good.mp4", "nothing", "empty.mp4", "http://here/a.mp4"]
    report = bench_decode(paths, ["pyav"], repeat=1)
    assert [row.path for row in report.files] == ["good.mp4"]
    assert dict(report.failures) == {
        "gone.mp4": "no video at gone.mp4: nothing is there",
        "nothing": "no video in the folder nothing",
        "empty.mp4": "empty.mp4 is empty: 0 bytes",
        "http://here/a.mp4": "http://here/a.mp4 is an address, and only local files are read",
        "text.mp4": "can't open text.mp4: no known video format, or its header is damaged",
    }


@pytest.mark.parametrize(
    ("files", "libs", "settings", "error", "message"),
    [
        ("here", ["decrod"], {}, UnknownNameError, "unknown library 'decrod'; nearest: decord, decord2"),
        ("here", [], {}, UsageError, "no library given"),
        ("here", ["pyav"], {"base": "ppv"}, UsageError, "the base ppv is not among the libraries: pyav"),
        ("here", ["PYAV"], {}, UnknownNameError, "unknown library 'PYAV'; nearest: pyav"),
        ("here", ["pyav"], {"frames": 0}, UsageError, "frames must be a whole number from 1 to 10000, got 0"),
        ("here", ["pyav"], {"frames": 2.5}, UsageError, "frames must be a whole number from 1 to 10000, got 2.5"),
        ("here", ["pyav"], {"frames": 10**11}, UsageError, "whole number from 1 to 10000, got 100000000000"),
        ("here", ["pyav"], {"repeat": 0}, UsageError, "repeat must be a whole number of 1 or more, got 0"),
        ("here", ["pyav"], {"repeat": 1.5}, UsageError, "repeat must be a whole number of 1 or more, got 1.5"),
        ("here", ["pyav"], {"timeout_s": 0}, UsageError, "the timeout must be above 0 seconds, got 0"),
        ("here", ["pyav"], {"timeout_s": math.nan}, UsageError, "the timeout must be above 0 seconds, got nan"),
        ("here", ["pyav"], {"timeout_s": "60"}, UsageError, "the timeout must be above 0 seconds, got '60'"),
        ("here", ["absent"], {}, UsageError, "no library to measure: absent: not installed"),
        ("here", ["pyav", "absent"], {"base": "absent"}, UsageError, "absent can't be the base: not installed"),
        ([], ["pyav"], {}, UsageError, "no video given"),
    ],
)
@pytest.mark.usefixtures("rivals")
def test_request_that_makes_no_sense_is_refused(
    files: Any, libs: list[str], settings: dict[str, Any], error: type[Exception], message: str, numbered_video: Video
) -> None:
    with pytest.raises(error) as caught:
        bench_decode(numbered_video("h264.mp4") if files == "here" else files, libs, **settings)
    assert message in str(caught.value)
    assert caught.value.hint  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["ümläut 'quoted' $x.mp4", "line\nbreak.mp4"])
def test_any_file_name_reaches_the_process(name: str, numbered_video: Video, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(numbered_video("h264.mp4").read_bytes())
    assert _row(bench_decode(path, ["pyav"], repeat=1), "pyav", path).num_wrong == 0


# --- the numbers ------------------------------------------------------------------------------------------------------


def _series(path: str, lib: str, walls: list[float], *, cpu: float = 1.0, num_wrong: int = 0) -> Series:
    """The first of `walls` is the warm-up."""
    runs = [
        Run(wall_ms=wall, cpu_ms=wall * cpu, num_frames=40, peak_bytes=round(wall), num_wrong=num_wrong)
        for wall in walls
    ]
    return Series(path=path, lib=lib, runs=tuple(runs))


def _contestants(*libs: str) -> list[DecodeContestant]:
    return [DecodeContestant(lib=lib, how="", num_threads=1, version="1") for lib in libs]


def test_report_of_known_runs_has_the_numbers_worked_out_by_hand() -> None:
    series = [
        _series("a", "base", [900, 10, 20, 30]),
        _series("a", "other", [900, 5, 5, 10], cpu=2.0, num_wrong=3),
        _series("b", "base", [900, 100, 100, 100]),
        _series("b", "other", [900, 200, 200, 200], cpu=2.0),
    ]
    report = make_report(_contestants("base", "other"), series, [], base="base", num_segments=16, num_runs=3)
    a = next(row for row in report.files if (row.path, row.lib) == ("a", "other"))
    assert a.speed is not None
    # pairs of rounds: 10/5, 20/5, 30/10, so the median is 3
    assert (a.speed.median_ms, a.speed.ratio, a.speed.cpu_ratio) == (5, pytest.approx(3), pytest.approx(1.5))
    assert a.speed.p95_ms == pytest.approx(9.5)
    assert a.speed.frames_per_s == pytest.approx(3200)
    assert (a.num_wrong, a.peak_bytes) == (3, 900)
    total = _total(report, "other")
    assert total.speed is not None
    assert total.speed.median_ms == 105  # of 5, 5, 10, 200, 200, 200
    assert total.speed.cpu_ms == 210
    assert total.speed.ratio == pytest.approx((3 * 0.5) ** 0.5)
    assert total.speed.frames_per_s == pytest.approx(2 * 16 / 0.205)
    assert (total.num_wrong, total.num_compared, total.num_files) == (3, 32, 2)


def test_repeats_of_a_frame_do_not_count_as_decoded_frames() -> None:
    series = [_series("a", "base", [9, 10]), _series("b", "base", [9, 10])]
    report = make_report(_contestants("base"), series, [], base="base", num_segments=1000, num_runs=1)
    speeds = [report.files[0].speed, report.contestants[0].speed]
    assert [speed.frames_per_s for speed in speeds if speed] == [pytest.approx(4000), pytest.approx(4000)]  # 40 frames


def test_report_compares_totals_on_the_videos_that_all_could_read() -> None:
    series = [
        _series("a", "base", [9, 10]),
        _series("a", "other", [9, 5]),
        _series("b", "base", [9, 1000]),
        Series(path="b", lib="other", runs=(), error="refused"),
    ]
    report = make_report(
        _contestants("base", "other"),
        series,
        [("c", VideoNotFoundError("broken", hint="look"))],
        base="base",
        num_segments=2,
        num_runs=1,
    )
    base, other = (_total(report, lib) for lib in ("base", "other"))
    assert report.num_common == 1
    assert base.speed is not None
    assert other.speed is not None
    assert (base.speed.median_ms, other.speed.ratio) == (10, 2)
    assert (base.num_files, other.num_files, other.num_failed) == (2, 1, 1)
    assert (report.to_dict()["failures"], report.hints) == ((("c", "broken"),), ("look",))


def test_report_has_no_ratio_where_the_base_failed() -> None:
    series = [Series(path="a", lib="base", runs=(), error="refused"), _series("a", "other", [9, 5])]
    report = make_report(_contestants("base", "other"), series, [], base="base", num_segments=2, num_runs=1)
    speed = report.files[1].speed
    assert speed is not None
    assert (speed.median_ms, speed.ratio, speed.cpu_ratio) == (5, None, None)
    assert _total(report, "base").speed is None


@pytest.mark.parametrize("share", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("count", [1, 2, 7, 20])
def test_percentile_is_that_of_numpy(share: float, count: int) -> None:
    values = np.random.default_rng(count).normal(size=count).tolist()
    assert percentile(values, share) == pytest.approx(np.percentile(values, 100 * share))


# --- the picture ------------------------------------------------------------------------------------------------------


@pytest.fixture
def report() -> DecodeReport:
    series = [
        *(_series("a.mp4", "base", [9, 10, 12]), _series("a.mp4", "other", [9, 5, 6], num_wrong=1)),
        *(_series("b.mp4", "base", [9, 10, 12]), Series(path="b.mp4", lib="other", runs=(), error="refused")),
    ]
    return make_report(_contestants("base", "other"), series, [], base="base", num_segments=16, num_runs=2)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_plot_is_written_in_the_format_of_its_name(suffix: str, report: DecodeReport, tmp_path: Path) -> None:
    path = tmp_path / f"plot{suffix}"
    plot_report(report, path)
    start = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix]
    assert path.read_bytes().startswith(start)
    if suffix == ".svg":  # texts are drawn as shapes, with the words in a comment
        comments = {text.strip() for text in re.findall(r"<!-- (.*?) -->", path.read_text(encoding="utf-8"))}
        assert comments >= {
            "all runs on 1 video; x: mean of each video's ratio",
            "a.mp4",
            "b.mp4",
            "base",
            "other",
            "failed",
        }
        assert "5.5, 2.00x, not exact" in comments
        assert comments >= {"base (1x)", "faster than base", "slower than base", "not exact"}
    if suffix == ".png":
        with Image.open(path) as image:
            assert min(image.size) > 200


def test_plot_of_many_videos_draws_the_total_alone(tmp_path: Path) -> None:
    series = [_series(f"{i}.mp4", "base", [9, 10]) for i in range(40)]
    many = make_report(_contestants("base"), series, [], base="base", num_segments=16, num_runs=1)
    plot_report(many, tmp_path / "many.png")
    with Image.open(tmp_path / "many.png") as image:
        assert image.height < 450
        ink_hw = np.asarray(image.convert("L")) < 200
    assert ink_hw.any()
    assert not ink_hw[:, [0, -1]].any(), "texts are cut off at the sides"


@pytest.mark.parametrize("name", ["中文.mp4", "a$_^b$.mp4", f"{'long_' * 30}.mp4"])
def test_plot_takes_any_file_name_without_a_word(name: str, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    one = make_report(
        _contestants("base"), [_series(name, "base", [9, 10])], [], base="base", num_segments=16, num_runs=1
    )
    plot_report(one, tmp_path / "plot.png")
    assert [str(warning.message) for warning in recwarn] == []
    with Image.open(tmp_path / "plot.png") as image:
        ink_hw = np.asarray(image.convert("L")) < 200
    assert not ink_hw[:, [0, -1]].any(), "texts are cut off at the sides"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("plot.jpg", "can't plot into"),
        ("plot", "can't plot into"),
        ("no/plot.png", "no such folder"),
        ("/proc/plot.png", "can't plot into"),
        ("folder.png", "it is a folder"),
        (".", "it is a folder"),
    ],
)
def test_plot_into_an_impossible_file_is_refused(name: str, message: str, report: DecodeReport, tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError, match=message) as caught:
        check_plot_path(tmp_path / name)
    assert caught.value.hint
    with pytest.raises(UsageError, match=message):
        plot_report(report, tmp_path / name)


def test_plot_on_a_full_disk_names_the_file(
    report: DecodeReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: object, **settings: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(UsageError, match=r"can't plot into .*plot\.png: No space left on device"):
        plot_report(report, tmp_path / "plot.png")


def test_plot_without_matplotlib_says_how_to_install_it(
    report: DecodeReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name))
    with pytest.raises(UsageError) as caught:
        plot_report(report, tmp_path / "plot.png")
    assert caught.value.hint == "pip install 'ppvcli[plot]'"
