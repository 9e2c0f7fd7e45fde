"""Training losses: cross entropy with soft targets, and what one network can learn from another.

All take logits [N, K]. Half-precision ones are widened first, and mixed precision is off inside: the sums over classes
and the small terms need float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import TypeVar

import numpy as np
import paddle
import paddle.nn.functional as F

_Loss = TypeVar("_Loss", bound=Callable[..., paddle.Tensor])

MUTUAL_EPSILON = 1e-12
"""Added to both scores in the logarithms of mutual learning, as the reference does."""


@dataclass(frozen=True, kw_only=True)
class Targets:
    """The classes of a batch, or of a batch that Mixup made of pairs."""

    labels: np.ndarray
    """int64 [N]."""
    other_labels: np.ndarray | None = None
    """int64 [N], of the clips that were mixed in."""
    share: float = 1.0
    """Of `labels`; `other_labels` have the rest."""

    def accuracy(self, logits_nk: np.ndarray, *, k: int = 1) -> float:
        """Share in 0..1 of clips with their class among the `k` best; mixed as the clips are."""
        best = np.argsort(-logits_nk, axis=1, kind="stable")[:, :k]
        hits = float((best == self.labels[:, np.newaxis]).any(axis=1).mean())
        if self.other_labels is None:
            return hits
        others = float((best == self.other_labels[:, np.newaxis]).any(axis=1).mean())
        return self.share * hits + (1.0 - self.share) * others


def _full_precision(loss: _Loss) -> _Loss:
    @wraps(loss)
    def run(*args: object, **options: object) -> paddle.Tensor:
        wide = [
            arg.astype("float32") if isinstance(arg, paddle.Tensor) and arg.dtype == paddle.float16 else arg
            for arg in args
        ]
        with paddle.amp.auto_cast(enable=False):
            return loss(*wide, **options)

    return run  # type: ignore[return-value]


@_full_precision
def cross_entropy(logits_nk: paddle.Tensor, labels_n: paddle.Tensor, *, label_smoothing: float = 0.0) -> paddle.Tensor:
    """Mean over the batch of the cross entropy against (1 - eps) * onehot + eps / K; a scalar.

    Labels int64 [N]. Source: the reference's BaseHead (golden `losses_ops`).
    """
    if label_smoothing == 0.0:
        return F.cross_entropy(logits_nk, labels_n)
    num_classes = logits_nk.shape[1]
    onehot = F.one_hot(labels_n, num_classes).astype(logits_nk.dtype)
    return F.cross_entropy(logits_nk, onehot * (1.0 - label_smoothing) + label_smoothing / num_classes, soft_label=True)


def target_loss(logits_nk: paddle.Tensor, targets: Targets, *, label_smoothing: float = 0.0) -> paddle.Tensor:
    """`cross_entropy` against the labels, or the mean of two of them, weighted as the clips were mixed; a scalar."""
    loss = cross_entropy(logits_nk, paddle.to_tensor(targets.labels), label_smoothing=label_smoothing)
    if targets.other_labels is None:
        return loss
    other = cross_entropy(logits_nk, paddle.to_tensor(targets.other_labels), label_smoothing=label_smoothing)
    return targets.share * loss + (1.0 - targets.share) * other


@_full_precision
def mutual_loss(logits_nk: paddle.Tensor, other_logits_nk: paddle.Tensor) -> paddle.Tensor:
    """Mean over the batch of (KL(p || q) + KL(q || p)) / 2 of two networks' scores, gradients into both; a scalar.

    Source: Zhang et al. 2018, "Deep Mutual Learning", in the reference's form (golden `losses_ops`).
    """
    p, q = F.softmax(logits_nk), F.softmax(other_logits_nk)
    log_ratio = paddle.log((p + MUTUAL_EPSILON) / (q + MUTUAL_EPSILON))
    return 0.5 * ((p - q) * log_ratio).sum(axis=1).mean()


@_full_precision
def imitation_loss(
    student_logits_nk: paddle.Tensor, teacher_logits_nk: paddle.Tensor, *, temperature: float
) -> paddle.Tensor:
    """temperature^2 * KL(teacher || student), both softened by the temperature, mean over the batch; a scalar.

    The factor keeps the size of the gradients the same for every temperature. Source: Hinton et al. 2015.
    """
    teacher = F.softmax(teacher_logits_nk / temperature)
    log_student = F.log_softmax(student_logits_nk / temperature)
    log_teacher = F.log_softmax(teacher_logits_nk / temperature)
    return temperature**2 * (teacher * (log_teacher - log_student)).sum(axis=1).mean()
