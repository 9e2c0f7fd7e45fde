from __future__ import annotations

from pathlib import Path

import pytest

from ppvcli.datasets.annotations import Sample, read_labels, read_list, read_samples
from ppvcli.errors import DatasetError


def test_list_rows_become_samples_below_the_root(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("x/one.avi 0\n\nwith space.mp4 1\n", encoding="utf-8")
    samples = read_list(tmp_path / "a.list", tmp_path, num_classes=2)
    assert samples == (Sample(tmp_path / "x/one.avi", 0), Sample(tmp_path / "with space.mp4", 1))


@pytest.mark.parametrize("row", ["one.avi", "one.avi x", "one.avi -1", " 3"])
def test_malformed_row_is_named_with_its_line(row: str, tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text(f"good.avi 0\n{row}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"a\.list:2: expected 'path label'"):
        read_list(tmp_path / "a.list", tmp_path, num_classes=2)


def test_label_past_the_classes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("one.avi 2\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="there are 2 classes"):
        read_list(tmp_path / "a.list", tmp_path, num_classes=2)


def test_empty_or_missing_list_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="no clips listed"):
        read_list(tmp_path / "a.list", tmp_path, num_classes=2)
    with pytest.raises(DatasetError, match="can't read"):
        read_list(tmp_path / "b.list", tmp_path, num_classes=2)


@pytest.mark.parametrize("text", ["bend\njumping jack\n", "0 bend\n1 jumping jack\n\n", "0\tbend\n1\t jumping jack\n"])
def test_labels_with_and_without_index_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == ("bend", "jumping jack")


def test_blank_line_that_would_move_the_classes_below_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\n \nb\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"labels\.txt:2: a blank line"):
        read_labels(tmp_path / "labels.txt")


@pytest.mark.parametrize("suffix", ["", ".avi"])
def test_list_of_frames_that_is_read_as_videos_is_named(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"a clip{suffix}").mkdir()
    (tmp_path / "a.list").write_text("a clip 120 0\nb 80 1\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="rows look like: path num_frames label") as caught:
        read_list(tmp_path / "a.list", tmp_path, num_classes=2, suffix=suffix)
    assert "--set data.format=frames" in str(caught.value.hint)
    (tmp_path / f"a clip 120{suffix}").touch()
    assert len(read_list(tmp_path / "a.list", tmp_path, num_classes=2, suffix=suffix)) == 2


def test_label_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("a\nb\na\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="stand twice: a"):
        read_labels(tmp_path / "labels.txt")


def test_real_lists_agree_with_the_class_folders(shared_dir: Path) -> None:
    root = shared_dir / "data" / "weizmann"
    labels = read_labels(root / "weizmann_labels.txt")
    samples = read_list(root / "weizmann_test.list", root, num_classes=len(labels))
    assert len(samples) == 30
    assert all(sample.path.is_file() and sample.path.parent.name == labels[sample.label] for sample in samples)


def test_rows_of_frames_say_how_many(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("\ufeffx/one.mp4 80 0\nwith  space 7 1\n", encoding="utf-8")
    samples = read_list(tmp_path / "a.list", tmp_path, num_classes=2, format="frames")
    assert samples == (Sample(tmp_path / "x/one.mp4", 0, 80), Sample(tmp_path / "with  space", 1, 7))


@pytest.mark.parametrize("row", ["clip 1", "clip x 1", "clip 0 1", "clip -3 1", "7 1"])
def test_malformed_row_of_frames_is_named(row: str, tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text(f"good 3 0\n{row}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=r"a\.list:2: (expected 'folder num_frames label'|a clip of 0 frames)"):
        read_list(tmp_path / "a.list", tmp_path, num_classes=2, format="frames")


def test_suffix_is_added_to_every_path(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("Archery/v_g01 0\n/abs/v_g02 1\n", encoding="utf-8")
    samples = read_list(tmp_path / "a.list", tmp_path, num_classes=2, suffix=".avi")
    assert [sample.path for sample in samples] == [tmp_path / "Archery/v_g01.avi", Path("/abs/v_g02.avi")]


def test_all_faults_of_a_list_are_told_at_once_but_not_thousands(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("one\ntwo.avi 9\nthree.avi 0\n" + "x\n" * 30, encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read_list(tmp_path / "a.list", tmp_path, num_classes=2)
    lines = caught.value.message.splitlines()
    assert lines[0] == f"{tmp_path}/a.list:1: expected 'path label', got 'one'"
    assert "a.list:2: label 9, but there are 2 classes" in lines[1]
    assert "a.list:4: " in lines[2]
    assert len(lines) == 21
    assert lines[-1] == "... and 12 more faults"


def test_samples_of_a_list_and_of_a_csv_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("one.avi 1\ntwo.avi 0\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text("path,label\none.avi,walk\ntwo.avi,bend\n", encoding="utf-8")
    expected = (Sample(tmp_path / "one.avi", 1), Sample(tmp_path / "two.avi", 0))
    for name in ("a.list", "a.csv"):
        assert read_samples(tmp_path / name, tmp_path, labels=("bend", "walk", "run")) == expected


def test_samples_of_a_csv_with_a_split_are_those_held_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("path,label,split\none.avi,walk,train\ntwo.avi,bend,val\n", encoding="utf-8")
    assert read_samples(path, tmp_path, labels=("walk", "bend")) == (Sample(tmp_path / "two.avi", 1),)
    path.write_text("path,label,split\none.avi,walk,train\n", encoding="utf-8")
    with pytest.raises(DatasetError, match="no row has the split 'val'"):
        read_samples(path, tmp_path, labels=("walk", "bend"))


def test_file_that_is_missing_or_no_text_is_named_once(tmp_path: Path) -> None:
    (tmp_path / "clip.bin").write_bytes(b"RIFF\xff\xfe")
    for name, reason in (("none.txt", "No such file or directory"), ("clip.bin", "it is not a text in UTF-8")):
        with pytest.raises(DatasetError) as caught:
            read_labels(tmp_path / name)
        assert caught.value.message == f"can't read {tmp_path / name}: {reason}"
        assert caught.value.hint
        assert "data.root" not in caught.value.hint


def test_video_in_place_of_a_text_is_told_by_its_ending(tmp_path: Path) -> None:
    clip = tmp_path / "my clip.AVI"
    clip.write_text("one.avi 0\n", encoding="utf-8")
    with pytest.raises(DatasetError) as caught:
        read_list(clip, tmp_path, num_classes=2)
    assert caught.value.message == f"{clip} is a video by its ending, not a text"
    assert str(caught.value.hint).endswith(f"ppv predict '{clip}'")


def test_rows_that_are_wrong_come_with_the_form_of_a_row(tmp_path: Path) -> None:
    (tmp_path / "a.list").write_text("one\n", encoding="utf-8")
    for format, row in (("videos", "path label"), ("frames", "folder num_frames label")):
        with pytest.raises(DatasetError) as caught:
            read_list(tmp_path / "a.list", tmp_path, num_classes=2, format=format)  # type: ignore[arg-type]
        assert row in str(caught.value.hint)
