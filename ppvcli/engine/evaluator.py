"""Accuracy of a network on labelled clips, each exactly once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import paddle

from ppvcli.datasets.annotations import Sample
from ppvcli.datasets.loader import ClipLoader
from ppvcli.models.views import clip_logits
from ppvcli.results import ClassResult, EvalReport
from ppvcli.specs import Preprocess
from ppvcli.video.limits import DEFAULT_LIMITS, DecodeLimits


def evaluate_network(
    network: paddle.nn.Layer,
    samples: Sequence[Sample],
    preprocess: Preprocess,
    *,
    labels: Sequence[str],
    model: str,
    num_workers: int = 1,
    limits: DecodeLimits = DEFAULT_LIMITS,
    on_clip: Callable[[], None] | None = None,
) -> EvalReport:
    """The report of a network in eval mode over `samples`; `on_clip` is called after each of them.

    A clip that can't be decoded counts as wrong and is listed; it is never replaced by another one.
    """
    loader = ClipLoader(samples, preprocess, batch_size=1, num_workers=num_workers, limits=limits)
    logits: list[np.ndarray | None] = []
    failures: list[tuple[str, str]] = []
    for batch in loader.epoch():
        if batch.failures:
            logits.append(None)
            failures.append((batch.failures[0].path, batch.failures[0].error))
        else:
            logits.append(clip_logits(network, batch.frames_nvthwc[0], preprocess=preprocess))
        if on_clip is not None:
            on_clip()
    return _report(samples, logits, labels=labels, model=model, failures=failures)


def _report(
    samples: Sequence[Sample],
    logits: Sequence[np.ndarray | None],
    *,
    labels: Sequence[str],
    model: str,
    failures: Sequence[tuple[str, str]],
) -> EvalReport:
    num_clips, num_correct = np.zeros(len(labels), int), np.zeros(len(labels), int)
    num_correct_top5, losses, wrong = 0, [], []
    for sample, row in zip(samples, logits, strict=True):
        num_clips[sample.label] += 1
        if row is None:
            continue
        ranking = np.argsort(-row, kind="stable")
        num_correct_top5 += int(sample.label in ranking[:5])
        log_scores = row - row.max() - np.log(np.exp(row - row.max()).sum())
        losses.append(-float(log_scores[sample.label]))
        if ranking[0] == sample.label:
            num_correct[sample.label] += 1
        else:
            wrong.append((str(sample.path), labels[sample.label], labels[ranking[0]]))
    return EvalReport(
        model=model,
        num_clips=len(samples),
        num_correct=int(num_correct.sum()),
        num_correct_top5=num_correct_top5,
        loss=float(np.mean(losses)) if losses else float("nan"),
        classes=tuple(
            ClassResult(label=labels[i], num_clips=int(num_clips[i]), num_correct=int(num_correct[i]))
            for i in range(len(labels))
        ),
        failures=tuple(failures),
        wrong=tuple(wrong),
    )
