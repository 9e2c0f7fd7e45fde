"""Counts and ratios against a table made by hand, and against brute force over random answers."""

from __future__ import annotations

import numpy as np
import pytest

from ppvcli.engine.metrics import NOT_DECODED, best_classes, class_results, confusion_matrix, log_scores

LABELS = ("a", "b", "c", "d")
TRUE = np.array([0, 0, 0, 1, 1, 1, 1, 3])
TAKEN = np.array([0, 0, 1, 1, 2, NOT_DECODED, 1, NOT_DECODED])


def test_confusion_matrix_of_eight_clips_is_the_one_made_by_hand() -> None:
    expected = [
        [2, 1, 0, 0, 0],
        [0, 2, 1, 0, 1],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1],
    ]
    assert confusion_matrix(TRUE, TAKEN, num_classes=4).tolist() == expected


def test_class_results_of_eight_clips_are_those_made_by_hand() -> None:
    results = class_results(confusion_matrix(TRUE, TAKEN, num_classes=4), LABELS)
    assert [(r.label, r.num_clips, r.num_correct, r.num_predicted) for r in results] == [
        ("a", 3, 2, 2),
        ("b", 4, 2, 3),
        ("c", 0, 0, 1),
        ("d", 1, 0, 0),
    ]
    assert [r.recall for r in results] == [2 / 3, 0.5, None, 0.0]
    assert [r.precision for r in results] == [1.0, 2 / 3, 0.0, None]
    assert [r.f1 for r in results] == [pytest.approx(0.8), pytest.approx(4 / 7), 0.0, 0.0]


def test_class_that_is_neither_true_nor_predicted_has_no_ratios() -> None:
    unused = class_results(confusion_matrix(np.array([0]), np.array([0]), num_classes=2), ("a", "b"))[1]
    assert (unused.recall, unused.precision, unused.f1) == (None, None, None)
    assert unused.to_dict()["f1"] is None


@pytest.mark.parametrize("num_classes", [1, 2, 3, 7, 40])
def test_random_answers_count_as_brute_force_counts_them(num_classes: int) -> None:
    rng = np.random.default_rng(num_classes)
    true, taken = rng.integers(0, num_classes, 200), rng.integers(-1, num_classes, 200)
    confusion = confusion_matrix(true, taken, num_classes=num_classes)
    for i in range(num_classes):
        for j in range(num_classes):
            assert confusion[i, j] == sum(t == i and p == j for t, p in zip(true, taken, strict=True))
        assert confusion[i, num_classes] == sum(t == i and p == -1 for t, p in zip(true, taken, strict=True))
    for i, result in enumerate(class_results(confusion, [str(i) for i in range(num_classes)])):
        hits = np.sum((true == i) & (taken == i))
        recall, precision = hits / max(1, np.sum(true == i)), hits / max(1, np.sum(taken == i))
        assert result.recall == pytest.approx(recall) or not result.num_clips
        assert result.precision == pytest.approx(precision) or not result.num_predicted
        if recall and precision:
            assert result.f1 == pytest.approx(2 * recall * precision / (recall + precision))


@pytest.mark.parametrize(
    ("logits", "k", "expected"),
    [([0.0, 3.0, 1.0], 5, [1, 2, 0]), ([1.0, 1.0, 2.0], 2, [2, 0]), ([4.0], 5, [0])],
)
def test_best_classes_are_clamped_and_ties_keep_their_order(logits: list[float], k: int, expected: list[int]) -> None:
    assert best_classes(np.array(logits, np.float32), k=k) == expected


def test_log_scores_of_huge_logits_do_not_overflow() -> None:
    scores = np.exp(log_scores(np.array([1e4, 1e4, -1e4], np.float32)))
    assert scores.tolist() == pytest.approx([0.5, 0.5, 0.0])
