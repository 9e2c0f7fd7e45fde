from __future__ import annotations

from pathlib import Path

import pytest

from ppvcli.datasets.annotations import Sample
from ppvcli.datasets.csv_files import read_csv
from ppvcli.errors import DatasetError


def write(path: Path, text: str, *, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


def test_names_of_classes_are_sorted_into_indices(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "path,label\nb.mp4,walk\na.mp4,bend\nsub/c.mp4,walk\n")
    table = read_csv(path, tmp_path)
    assert table.labels == ("bend", "walk")
    assert table.samples == (
        Sample(tmp_path / "b.mp4", 1), Sample(tmp_path / "a.mp4", 0), Sample(tmp_path / "sub/c.mp4", 1),
    )  # fmt: skip
    assert table.sides is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_quotes_spaces_other_columns_and_blank_lines_are_read(encoding: str, newline: str, tmp_path: Path) -> None:
    text = newline.join(
        [
            "id, label ,path,note",
            '1,"jump, high","my clips/one, two.mp4","says ""hi"""',
            "",
            ' 2 , Grüße , /abs/c.mp4 ,"two',
            'lines"',
            ",,,",
        ]
    )
    table = read_csv(write(tmp_path / "a.csv", text + newline, encoding=encoding), tmp_path)
    assert table.labels == ("Grüße", "jump, high")
    assert [(sample.path, sample.label) for sample in table.samples] == [
        (tmp_path / "my clips/one, two.mp4", 1), (Path("/abs/c.mp4"), 0),
    ]  # fmt: skip


def test_split_column_divides_the_clips(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "path,label,split\na.mp4,x,val\nb.mp4,y,train\nc.mp4,x,train\n")
    table = read_csv(path, tmp_path)
    assert [sample.path.name for sample in table.side("train")] == ["b.mp4", "c.mp4"]
    assert [sample.path.name for sample in table.side("val")] == ["a.mp4"]


@pytest.mark.parametrize("header", ["Path,Label,Split", "PATH, LABEL ,SPLIT"])
def test_columns_are_known_in_any_case(header: str, tmp_path: Path) -> None:
    table = read_csv(write(tmp_path / "a.csv", f"{header}\nA.mp4,Walk,train\n"), tmp_path)
    assert (table.samples, table.labels) == ((Sample(tmp_path / "A.mp4", 0),), ("Walk",))
    assert table.sides == ("train",)


def test_given_classes_decide_the_indices_and_other_names_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "path,label\na.mp4,walk\n")
    assert read_csv(path, tmp_path, labels=("walk", "bend")).samples == (Sample(tmp_path / "a.mp4", 0),)
    with pytest.raises(DatasetError, match=r"a\.csv:2: unknown class 'walk'; nearest: walking"):
        read_csv(path, tmp_path, labels=("walking", "bend"))


def test_all_faults_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    text = 'path,label,split\na.mp4,x,train\n,x,train\nb.mp4,,val\n"c\n.mp4",x,test\nd.mp4,x\ne.mp4,x,val,more\n'
    with pytest.raises(DatasetError) as caught:
        read_csv(write(tmp_path / "a.csv", text), tmp_path)
    assert [line.removeprefix(f"{tmp_path}/") for line in caught.value.message.splitlines()] == [
        "a.csv:3: path is empty",
        "a.csv:4: label is empty",
        "a.csv:6: split 'test' is neither train nor val",
        "a.csv:7: 2 fields, but 3 columns",
        "a.csv:8: 4 fields, but 3 columns",
    ]


def test_many_faults_are_cut_at_twenty(tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        read_csv(write(tmp_path / "a.csv", "path,label\n" + "a.mp4\n" * 50), tmp_path)
    assert len(caught.value.message.splitlines()) == 21
    assert caught.value.message.endswith("... and 30 more faults")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"the columns \(none\), but not path and label"),
        ("a.mp4,walk\n", "the columns a.mp4, walk, but not path and label"),
        ("path|label\na.mp4|walk\n", r"the columns path\|label, but not path and label"),
        ("Path,id\n", "the columns Path, id, but not path and label"),
        ("Path,path,label\n", "the columns Path, path, label, path more than once"),
        ("path,label\n", "no clips listed"),
        ('path,label\n"a.mp4,walk\n', r"a\.csv:\d: unexpected end of data"),
        ('path,label\n"a"b,walk\n', r"a\.csv:2: "),
    ],
)
def test_file_that_is_no_such_table_is_an_error(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=message):
        read_csv(write(tmp_path / "a.csv", text), tmp_path)


def test_unreadable_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="can't read"):
        read_csv(tmp_path / "none.csv", tmp_path)
    with pytest.raises(DatasetError, match=r"can't read .*a\.csv: it is not a text in UTF-8$") as caught:
        read_csv(write(tmp_path / "a.csv", "path,label\nä.mp4,x\n", encoding="latin-1"), tmp_path)
    assert "save it as UTF-8" in str(caught.value.hint)


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("header", ["Split {0} Path {0} Label", '"split"{0}"path"{0}"label"'])
def test_header_shows_what_separates_values(header: str, newline: str, separator: str, tmp_path: Path) -> None:
    rows = [
        header.format(separator),
        f"train{separator}a.mp4{separator}walk",
        f'val{separator}"b{separator}c"{separator}x',
    ]
    table = read_csv(write(tmp_path / "a.csv", newline.join(rows)), tmp_path)
    assert [sample.path.name for sample in table.samples] == ["a.mp4", f"b{separator}c"]
    assert (table.labels, table.sides) == (("walk", "x"), ("train", "val"))


def test_rows_that_are_wrong_come_with_a_hint(tmp_path: Path) -> None:
    for text in ("path,label\na.mp4\n", "path,label\n", 'path,label\n"a"b,x\n'):
        with pytest.raises(DatasetError) as caught:
            read_csv(write(tmp_path / "a.csv", text), tmp_path)
        assert caught.value.hint


def test_folders_of_frames_are_counted(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    for i in (1, 2, 3):
        (tmp_path / "one" / f"img_{i:05d}.jpg").touch()
    table = read_csv(write(tmp_path / "a.csv", "path,label\none,x\nnone,x\n"), tmp_path, format="frames")
    assert [sample.num_frames for sample in table.samples] == [3, 1]
