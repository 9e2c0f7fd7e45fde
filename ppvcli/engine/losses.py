"""Training losses."""

from __future__ import annotations

import paddle
import paddle.nn.functional as F


def cross_entropy(logits_nk: paddle.Tensor, labels_n: paddle.Tensor, *, label_smoothing: float = 0.0) -> paddle.Tensor:
    """Mean over the batch of the cross entropy against (1 - eps) * onehot + eps / K; a scalar.

    logits float32 [N, K], labels int64 [N]. Source: the reference's BaseHead (golden `losses_ops`).
    """
    if label_smoothing == 0.0:
        return F.cross_entropy(logits_nk, labels_n)
    num_classes = logits_nk.shape[1]
    target = F.one_hot(labels_n, num_classes) * (1.0 - label_smoothing) + label_smoothing / num_classes
    return F.cross_entropy(logits_nk, target, soft_label=True)
