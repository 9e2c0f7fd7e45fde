"""Labels with bars, and progress, on terminals of many widths."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from rich.console import Console

from ppvcli.cli import output
from ppvcli.cli.bars import BarRow, print_bars
from ppvcli.cli.eval import _show
from ppvcli.cli.predict import _show_table
from ppvcli.cli.train_progress import TerminalWatcher
from ppvcli.engine.progress import StepReport
from ppvcli.models.zoo import load_labels
from ppvcli.results import ClassResult, EvalReport, Prediction, Score

LONGEST = sorted(load_labels("kinetics400"), key=len)[-5:]
PATH = "/home/someone/videos of the year/passing the ball to the other side of the field.avi"


@pytest.fixture
def lines_of(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What a terminal of so many columns was sent."""
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)

    def shown(width: int, show: Callable[[], None]) -> list[str]:
        monkeypatch.setenv("COLUMNS", str(width))
        show()
        return capsys.readouterr().out.splitlines()

    return shown


@pytest.mark.parametrize("width", [30, 50, 60, 80, 120])
def test_eval_shows_each_label_in_full_on_any_terminal(width: int, lines_of: Callable[..., list[str]]) -> None:
    classes = tuple(ClassResult(label=label, num_clips=50, num_correct=20, num_predicted=50) for label in LONGEST)
    report = EvalReport(model="m", num_clips=250, num_correct=100, num_correct_top5=200, loss=1.0, classes=classes)
    lines = lines_of(width, lambda: _show(report))[:-1]
    for label in LONGEST:
        assert sum(line.split("  ")[0] == label for line in lines) == 1
    assert " ".join(lines).count("50") >= len(LONGEST), "the last column is there"
    assert all(len(line) <= width or line in LONGEST for line in lines)


@pytest.mark.parametrize("width", [30, 50, 60, 80, 120])
def test_predict_shows_path_labels_and_times_in_full_on_any_terminal(
    width: int, lines_of: Callable[..., list[str]]
) -> None:
    top = tuple(Score(label=label, index=i, score=0.5 / (i + 1)) for i, label in enumerate(LONGEST))
    timings = {"decode": 10.0, "transform": 10.0, "network": 20.0}
    answer = Prediction(path=PATH, model="m" * 40, top=top, num_frames=20, duration_s=1.0, timings_ms=timings)
    title, *lines, times, _ = lines_of(width, lambda: _show_table(answer))
    assert title == f"{PATH}  1.0 s, 20 frames"
    assert times == f"  {'m' * 40}: decode 10 ms, transform 10 ms, network 20 ms"
    for label in LONGEST:
        assert sum(line.strip().split("  ")[0] == label for line in lines) == 1
    assert " ".join(lines).count("%") == len(LONGEST)


@pytest.mark.parametrize(("width", "bar"), [(24, 10), (18, 5), (14, 1), (13, 0)])
def test_bar_takes_the_room_that_is_left(width: int, bar: int, lines_of: Callable[..., list[str]]) -> None:
    rows = [BarRow("one", 1.0, ("100%",), ""), BarRow("two x", 0.0, ("0%",), "")]
    first, second = lines_of(width, lambda: print_bars(rows, ("", ""), bar_width=10))
    assert first.split() == ["one", *(["━" * bar] if bar else []), "100%"]
    assert second.split() == ["two", "x", "0%"]


@pytest.mark.parametrize("width", [56, 60, 70, 80])
def test_bar_gives_way_to_times_and_counts(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(output, "is_terminal", lambda stream: True)
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(output, "stderr_console", lambda: console)
    with output.open_bar("checking clips") as advance:
        assert advance is not None
        advance(312, 12345)
    assert "312/12345 0:00:00 passed, -:--:-- left" in screen.getvalue()


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_training_shows_times_and_figures_on_any_terminal(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=width, color_system=None)
    monkeypatch.setattr(output, "stderr_console", lambda: console)
    report = StepReport(
        epoch=3,
        num_epochs=15,
        step=5,
        num_steps=10,
        loss=1.5,
        top1=0.5,
        top5=0.9,
        learning_rate=1e-3,
        images_per_s=100.0,
        data_wait_ratio=0.4,
    )
    with TerminalWatcher() as watcher:
        watcher.on_step(report)
    shown = " ".join(screen.getvalue().split())
    assert " 17% 0:00:00 passed, -:--:-- left loss 1.500 top-1 50.0% top-5 90.0% lr 1.0e-03" in shown
