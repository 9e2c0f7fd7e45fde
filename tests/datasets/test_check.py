from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from ppvcli.datasets.annotations import Sample, Split
from ppvcli.datasets.check import check_data, check_report_path, write_check
from ppvcli.datasets.workers import Crew, WorkerDiedError
from ppvcli.errors import UsageError
from ppvcli.video.limits import DecodeLimits
from ppvcli.video.render import render_action, write_video


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four good clips of different content, one cut within its frames, one that is text, one that is missing."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("walk", "bend", "jack", "run"):
        write_video(folder / f"{name}.avi", render_action(name, num_frames=40), codec="mpeg4")
    content = (folder / "walk.avi").read_bytes()
    (folder / "cut.avi").write_bytes(content[: len(content) * 2 // 3])
    (folder / "text.avi").write_text("no video")
    return folder


def names(pairs: Iterable[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    return [(Path(path).name, Path(other).name, remark) for path, other, remark in pairs]


def split_of(folder: Path, train: str, val: str, labels: tuple[str, ...] = ("a", "b")) -> Split:
    """Sides as words `name:label`."""

    def side(words: str) -> tuple[Sample, ...]:
        pairs = (word.split(":") for word in words.split())
        return tuple(Sample(folder / f"{name}.avi", int(label)) for name, label in pairs)

    return Split(train=side(train), val=side(val), labels=labels)


@pytest.mark.parametrize("num_workers", [0, 2])
def test_every_broken_clip_of_both_sides_is_found(num_workers: int, clips: Path) -> None:
    split = split_of(clips, "walk:0 text:0 cut:1", "none:0 bend:1")
    calls: list[tuple[int, int]] = []
    check = check_data(split, num_workers=num_workers, on_clip=lambda *call: calls.append(call))
    assert (check.num_train, check.num_val) == (3, 2)
    assert [Path(path).name for path, _ in check.broken] == ["text.avi", "none.avi"]
    assert "nothing is there" in check.broken[1][1]
    ((doubtful, remark),) = check.doubtful
    assert doubtful.endswith("cut.avi")
    assert remark.startswith("damaged")
    assert calls == [(i, 5) for i in range(1, 6)]
    assert len(check.problems) == 3


def test_good_data_set_has_no_problems(clips: Path) -> None:
    check = check_data(split_of(clips, "walk:0 bend:1", "jack:0 run:1"), num_workers=0)
    assert check.problems == ()


def test_clips_on_both_sides_are_found_by_path_and_by_content(clips: Path, tmp_path: Path) -> None:
    shutil.copy(clips / "jack.avi", tmp_path / "copy.avi")
    (tmp_path / "link.avi").symlink_to(clips / "run.avi")
    split = split_of(clips, "walk:0 walk:1 bend:1 jack:0 run:0", "walk:0 walk:0")
    split = Split(
        train=split.train,
        val=(*split.val, Sample(tmp_path / "copy.avi", 0), Sample(tmp_path / "link.avi", 0)),
        labels=split.labels,
    )
    check = check_data(split, num_workers=0)
    assert names(sorted(check.on_both_sides)) == [
        ("jack.avi", "copy.avi", ""),
        ("run.avi", "link.avi", ""),
        ("walk.avi", "walk.avi", ""),
        ("walk.avi", "walk.avi", "as 'a', not 'b'"),
    ]
    assert [(Path(path).name, Path(other).name) for path, other in check.repeated] == [("walk.avi", "walk.avi")]
    assert names(check.in_two_classes) == [("walk.avi", "walk.avi", "a")]


def test_copies_on_one_side_are_found_with_the_class_they_contradict(clips: Path, tmp_path: Path) -> None:
    for name, source in (("same", "jack"), ("other", "jack"), ("held_out", "run")):
        shutil.copy(clips / f"{source}.avi", tmp_path / f"{name}.avi")
    content = bytearray((clips / "walk.avi").read_bytes())
    content[-1] ^= 1
    (tmp_path / "equal_size.avi").write_bytes(content)
    first = split_of(clips, "walk:0 jack:0", "run:1")
    more = split_of(tmp_path, "same:0 other:1 equal_size:1", "held_out:0")
    split = Split(train=(*first.train, *more.train), val=(*first.val, *more.val), labels=first.labels)
    check = check_data(split, num_workers=0)
    assert [(Path(path).name, Path(other).name) for path, other in check.repeated] == [("same.avi", "jack.avi")]
    assert names(check.in_two_classes) == [("other.avi", "jack.avi", "a"), ("held_out.avi", "run.avi", "b")]
    assert check.on_both_sides == ()
    assert [(kind, detail) for kind, _, detail in check.problems] == [
        ("repeated", f"same side: {clips}/jack.avi"),
        ("two classes", f"also stands under 'a': {clips}/jack.avi"),
        ("two classes", f"also stands under 'b': {clips}/run.avi"),
    ]


def test_file_that_cannot_be_read_is_no_end_of_the_check(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that decoding finds broken already, and one that decodes and then, as it is played, can't be read."""
    for name, source in (("broken", "text"), ("equal_size", "text"), ("bad_sector", "jack")):
        shutil.copy(clips / f"{source}.avi", tmp_path / f"{name}.avi")
    open_file = Path.open

    def refuse(path: Path, *args: Any, **settings: Any) -> Any:
        if path.stem in {"broken", "bad_sector"}:
            raise OSError(5, "Input/output error", str(path))
        return open_file(path, *args, **settings)

    monkeypatch.setattr(Path, "open", refuse)
    first, more = (
        split_of(clips, "jack:0 text:0", "bend:1 run:1"),
        split_of(tmp_path, "broken:0 equal_size:1", "bad_sector:0 bad_sector:0"),
    )
    split = Split(train=(*first.train, *more.train), val=(*first.val, *more.val), labels=first.labels)
    check = check_data(split, num_workers=0)
    assert sorted(Path(path).name for path, _ in check.broken) == ["broken.avi", "equal_size.avi", "text.avi"]
    assert [(Path(path).name, Path(other).name) for path, other in check.repeated] == [
        ("bad_sector.avi", "bad_sector.avi")
    ]
    assert check.in_two_classes == ()  # broken ones are not compared


def test_folder_of_frames_that_the_system_refuses_is_a_finding(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    split = Split(train=(Sample(tmp_path / "walk", 0, 3),), val=split_of(clips, "bend:0", "").train, labels=("a",))
    ((path, what),) = check_data(split, num_workers=0).broken
    assert path.endswith("walk")
    assert "Permission denied" in what


def test_classes_without_clips_are_named(clips: Path) -> None:
    check = check_data(split_of(clips, "walk:0 bend:2", "jack:2", labels=("a", "b", "c")), num_workers=0)
    assert check.classes_without_train == ("b",)
    assert check.classes_without_val == ("a", "b")


def test_folders_of_frames_are_decoded_to_the_end(tmp_path: Path) -> None:
    for name in ("good", "more", "fewer", "damaged", "sizes"):
        (tmp_path / name).mkdir()
        for number, frame in enumerate(render_action("walk", num_frames=4), start=1):
            Image.fromarray(frame).save(tmp_path / name / f"img_{number:05d}.jpg")
    (tmp_path / "damaged" / "img_00003.jpg").write_bytes(b"\xff\xd8")
    Image.new("RGB", (8, 8)).save(tmp_path / "sizes" / "img_00004.jpg")
    counts = {"good": 4, "more": 3, "fewer": 9, "damaged": 4, "sizes": 4}
    samples = tuple(Sample(tmp_path / name, 0, count) for name, count in counts.items())
    check = check_data(Split(train=samples, val=(samples[0],), labels=("a",)), num_workers=0)
    assert [(Path(path).name, remark) for path, remark in check.doubtful] == [
        ("more", "the folder holds 4 frames, the list says 3")
    ]
    assert [Path(path).name for path, _ in check.broken] == ["fewer", "damaged", "sizes"]
    assert names(check.on_both_sides) == [("good", "good", "")]


def test_limits_hold(clips: Path) -> None:
    check = check_data(split_of(clips, "walk:0", "bend:1"), num_workers=0, limits=DecodeLimits(max_pixels=100))
    assert [error for _, error in check.broken if "more than 100 pixels" not in error] == []
    assert len(check.broken) == 2


def test_clip_that_crashes_its_process_is_a_finding(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crash is played: a crew that dies over one clip, wherever that stands."""
    whole_map = Crew.map

    def dying_map(crew: Crew, items: list[object]) -> object:
        for item, result in zip(items, whole_map(crew, items), strict=True):
            if "bend" in str(item):
                raise WorkerDiedError("was killed by SIGSEGV", item)
            yield result

    monkeypatch.setattr(Crew, "map", dying_map)
    check = check_data(split_of(clips, "walk:0 bend:1 text:0", "jack:0 run:1"), num_workers=1)
    assert [Path(path).name for path, _ in check.broken] == ["bend.avi", "text.avi"]
    assert "was killed by SIGSEGV" in check.broken[0][1]


def test_report_has_one_problem_a_line(clips: Path, tmp_path: Path) -> None:
    check = check_data(split_of(clips, "walk:0 text:0 walk:0", "none:0 bend:1"), num_workers=0)
    write_check(check, tmp_path / "check.tsv")
    lines = [line.split("\t") for line in (tmp_path / "check.tsv").read_text().splitlines()]
    assert lines[0] == ["problem", "what", "detail"]
    assert [line[0] for line in lines[1:]] == ["broken", "broken", "repeated", "class"]
    assert all(len(line) == 3 for line in lines)


def test_report_escapes_what_is_not_utf8_in_a_name(clips: Path, tmp_path: Path) -> None:
    split = split_of(clips, "w\udcff1:0", "")
    write_check(check_data(split, num_workers=0), tmp_path / "problems.tsv")
    assert "w\\udcff1.avi" in (tmp_path / "problems.tsv").read_text(encoding="utf-8")


def test_report_goes_to_a_new_file_or_over_an_earlier_report(clips: Path, tmp_path: Path) -> None:
    path = tmp_path / "check.tsv"
    check_report_path(path)
    assert list(tmp_path.iterdir()) == []
    for split in (split_of(clips, "walk:0 walk:0", "bend:1"), split_of(clips, "walk:0", "bend:1")):
        write_check(check_data(split, num_workers=0), path)
        check_report_path(path)
    write_check(check_data(split_of(clips, "walk:0 bend:1", "jack:0 run:1"), num_workers=0), path)
    check_report_path(path)  # one without a problem
    assert path.read_text() == "problem\twhat\tdetail\n"


def test_report_that_would_replace_another_file_or_has_no_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "walk.avi").write_bytes(b"RIFF" + bytes(60))
    (tmp_path / "empty.tsv").touch()
    for name, words, hint in (
        ("walk.avi", "is there and no list of problems", "a new file"),
        ("empty.tsv", "is there and no list of problems", "a new file"),
        (".", "it is a folder", "problems.tsv"),
        ("nodir/x.tsv", "no folder", "mkdir -p"),
        ("walk.avi/x.tsv", "Not a directory", "another place"),
    ):
        with pytest.raises(UsageError, match=words) as caught:
            check_report_path(tmp_path / name)
        assert hint in str(caught.value.hint)
    assert (tmp_path / "walk.avi").stat().st_size == 64


def test_report_that_the_disk_refuses_is_an_error_with_a_hint(clips: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    check = check_data(split_of(clips, "walk:0", "bend:1"), num_workers=0)
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(UsageError, match=r"can't write .*x\.tsv: No space left") as caught:
        write_check(check, clips / "x.tsv")
    assert caught.value.hint
    assert not (clips / "x.tsv").exists()


def test_real_clips_are_whole(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "weizmann" / "walk"
    samples = tuple(Sample(path, 0) for path in sorted(folder.glob("*.avi"))[:2])
    check = check_data(Split(train=samples[:1], val=samples[1:], labels=("walk",)), num_workers=0)
    assert check.problems == ()
