"""The folder of a report: what stands in its files, and what happens to it when something goes wrong."""

from __future__ import annotations

import csv
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ppvcli.datasets.annotations import Sample
from ppvcli.engine import reports
from ppvcli.engine.confusion_plot import plot_confusion
from ppvcli.engine.evaluator import ClipRow, build_report
from ppvcli.engine.reports import FILES, check_out_dir, write_report
from ppvcli.errors import ReportError, UsageError
from ppvcli.files import LOCK_NAME, holding
from ppvcli.results import EvalSetup

LABELS = ("jump, high", 'say "wave"', "$x$ überholen", "none")
SAMPLES = tuple(Sample(Path(f"clips/{i}.mp4"), label) for i, label in enumerate((0, 0, 1, 2)))
ROWS = (
    ClipRow(index=0, logits_k=np.array([3, 1, 0, -1], np.float32)),
    ClipRow(index=1, error="no video"),
    ClipRow(index=2, logits_k=np.array([0, 2, 1, 0], np.float32)),
    ClipRow(index=3, logits_k=np.array([0, 2, 1, 0], np.float32)),
)
SETUP = EvalSetup(
    protocol="dense",
    views="8 frames x 10 clips x 3 crops",
    preprocess={"mean": [0.5, 0.5, 0.5]},
    weights="w.safetensors",
    weights_sha256="0" * 64,
    data="clips",
    skip_broken=False,
    batch_size=1,
    device="cpu",
    versions={"python": "3.12"},
    date="2026-11-22T12:00:00+00:00",
    elapsed_s=1.0,
)


def write(folder: Path, *, skip_broken: bool = False) -> None:
    report = build_report(SAMPLES, ROWS, labels=LABELS, model="m", skip_broken=skip_broken)
    write_report(folder, replace(report, setup=SETUP), samples=SAMPLES, rows=ROWS, labels=LABELS)


def read_csv(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_folder_holds_the_report_and_its_tables(tmp_path: Path) -> None:
    write(tmp_path / "a" / "b")
    folder = tmp_path / "a" / "b"
    assert sorted(path.name for path in folder.iterdir()) == sorted((*FILES, LOCK_NAME))
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert (report["top1"], report["num_clips"], report["num_correct"]) == (0.5, 4, 2)
    assert report["setup"]["protocol"] == "dense"
    assert report["failures"] == [["clips/1.mp4", "no video"]]
    assert read_csv(folder / "per_class.csv") == [
        ["label", "index", "num_clips", "num_correct", "num_predicted", "precision", "recall", "f1"],
        ["jump, high", "0", "2", "1", "1", "1.0", "0.5", str(2 / 3)],
        ['say "wave"', "1", "1", "1", "2", "0.5", "1.0", str(2 / 3)],
        ["$x$ überholen", "2", "1", "0", "0", "", "0.0", "0.0"],
        ["none", "3", "0", "0", "0", "", "", ""],
    ]
    assert read_csv(folder / "confusion.csv") == [
        ["true \\ predicted", *LABELS, "(not decoded)"],
        ["jump, high", "1", "0", "0", "0", "1"],
        ['say "wave"', "0", "1", "0", "0", "0"],
        ["$x$ überholen", "0", "1", "0", "0", "0"],
        ["none", "0", "0", "0", "0", "0"],
    ]


def test_predictions_have_a_line_for_every_clip(tmp_path: Path) -> None:
    write(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [line["path"] for line in lines] == [f"clips/{i}.mp4" for i in range(4)]
    assert [line["correct"] for line in lines] == [True, False, True, False]
    assert lines[1] == {
        "path": "clips/1.mp4",
        "label": "jump, high",
        "index": 0,
        "correct": False,
        "error": "no video",
    }
    top = lines[3]["top"]
    assert lines[3]["predicted"] == 'say "wave"'
    assert [best["index"] for best in top] == [1, 2, 0, 3]
    assert sum(best["score"] for best in top) == pytest.approx(1.0)
    assert top[0]["score"] == pytest.approx(np.exp(2) / (np.exp(2) + np.exp(1) + 2))


def test_clip_that_was_left_out_is_in_no_count_but_among_the_predictions(tmp_path: Path) -> None:
    write(tmp_path, skip_broken=True)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["num_skipped"] == 1
    assert read_csv(tmp_path / "confusion.csv")[1] == ["jump, high", "1", "0", "0", "0", "0"]
    assert (tmp_path / "predictions.jsonl").read_text(encoding="utf-8").count("\n") == 4


def test_second_report_takes_the_place_of_the_first(tmp_path: Path) -> None:
    write(tmp_path, skip_broken=True)
    write(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["num_clips"] == 4
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == sorted(FILES)


def test_report_waits_for_another_that_is_being_written_there(tmp_path: Path) -> None:
    write(tmp_path)
    before = (tmp_path / "report.json").stat().st_mtime_ns
    with ThreadPoolExecutor(1) as pool:
        with holding(tmp_path, wait=True):
            second = pool.submit(write, tmp_path)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.5)
            assert (tmp_path / "report.json").stat().st_mtime_ns == before
        second.result(timeout=30)
    assert (tmp_path / "report.json").stat().st_mtime_ns > before


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match=r"other files than a report: thesis\.tex"):
        write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(UsageError, match="it is a file"):
        check_out_dir(tmp_path / "thesis.tex")


@pytest.mark.parametrize(
    ("error", "told"),
    [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left on device"), ReportError)],
)
def test_interruption_leaves_no_report_and_nothing_half_written(
    tmp_path: Path, error: BaseException, told: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)

    def fail(*_: object, path: Path, **__: object) -> None:
        path.write_bytes(b"half a picture")
        raise error

    monkeypatch.setattr(reports, "plot_confusion", fail)
    with pytest.raises(told):
        write(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == [
        "confusion.csv",
        "per_class.csv",
        "predictions.jsonl",
    ]


def test_place_that_cannot_be_written_is_refused_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for out in (tmp_path / "file" / "a" / "b", Path("/proc/report")):
        with pytest.raises(ReportError, match=f"can't write a report into {out}: ") as caught:
            check_out_dir(out)
        assert caught.value.hint is not None
        assert caught.value.hint.startswith("--out DIR")
    check_out_dir(tmp_path / "new" / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_matplotlib_there_is_no_picture_and_no_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path)
    monkeypatch.setattr(reports, "has_matplotlib", lambda: False)
    write(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == sorted(set(FILES) - {"confusion.png"})


@pytest.mark.parametrize("num_classes", [1, 3, 30, 60, 130])
def test_confusion_is_drawn_for_any_number_of_classes(num_classes: int, tmp_path: Path) -> None:
    counts = np.random.default_rng(0).integers(0, 5, (num_classes, num_classes + 1))
    labels = [f"class {i} {'x' * i}" for i in range(num_classes)]
    plot_confusion(counts, labels, path=tmp_path / "c.png", title="50% $ of")
    with Image.open(tmp_path / "c.png") as image:
        colours = np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)
        assert min(image.size) > 300
        assert max(image.size) < 4000
        assert len(colours) > 50
