from __future__ import annotations

from pathlib import Path

import pytest

from ppvcli.configs.schema import DataConfig
from ppvcli.datasets.annotations import Format, Sample
from ppvcli.datasets.catalog import open_split
from ppvcli.datasets.folder import describe_unused, scan_class_folders, split_by_group, split_by_ratio, walk_files
from ppvcli.errors import DatasetError
from ppvcli.specs import VIDEO_SUFFIXES


def make(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_sub_folders_with_videos_are_the_classes_in_sorted_order(tmp_path: Path) -> None:
    make(
        tmp_path,
        "walk/b.avi",
        "walk/deep/a.MP4",
        "bend/c.avi",
        "bend/readme.txt",
        ".cache/x.avi",
        "walk/._b.avi",
        "walk/.thumbs/x.mp4",
        "stray.avi",
    )
    samples, labels = scan_class_folders(tmp_path)
    assert labels == ("bend", "walk")
    assert [(s.path.relative_to(tmp_path).as_posix(), s.label) for s in samples] == [
        ("bend/c.avi", 0), ("walk/b.avi", 1), ("walk/deep/a.MP4", 1),
    ]  # fmt: skip


def test_sub_folders_with_folders_of_frames_are_the_classes(tmp_path: Path) -> None:
    make(
        tmp_path,
        *(f"walk/b/img_{i:05d}.jpg" for i in (1, 2, 3)),
        *("walk/deep/a/img_00001.jpg", "bend/c/img_00001.jpg", "bend/c/img_00002.jpg", "bend/c/notes.txt"),
        *("walk/x.avi", "bend/d/frame000001.jpg", ".cache/e/img_00001.jpg", "walk/.thumbs/f/img_00001.jpg"),
    )
    samples, labels = scan_class_folders(tmp_path, format="frames")
    assert labels == ("bend", "walk")
    assert [(s.path.relative_to(tmp_path).as_posix(), s.label, s.num_frames) for s in samples] == [
        ("bend/c", 0, 2), ("walk/b", 1, 3), ("walk/deep/a", 1, 1),
    ]  # fmt: skip
    with pytest.raises(DatasetError, match="no sub-folder holds a folder of frames"):
        scan_class_folders(tmp_path / "walk" / "b", format="frames")


@pytest.mark.parametrize(("format", "content"), [("videos", ""), ("frames", "/img_00001.jpg")])
def test_links_to_folders_are_followed_once_and_never_upwards(format: Format, content: str, tmp_path: Path) -> None:
    make(tmp_path, *(f"{name}{content}" for name in ("my/walk/a/1.mp4", "my/bend/b/1.mp4", "store/1.mp4")))
    for link, target in (
        ("linked", "store"),
        ("linked_again", "store"),
        ("0_beside_the_real_one", "my/walk/a"),
        ("a/round", "my/walk"),
        ("up", "my"),
        ("a/nowhere", "none"),
    ):
        (tmp_path / "my" / "walk" / link).symlink_to(tmp_path / target)
    samples, labels = scan_class_folders(tmp_path / "my", format=format)
    assert [sample.path.relative_to(tmp_path / "my").as_posix() for sample in samples] == [
        "bend/b/1.mp4", "walk/a/1.mp4", "walk/linked/1.mp4",
    ]  # fmt: skip
    assert labels == ("bend", "walk")


@pytest.mark.parametrize(("without", "names"), [(None, "1 a/2 b/3"), ("a", "1 b/3"), (".", "1 a/2 b/3")])
def test_walk_leaves_out_a_folder_below_the_one_it_begins_with(without: str | None, names: str, tmp_path: Path) -> None:
    make(tmp_path, "1", "a/2", "b/3")
    found = walk_files(tmp_path, without=None if without is None else tmp_path / without)
    assert [path.relative_to(tmp_path).as_posix() for path in found] == names.split()


@pytest.mark.parametrize(
    ("format", "lines", "hint"),
    [
        ("videos", ["jack holds no clip, but 2 .xyz, 1 .txt", "run holds no clip and no other file"], ".mts"),
        (
            "frames",
            ["bend holds no clip, but 1 .mp4", "jack holds no clip, but 2 .xyz, 1 .txt",
             "run holds no clip and no other file"],
            "img_00001.jpg",
        ),
    ],
)  # fmt: skip
def test_sub_folders_without_a_clip_are_all_named_with_what_they_hold(
    format: Format, lines: list[str], hint: str, tmp_path: Path
) -> None:
    make(tmp_path, "walk/a.mp4", "walk/a/img_00001.jpg", "bend/b.mp4")
    make(tmp_path, "jack/c.xyz", "jack/deep/d.XYZ", "jack/n.txt", "jack/.DS_Store")
    (tmp_path / "run").mkdir()
    with pytest.raises(DatasetError) as caught:
        scan_class_folders(tmp_path, format=format)
    assert [line.removeprefix(f"{tmp_path}/") for line in caught.value.message.splitlines()] == lines
    assert hint in (caught.value.hint or "")


def test_folders_of_frames_taken_for_videos_are_told_first(tmp_path: Path) -> None:
    make(tmp_path, "walk/a/img_00001.jpg", "run/b/img_00001.jpg")
    with pytest.raises(DatasetError, match=r"run holds no clip, but 1 \.jpg") as caught:
        scan_class_folders(tmp_path)
    assert str(caught.value.hint).startswith("for folders of frames, --set data.format=frames")


def test_files_that_belong_to_no_class_are_counted(tmp_path: Path) -> None:
    make(tmp_path, "walk/a.mp4", "bend/b.MTS")
    assert describe_unused(tmp_path) == ()
    make(tmp_path, "c.mp4", "d.mts", "labels.txt", ".hidden.mp4", "walk/deep/c.xyz", "bend/e.xyz", "bend/LICENSE")
    make(tmp_path, "walk/.thumbnail.png", "walk/.thumbs/a.png")
    (tmp_path / "walk" / "linked").symlink_to(tmp_path / "walk" / "deep")
    (tmp_path / "bend" / "linked").symlink_to(tmp_path / "walk" / "deep")
    assert describe_unused(tmp_path) == (
        f"{tmp_path}: clips outside of class folders are not used: 2",
        f"{tmp_path}: files with no ending of a video are not used: 3 .xyz, 1 without ending",
    )


def test_guide_names_every_ending_of_a_clip() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
    assert [suffix for suffix in sorted(VIDEO_SUFFIXES) if f"`{suffix}`" not in guide] == []


def test_folder_without_classes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no sub-folder holds a video"):
        scan_class_folders(tmp_path)
    with pytest.raises(DatasetError, match="no folder"):
        scan_class_folders(tmp_path / "none")
    make(tmp_path, "clip.mp4")
    with pytest.raises(DatasetError, match=r"clip\.mp4 is a file, not a folder"):
        scan_class_folders(tmp_path / "clip.mp4")


def test_ratio_split_takes_from_every_class_and_is_repeatable() -> None:
    samples = [Sample(Path(f"{label}_{i}.avi"), label) for label in range(3) for i in range(10)]
    train, val = split_by_ratio(samples, 0.2, seed=1)
    assert [sum(s.label == label for s in val) for label in range(3)] == [2, 2, 2]
    assert sorted([*train, *val], key=str) == sorted(samples, key=str)
    assert (train, val) == split_by_ratio(samples, 0.2, seed=1)
    assert val != split_by_ratio(samples, 0.2, seed=2)[1]


def test_ratio_split_keeps_a_single_clip_for_training() -> None:
    train, val = split_by_ratio([Sample(Path("a"), 0), Sample(Path("b"), 1), Sample(Path("c"), 1)], 0.9, seed=0)
    assert Sample(Path("a"), 0) in train
    assert len(val) == 1


def test_group_split_never_divides_a_group() -> None:
    samples = [
        Sample(Path(f"v_{label}_g{g:02d}_c{i}.avi"), label) for label in range(2) for g in range(8) for i in range(3)
    ]
    for seed in range(20):
        train, val = split_by_group(samples, r"g(\d+)", val_groups=None, val_ratio=0.25, seed=seed)
        groups = [{s.path.name.split("_")[2] for s in side} for side in (train, val)]
        assert not groups[0] & groups[1]
        assert len(val) == 12


def test_group_split_of_a_group_for_each_clip_holds_out_the_share_asked_for() -> None:
    samples = [Sample(Path(f"v_g{i}.avi"), 0) for i in range(3000)]
    train, val = split_by_group(samples, r"g(\d+)", val_groups=None, val_ratio=0.5, seed=0)
    assert len(val) == 1500
    assert {*train, *val} == set(samples)


def test_group_that_a_name_does_not_show_is_an_error() -> None:
    samples = [Sample(Path(name), 0) for name in ("ido_walk.mp4", "eli_walk.mp4")]
    with pytest.raises(DatasetError, match=r"is not found in file name 'eli_walk\.mp4'"):
        split_by_group(samples, "^(ido)?.*", val_groups=None, val_ratio=0.5, seed=0)


def test_named_groups_are_held_out() -> None:
    samples = [Sample(Path(f"{who}_wave.avi"), 0) for who in ("ann", "bob", "cid")]
    train, val = split_by_group(samples, "^([a-z]+)_", val_groups=("bob",), val_ratio=None, seed=0)
    assert [s.path.name for s in val] == ["bob_wave.avi"]
    assert len(train) == 2
    with pytest.raises(DatasetError, match="held-out groups dan; groups: ann, bob, cid") as unknown:
        split_by_group(samples, "^([a-z]+)_", val_groups=("dan",), val_ratio=None, seed=0)
    with pytest.raises(DatasetError, match="is not found in file name") as unfit:
        split_by_group(samples, r"g(\d+)", val_groups=None, val_ratio=0.5, seed=0)
    for caught in (unknown, unfit):
        flags = (caught.value.hint or "").rpartition(": ")[2]
        assert flags == "--val-ratio 0.2 --set data.val_groups=null --set data.group_pattern=null"


def test_split_that_leaves_a_side_empty_is_an_error() -> None:
    with pytest.raises(DatasetError, match="one side empty"):
        split_by_ratio([Sample(Path("a"), 0)], 0.5, seed=0)
    samples = [Sample(Path("ann_a.avi"), 0), Sample(Path("ann_b.avi"), 0)]
    with pytest.raises(DatasetError, match="one side empty"):
        split_by_group(samples, "^([a-z]+)_", val_groups=None, val_ratio=0.5, seed=0)


def test_shipped_weizmann_split_is_that_of_the_lists(shared_dir: Path) -> None:
    root = shared_dir / "data" / "weizmann"
    by_list = open_split(
        DataConfig(
            root=str(root),
            train_list="weizmann_train.list",
            val_list="weizmann_test.list",
            labels="weizmann_labels.txt",
        ),
        seed=0,
    )
    by_group = open_split(
        DataConfig(root=str(root), group_pattern="^([a-z]+)_", val_groups=("lyova", "moshe", "shahar")), seed=0
    )
    assert by_list.labels == by_group.labels
    assert set(by_list.train) == set(by_group.train)
    assert set(by_list.val) == set(by_group.val)
