"""Counts of an evaluation, from class indices alone; every ratio follows from them (`results.ClassResult`)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ppvcli.results import ClassResult

NOT_DECODED = -1
"""The predicted class of a clip without an answer."""


def confusion_matrix(
    labels_n: npt.NDArray[np.int64], predicted_n: npt.NDArray[np.int64], *, num_classes: int
) -> npt.NDArray[np.int64]:
    """Clips of each class by what they were taken for: int64 [K, K + 1], the last column without an answer.

    Rows sum to the clips of a class. `predicted_n` is a class index or NOT_DECODED.
    """
    columns = np.where(predicted_n == NOT_DECODED, num_classes, predicted_n)
    flat = np.bincount(labels_n * (num_classes + 1) + columns, minlength=num_classes * (num_classes + 1))
    return flat.reshape(num_classes, num_classes + 1).astype(np.int64)


def class_results(confusion: npt.NDArray[np.int64], labels: Sequence[str]) -> tuple[ClassResult, ...]:
    """The counts of each class of a `confusion_matrix`, in its order."""
    num_classes = len(confusion)
    num_clips, num_predicted = confusion.sum(axis=1), confusion[:, :num_classes].sum(axis=0)
    return tuple(
        ClassResult(
            label=labels[i],
            num_clips=int(num_clips[i]),
            num_correct=int(confusion[i, i]),
            num_predicted=int(num_predicted[i]),
        )
        for i in range(num_classes)
    )


def best_classes(logits_k: npt.NDArray[np.float32], *, k: int) -> list[int]:
    """The min(k, K) classes with the highest logits, best first; of equal ones the first in order."""
    return np.argsort(-logits_k, kind="stable")[:k].tolist()


def log_scores(logits_k: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The logarithm of the softmax, without overflow: float32 [K]."""
    shifted = logits_k - logits_k.max()
    return shifted - np.log(np.exp(shifted).sum())
