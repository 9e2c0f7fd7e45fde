"""From a config to a split, in every form that a data set may have."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

import ppvcli
from ppvcli.configs.schema import DataConfig
from ppvcli.datasets.annotations import Sample, Split
from ppvcli.datasets.catalog import check_sides, csv_says_split, describe_leftovers, describe_split, open_split
from ppvcli.datasets.loader import ClipLoader
from ppvcli.errors import DatasetError
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.render import render_action, write_video
from ppvcli.video.transforms import Augment
from tests.datasets.fake_ucf101 import listed_paths, write_clips, write_lists

ROWS = [f"v_{name}_g{group:02d}.avi,{name}" for group in range(1, 6) for name in ("walk", "bend")]


def test_csv_with_a_split_is_taken_as_it_stands(tmp_path: Path) -> None:
    rows = [f"{row},{'val' if 'g05' in row else 'train'}" for row in ROWS]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split", *rows]))
    split = open_split(DataConfig(root=str(tmp_path), csv="clips.csv"), seed=0)
    assert split.labels == ("bend", "walk")
    assert [sample.path.name for sample in split.val] == ["v_walk_g05.avi", "v_bend_g05.avi"]
    assert len(split.train) == 8
    for settings, hint in (
        ({"val_ratio": 0.5}, "--set data.val_ratio=null"),
        ({"group_pattern": "(g)"}, "--set data.group_pattern=null"),
        (
            {"val_groups": ("05",), "group_pattern": r"g(\d+)"},
            "--set data.val_groups=null --set data.group_pattern=null",
        ),
    ):
        with pytest.raises(DatasetError, match="has a column 'split', so that data") as caught:
            open_split(DataConfig(root=str(tmp_path), csv="clips.csv", **settings), seed=0)
        assert caught.value.hint == f"leave that out, or remove the column; where a config says it: {hint}"


def test_csv_without_a_split_is_divided_like_class_folders(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("\n".join(["path,label", *ROWS]))
    by_ratio = open_split(DataConfig(root=str(tmp_path), csv="clips.csv", val_ratio=0.2), seed=3)
    assert [len(by_ratio.train), len(by_ratio.val)] == [8, 2]
    assert {sample.label for sample in by_ratio.val} == {0, 1}
    assert by_ratio == open_split(DataConfig(root=str(tmp_path), csv="clips.csv", val_ratio=0.2), seed=3)
    by_group = open_split(
        DataConfig(root=str(tmp_path), csv="clips.csv", val_groups=("02",), group_pattern=r"g(\d+)"), seed=0
    )
    assert [sample.path.name for sample in by_group.val] == ["v_walk_g02.avi", "v_bend_g02.avi"]
    with pytest.raises(DatasetError, match="nothing else says which clips to hold out"):
        open_split(DataConfig(root=str(tmp_path), csv="clips.csv"), seed=0)


def test_label_file_decides_the_indices_of_a_csv(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,label,split\na.avi,walk,train\nb.avi,bend,val\n")
    (tmp_path / "labels.txt").write_text("walk\nrun\nbend\n")
    split = open_split(DataConfig(root=str(tmp_path), csv="clips.csv", labels="labels.txt"), seed=0)
    assert split.labels == ("walk", "run", "bend")
    assert (split.train[0].label, split.val[0].label) == (0, 2)


def test_csv_that_holds_nothing_out_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text("path,label,split\na.avi,walk,train\n")
    with pytest.raises(DatasetError, match="one side empty: 1 train, 0 val"):
        open_split(DataConfig(root=str(tmp_path), csv="clips.csv"), seed=0)


def test_lists_of_the_reference_without_suffix_are_read(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("Archery/v_g01 0\n")
    (tmp_path / "val.txt").write_text("Bowling/v_g02 1\n")
    (tmp_path / "labels.txt").write_text("Archery\nBowling\n")
    config = DataConfig(
        root=str(tmp_path), train_list="train.txt", val_list="val.txt", labels="labels.txt", suffix=".avi"
    )
    assert open_split(config, seed=0).val[0].path == tmp_path / "Bowling" / "v_g02.avi"


def test_prepared_frames_can_be_trained_on(tmp_path: Path) -> None:
    write_lists(tmp_path / "ucf101" / "ucfTrainTestlist")
    wanted = [path for path in listed_paths() if path.startswith(("HandstandPushups/", "Surfing/"))]
    write_clips(tmp_path / "ucf101" / "videos", wanted)
    (tmp_path / "classes.txt").write_text("HandstandPushups\nSurfing\n")
    out = tmp_path / "out"
    prepared = ppvcli.prepare_ucf101_66(
        out, source=tmp_path / "ucf101", format="frames", classes=tmp_path / "classes.txt"
    )
    split = open_split(
        DataConfig(
            root=str(out),
            format="frames",
            train_list=prepared.train_list,
            val_list=prepared.val_list,
            labels=prepared.labels,
        ),
        seed=0,
    )
    assert split.labels == ("HandstandPushups", "Surfing")
    dense = Preprocess(
        sampling=Sampling(mode="dense", num_segments=8), resize=Resize(short_side=64), crop=Crop(kind="center", size=64)
    )
    for samples, augment in ((split.train, Augment()), (split.val, None)):
        batches = list(ClipLoader(samples, dense, batch_size=16, num_workers=1, augment=augment).epoch())
        assert not [failure for batch in batches for failure in batch.failures]
        assert sum(len(batch.labels) for batch in batches) == len(samples) > 0
        assert np.ptp(batches[0].frames_nvthwc) > 50


def test_leftovers_are_told_of_class_folders_of_videos_alone(tmp_path: Path) -> None:
    (tmp_path / "stray.mp4").touch()
    assert len(describe_leftovers(DataConfig(root=str(tmp_path), val_ratio=0.5))) == 1
    assert describe_leftovers(DataConfig(root=str(tmp_path), val_ratio=0.5, format="frames")) == ()
    assert describe_leftovers(DataConfig(root=str(tmp_path), val_ratio=0.5, csv="clips.csv")) == ()
    lists = {"train_list": "a", "val_list": "b", "labels": "c"}
    assert describe_leftovers(DataConfig(root=str(tmp_path), **lists)) == ()
    assert describe_leftovers(DataConfig(root=str(tmp_path / "none"), val_ratio=0.5)) == ()


def test_class_folders_of_frames_and_of_videos_can_lie_side_by_side(tmp_path: Path) -> None:
    for name in ("walk", "bend"):
        for i in range(2):
            path = tmp_path / name / f"{i}.mp4"
            path.parent.mkdir(exist_ok=True)
            write_video(path, render_action(name, num_frames=12))
            (tmp_path / name / f"clip{i}").mkdir()
            (tmp_path / name / f"clip{i}" / "img_00001.jpg").touch()
    videos = open_split(DataConfig(root=str(tmp_path), val_ratio=0.5), seed=0)
    frames = open_split(DataConfig(root=str(tmp_path), val_ratio=0.5, format="frames"), seed=0)
    assert {sample.path.suffix for sample in (*videos.train, *videos.val)} == {".mp4"}
    assert {sample.num_frames for sample in (*frames.train, *frames.val)} == {1}
    assert videos.labels == frames.labels == ("bend", "walk")


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_folder_one_level_too_high_names_the_one_below(tmp_path: Path) -> None:
    touch(tmp_path, *(f"my_clips/{name}/{i}.mp4" for name in ("bend", "jack", "walk") for i in range(2)))
    with pytest.raises(DatasetError, match="all clips are of one class, 'my_clips'; a classifier needs two") as caught:
        open_split(DataConfig(root=str(tmp_path), val_ratio=0.5), seed=0)
    below = tmp_path / "my_clips"
    assert caught.value.hint == f"did you mean --data {below}? Its classes would be: bend, jack, walk"
    assert len(open_split(DataConfig(root=str(below), val_ratio=0.5), seed=0).labels) == 3


@pytest.mark.parametrize("names", [["walk/1.mp4", "walk/2.mp4"], ["walk/deep/1.mp4", "walk/deep/2.mp4"]])
def test_single_class_folder_is_an_error(names: list[str], tmp_path: Path) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DatasetError, match="one class, 'walk'") as caught:
        open_split(DataConfig(root=str(tmp_path), val_ratio=0.5), seed=0)
    assert caught.value.hint == "--data DIR, with a sub-folder of clips for each class"


def test_single_class_of_frames_is_not_taken_for_a_folder_of_classes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"all/{name}/img_00001.jpg" for name in ("1", "2")))
    frames = DataConfig(root=str(tmp_path), val_ratio=0.5, format="frames")
    with pytest.raises(DatasetError, match="one class, 'all'") as caught:
        open_split(frames, seed=0)
    assert "did you mean" not in str(caught.value.hint)
    touch(tmp_path, *(f"all/{name}/clip/img_00001.jpg" for name in ("bend", "walk")))
    with pytest.raises(DatasetError) as caught:
        open_split(frames, seed=0)
    assert str(caught.value.hint).startswith(f"did you mean --data {tmp_path / 'all'}?")


def test_lists_and_csv_of_one_class_are_errors(tmp_path: Path) -> None:
    (tmp_path / "all.csv").write_text("path,label,split\n1.mp4,walk,train\n2.mp4,walk,val\n")
    (tmp_path / "train.txt").write_text("1.mp4 1\n")
    (tmp_path / "val.txt").write_text("2.mp4 1\n")
    (tmp_path / "labels.txt").write_text("bend\nwalk\n")
    lists = {"train_list": "train.txt", "val_list": "val.txt", "labels": "labels.txt"}
    for settings, source in (({"csv": "all.csv"}, "all.csv"), (lists, "train.txt and .*val.txt")):
        with pytest.raises(DatasetError, match=f"{source}: all clips are of one class, 'walk'") as caught:
            open_split(DataConfig(root=str(tmp_path), **settings), seed=0)
        assert caught.value.hint


def test_description_counts_classes_and_clips_and_names_those_without() -> None:
    labels = tuple(f"c{i}" for i in range(12))
    train, val = (tuple(Sample(Path(f"{side}/{i}.mp4"), i) for i in range(12)) for side in ("train", "val"))
    assert describe_split(Split(train=train, val=val[:10], labels=labels)) == (
        "data: 12 classes (c0, c1, c2, c3, c4, c5, c6, c7, c8, c9, ...), 12 clips to train on, 10 held out",
        "data: classes without a clip held out: 2 (c10, c11)",
    )
    assert describe_split(Split(train=train[:1], val=val[:2], labels=labels[:2])) == (
        "data: 2 classes (c0, c1), 1 clip to train on, 2 held out",
        "data: classes without a clip to train on: 1 (c1)",
    )


@pytest.mark.parametrize("name", ["new\nline", "0\twalk", os.fsdecode(b"caf\xe9")])
def test_class_that_no_weight_file_can_carry_is_refused(name: str, tmp_path: Path) -> None:
    touch(tmp_path, *(f"{folder}/{i}.mp4" for folder in (name, "walk") for i in range(2)))
    with pytest.raises(DatasetError, match="without control characters; got") as caught:
        open_split(DataConfig(root=str(tmp_path), val_ratio=0.5), seed=0)
    assert ascii(name) in caught.value.message


def test_quoted_line_break_in_a_label_of_a_csv_is_refused(tmp_path: Path) -> None:
    (tmp_path / "clips.csv").write_text('path,label,split\na.mp4,"a\nb",train\nb.mp4,c,val\n', encoding="utf-8")
    with pytest.raises(DatasetError, match="without control characters"):
        open_split(DataConfig(root=str(tmp_path), csv="clips.csv"), seed=0)


def test_clips_on_both_sides_are_an_error_or_counted(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\n")
    (tmp_path / "train.list").write_text("0.mp4 0\n1.mp4 1\n")
    (tmp_path / "val.list").write_text("1.mp4 1\n0.mp4 0\n")
    config = DataConfig(root=str(tmp_path), train_list="train.list", val_list="val.list", labels="labels.txt")
    with pytest.raises(DatasetError, match="all 2 held-out clips are also trained on"):
        check_sides(open_split(config, seed=0), config)
    (tmp_path / "val.list").write_text("1.mp4 1\n2.mp4 0\n")
    split = open_split(config, seed=0)
    check_sides(split, config)
    assert "data: held-out clips that are also trained on: 1" in describe_split(split)


def test_csv_says_whether_it_has_a_split(tmp_path: Path) -> None:
    config = DataConfig(root=str(tmp_path), csv="clips.csv", val_ratio=0.5)
    assert not csv_says_split(config)  # there is none
    (tmp_path / "clips.csv").write_text("path,label\na.mp4,walk\n")
    assert not csv_says_split(config)
    (tmp_path / "clips.csv").write_text("path,label,split\na.mp4,walk,train\n")
    assert csv_says_split(config)
    assert not csv_says_split(DataConfig(root=str(tmp_path), val_ratio=0.5))
