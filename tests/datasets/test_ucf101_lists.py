from __future__ import annotations

import random
from pathlib import Path

import pytest

from ppvcli.datasets.ucf101_lists import NUM_CLIPS, SPLITS, check_classes, read_split_lists
from ppvcli.errors import DatasetError, UnknownNameError, UsageError
from ppvcli.models.zoo import load_labels
from tests.datasets.fake_ucf101 import CLASSES, listed_paths, write_lists


@pytest.fixture(scope="module")
def lists_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lists(tmp_path_factory.mktemp("lists"))


def _changed(lists_dir: Path, tmp_path: Path, *, name: str, old: str, new: str) -> Path:
    for path in lists_dir.iterdir():
        text = path.read_text()
        if path.name == name:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / path.name).write_text(text)
    return tmp_path


@pytest.mark.parametrize("split", SPLITS)
def test_split_lists_every_clip_once(split: int, lists_dir: Path) -> None:
    lists = read_split_lists(lists_dir, split)
    assert lists.class_names == CLASSES
    assert sorted(clip.path for clip in lists.clips) == sorted(listed_paths())
    sides = {clip.file_name.split("_g")[1][:2]: clip.in_train for clip in lists.clips}
    assert len(sides) == 25, "a group stands on one side only"
    assert sum(not in_train for in_train in sides.values()) == 7


def test_class_in_another_case_is_the_same_class(lists_dir: Path, tmp_path: Path) -> None:
    folder = _changed(
        lists_dir,
        tmp_path,
        name="testlist01.txt",
        old="HandstandPushups/v_HandStand",
        new="HandStandPushups/v_Handstand",
    )
    clips = [clip for clip in read_split_lists(folder, 1).clips if clip.class_name == "HandstandPushups"]
    assert {clip.file_name[:18] for clip in clips} == {"v_HandStandPushups", "v_HandstandPushups"}


ROW = "Archery/v_Archery_g08_c01.avi 3\n"


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("trainlist01.txt", ROW, "", r"split 1 lists 13319 clips, expected the 13320"),
        ("trainlist01.txt", ROW, ROW + ROW, r"lists v_Archery_g08_c01\.avi twice"),
        ("trainlist01.txt", ROW, ROW.replace(" 3", " 4"), r"txt:\d+: label 4, but classInd\.txt says 3 for Archery"),
        ("trainlist01.txt", ROW, ROW.replace(" 3", ""), r"expected 'Class/clip\.avi label'"),
        ("trainlist01.txt", ROW, ROW.replace("Archery/", "Archer/"), "'Archer' is no class"),
        ("trainlist01.txt", ROW, ROW.replace("Archery/", "Archery/../"), r"expected 'Class/clip\.avi label'"),
        ("trainlist01.txt", ROW, ROW.replace(".avi", ".exe"), r"expected 'Class/clip\.avi label'"),
        ("testlist01.txt", "Archery/v_A", "v_A", r"testlist01\.txt:\d+: expected 'Class/clip\.avi'"),
        ("classInd.txt", "3 Archery", "4 Archery", r"classInd\.txt:3: expected '3 ClassName'"),
        ("classInd.txt", "3 Archery", "3 ../Archery", r"classInd\.txt:3: expected '3 ClassName'"),
    ],
)
def test_list_that_is_not_the_official_one_is_refused(
    name: str, old: str, new: str, message: str, lists_dir: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=message):
        read_split_lists(_changed(lists_dir, tmp_path, name=name, old=old, new=new), 1)


def test_missing_list_is_named(lists_dir: Path, tmp_path: Path) -> None:
    folder = _changed(lists_dir, tmp_path, name="classInd.txt", old="1 ", new="1 ")
    (folder / "testlist02.txt").unlink()
    with pytest.raises(DatasetError, match=r"can't read .*testlist02\.txt"):
        read_split_lists(folder, 2)


def test_unknown_class_shows_the_nearest() -> None:
    check_classes(["Archery", "HandstandPushups"], CLASSES)
    with pytest.raises(UnknownNameError, match="unknown UCF101 class 'HandStandPushup'; nearest: HandstandPushups"):
        check_classes(["Archery", "HandStandPushup"], CLASSES)


def test_unknown_classes_are_all_shown_up_to_twenty() -> None:
    with pytest.raises(UsageError) as caught:
        check_classes(["archery", "Archery", "HandStandPushup"], CLASSES)
    shown = caught.value.message.splitlines()
    assert len(shown) == 2
    assert shown[0].startswith("unknown UCF101 class 'archery'; nearest: Archery")
    assert shown[1].startswith("unknown UCF101 class 'HandStandPushup'; nearest: HandstandPushups")
    with pytest.raises(UsageError) as caught:
        check_classes([f"label {i}" for i in range(400)], CLASSES)
    assert caught.value.message.splitlines()[-1] == "... and 380 more"


def test_sport_classes_are_classes_of_ucf101() -> None:
    names = load_labels("ucf101-66")
    assert len(names) == 65
    check_classes(names, CLASSES)


def test_real_lists_are_complete(shared_dir: Path) -> None:
    folder = shared_dir / "data" / "ucf101" / "ucfTrainTestlist"
    everything = [{clip.path for clip in read_split_lists(folder, split).clips} for split in SPLITS]
    assert everything[0] == everything[1] == everything[2]
    assert len(everything[0]) == NUM_CLIPS
    clip = random.Random(0).choice(sorted(path for path in everything[0] if path.startswith("HandstandPushups/")))
    assert clip.startswith("HandstandPushups/v_HandStandPushups_g")
