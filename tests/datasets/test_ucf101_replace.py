"""What stands in the folder already: kept, added to, replaced as a whole with `force`, or refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import ppvcli
from ppvcli.datasets import ucf101_source
from ppvcli.datasets.progress import PrepareProgress
from ppvcli.datasets.ucf101 import PreparedDataset
from ppvcli.errors import DatasetError, UsageError
from tests.datasets.fake_ucf101 import (
    files_below,
    listed_paths,
    selected_paths,
    tree,
    write_clips,
    write_lists,
    write_tar,
    write_zip,
)

Prepare = Callable[..., PreparedDataset]

WANTED = selected_paths()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def no_publisher(monkeypatch: pytest.MonkeyPatch) -> None:
    """A download would end the test: as another error, and soon."""
    monkeypatch.setattr(ucf101_source, "VIDEOS_URL", "http://127.0.0.1:9/UCF101.rar")
    monkeypatch.setattr(ucf101_source, "LISTS_URL", "http://127.0.0.1:9/lists.zip")


@pytest.fixture
def prepare(out: Path) -> Prepare:
    def run(source: Path | None = None, **settings: Any) -> PreparedDataset:
        return ppvcli.prepare_ucf101_66(out, source=source, **{"allow_missing": True, "num_workers": 1, **settings})

    return run


def _without_work(folder: Path) -> dict[str, str]:
    return {name: sha256 for name, sha256 in tree(folder).items() if not name.startswith(".ppv-prepare/")}


# --- a folder that is no prepared set ---------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("files", "first"),
    [
        (["videos/Diving/own.avi", "labels.txt"], "labels.txt"),
        (["NOTES.txt", "v_Diving_g01_c01.avi"], "NOTES.txt"),
        (["dataset.yaml", "images/train/1.jpg"], "dataset.yaml"),
        (["downloads/holiday.zip"], "downloads"),
        (["downloads/UCF101.rar", "other/UCF101.rar"], "other"),
        ([".lock", ".hidden"], ".hidden"),
    ],
)
def test_folder_of_other_things_is_refused_and_left_alone(
    files: list[str], first: str, force: bool, source: Path, prepare: Prepare, out: Path
) -> None:
    for name in files:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("path: ../mine\ntrain: images/train\n")
    before = sorted(out.rglob("*"))
    with pytest.raises(UsageError, match=f"holds other things than a prepared data set, such as {first}$") as caught:
        prepare(source, force=force)
    assert "--out DIR" in str(caught.value.hint)
    assert sorted(out.rglob("*")) == before


@pytest.mark.parametrize("force", [False, True])
def test_ucf101_itself_is_not_prepared_in_place(force: bool, source: Path, prepare: Prepare, out: Path) -> None:
    shutil.copytree(source, out)
    before = tree(out)
    for given in (None, out, out / "UCF-101"):
        with pytest.raises(UsageError, match=r"holds other things .* such as UCF-101"):
            prepare(given, force=force)
    assert tree(out) == before


def test_file_in_place_of_the_folder_is_refused(source: Path, prepare: Prepare, out: Path) -> None:
    out.write_text("mine")
    with pytest.raises(UsageError, match="out is a file"):
        prepare(source)
    assert out.read_text() == "mine"


def test_folder_with_only_the_published_archives_is_prepared(source: Path, prepare: Prepare, out: Path) -> None:
    (out / "downloads").mkdir(parents=True)
    write_tar(out / "downloads" / "UCF101.rar", files_below(source / "UCF-101"))
    write_zip(out / "downloads" / "UCF101TrainTestSplits-RecognitionTask.zip", files_below(source))
    (out / "downloads" / "content").unlink()
    assert prepare(force=True).num_train == 18
    fetched = tree(out / "downloads")
    (out / "downloads" / "own.json").write_text("[]")
    assert prepare(force=True).num_train == 18
    assert fetched.items() <= tree(out / "downloads").items()
    assert (out / "downloads" / "own.json").read_text() == "[]"


# --- what is said counts, else what the folder has --------------------------------------------------------------------


@pytest.mark.parametrize("format", ["videos", "frames"])
def test_other_split_has_the_classes_and_the_format_of_the_folder(
    format: str, source: Path, classes: Path, prepare: Prepare, out: Path
) -> None:
    prepare(source, classes=classes, format=format)
    before = tree(out)
    result = prepare(split=2)
    assert (result.num_classes, result.train_list) == (2, f"train_split2_{format}.txt")
    assert before.items() <= tree(out).items()
    assert prepare().already_prepared


def test_folder_with_lists_of_both_formats_gets_videos(
    source: Path, classes: Path, prepare: Prepare, out: Path
) -> None:
    prepare(source, classes=classes, format="frames")
    prepare(format="videos")
    assert prepare(split=2).format == "videos"


def test_interrupted_preparation_goes_on_with_its_classes(
    source: Path, classes: Path, prepare: Prepare, out: Path, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        prepare(source, classes=classes, progress=_interrupt_at("clips"))
    (tmp_path / "other.txt").write_text("Typing\n")
    with pytest.raises(DatasetError, match="another selection of classes") as caught:
        prepare(source, classes=tmp_path / "other.txt")
    assert "without --classes" in str(caught.value.hint)
    result = prepare(source)
    assert (result.num_classes, result.num_train) == (2, 18)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(("content", "what"), [("Basketball\nHandstandPushups\n", "not as it was"), (None, "gone")])
def test_classes_of_the_folder_that_are_not_known_are_asked_for(
    content: str | None, what: str, force: bool, source: Path, classes: Path, prepare: Prepare, out: Path
) -> None:
    prepare(source, classes=classes)
    (out / "labels.txt").unlink()
    if content is not None:
        (out / "labels.txt").write_text(content)
    with pytest.raises(DatasetError, match=rf"labels\.txt is {what}.*, so the classes are not known") as caught:
        prepare(split=2, force=force)
    assert caught.value.hint == "name them: --classes FILE"


# --- force: the old set is whole until the new one is -----------------------------------------------------------------


def _interrupt_at(stage: str) -> Callable[[PrepareProgress], None]:
    def interrupt(event: PrepareProgress) -> None:
        if event.stage == stage and event.unit == "files" and event.done == 3:
            raise KeyboardInterrupt

    return interrupt


@pytest.mark.parametrize("stage", ["lists", "extract", "clips", "frames", "hash"])
def test_force_that_is_interrupted_in_any_stage_leaves_the_old_set(
    stage: str, source: Path, classes: Path, prepare: Prepare, out: Path, tmp_path: Path
) -> None:
    archive = write_tar(tmp_path / "a.tar", files_below(source))
    prepare(archive, classes=classes, format="frames")
    before = tree(out)
    with pytest.raises(KeyboardInterrupt):
        prepare(force=True, progress=_interrupt_at(stage))
    assert tree(out) == before
    assert prepare().already_prepared
    assert not (out / ".ppv-prepare").exists()


def test_force_with_a_source_that_has_less_leaves_the_old_set(
    source: Path, classes: Path, prepare: Prepare, out: Path, tmp_path: Path
) -> None:
    prepare(source, classes=classes)
    before = tree(out)
    less = shutil.copytree(source, tmp_path / "less")
    (less / "UCF-101" / WANTED[0]).unlink()
    with pytest.raises(DatasetError, match="clips that split 1 lists are missing") as caught:
        prepare(less, allow_missing=False, force=True)
    assert _without_work(out) == before
    path = Path(caught.value.message.split("; ")[1].removesuffix(" names them"))
    assert f"{WANTED[0]}\tnot in the source\n" in path.read_text()
    assert prepare().already_prepared


@pytest.mark.parametrize("settings", [{"source": "nowhere"}, {"source": "classes.txt"}, {"split": 4}, {"format": "x"}])
def test_force_that_can_not_go_well_touches_nothing(
    settings: dict[str, Any], source: Path, classes: Path, prepare: Prepare, out: Path, tmp_path: Path
) -> None:
    prepare(source, classes=classes)
    before = sorted((path, path.stat().st_mtime_ns) for path in (out, *out.iterdir()))
    if "source" in settings:
        settings = {"source": tmp_path / settings["source"]}
    with pytest.raises((DatasetError, UsageError)):
        prepare(force=True, **settings)
    assert sorted((path, path.stat().st_mtime_ns) for path in (out, *out.iterdir())) == before


def test_force_makes_the_same_anew_in_every_split_and_format(
    source: Path, classes: Path, prepare: Prepare, out: Path
) -> None:
    prepare(source, classes=classes, format="frames")
    prepare(split=3, format="videos")
    expected = tree(out)
    inode = (out / "frames" / WANTED[0][:-4] / "img_00001.jpg").stat().st_ino
    (out / "NOTES.txt").write_text("mine")
    result = prepare(force=True, split=3)
    assert (result.format, result.num_classes, result.already_prepared) == ("videos", 2, False)
    assert (out / "NOTES.txt").read_text() == "mine"
    (out / "NOTES.txt").unlink()
    assert tree(out) == expected
    assert (out / "frames" / WANTED[0][:-4] / "img_00001.jpg").stat().st_ino != inode
    for split, format in ((1, "frames"), (3, "videos")):
        assert prepare(split=split, format=format).already_prepared


def test_force_with_other_classes_drops_the_lists_of_the_former_ones(
    source: Path, classes: Path, prepare: Prepare, out: Path, tmp_path: Path
) -> None:
    prepare(source, classes=classes, format="frames")
    (tmp_path / "other.txt").write_text("Basketball\n")
    prepare(classes=tmp_path / "other.txt", format="videos", split=2, force=True)
    assert {path.name for path in out.glob("*_split*")} == {"train_split2_videos.txt", "val_split2_videos.txt"}
    assert not (out / "frames").exists()


@pytest.mark.parametrize(
    "name",
    ["videos/Basketball/own.avi", "videos/own.avi", f"frames/{WANTED[0][:-4]}/mask.png", "ucfTrainTestlist/more.txt"],
)
def test_force_does_not_delete_what_no_preparation_made(
    name: str, source: Path, classes: Path, prepare: Prepare, out: Path
) -> None:
    prepare(source, classes=classes, format="frames")
    (out / name).write_text("mine")
    before = tree(out)
    with pytest.raises(UsageError, match=f"--force would delete .*{name}, which no preparation put there"):
        prepare(force=True)
    assert tree(out) == before
    (out / name).unlink()
    assert prepare(force=True).num_train == 18


@pytest.mark.parametrize("inner", [".", "videos", "videos/Basketball"])
def test_force_does_not_delete_its_own_source(
    inner: str, source: Path, classes: Path, prepare: Prepare, out: Path
) -> None:
    prepare(source, classes=classes)
    before = tree(out)
    with pytest.raises(UsageError, match="--force would delete its own source"):
        prepare(out / inner, force=True)
    assert tree(out) == before


# --- the source of the last run is gone -------------------------------------------------------------------------------


@pytest.fixture
def moved(source: Path, classes: Path, prepare: Prepare, tmp_path: Path) -> Path:
    """A prepared set whose source was moved afterwards: from `there` to the path that this is."""
    prepare(shutil.copytree(source, tmp_path / "there"), classes=classes)
    return (tmp_path / "there").rename(tmp_path / "elsewhere")


def test_force_without_the_source_of_the_last_run_names_it(
    moved: Path, prepare: Prepare, out: Path, tmp_path: Path
) -> None:
    before = tree(out)
    with pytest.raises(DatasetError, match=rf"^the source of the last run is gone: {tmp_path / 'there'}$") as caught:
        prepare(force=True)
    assert "--source" in str(caught.value.hint)
    assert tree(out) == before
    assert not (out / "downloads").exists()
    assert prepare(moved, force=True).num_train == 18


@pytest.mark.parametrize("name", [f"videos/{WANTED[0]}", "ucfTrainTestlist"])
def test_what_was_deleted_can_not_come_from_a_source_that_is_gone(
    name: str, moved: Path, prepare: Prepare, out: Path, tmp_path: Path
) -> None:
    expected = tree(out)
    path = out / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(DatasetError, match=rf"^the source of the last run is gone: {tmp_path / 'there'}$"):
        prepare()
    assert not (out / "downloads").exists()
    assert prepare(moved).num_train == 18
    assert tree(out) == expected


def test_split_is_added_from_the_clips_that_are_there_without_the_source(
    moved: Path, prepare: Prepare, out: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="the source of the last run is gone"):
        prepare(split=2, allow_missing=False)
    result = prepare(split=2)
    assert (result.num_train, result.num_val) == (20, 6)
    assert yaml.safe_load((out / "dataset.yaml").read_text())["source"] == str(tmp_path / "there")


def test_split_is_added_to_a_complete_set_without_the_source(prepare: Prepare, tmp_path: Path) -> None:
    folder, one = tmp_path / "whole", tmp_path / "one.txt"
    write_lists(folder / "ucfTrainTestlist")
    write_clips(folder / "videos", [path for path in listed_paths() if path.startswith("Basketball/")])
    one.write_text("Basketball\n")
    prepare(folder, classes=one, allow_missing=False)
    shutil.rmtree(folder)
    assert prepare(split=2, allow_missing=False).num_missing == 0
