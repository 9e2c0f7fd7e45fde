"""From a source to a folder that a training config can name: complete, resumed, compared, and never half there."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import ppvcli
from ppvcli.configs.schema import DataConfig
from ppvcli.datasets import ucf101_source
from ppvcli.datasets.annotations import read_list
from ppvcli.datasets.catalog import open_split
from ppvcli.datasets.frames import count_frames, frames_sha256
from ppvcli.datasets.progress import PrepareProgress, file_sha256
from ppvcli.datasets.ucf101 import PreparedDataset
from ppvcli.errors import DatasetError, DownloadError, UnknownNameError, UsageError
from ppvcli.files import holding
from ppvcli.video.render import write_video
from ppvcli.weights.download import TransferPolicy
from tests.datasets.fake_ucf101 import (
    SELECTED,
    WRITERS,
    files_below,
    listed_paths,
    selected_paths,
    tree,
    write_clips,
    write_lists,
    write_rar,
    write_tar,
    write_zip,
)
from tests.small_model import moving_block
from tests.weights.file_server import FileServer, serve

WANTED = selected_paths()
NUM_ABSENT = sum(path.split("/")[0] in SELECTED for path in listed_paths()) - len(WANTED)


@pytest.fixture
def prepare(tmp_path: Path, classes: Path) -> Callable[..., PreparedDataset]:
    def run(source: Path | None = None, **settings: Any) -> PreparedDataset:
        return ppvcli.prepare_ucf101_66(
            tmp_path / "out",
            source=source,
            **{"classes": classes, "allow_missing": True, "num_workers": 1, **settings},
        )

    return run


# --- what comes out ---------------------------------------------------------------------------------------------------


def test_folder_becomes_lists_that_training_reads(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    result = prepare(source)
    assert (result.num_train, result.num_val, result.num_classes, result.num_missing) == (18, 8, 2, NUM_ABSENT)
    config = DataConfig(root=result.root, train_list=result.train_list, val_list=result.val_list, labels=result.labels)
    split = open_split(config, seed=0)
    assert (len(split.train), len(split.val), split.labels) == (18, 8, SELECTED)
    assert all(sample.path.is_file() for sample in (*split.train, *split.val))
    assert all(sample.path.parent.name == split.labels[sample.label] for sample in split.train)
    groups = [{sample.path.name[-11:-8] for sample in samples} for samples in (split.train, split.val)]
    assert not groups[0] & groups[1]
    assert (tmp_path / "out/videos/HandstandPushups/v_HandStandPushups_g09_c01.avi").is_file()
    assert not (tmp_path / "out" / ".ppv-prepare").exists()
    assert not list((tmp_path / "out" / "videos").glob("Typing"))


def test_record_says_what_was_done(source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path) -> None:
    prepare(source, split=3)
    out = tmp_path / "out"
    record = yaml.safe_load((out / "dataset.yaml").read_text())
    assert (record["source"], record["num_listed"], record["num_classes"], record["num_clips"]) == (
        *(str(source), 13_320, 2),
        len(WANTED),
    )
    assert {file["name"]: file["sha256"] for file in record["files"]} == {
        path.name: file_sha256(path) for path in (source / "ucfTrainTestlist").iterdir()
    }
    (lists,) = record["prepared"]
    assert (lists["split"], lists["format"], lists["num_missing"]) == (3, "videos", NUM_ABSENT)
    assert lists["list_sha256"] == {name: file_sha256(out / name) for name in (lists["train_list"], lists["val_list"])}
    assert lists["versions"]["ppvcli"] == ppvcli.__version__
    hashes = [line.split("  ") for line in (out / "videos.sha256").read_text().splitlines()]
    assert len(hashes) == len(WANTED)
    assert all(file_sha256(out / path) == sha256 for sha256, path in hashes)


def test_frames_are_listed_with_their_number(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    result = prepare(source, format="frames")
    out = tmp_path / "out"
    rows = [line.rsplit(" ", 2) for line in (out / result.train_list).read_text().splitlines()]
    assert len(rows) == result.num_train == 18
    assert {row[2] for row in rows} == {"0", "1"}
    assert all(int(num_frames) == count_frames(out / folder) == 3 for folder, num_frames, _ in rows)
    record = yaml.safe_load((out / "dataset.yaml").read_text())["prepared"][0]
    assert (record["num_frames"], record["jpeg_quality"]) == (3 * len(WANTED), 95)


@pytest.mark.parametrize("name", WRITERS)
def test_archive_gives_the_same_as_a_folder(
    name: str, source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    if name == "a.rar" and not (shutil.which("bsdtar") or shutil.which("unar")):
        pytest.skip("needs bsdtar or unar")
    prepare(source)
    expected = tree(tmp_path / "out")
    (tmp_path / "out").rename(tmp_path / "from_folder")
    archive = WRITERS[name](tmp_path / name, files_below(source))
    prepare(archive)
    assert tree(tmp_path / "out") == expected
    record = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())
    assert {"name": name, "origin": str(archive), "size_bytes": archive.stat().st_size} == {
        key: value for key, value in record["files"][0].items() if key != "sha256"
    }
    assert record["files"][0]["sha256"] == file_sha256(archive)
    assert record["unpacked_by"]


def test_split_lists_are_found_as_a_zip_beside_the_archive(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    archive = write_tar(tmp_path / "UCF101.tar", files_below(source / "UCF-101"))
    lists = write_zip(tmp_path / "UCF101TrainTestSplits-RecognitionTask.zip", files_below(source))
    assert prepare(archive).num_train == 18
    names = {file["name"] for file in yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())["files"]}
    assert {archive.name, lists.name} <= names


def test_folder_of_the_two_published_files_is_a_source(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    folder = tmp_path / "fetched"
    folder.mkdir()
    write_tar(folder / "UCF101.rar", files_below(source / "UCF-101"))
    write_zip(folder / "UCF101TrainTestSplits-RecognitionTask.zip", files_below(source))
    shutil.copy(source / "UCF-101" / WANTED[0], folder / "holidays.avi")
    assert prepare(folder).num_train == 18


def test_clip_in_a_folder_of_another_case_is_found(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    other = tmp_path / "my videos"
    shutil.copytree(source / "ucfTrainTestlist", other / "lists")
    write_clips(other / "x y", [path.replace("HandstandPushups/", "handstandPUSHUPS/") for path in WANTED])
    write_clips(other / "copies", [WANTED[0].replace("HandStand", "Handstand")], num_frames=2)
    result = prepare(other)
    assert result.num_missing == NUM_ABSENT
    samples = read_list(tmp_path / "out" / result.train_list, tmp_path / "out", num_classes=2)
    assert all(sample.path.is_file() for sample in samples)


# --- a second run -----------------------------------------------------------------------------------------------------


def _times(folder: Path) -> dict[Path, int]:
    """When each file was written, but for the lock, which some versions of filelock touch when they take it."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name != ".lock"}


@pytest.mark.parametrize("format", ["videos", "frames"])
def test_second_run_changes_nothing_and_needs_no_source(
    format: str, source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    first = prepare(copy, format=format)
    shutil.rmtree(copy)
    times = _times(tmp_path / "out")
    second = prepare(format=format)
    assert not first.already_prepared
    assert second.already_prepared
    assert (second.num_train, second.num_val) == (18, 8)
    assert _times(tmp_path / "out") == times


def test_other_split_and_format_add_to_the_folder(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    prepare(source)
    prepare(split=2)
    result = prepare(split=2, format="frames")
    assert result.train_list == "train_split2_frames.txt"
    record = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())
    assert [(lists["split"], lists["format"]) for lists in record["prepared"]] == [
        *((1, "videos"), (2, "videos"), (2, "frames"))
    ]
    assert all(prepare(split=split, format=kind).already_prepared for split, kind in [(1, "videos"), (2, "frames")])


@pytest.mark.parametrize(
    ("name", "format"),
    [
        (f"videos/{WANTED[0]}", "videos"),
        ("train_split1_videos.txt", "videos"),
        ("labels.txt", "videos"),
        ("videos.sha256", "videos"),
        ("ucfTrainTestlist/testlist01.txt", "videos"),
        ("frames.sha256", "frames"),
        (f"frames/{WANTED[0][:-4]}/img_00004.jpg", "frames"),
    ],
)
def test_second_run_names_what_was_changed(
    name: str, format: str, source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    prepare(source, format=format)
    path = tmp_path / "out" / name
    content = path.read_bytes() if path.exists() else b""
    path.unlink(missing_ok=True)  # it may be a link to the source
    path.write_bytes(content + b"\n")
    if name.startswith("frames/"):
        path.rename(path.with_name("img_00009.jpg"))
        name = str(Path(name).parent)
    message = "another selection" if name == "labels.txt" else f"not as it was prepared: {name}"
    with pytest.raises(DatasetError, match=message) as caught:
        prepare(source, format=format)
    assert "--force" in str(caught.value.hint)
    assert prepare(source, format=format, force=True).num_train == 18
    assert prepare(format=format).already_prepared


def _overwrite_all(folder: Path) -> None:
    for path in folder.iterdir():
        path.write_text("no picture")


def _empty_one(folder: Path) -> None:
    (folder / "img_00002.jpg").write_bytes(b"")


def _swap_two(folder: Path) -> None:
    (folder / "img_00001.jpg").rename(folder / "other")
    (folder / "img_00003.jpg").rename(folder / "img_00001.jpg")
    (folder / "other").rename(folder / "img_00003.jpg")


def _drop_the_last(folder: Path) -> None:
    (folder / "img_00003.jpg").unlink()


@pytest.mark.parametrize("spoil", [_overwrite_all, _empty_one, _swap_two, _drop_the_last])
@pytest.mark.parametrize("split", [1, 2])
def test_second_run_names_a_folder_whose_frames_changed(
    spoil: Callable[[Path], None],
    split: int,
    source: Path,
    prepare: Callable[..., PreparedDataset],
    tmp_path: Path,
) -> None:
    prepare(source, format="frames")
    expected = tree(tmp_path / "out")
    folder = tmp_path / "out" / "frames" / WANTED[3][:-4]
    spoil(folder)
    with pytest.raises(DatasetError, match=rf"not as it was prepared: frames/{WANTED[3][:-4]}$") as caught:
        prepare(split=split)
    assert "--force" in str(caught.value.hint)
    shutil.rmtree(folder)
    assert prepare(split=split).num_train > 0
    assert expected.items() <= tree(tmp_path / "out").items()
    assert prepare().already_prepared


def test_folder_that_another_encoder_made_anew_is_recorded(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(source, format="frames")
    former = (tmp_path / "out" / "frames.sha256").read_text().splitlines()
    shutil.rmtree(tmp_path / "out" / "frames" / WANTED[0][:-4])
    monkeypatch.setattr("ppvcli.datasets.frames.JPEG_QUALITY", 50)
    prepare()
    now = (tmp_path / "out" / "frames.sha256").read_text().splitlines()
    assert [new for old, new in zip(former, now, strict=True) if old != new] == [
        f"{frames_sha256(tmp_path / 'out' / 'frames' / WANTED[0][:-4])}  frames/{WANTED[0][:-4]}"
    ]
    assert prepare().already_prepared


def test_moved_set_is_compared_where_it_is_now(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    prepare(source, format="frames")
    moved = (tmp_path / "out").rename(tmp_path / "moved")
    assert ppvcli.prepare_ucf101_66(moved, allow_missing=True).already_prepared
    _empty_one(moved / "frames" / WANTED[0][:-4])
    with pytest.raises(DatasetError, match="not as it was prepared: frames/"):
        ppvcli.prepare_ucf101_66(moved, allow_missing=True)


def test_frames_of_an_early_record_get_their_hashes_and_it_says_so(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    prepare(source, format="frames")
    expected = tree(tmp_path / "out")
    record = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())
    del record["frames_sha256"]
    (tmp_path / "out" / "dataset.yaml").write_text(yaml.safe_dump(record))
    (tmp_path / "out" / "frames.sha256").unlink()
    prepare(split=2, format="videos")
    events: list[PrepareProgress] = []
    assert not prepare(format="frames", progress=events.append).already_prepared
    assert [event.message for event in events if event.message] == [
        f"{len(WANTED)} folders are there already, without recorded hashes: taken as they are"
    ]
    assert expected.items() <= tree(tmp_path / "out").items()
    assert prepare(format="frames").already_prepared
    _empty_one(tmp_path / "out" / "frames" / WANTED[0][:-4])
    with pytest.raises(DatasetError, match="not as it was prepared: frames/"):
        prepare(format="frames")


@pytest.mark.parametrize("name", [f"videos/{WANTED[0]}", "train_split1_frames.txt", f"frames/{WANTED[0][:-4]}"])
def test_second_run_completes_what_was_deleted(
    name: str, source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    prepare(source, format="frames")
    expected = tree(tmp_path / "out")
    path = tmp_path / "out" / name
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    assert not prepare(format="frames").already_prepared
    assert tree(tmp_path / "out") == expected


def test_archive_that_changed_since_is_refused(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    archive = write_tar(tmp_path / "a.tar", files_below(source))
    prepare(archive)
    write_tar(archive, [*files_below(source), ("more.txt", b"x", stat.S_IFREG | 0o644)])
    (tmp_path / "out" / "videos" / WANTED[0]).unlink()
    with pytest.raises(DatasetError, match="is not the file that the data set was made from"):
        prepare(archive)
    assert prepare(archive, force=True).num_train == 18


def test_other_classes_do_not_mix_with_what_is_there(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    prepare(source)
    other = tmp_path / "other.txt"
    other.write_text("Basketball\n")
    with pytest.raises(DatasetError, match="another selection of classes"):
        prepare(source, classes=other)
    result = prepare(source, classes=other, force=True)
    assert (result.num_classes, result.num_train) == (1, 9)
    assert not (tmp_path / "out" / "videos" / "HandstandPushups").exists()


# --- what is missing or wrong -----------------------------------------------------------------------------------------


def test_missing_clips_are_counted_and_named_and_nothing_is_placed(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=f"^{NUM_ABSENT} clips that split 1 lists are missing") as caught:
        prepare(source, allow_missing=False)
    assert "--allow-missing" in str(caught.value.hint)
    out = tmp_path / "out"
    rows = (out / "missing.txt").read_text().splitlines()
    assert len(rows) == NUM_ABSENT
    assert "Basketball/v_Basketball_g01_c02.avi\tnot in the source" in rows
    assert not any((out / name).exists() for name in ("videos", "labels.txt", "dataset.yaml"))
    assert prepare(source).num_missing == NUM_ABSENT
    with pytest.raises(DatasetError, match="are missing"):
        prepare(source, allow_missing=False)


def test_empty_and_broken_clips_are_missing_with_their_reason(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    empty, broken = copy / "UCF-101" / WANTED[0], copy / "UCF-101" / WANTED[-1]
    empty.write_bytes(b"")
    broken.write_bytes(b"no video" * 100)
    with pytest.raises(DatasetError, match=f"^{NUM_ABSENT + 1} clips"):
        prepare(copy, allow_missing=False)
    result = prepare(copy, format="frames")
    assert result.num_missing == NUM_ABSENT + 2
    reasons = dict(line.split("\t") for line in (tmp_path / "out" / "missing.txt").read_text().splitlines())
    assert reasons[WANTED[0]] == "empty in the source"
    assert "can't open" in reasons[WANTED[-1]]
    listed = (tmp_path / "out" / result.train_list).read_text() + (tmp_path / "out" / result.val_list).read_text()
    assert not any(path[:-4] in listed for path in (WANTED[0], WANTED[-1]))


def _cut_off(clip: Path) -> None:
    """A clip that decoding complains of, though it gives most of its frames."""
    clip.unlink()  # a link to the others
    write_video(clip, moving_block(300), codec="mpeg4")
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 4 // 5])


def test_damaged_clips_have_their_frames_and_are_named(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    copy, out = shutil.copytree(source, tmp_path / "copy"), tmp_path / "out"
    _cut_off(copy / "UCF-101" / WANTED[0])
    assert prepare(copy).num_damaged == 0  # nothing is decoded
    result = prepare(format="frames")
    assert (result.num_damaged, result.num_missing) == (1, NUM_ABSENT)
    assert (out / "damaged.txt").read_text() == f"{WANTED[0]}\tcut off within a frame\n"
    num_frames = count_frames(out / "frames" / WANTED[0][:-4])
    assert 100 < num_frames < 300
    listed = (out / result.train_list).read_text() + (out / result.val_list).read_text()
    assert f"frames/{WANTED[0][:-4]} {num_frames} " in listed
    assert [prepare(split=split, format="frames").num_damaged for split in (1, 2)] == [1, 1]
    shutil.copy(source / "UCF-101" / WANTED[0], copy / "UCF-101" / WANTED[0])
    assert prepare(format="frames", force=True).num_damaged == 0
    assert not (out / "damaged.txt").exists()


def test_damaged_clip_is_named_although_the_run_was_interrupted(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    copy = shutil.copytree(source, tmp_path / "copy")
    _cut_off(copy / "UCF-101" / WANTED[0])

    def interrupt(event: PrepareProgress) -> None:
        if event.stage == "hash":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(copy, format="frames", progress=interrupt)
    assert prepare(copy, format="frames").num_damaged == 1


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("given", "out"),
    [("copy", "copy/x"), ("copy", "copy/UCF-101/Basketball/x/y"), ("link", "copy/x"), ("copy", "link/x")],
)
def test_folder_inside_the_source_is_refused(
    given: str, out: str, force: bool, source: Path, classes: Path, tmp_path: Path
) -> None:
    shutil.copytree(source, tmp_path / "copy")
    (tmp_path / "link").symlink_to(tmp_path / "copy")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(UsageError, match=r"is inside the source .*, where every clip would then be twice"):
        ppvcli.prepare_ucf101_66(
            tmp_path / out, source=tmp_path / given, classes=classes, allow_missing=True, force=force
        )
    assert sorted(tmp_path.rglob("*")) == before


def test_lists_of_another_length_are_refused(prepare: Callable[..., PreparedDataset], tmp_path: Path) -> None:
    write_lists(tmp_path / "source", listed_paths()[:100])
    write_clips(tmp_path / "source", listed_paths()[:1])
    with pytest.raises(DatasetError, match="split 1 lists 100 clips, expected the 13320"):
        prepare(tmp_path / "source")
    assert not (tmp_path / "out" / "ucfTrainTestlist").exists()


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        (("../evil.avi", b"x", stat.S_IFREG | 0o644), "leads outside"),
        (("UCF-101/evil.avi", b"/etc/passwd", stat.S_IFLNK | 0o777), "a link"),
        (("UCF-101/evil.avi", b"", stat.S_IFCHR | 0o644), "a device"),
    ],
)
def test_hostile_archive_leaves_nothing(
    entry: tuple[str, bytes, int],
    reason: str,
    source: Path,
    prepare: Callable[..., PreparedDataset],
    tmp_path: Path,
) -> None:
    archive = write_tar(tmp_path / "a.tar", [*files_below(source), entry])
    with pytest.raises(DatasetError, match=rf"a\.tar is refused because of its entry .*{reason}"):
        prepare(archive)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} <= {".ppv-prepare", ".lock"}
    assert list((out / ".ppv-prepare").iterdir()) == []


def test_unknown_class_names_the_nearest(source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("Basketball\nBasketballDunks\n")
    with pytest.raises(UnknownNameError, match="'BasketballDunks'; nearest: BasketballDunk"):
        prepare(source, classes=tmp_path / "mine.txt")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"split": 4}, "UCF101 has no split 4"),
        ({"format": "frame"}, "unknown format 'frame'; nearest: frames"),
        ({"num_workers": 0}, "0 processes"),
    ],
)
def test_impossible_setting_is_a_usage_error(
    settings: dict[str, Any], message: str, source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=message):
        prepare(source, **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("name", "message"), [("none", "nothing is there"), ("classes.txt", "neither a folder nor")])
def test_source_that_is_none_is_an_error(
    name: str, message: str, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match=message):
        prepare(tmp_path / name)


@pytest.mark.parametrize("with_lists", [False, True])
def test_source_without_clips_is_an_error_before_any_download(
    with_lists: bool, prepare: Callable[..., PreparedDataset], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ucf101_source, "LISTS_URL", "http://127.0.0.1:9/lists.zip")
    (tmp_path / "source").mkdir()
    if with_lists:
        write_lists(tmp_path / "source")
    with pytest.raises(DatasetError, match=r"no \.avi clip in .*source"):
        prepare(tmp_path / "source")


def test_damaged_record_is_an_error_until_force(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    prepare(source)
    (tmp_path / "out" / "dataset.yaml").write_text("name: [")
    with pytest.raises(DatasetError, match=r"dataset\.yaml is damaged"):
        prepare(source)
    assert prepare(source, force=True).num_train == 18


def test_folder_in_use_by_another_process_is_refused(
    source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    with holding(tmp_path / "out", wait=False), pytest.raises(DatasetError, match="another process"):
        prepare(source)
    assert prepare(source).num_train == 18


# --- interruptions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        *(("folder", stage) for stage in ("lists", "clips", "frames", "hash")),
        *(("a.tar", stage) for stage in ("lists", "extract", "clips", "frames", "hash")),
    ],
)
def test_run_that_ends_in_any_stage_goes_on(
    stage: str, name: str, source: Path, prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    given = source if name == "folder" else write_tar(tmp_path / name, files_below(source))
    prepare(given, format="frames")
    expected = tree(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")

    def interrupt(event: PrepareProgress) -> None:
        if event.stage == stage and event.unit == "files" and event.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(given, format="frames", progress=interrupt)
    out = tmp_path / "out"
    assert not (out / "dataset.yaml").exists()
    assert {
        key: value for key, value in tree(out).items() if not key.startswith(".ppv-prepare/")
    }.items() <= expected.items()
    assert prepare(given, format="frames").num_train == 18
    assert tree(out) == expected
    assert any(file["name"] == name for file in yaml.safe_load((out / "dataset.yaml").read_text())["files"]) == (
        name != "folder"
    )
    assert not (out / ".ppv-prepare").exists()


# --- the publisher ----------------------------------------------------------------------------------------------------


@pytest.fixture
def publisher(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[FileServer, FileServer]]:
    """Servers of the clips, as a RAR where it can be read here, and of the lists."""
    write = write_rar if shutil.which("bsdtar") or shutil.which("unar") else write_tar
    clips = write(tmp_path / "published", files_below(source / "UCF-101")).read_bytes()
    lists = write_zip(tmp_path / "published", files_below(source / "ucfTrainTestlist")).read_bytes()
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    policy = TransferPolicy(num_attempts=2, progress_bytes=10**9, first_wait_s=0.001, read_timeout_s=0.5)
    monkeypatch.setattr(ucf101_source, "_POLICY", policy)
    with FileServer(clips) as clip_server, FileServer(lists) as list_server:
        monkeypatch.setattr(ucf101_source, "VIDEOS_URL", f"{clip_server.base}/UCF101.rar")
        monkeypatch.setattr(ucf101_source, "LISTS_URL", f"{list_server.base}/UCF101TrainTestSplits-RecognitionTask.zip")
        yield clip_server, list_server


def test_without_a_source_both_archives_are_fetched_and_kept(
    publisher: tuple[FileServer, FileServer], prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    assert prepare().num_train == 18
    downloads = tmp_path / "out" / "downloads"
    assert (downloads / "UCF101.rar").read_bytes() == publisher[0].content
    record = yaml.safe_load((tmp_path / "out" / "dataset.yaml").read_text())
    files = {file["name"]: file for file in record["files"]}
    assert files["UCF101.rar"]["sha256"] == file_sha256(downloads / "UCF101.rar")
    assert files["UCF101.rar"]["origin"] == ucf101_source.VIDEOS_URL
    assert prepare().already_prepared
    prepare(force=True)
    assert [len(server.requests) for server in publisher] == [1, 1]


def test_download_that_broke_goes_on_in_the_next_run(
    publisher: tuple[FileServer, FileServer], prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    server = publisher[0]
    half = len(server.content) // 2
    server.answers = [serve(num_bytes=half), serve(num_bytes=0)]
    with pytest.raises(DownloadError, match=r"cannot fetch UCF101\.rar") as caught:
        prepare()
    assert "--source UCF101.rar" in str(caught.value.hint)
    assert "--mirror" not in str(caught.value.hint)
    kept = (tmp_path / "out" / "downloads" / "UCF101.rar.part").stat().st_size
    assert 0 < kept <= half
    assert prepare().num_train == 18
    assert server.requests[-1].range == f"bytes={kept}-"
    assert not list((tmp_path / "out" / "downloads").glob("*.part*"))


def test_archive_larger_than_published_is_refused(
    publisher: tuple[FileServer, FileServer], prepare: Callable[..., PreparedDataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ucf101_source, "_POLICY", TransferPolicy(max_bytes=1000))
    with pytest.raises(DownloadError, match=r"is no archive of UCF101: it is larger than 1000 bytes"):
        prepare()


def test_download_that_changed_on_disk_is_refused(
    publisher: tuple[FileServer, FileServer], prepare: Callable[..., PreparedDataset], tmp_path: Path
) -> None:
    prepare()
    path = tmp_path / "out" / "downloads" / "UCF101.rar"
    path.write_bytes(path.read_bytes() + b"x")
    (tmp_path / "out" / "videos" / WANTED[0]).unlink()
    with pytest.raises(DatasetError, match="is not the file that the data set was made from") as caught:
        prepare()
    assert "delete it to fetch it again" in str(caught.value.hint)
    path.unlink()
    assert prepare().num_train == 18
