from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppvcli.datasets.frames import FrameJob, count_frames, extract_frames, frame_name, frames_sha256
from ppvcli.errors import DatasetError
from ppvcli.video.decoding import open_video, read_frames
from ppvcli.video.render import write_video
from tests.datasets.test_workers import is_alive
from tests.small_model import moving_block
from tests.video.matrix import ROWS, damage_packets


def _job(tmp_path: Path, name: str = "one", *, num_frames: int = 5) -> FrameJob:
    clip = tmp_path / f"{name}.avi"
    write_video(clip, moving_block(num_frames), codec="mpeg4")
    return FrameJob(clip=clip, folder=tmp_path / "frames" / name, work_dir=tmp_path / "work")


def test_frames_are_those_of_the_decoder_numbered_from_one(tmp_path: Path) -> None:
    job = _job(tmp_path, num_frames=300)  # more than are decoded at once
    (result,) = extract_frames([job], num_workers=1)
    assert (result.num_frames, result.error) == (300, None)
    assert sorted(path.name for path in job.folder.iterdir()) == [f"img_{i:05d}.jpg" for i in range(1, 301)]
    decoded = read_frames(job.clip, [0, 255, 256, 299]).astype(np.int16)
    for number, frame in zip((1, 256, 257, 300), decoded, strict=True):
        with Image.open(job.folder / frame_name(number)) as image:
            assert image.format == "JPEG"
            # quality 95: grey levels stay within a few; a neighbouring frame differs by far more
            assert np.abs(np.asarray(image, np.int16) - frame).mean() < 1.5
    assert np.abs(decoded[1] - decoded[2]).mean() > 3
    assert list(job.work_dir.iterdir()) == []


def test_hash_is_of_all_names_and_contents_in_order(tmp_path: Path) -> None:
    for name in ("img_00002.jpg", "img_00001.jpg", "notes.txt"):
        (tmp_path / name).write_text(name)
    # (cd FOLDER && sha256sum img_*.jpg | sha256sum)
    assert frames_sha256(tmp_path) == "16721c0e4139b53cd91496c1a6ed53d4d1ff0358662963d8f936e3d8c799d2c7"


@pytest.mark.parametrize("num_workers", [1, 2])
def test_results_say_hash_and_damage(num_workers: int, tmp_path: Path) -> None:
    whole, cut = jobs = [_job(tmp_path, name, num_frames=300) for name in ("whole", "cut")]
    cut.clip.write_bytes(cut.clip.read_bytes()[: cut.clip.stat().st_size * 4 // 5])
    first = list(extract_frames(jobs, num_workers=num_workers))
    assert [result.damage for result in first] == [None, "cut off within a frame"]
    assert [result.sha256 for result in first] == [frames_sha256(whole.folder), frames_sha256(cut.folder)]
    assert whole.folder != cut.folder and first[0].sha256 != first[1].sha256
    again = list(extract_frames(jobs, num_workers=num_workers))
    assert [(one.num_frames, one.sha256) for one in again] == [(one.num_frames, one.sha256) for one in first]


def test_folder_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    job = _job(tmp_path)
    job.folder.mkdir(parents=True)
    (job.folder / frame_name(1)).write_bytes(b"kept")
    assert [result.num_frames for result in extract_frames([job], num_workers=1)] == [1]
    assert (job.folder / frame_name(1)).read_bytes() == b"kept"


def test_clip_that_cannot_be_decoded_is_a_result_and_leaves_no_folder(tmp_path: Path) -> None:
    job = _job(tmp_path)
    job.clip.write_bytes(b"no video at all" * 100)
    (result,) = extract_frames([job], num_workers=1)
    assert result.num_frames == 0
    assert str(job.clip) in str(result.error)
    assert not job.folder.exists()
    assert list(job.work_dir.iterdir()) == []


def test_clip_whose_damage_costs_a_frame_gives_those_that_are_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a packed stream the headers promise one more than decoding gives."""
    monkeypatch.setattr("ppvcli.video.plan.PLANNED_BYTES", 0)
    monkeypatch.setattr("ppvcli.video.plan.PLANNED_PIXELS", 0)
    whole = ROWS["mpeg4_packed.avi"].write(tmp_path)
    num_fewer = 0
    for seed in range(40):
        path = damage_packets(whole, tmp_path / "clip.avi", seed=seed, num_bytes=1)
        with open_video(path, decoder="sequential") as video:
            expected = video.num_frames
        job = FrameJob(clip=path, folder=tmp_path / f"frames{seed}", work_dir=tmp_path / "work")
        (result,) = extract_frames([job], num_workers=1)
        assert (result.error, result.num_frames, count_frames(job.folder)) == (None, expected, expected)
        num_fewer += expected < 36
    assert num_fewer


def test_several_processes_do_all_clips(tmp_path: Path) -> None:
    jobs = [_job(tmp_path, name, num_frames=n) for name, n in (("a", 3), ("b", 4), ("c", 5), ("d", 2))]
    jobs[1].clip.write_bytes(b"no video at all" * 100)
    results = list(extract_frames(jobs, num_workers=2))
    assert [(result.job, result.num_frames) for result in results] == list(zip(jobs, (3, 0, 5, 2), strict=True))
    assert str(jobs[1].clip) in str(results[1].error)
    assert [job.folder.exists() and count_frames(job.folder) for job in jobs] == [3, False, 5, 2]


def test_process_that_dies_is_an_error_that_names_its_clip(tmp_path: Path) -> None:
    jobs = [_job(tmp_path, name, num_frames=300) for name in ("a", "b")]
    results = extract_frames(jobs, num_workers=2)
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    killer = threading.Thread(target=_kill_a_child_that_writes, args=(children, jobs[0].work_dir))
    killer.start()
    with pytest.raises(DatasetError, match=r"was killed by SIGKILL while it read .*\.avi") as caught:
        list(results)
    killer.join()
    assert "--num-workers 1" in str(caught.value.hint)


def _kill_a_child_that_writes(children: Path, work_dir: Path) -> None:
    """Folders under way end with the number of their process."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        for path in work_dir.glob("*-*"):
            pid = path.name.rpartition("-")[2]
            if pid in children.read_text().split():
                os.kill(int(pid), signal.SIGKILL)
                return
        time.sleep(0.001)


def test_full_disk_is_no_fault_of_the_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = _job(tmp_path)

    def full(path: Path, data: bytes) -> int:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        list(extract_frames([job], num_workers=1))
    assert not job.folder.exists()


def test_error_of_the_system_comes_through_from_a_process(tmp_path: Path) -> None:
    jobs = [_job(tmp_path, name) for name in ("a", "b")]
    (tmp_path / "work").write_bytes(b"a file where the folders are to grow")
    with pytest.raises(OSError, match="work"):
        list(extract_frames(jobs, num_workers=2))


@pytest.mark.parametrize(
    ("names", "count"),
    [
        (["img_00001.jpg", "img_00002.jpg"], 2),
        (["img_00001.jpg", "img_00003.jpg"], -1),
        (["img_00002.jpg"], -1),
        (["img_00001.jpg", "other.txt"], 1),
        ([], 0),
    ],
)
def test_count_frames_wants_numbers_without_gaps(names: list[str], count: int, tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).touch()
    assert count_frames(tmp_path) == count


def test_processes_are_not_left_behind(tmp_path: Path) -> None:
    jobs = [_job(tmp_path, name) for name in ("a", "b")]
    results = extract_frames(jobs, num_workers=2)
    next(results)
    results.close()  # as when the caller is interrupted
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")
    if not children.exists():
        pytest.skip("needs /proc")
    commands = [Path(f"/proc/{pid}/cmdline").read_text() for pid in children.read_text().split()]
    assert not [command for command in commands if "datasets.workers" in command]


PARENT = """
import sys
from pathlib import Path
from ppvcli.datasets.frames import FrameJob, extract_frames

folder = Path(sys.argv[1])
jobs = [FrameJob(clip=folder / "one.avi", folder=folder / f"{i}", work_dir=folder / "work") for i in range(9999)]
for result in extract_frames(jobs, num_workers=2):
    print(result.num_frames, flush=True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes in /proc")
def test_killed_extraction_leaves_no_process_behind(tmp_path: Path) -> None:
    _job(tmp_path)
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"5\n"
    pids = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
    workers = [pid for pid in pids if "datasets.workers" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(workers) == 2
    parent.kill()
    end = time.monotonic() + 15
    while any(is_alive(int(pid)) for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.05)
    parent.communicate()
