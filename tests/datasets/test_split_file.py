"""The record of a run's clips: what comes back, and what has happened to a data set since."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ppvcli.configs.schema import DataConfig
from ppvcli.datasets.annotations import Sample, Split
from ppvcli.datasets.catalog import open_split
from ppvcli.datasets.split_file import Changes, describe_newer, find_changes, read_split, write_split
from ppvcli.errors import DatasetError


def make_split(root: Path) -> Split:
    train = (
        Sample(root / "b" / "two words.mp4", 0),
        Sample(root / "a" / " first\nsecond.mp4", 2, 17),
        Sample(Path("/elsewhere/\udcff.mp4"), 2),
    )
    return Split(train=train, val=(Sample(root / ".." / "c.mp4", 0),), labels=("z, 1", "empty", "a"))


@pytest.mark.parametrize("root", [Path("clips"), Path("/data/clips")])
def test_split_comes_back_in_its_order_below_another_root(root: Path, tmp_path: Path) -> None:
    write_split(tmp_path / "split.jsonl", make_split(root), root=root)
    assert read_split(tmp_path / "split.jsonl", Path("/moved")) == make_split(Path("/moved"))
    assert len((tmp_path / "split.jsonl").read_text(encoding="ascii").splitlines()) == 5


def test_split_that_was_never_written_is_none(tmp_path: Path) -> None:
    assert read_split(tmp_path / "split.jsonl", tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "[]\n", "{}\n", '{"labels": ["a"]}\n{"path"', '{"labels": ["a"]}\n{"path": "1", "label": "b"}\n']
)
def test_damaged_split_is_an_error_with_a_way_out(text: str, tmp_path: Path) -> None:
    path = tmp_path / "split.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=r"can't read .*split\.jsonl, the clips of the run: .") as caught:
        read_split(path, tmp_path)
    assert "divided anew" in str(caught.value.hint)


def write_clips(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names_of(paths: tuple[Path, ...], root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


def test_changes_of_class_folders_are_clips_added_and_removed(tmp_path: Path) -> None:
    write_clips(tmp_path, "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    config = DataConfig(root=str(tmp_path), val_ratio=0.5, group_pattern=r"(\d)\.")
    split = open_split(config, seed=0)
    assert find_changes(split, config).newer == find_changes(split, config).gone == ()
    (tmp_path / "a" / "1.mp4").unlink()
    write_clips(tmp_path, "a/3.mp4", "b/of no group.mp4", "c/1.mp4")
    changes = find_changes(split, config)
    assert names_of(changes.newer, tmp_path) == ["a/3.mp4", "b/of no group.mp4", "c/1.mp4"]
    assert names_of(changes.gone, tmp_path) == ["a/1.mp4"]


def test_class_folder_that_is_empty_now_hides_no_clip_that_is_gone(tmp_path: Path) -> None:
    write_clips(tmp_path, "a/1.mp4", "a/2.mp4", "b/1.mp4", "b/2.mp4")
    config = DataConfig(root=str(tmp_path), val_ratio=0.5)
    split = open_split(config, seed=0)
    (tmp_path / "new").mkdir()
    assert find_changes(split, config) == Changes(newer=(), gone=())
    for name in ("1.mp4", "2.mp4"):
        (tmp_path / "a" / name).unlink()
    assert sorted(names_of(find_changes(split, config).gone, tmp_path)) == ["a/1.mp4", "a/2.mp4"]
    with pytest.raises(DatasetError, match="no folder"):
        find_changes(split, config.model_copy(update={"root": str(tmp_path / "nowhere")}))


@pytest.mark.parametrize(
    "settings",
    [{"csv": "all.csv"}, {"train_list": "train.list", "val_list": "val.list", "labels": "labels.txt"}],
    ids=["csv", "lists"],
)
def test_changes_of_a_list_are_rows_added(settings: dict[str, Any], tmp_path: Path) -> None:
    """What it no longer names, or names in vain, is not gone: a list may name clips that never were there."""
    (tmp_path / "labels.txt").write_text("y\nx\n", encoding="utf-8")
    (tmp_path / "all.csv").write_text("path,label,split\n1.mp4,y,train\n2.mp4,x,val\n", encoding="utf-8")
    (tmp_path / "train.list").write_text("1.mp4 0\n", encoding="utf-8")
    (tmp_path / "val.list").write_text("2.mp4 1\n", encoding="utf-8")
    config = DataConfig(root=str(tmp_path), **settings)
    split = open_split(config, seed=0)
    assert find_changes(split, config).newer == ()
    (tmp_path / "all.csv").write_text("path,label,split\n1.mp4,y,train\n3.mp4,x,val\n", encoding="utf-8")
    (tmp_path / "val.list").write_text("3.mp4 1\n", encoding="utf-8")
    changes = find_changes(split, config)
    assert (names_of(changes.newer, tmp_path), changes.gone) == (["3.mp4"], ())


def test_note_counts_the_clips() -> None:
    assert describe_newer(1, "clips") == "clips: 1 clip is newer than the run and not in it"
    assert describe_newer(3, "clips") == "clips: 3 clips are newer than the run and not in it"
