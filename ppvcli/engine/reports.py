"""A folder with everything an evaluation found: for people, for tables and for programs."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ppvcli.datasets.annotations import Sample
from ppvcli.engine import metrics
from ppvcli.engine.confusion_plot import has_matplotlib, plot_confusion
from ppvcli.engine.evaluator import TOP_K, ClipRow, order_rows, predicted_class
from ppvcli.errors import ReportError, UsageError
from ppvcli.files import LOCK_NAME, check_writable, holding, replacing, write_text
from ppvcli.results import EvalReport

REPORT_FILE = "report.json"
"""Written last: a folder that has it is complete."""
CLASSES_FILE = "per_class.csv"
PREDICTIONS_FILE = "predictions.jsonl"
CONFUSION_FILE = "confusion.csv"
PLOT_FILE = "confusion.png"
FILES = (REPORT_FILE, CLASSES_FILE, PREDICTIONS_FILE, CONFUSION_FILE, PLOT_FILE)

NOT_DECODED_COLUMN = "(not decoded)"
CLASS_COLUMNS = ("label", "index", "num_clips", "num_correct", "num_predicted", "precision", "recall", "f1")


def check_out_dir(out_dir: Path) -> None:
    """Passes if a report may be written there: nothing is there yet, or a report and nothing else.

    Raises: UsageError; ReportError where the system does not let us write.
    """
    with _reported(out_dir):
        if out_dir.is_file():
            raise UsageError(f"can't write a report into {out_dir}: it is a file", hint="--out DIR")
        names = [path.name for path in out_dir.iterdir()] if out_dir.exists() else []
        check_writable(out_dir)
    foreign = sorted(name for name in names if name not in (*FILES, LOCK_NAME) and name[:5] != ".tmp-")
    if foreign:
        shown = ", ".join(foreign[:3]) + (", ..." if len(foreign) > 3 else "")
        raise UsageError(f"{out_dir} holds other files than a report: {shown}", hint="choose another --out DIR")


def write_report(
    out_dir: Path, report: EvalReport, *, samples: Sequence[Sample], rows: Sequence[ClipRow], labels: Sequence[str]
) -> None:
    """Writes FILES into `out_dir`, in place of an earlier report; without matplotlib there is no picture.

    Each file is complete or not there, and REPORT_FILE is there only once all are. Of several processes that write
    there, one waits for the other, and the last report stays.

    Raises: UsageError, as `check_out_dir`; ReportError.
    """
    check_out_dir(out_dir)
    with _reported(out_dir), holding(out_dir, wait=True):
        _write_files(out_dir, report, samples=samples, rows=rows, labels=labels)


def _write_files(
    out_dir: Path, report: EvalReport, *, samples: Sequence[Sample], rows: Sequence[ClipRow], labels: Sequence[str]
) -> None:
    for name in (REPORT_FILE, PLOT_FILE):
        (out_dir / name).unlink(missing_ok=True)
    answers = order_rows(samples, rows)
    confusion = _confusion(samples, answers, report=report, num_classes=len(labels))
    write_text(out_dir / CLASSES_FILE, _class_table(report))
    write_text(out_dir / CONFUSION_FILE, _confusion_table(confusion, labels))
    lines = (json.dumps(line) + "\n" for line in _predictions(samples, answers, labels))
    with replacing(out_dir / PREDICTIONS_FILE) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    if has_matplotlib():
        title = f"{report.model}: top-1 {report.top1:.1%} of {report.num_clips} clips"
        with replacing(out_dir / PLOT_FILE) as temporary:
            plot_confusion(confusion, labels, path=temporary, title=title)
    write_text(out_dir / REPORT_FILE, json.dumps(report.to_dict(), indent=2) + "\n")


@contextlib.contextmanager
def _reported(out_dir: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ReportError(
            f"can't write a report into {out_dir}: {error.strerror or error}",
            hint="--out DIR, a folder that may be written and has some space",
        ) from error


def _confusion(
    samples: Sequence[Sample], answers: Sequence[ClipRow], *, report: EvalReport, num_classes: int
) -> npt.NDArray[np.int64]:
    counted = [i for i, row in enumerate(answers) if row.logits_k is not None or not report.num_skipped]
    return metrics.confusion_matrix(
        np.array([samples[i].label for i in counted], np.int64),
        np.array([predicted_class(answers[i]) for i in counted], np.int64),
        num_classes=num_classes,
    )


def _class_table(report: EvalReport) -> str:
    rows = []
    for index, result in enumerate(report.classes):
        values = {"index": index, **result.to_dict()}
        rows.append(["" if values[column] is None else values[column] for column in CLASS_COLUMNS])
    return _csv([CLASS_COLUMNS, *rows])


def _confusion_table(confusion: npt.NDArray[np.int64], labels: Sequence[str]) -> str:
    rows = [[label, *counts] for label, counts in zip(labels, confusion.tolist(), strict=True)]
    return _csv([["true \\ predicted", *labels, NOT_DECODED_COLUMN], *rows])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _predictions(
    samples: Sequence[Sample], answers: Sequence[ClipRow], labels: Sequence[str]
) -> Iterator[dict[str, Any]]:
    for sample, row in zip(samples, answers, strict=True):
        line: dict[str, Any] = {"path": str(sample.path), "label": labels[sample.label], "index": sample.label}
        if row.logits_k is None:
            yield {**line, "correct": False, "error": row.error}
            continue
        scores = np.exp(metrics.log_scores(row.logits_k))
        best = metrics.best_classes(row.logits_k, k=TOP_K)
        top = [{"label": labels[i], "index": i, "score": float(scores[i])} for i in best]
        damage = {} if row.damage is None else {"damage": row.damage}
        yield {**line, "predicted": labels[best[0]], "correct": best[0] == sample.label, "top": top, **damage}
