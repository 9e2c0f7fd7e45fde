from __future__ import annotations

from pathlib import Path

import pytest

from ppvcli.datasets.annotations import Sample, read_labels, read_list
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


@pytest.mark.parametrize("text", ["bend\njumping jack\n", "0 bend\n1 jumping jack\n\n"])
def test_labels_with_and_without_index_are_read(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text(text, encoding="utf-8")
    assert read_labels(tmp_path / "labels.txt") == ("bend", "jumping jack")


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
