"""Losses against the reference's numbers, and against formulas written in NumPy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import paddle
import pytest

from ppvcli.engine.losses import Targets, cross_entropy, imitation_loss, mutual_loss, target_loss


@pytest.fixture
def golden(goldens_dir: Path) -> dict[str, np.ndarray]:
    with np.load(goldens_dir / "engine" / "losses.golden.npz") as file:
        return {name: file[name] for name in file.files}


def tensors(golden: dict[str, np.ndarray]) -> tuple[paddle.Tensor, paddle.Tensor]:
    return paddle.to_tensor(golden["scores_student"]), paddle.to_tensor(golden["scores_teacher"])


def mixed(golden: dict[str, np.ndarray]) -> Targets:
    return Targets(labels=golden["label_a"][:, 0], other_labels=golden["label_b"][:, 0], share=float(golden["lam"][0]))


def softmax(logits: np.ndarray) -> np.ndarray:
    wide = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return wide / wide.sum(axis=1, keepdims=True)


def test_cross_entropy_equals_the_reference(golden: dict[str, np.ndarray]) -> None:
    student, _ = tensors(golden)
    labels = paddle.to_tensor(golden["label_a"][:, 0])
    np.testing.assert_allclose(cross_entropy(student, labels).item(), golden["ce"], rtol=1e-6)
    np.testing.assert_allclose(
        cross_entropy(student, labels, label_smoothing=0.1).item(), golden["ls01_loss"], rtol=1e-6
    )


def test_mixup_loss_and_accuracy_equal_the_reference(golden: dict[str, np.ndarray]) -> None:
    student, _ = tensors(golden)
    targets = mixed(golden)
    np.testing.assert_allclose(
        target_loss(student, targets, label_smoothing=0.1).item(), golden["ls01_mixup_loss"], rtol=1e-6
    )
    both = target_loss(student, targets)
    np.testing.assert_allclose(both.item(), golden["distill_ce_mixup"], rtol=1e-6)
    np.testing.assert_allclose(targets.accuracy(golden["scores_student"]), golden["mixup_top1"], atol=1e-7)
    np.testing.assert_allclose(targets.accuracy(golden["scores_student"], k=5), golden["mixup_top5"], atol=1e-7)


def test_mutual_loss_equals_the_reference_and_reaches_both(golden: dict[str, np.ndarray]) -> None:
    student, teacher = tensors(golden)
    for logits in (student, teacher):
        logits.stop_gradient = False
    loss = mutual_loss(student, teacher)
    np.testing.assert_allclose(loss.item(), golden["dml"], rtol=1e-5)
    loss.backward()
    # of sum (p - q) (log p - log q) / 2 by the logits of p, with p the student's scores
    p, q = softmax(golden["scores_student"]), softmax(golden["scores_teacher"])
    for own, other, logits in ((p, q, student), (q, p, teacher)):
        outer = 0.5 * (np.log(own / other) + 1 - other / own)
        expected = own * (outer - (own * outer).sum(axis=1, keepdims=True)) / len(own)
        np.testing.assert_allclose(logits.grad.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_imitation_loss_equals_the_formula(temperature: float, golden: dict[str, np.ndarray]) -> None:
    student, teacher = tensors(golden)
    student.stop_gradient = False
    loss = imitation_loss(student, teacher, temperature=temperature)
    p, q = (softmax(golden[f"scores_{name}"] / temperature) for name in ("student", "teacher"))
    np.testing.assert_allclose(loss.item(), temperature**2 * (q * np.log(q / p)).sum(axis=1).mean(), rtol=1e-5)
    loss.backward()
    np.testing.assert_allclose(student.grad.numpy(), temperature * (p - q) / len(p), atol=1e-6)


def test_imitation_of_the_same_scores_costs_nothing(golden: dict[str, np.ndarray]) -> None:
    student, _ = tensors(golden)
    assert imitation_loss(student, student, temperature=2.0).item() == pytest.approx(0.0, abs=1e-7)


def test_half_precision_logits_are_widened(golden: dict[str, np.ndarray]) -> None:
    student, teacher = (logits.astype("float16") for logits in tensors(golden))
    loss = mutual_loss(student, teacher)
    assert loss.dtype == paddle.float32
    assert np.isfinite(loss.item())
    labels = paddle.to_tensor(golden["label_a"][:, 0])
    np.testing.assert_allclose(
        cross_entropy(student, labels, label_smoothing=0.1).item(), golden["ls01_loss"], rtol=1e-3
    )


def test_accuracy_counts_the_best_k() -> None:
    logits = np.array([[0.1, 0.9, 0.5], [0.8, 0.1, 0.4]], np.float32)
    targets = Targets(labels=np.array([2, 0]))
    assert [targets.accuracy(logits, k=k) for k in (1, 2, 5)] == [0.5, 1.0, 1.0]
