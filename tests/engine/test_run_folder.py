"""Where a new run may go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ppvcli.configs.schema import DataConfig
from ppvcli.engine.run_folder import check_new_run, check_not_held, holding_run, remove_begun_run
from ppvcli.errors import UsageError


def make_clips(root: Path) -> DataConfig:
    for name in ("bend", "jack"):
        (root / name).mkdir(parents=True)
        (root / name / "1.mp4").touch()
    return DataConfig(root=str(root), val_ratio=0.5)


@pytest.mark.parametrize("place", ["runs/mine", "empty", "hidden", "my_clips_too", "my_clips/.runs/mine"])
def test_new_or_empty_folder_is_taken(place: str, tmp_path: Path) -> None:
    data = make_clips(tmp_path / "my_clips")
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / ".DS_Store").touch()
    check_new_run(tmp_path / place, data)


@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("my_clips", "would be taken for clips: the folders in .*my_clips are the classes"),
        ("my_clips/run", "would be taken for clips"),
        ("my_clips/bend/run", "would be taken for clips"),
        ("link/run", "would be taken for clips"),
        (".", "holds something else than a run: link, my_clips, other, and 1 more"),
        ("other", r"holds something else than a run: log\.jsonl$"),
        ("other/log.jsonl", "it is a file"),
        ("run", "already holds a run"),
    ],
)
def test_folder_of_other_things_is_refused(place: str, words: str, tmp_path: Path) -> None:
    data = make_clips(tmp_path / "my_clips")
    (tmp_path / "link").symlink_to("my_clips")
    for name in ("other/log.jsonl", "run/config.yaml"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    with pytest.raises(UsageError, match=words) as caught:
        check_new_run(tmp_path / place, data)
    assert "--out" in str(caught.value.hint)


def test_run_beside_a_csv_or_lists_is_taken(tmp_path: Path) -> None:
    check_new_run(tmp_path / "runs" / "mine", DataConfig(root=str(tmp_path), csv="clips.csv"))
    lists = {"train_list": "a", "val_list": "b", "labels": "c"}
    check_new_run(tmp_path / "runs" / "mine", DataConfig(root=str(tmp_path), **lists))


def test_run_is_held_until_its_process_is_killed(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    code = (
        "import sys, time; from pathlib import Path; from ppvcli.files import holding\n"
        "with holding(Path(sys.argv[1]), wait=False):\n"
        "    print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(run_dir)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(UsageError, match=f"another process is training in {run_dir}"):
            check_not_held(run_dir)
        process.kill()
    check_new_run(run_dir, DataConfig(root=str(tmp_path / "clips"), val_ratio=0.5))
    with holding_run(run_dir):
        (run_dir / "config.yaml").touch()
    check_not_held(run_dir)
    assert (run_dir / "config.yaml").exists()


def test_run_that_writes_nothing_leaves_no_folder(tmp_path: Path) -> None:
    with holding_run(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert not (tmp_path / "run").exists()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="can't write a run to"), holding_run(tmp_path / "file" / "run"):
        pass


def test_removed_run_leaves_what_is_of_others(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    for name in ("config.yaml", "split.jsonl", "start.json", "log.jsonl", "tensorboard/events"):
        (run_dir / name).parent.mkdir(exist_ok=True, parents=True)
        (run_dir / name).touch()
    (run_dir / ".keep").touch()
    remove_begun_run(run_dir, ["tensorboard"])
    assert [path.name for path in run_dir.iterdir()] == [".keep"]
    (run_dir / ".keep").unlink()
    remove_begun_run(run_dir, [])
    assert not run_dir.exists()
