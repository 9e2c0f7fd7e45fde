from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from ppvcli.engine.log import LogFollower, RunLog, read_log
from ppvcli.errors import LogError
from tests.engine.run_entries import epoch_result, files_limited_to, open_log, run_epoch, step_report


def logged_steps(run_dir: Path) -> list[tuple[int, int]]:
    return [(report.epoch, report.step) for report in read_log(run_dir / "log.jsonl")[0]]


def test_log_of_a_run_reads_back_equal(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    run_epoch([log], 1)
    run_epoch([log], 2)
    steps, epochs = read_log(tmp_path / "log.jsonl")
    assert steps == [step_report(epoch, step) for epoch in (1, 2) for step in (1, 2, 3, 4)]
    assert epochs == [epoch_result(1), epoch_result(2)]


def test_lines_say_what_they_are(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.on_step(step_report(1, 1))
    log.on_epoch(epoch_result(1))
    step, epoch = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines())
    assert (step["kind"], step["step"], step["data_wait_ratio"]) == ("step", 1, 0.125)
    assert (epoch["kind"], epoch["val_top1"], epoch["failures"]) == (
        "epoch",
        0.5,
        [["bad \udce9.mp4", "it is cut off"]],
    )


@pytest.mark.parametrize(
    ("interval", "num_steps", "expected"),
    [(1, 3, [1, 2, 3]), (2, 5, [2, 4, 5]), (2, 4, [2, 4]), (10, 3, [3]), (10, 1, [1])],
)
def test_steps_are_logged_at_the_interval_and_the_end(
    tmp_path: Path, interval: int, num_steps: int, expected: list[int]
) -> None:
    run_epoch([open_log(tmp_path, interval=interval)], 1, num_steps=num_steps)
    assert logged_steps(tmp_path) == [(1, step) for step in expected]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_null_and_reads_as_nan(tmp_path: Path, value: float) -> None:
    log = open_log(tmp_path)
    log.on_step(step_report(1, 1, loss=value))
    log.on_epoch(epoch_result(1, val_loss=value))
    text = (tmp_path / "log.jsonl").read_text(encoding="utf-8")
    assert [json.loads(line).get("loss", json.loads(line).get("val_loss")) for line in text.splitlines()] == [None] * 2
    assert "NaN" not in text
    assert "Infinity" not in text
    steps, epochs = read_log(tmp_path / "log.jsonl")
    assert math.isnan(steps[0].loss)
    assert math.isnan(epochs[0].val_loss)
    assert steps[0].top1 == 0.25


def test_fresh_run_starts_the_file_anew(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("left over\n", encoding="utf-8")
    open_log(tmp_path)
    assert (tmp_path / "log.jsonl").read_bytes() == b""


@pytest.mark.parametrize("torn", ["", '{"kind": "step", "epoch": 2, "st', "\0\0\0"])
def test_resumed_run_keeps_finished_epochs_and_goes_on(tmp_path: Path, torn: str) -> None:
    log = open_log(tmp_path)
    run_epoch([log], 1)
    log.on_step(step_report(2, 1))
    with (tmp_path / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write(torn)
    log = open_log(tmp_path, [epoch_result(1)])
    assert logged_steps(tmp_path) == [(1, 1), (1, 2), (1, 3), (1, 4)]
    run_epoch([log], 2, num_steps=2)
    assert logged_steps(tmp_path) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 1), (2, 2)]
    assert read_log(tmp_path / "log.jsonl")[1] == [epoch_result(1), epoch_result(2)]


def test_resumed_run_writes_the_epoch_that_a_kill_has_kept_from_the_log(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.on_step(step_report(1, 4))  # the kill came after the checkpoint, before `on_epoch`
    open_log(tmp_path, [epoch_result(1)])
    assert read_log(tmp_path / "log.jsonl") == ([step_report(1, 4)], [epoch_result(1)])


def test_read_log_without_a_file_is_empty(tmp_path: Path) -> None:
    assert read_log(tmp_path / "log.jsonl") == ([], [])


@pytest.mark.parametrize(
    "line",
    ["{", "[]", "3", "{}", '{"kind": "start"}', '{"kind": "step"}', '{"kind": "epoch", "failures": 3}', "\udcff"],
)
def test_read_log_leaves_out_lines_it_does_not_know(tmp_path: Path, line: str) -> None:
    (tmp_path / "log.jsonl").write_bytes(line.encode(errors="surrogateescape") + b"\n")
    log = RunLog(tmp_path / "log.jsonl", interval=1)
    log.on_epoch(epoch_result(1))
    assert read_log(tmp_path / "log.jsonl") == ([], [epoch_result(1)])


def test_full_disk_costs_no_step_and_no_line(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    log.on_step(step_report(1, 1))
    size = (tmp_path / "log.jsonl").stat().st_size
    with files_limited_to(size + 30):
        log.on_step(step_report(1, 2))
        log.on_step(step_report(1, 3))
    assert (tmp_path / "log.jsonl").stat().st_size == size  # nothing torn is left
    log.on_step(step_report(1, 4))
    assert logged_steps(tmp_path) == [(1, 1), (1, 2), (1, 3), (1, 4)]


def test_disk_that_stays_full_ends_the_run_after_the_epoch_with_the_way_on(tmp_path: Path) -> None:
    log = open_log(tmp_path)
    with files_limited_to(30):
        log.on_step(step_report(1, 1))
        with pytest.raises(LogError, match=r"log\.jsonl: ") as caught:
            log.on_epoch(epoch_result(1))
        with pytest.raises(LogError):
            open_log(tmp_path, [epoch_result(1)])
    assert f"ppv train --resume {tmp_path}" in (caught.value.hint or "")
    assert (tmp_path / "log.jsonl").read_bytes() == b""


def test_follower_gives_each_complete_line_once(tmp_path: Path) -> None:
    follower = LogFollower(tmp_path / "log.jsonl")
    assert follower.poll() == []
    log = open_log(tmp_path)
    assert follower.poll() == []
    log.on_step(step_report(1, 1))
    assert follower.poll() == [step_report(1, 1)]
    assert follower.poll() == []
    run_epoch([log], 1, num_steps=1, speed=41.0)
    assert follower.poll() == [step_report(1, 1, num_steps=1, speed=41.0), epoch_result(1, speed=41.0)]


def test_follower_waits_for_the_rest_of_a_line(tmp_path: Path) -> None:
    open_log(tmp_path).on_step(step_report(1, 1))
    line = (tmp_path / "log.jsonl").read_bytes()
    follower = LogFollower(tmp_path / "growing.jsonl")
    for end in range(0, len(line), 40):
        (tmp_path / "growing.jsonl").write_bytes(line[:end])
        assert follower.poll() == []
    (tmp_path / "growing.jsonl").write_bytes(line)
    assert follower.poll() == [step_report(1, 1)]


def test_follower_of_a_resumed_run_gives_only_what_is_new(tmp_path: Path) -> None:
    run_epoch([log := open_log(tmp_path)], 1)
    log.on_step(step_report(2, 1))
    follower = LogFollower(tmp_path / "log.jsonl")
    follower.poll()
    log = open_log(tmp_path, [epoch_result(1)])
    assert follower.poll() == []
    log.on_step(step_report(2, 1, speed=50.0))
    assert follower.poll() == [step_report(2, 1, speed=50.0)]


def test_follower_of_a_file_made_shorter_in_place_reads_it_anew(tmp_path: Path) -> None:
    run_epoch([log := open_log(tmp_path)], 1)
    follower = LogFollower(tmp_path / "log.jsonl")
    follower.poll()
    os.truncate(tmp_path / "log.jsonl", 0)
    log.on_step(step_report(2, 1))
    assert follower.poll() == [step_report(2, 1)]
