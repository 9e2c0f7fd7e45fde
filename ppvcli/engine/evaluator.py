"""Accuracy of a network on labelled clips, each exactly once.

Two steps, so that the clips may be spread over processes: `evaluate_logits` gives a row for each clip of its share,
`build_report` counts the rows of all shares.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import paddle

from ppvcli.datasets.annotations import Sample, faults_error
from ppvcli.datasets.loader import ClipLoader
from ppvcli.engine import metrics
from ppvcli.errors import DatasetError
from ppvcli.models.views import batch_logits
from ppvcli.results import EvalReport
from ppvcli.specs import Preprocess
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits

TOP_K = 5


@dataclass(frozen=True, kw_only=True)
class ClipRow:
    """What a network says about one clip, or why it says nothing."""

    index: int
    """Of the sample in its data set."""
    logits_k: npt.NDArray[np.float32] | None = None
    """Mean over the clip's views: float32 [K]; None where there is an `error`."""
    error: str | None = None
    hint: str | None = None
    """What to try about the error."""
    damage: str | None = None
    """What decoding complained of, and how many frames it gave, of which the logits are."""


def evaluate_logits(
    network: paddle.nn.Layer,
    samples: Sequence[Sample],
    preprocess: Preprocess,
    *,
    indices: Sequence[int] | None = None,
    batch_size: int = 1,
    num_workers: int = 1,
    limits: DecodeLimits = DEFAULT_LIMITS,
    on_clip: Callable[[], None] | None = None,
) -> tuple[ClipRow, ...]:
    """A row for each sample, or for those at `indices`, in that order, of a network in eval mode.

    `batch_size` clips are loaded together. At least FRAMES_AT_ONCE frames pass through the network together, and as
    many views as there are clips in a batch.
    """
    chosen = range(len(samples)) if indices is None else indices
    clips = [samples[index] for index in chosen]
    loader = ClipLoader(clips, preprocess, batch_size=batch_size, num_workers=num_workers, limits=limits)
    rows: list[ClipRow] = []
    for batch in loader.epoch():
        found = {
            failure.index: ClipRow(index=chosen[failure.index], error=failure.error, hint=failure.hint)
            for failure in batch.failures
        }
        if len(batch.indices):
            logits_nk = batch_logits(network, batch.frames_nvthwc, preprocess=preprocess)
            found |= {
                place: _row(chosen[place], logits_nk[i], damage=batch.damage.get(place))
                for i, place in enumerate(batch.indices.tolist())
            }
        for place in sorted(found):
            rows.append(found[place])
            if on_clip is not None:
                on_clip()
    return tuple(rows)


def build_report(
    samples: Sequence[Sample],
    rows: Iterable[ClipRow],
    *,
    labels: Sequence[str],
    model: str,
    skip_broken: bool = False,
) -> EvalReport:
    """Counts the rows of all samples, in any order.

    Clips with an error count as wrong, or with `skip_broken` not at all; they are listed either way. Then one must be
    left to count.
    """
    answers = order_rows(samples, rows)
    broken = [i for i, row in enumerate(answers) if row.logits_k is None]
    skipped = set(broken) if skip_broken else set()
    counted = [i for i in range(len(samples)) if i not in skipped]
    failures = tuple((str(samples[i].path), answers[i].error or "") for i in broken)
    assert counted, "check_answered() has refused these clips"
    true_n = np.array([samples[i].label for i in counted], np.int64)
    predicted_n = np.array([predicted_class(answers[i]) for i in counted], np.int64)
    num_correct_top5, losses = 0, []
    for i in counted:
        logits = answers[i].logits_k
        if logits is not None:
            num_correct_top5 += samples[i].label in metrics.best_classes(logits, k=TOP_K)
            losses.append(-float(metrics.log_scores(logits)[samples[i].label]))
    return EvalReport(
        model=model,
        num_clips=len(counted),
        num_correct=int((true_n == predicted_n).sum()),
        num_correct_top5=num_correct_top5,
        loss=float(np.mean(losses)) if losses else float("nan"),
        classes=metrics.class_results(metrics.confusion_matrix(true_n, predicted_n, num_classes=len(labels)), labels),
        num_skipped=len(skipped),
        failures=failures,
        damaged=tuple((str(samples[i].path), damage) for i in counted if (damage := answers[i].damage) is not None),
        wrong=tuple(
            (str(samples[i].path), labels[true], labels[predicted])
            for i, true, predicted in zip(counted, true_n, predicted_n, strict=True)
            if predicted not in (true, metrics.NOT_DECODED)
        ),
    )


def order_rows(samples: Sequence[Sample], rows: Iterable[ClipRow]) -> tuple[ClipRow, ...]:
    """The row of each sample, in their order."""
    ordered = tuple(sorted(rows, key=lambda row: row.index))
    assert [row.index for row in ordered] == list(range(len(samples))), "every sample has one row"
    return ordered


def check_answered(samples: Sequence[Sample], rows: Iterable[ClipRow]) -> None:
    """Passes where one clip at least has an answer.

    Raises: DatasetError, which says why each has none, with its path once; the hint is the one for most of them.
    """
    answers = order_rows(samples, rows)
    if any(row.logits_k is not None for row in answers):
        return
    faults = []
    for sample, row in zip(samples, answers, strict=True):
        path, error = str(sample.path), str(row.error)
        faults.append(error if path in error else f"{path}: {error}")
    hint = statistics.mode(row.hint for row in answers)
    raise DatasetError(f"0 of {len(answers)} clips could be evaluated:\n{faults_error(faults).message}", hint=hint)


def predicted_class(row: ClipRow) -> int:
    """The best class of a row, or NOT_DECODED."""
    return metrics.NOT_DECODED if row.logits_k is None else metrics.best_classes(row.logits_k, k=1)[0]


def _row(index: int, logits_k: npt.NDArray[np.float32], *, damage: str | None) -> ClipRow:
    if not np.isfinite(logits_k).all():  # sorting would make a class of it
        return ClipRow(index=index, error="the network's answer is not a number: it diverged in training, or overflows")
    return ClipRow(index=index, logits_k=logits_k, damage=damage)
