from __future__ import annotations

import importlib.util
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from ppvcli.engine.writers import PACKAGES, open_writers
from ppvcli.errors import LogError, MissingPackageError, UnknownNameError
from tests.engine.run_entries import epoch_result, files_limited_to, open_log, run_epoch, step_report

Scalars = dict[str, list[tuple[int, float]]]

TRAIN_TAGS = {f"train/{name}" for name in ("loss", "top1", "top5", "learning_rate", "images_per_s", "data_wait_ratio")}
VAL_TAGS = {f"val/{name}" for name in ("loss", "top1", "top5")}


def records(data: bytes) -> Iterator[bytes]:
    """Of a TFRecord file: length, its checksum, data, its checksum."""
    while data:
        (length,) = struct.unpack_from("<Q", data)
        yield data[12 : 12 + length]
        assert len(data) >= 16 + length
        data = data[16 + length :]


def tensorboard_scalars(run_dir: Path) -> Scalars:
    from tensorboardX.proto.event_pb2 import Event

    (path,) = (run_dir / "tensorboard").iterdir()
    scalars: Scalars = {}
    for record in records(path.read_bytes()):
        event = Event.FromString(record)
        for value in event.summary.value:
            scalars.setdefault(value.tag, []).append((event.step, value.simple_value))
    return scalars


def visualdl_scalars(run_dir: Path) -> Scalars:
    from visualdl import LogReader

    (path,) = (run_dir / "visualdl").iterdir()
    reader = LogReader(file_path=str(path))
    tags = [
        name.split(path.name + "/")[1].replace("%", "/") for name, kind in reader.tags().items() if kind == "scalar"
    ]
    return {tag: [(each.id, each.value) for each in reader.get_data("scalar", tag)] for tag in tags}


READERS = {"tensorboard": tensorboard_scalars, "visualdl": visualdl_scalars}


@pytest.fixture(params=PACKAGES)
def name(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))  # VisualDL makes a folder of settings when it is imported
    pytest.importorskip(PACKAGES[request.param])
    return str(request.param)


def test_there_is_a_reader_for_every_writer() -> None:
    assert READERS.keys() == PACKAGES.keys()


def test_writer_writes_every_scalar(name: str, tmp_path: Path) -> None:
    log = open_log(tmp_path)
    observers = [log, *open_writers([name], tmp_path)]
    run_epoch(observers, 1)
    run_epoch(observers, 2)
    scalars = READERS[name](tmp_path)
    assert scalars.keys() == TRAIN_TAGS | VAL_TAGS
    assert scalars["train/data_wait_ratio"] == [(step, 0.125) for step in range(1, 9)]
    assert scalars["val/loss"] == [(1, 1.25), (2, 1.25)]
    assert scalars["val/top1"] == [(1, 0.5), (2, 0.5)]


def test_writer_writes_the_steps_of_the_log(name: str, tmp_path: Path) -> None:
    log = open_log(tmp_path, interval=3)
    run_epoch([log, *open_writers([name], tmp_path)], 1)
    assert [step for step, _ in READERS[name](tmp_path)["train/loss"]] == [3, 4]


def test_writer_shows_steps_before_the_epoch_ends(name: str, tmp_path: Path) -> None:
    log = open_log(tmp_path)
    (writer,) = open_writers([name], tmp_path)
    for observer in (log, writer):
        observer.on_step(step_report(1, 1))
    assert READERS[name](tmp_path)["train/loss"] == [(1, 1.5)]


def test_writer_takes_a_loss_that_is_no_number(name: str, tmp_path: Path) -> None:
    log = open_log(tmp_path)
    (writer,) = open_writers([name], tmp_path)
    for observer in (log, writer):
        observer.on_step(step_report(1, 1, loss=math.nan))
    ((step, value),) = READERS[name](tmp_path)["train/loss"]
    assert step == 1
    assert math.isnan(value)


def test_resumed_run_has_every_step_once(name: str, tmp_path: Path) -> None:
    log = open_log(tmp_path)
    observers = [log, *open_writers([name], tmp_path)]
    run_epoch(observers, 1)
    for observer in observers:
        observer.on_step(step_report(2, 1))  # and is killed
    log = open_log(tmp_path, [epoch_result(1)])
    observers = [log, *open_writers([name], tmp_path)]
    run_epoch(observers, 2, speed=50.0)
    scalars = READERS[name](tmp_path)
    assert scalars["train/images_per_s"] == [(1, 40), (2, 40), (3, 40), (4, 40), (5, 50), (6, 50), (7, 50), (8, 50)]
    assert [epoch for epoch, _ in scalars["val/top1"]] == [1, 2]


def test_open_tensorboard_is_told_to_forget_the_earlier_part(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    run_epoch([open_log(tmp_path)], 1)
    open_writers(["tensorboard"], tmp_path)
    (path,) = (tmp_path / "tensorboard").iterdir()
    events = [Event.FromString(record) for record in records(path.read_bytes())]
    starts = [place for place, event in enumerate(events) if event.session_log.status == SessionLog.START]
    assert starts == [1]  # after the version of the file, before all numbers
    assert events[1].step == 0


def test_run_resumed_with_other_epochs_counts_its_steps_on(name: str, tmp_path: Path) -> None:
    run_epoch([open_log(tmp_path)], 1, num_steps=4)
    log = open_log(tmp_path, [epoch_result(1)])
    run_epoch([log, *open_writers([name], tmp_path)], 2, num_steps=2)
    assert [step for step, _ in READERS[name](tmp_path)["train/loss"]] == [1, 2, 3, 4, 5, 6]


def test_tensorboard_on_a_full_disk_costs_no_step(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    log = open_log(tmp_path)
    (writer,) = open_writers(["tensorboard"], tmp_path)
    log.on_step(step_report(1, 1))
    log.on_epoch(epoch_result(1))
    with files_limited_to(200):
        writer.on_step(step_report(1, 1))
        with pytest.raises(LogError, match="tensorboard: ") as caught:
            writer.on_epoch(epoch_result(1))
    assert "--resume" in (caught.value.hint or "")
    open_writers(["tensorboard"], tmp_path)
    assert tensorboard_scalars(tmp_path).keys() == TRAIN_TAGS | VAL_TAGS


@pytest.mark.parametrize(
    ("name", "hint"),
    [("tensorboard", "pip install 'ppvcli[tensorboard]'"), ("visualdl", "pip install 'ppvcli[visualdl]'")],
)
def test_writer_whose_package_is_missing_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, hint: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingPackageError, match=PACKAGES[name]) as caught:
        open_writers([name], tmp_path)
    assert caught.value.hint == hint
    assert list(tmp_path.iterdir()) == []


def test_unknown_writer_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="'tensorbord'; nearest: tensorboard"):
        open_writers(["tensorbord"], tmp_path)
    with pytest.raises(UnknownNameError, match=r"'wandb'$") as caught:
        open_writers(["wandb"], tmp_path)
    assert caught.value.hint == "--writer tensorboard or --writer visualdl"


def test_writers_in_the_order_asked_for_and_each_once(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    assert open_writers([], tmp_path) == []
    assert len(open_writers(["tensorboard", "tensorboard"], tmp_path)) == 1
