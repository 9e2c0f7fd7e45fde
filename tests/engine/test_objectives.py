"""What the objectives minimise, and which networks their gradients reach."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle import nn

from ppvcli.engine.losses import Targets, imitation_loss, mutual_loss, target_loss
from ppvcli.engine.objectives import Distillation, MutualLearning, Supervised
from ppvcli.specs import Crop, Preprocess, Resize, Sampling
from ppvcli.video.transforms import normalize

SAMPLING = Sampling(mode="uniform", num_segments=4)
STUDENT = Preprocess(sampling=SAMPLING, resize=Resize(short_side=32), crop=Crop(kind="center", size=24))
TEACHER = Preprocess(
    sampling=SAMPLING,
    resize=Resize(size_hw=(16, 20)),
    crop=Crop(kind="none"),
    mean=(127 / 255,) * 3,
    std=(128 / 255,) * 3,
)
TARGETS = Targets(labels=np.array([1, 0]))


class Linear(nn.Layer):
    """Clips to logits; remembers what it was shown."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        paddle.seed(seed)
        self.fc = nn.Linear(3, 2)
        self.seen: paddle.Tensor | None = None

    def forward(self, clips_ntchw: paddle.Tensor) -> paddle.Tensor:
        self.seen = clips_ntchw
        return self.fc(clips_ntchw.mean(axis=[1, 3, 4]))


def frames(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 256, (2, 4, height, width, 3), dtype=np.uint8)


def distillation(teacher: nn.Layer, teacher_preprocess: Preprocess, *, weight: float = 0.3) -> Distillation:
    return Distillation(
        teacher,
        student_preprocess=STUDENT,
        teacher_preprocess=teacher_preprocess,
        weight=weight,
        temperature=2.0,
        label_smoothing=0.1,
    )


def test_supervised_loss_is_that_of_the_targets() -> None:
    network = Linear(1)
    clips = paddle.to_tensor(normalize(frames(24, 24), STUDENT))
    loss, logits = Supervised(label_smoothing=0.1)(network, clips, TARGETS)
    assert loss.item() == target_loss(logits, TARGETS, label_smoothing=0.1).item()


def test_mutual_learning_reaches_both_networks_and_counts_the_student() -> None:
    student, teacher = Linear(1), Linear(2)
    pair = SimpleNamespace(forward_both=lambda clips: (student(clips), teacher(clips)))
    clips = paddle.to_tensor(normalize(frames(24, 24), STUDENT))
    mixed = Targets(labels=np.array([1, 0]), other_labels=np.array([0, 1]), share=0.25)
    loss, logits = MutualLearning(label_smoothing=0.0)(pair, clips, mixed)  # type: ignore[arg-type]
    parts = [target_loss(network(clips), mixed).item() for network in (student, teacher)]
    assert loss.item() == pytest.approx(sum(parts) + mutual_loss(student(clips), teacher(clips)).item(), rel=1e-6)
    np.testing.assert_array_equal(logits.numpy(), student(clips).numpy())
    loss.backward()
    assert all(np.abs(network.fc.weight.grad.numpy()).max() > 0 for network in (student, teacher))


def test_distillation_is_the_documented_sum_and_leaves_the_teacher_alone() -> None:
    student, teacher = Linear(1), Linear(2)
    clips = paddle.to_tensor(normalize(frames(24, 24), STUDENT))
    loss, logits = distillation(teacher, STUDENT)(student, clips, TARGETS)
    expected = 0.7 * target_loss(student(clips), TARGETS, label_smoothing=0.1) + 0.3 * imitation_loss(
        student(clips), teacher(clips), temperature=2.0
    )
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    np.testing.assert_array_equal(logits.numpy(), student(clips).numpy())
    loss.backward()
    assert teacher.fc.weight.grad is None
    assert np.abs(student.fc.weight.grad.numpy()).max() > 0


def test_teacher_sees_what_its_own_normalisation_would_have_made() -> None:
    teacher = Linear(2)
    pixels = frames(16, 20)
    own = Preprocess(sampling=SAMPLING, resize=Resize(size_hw=(16, 20)), crop=Crop(kind="none"))
    objective = Distillation(
        teacher, student_preprocess=own, teacher_preprocess=TEACHER, weight=0.5, temperature=1.0, label_smoothing=0.0
    )
    objective(Linear(1), paddle.to_tensor(normalize(pixels, own)), TARGETS)
    assert teacher.seen is not None
    np.testing.assert_allclose(teacher.seen.numpy(), normalize(pixels, TEACHER), atol=2e-6)


def test_teacher_sees_frames_of_its_own_size() -> None:
    teacher = Linear(2)
    pixels = frames(24, 24)
    distillation(teacher, TEACHER)(Linear(1), paddle.to_tensor(normalize(pixels, STUDENT)), TARGETS)
    assert teacher.seen is not None
    assert teacher.seen.shape == [2, 4, 3, 16, 20]
    direct = paddle.to_tensor(normalize(pixels, TEACHER)).flatten(0, 1)
    scaled = F.interpolate(direct, size=[16, 20], mode="bilinear").reshape([2, 4, 3, 16, 20])
    np.testing.assert_allclose(teacher.seen.numpy(), scaled.numpy(), atol=1e-5)


def test_teacher_alone_or_labels_alone_are_the_ends_of_the_weight() -> None:
    student, teacher = Linear(1), Linear(2)
    clips = paddle.to_tensor(normalize(frames(24, 24), STUDENT))
    labels_only, _ = distillation(teacher, STUDENT, weight=0.0)(student, clips, TARGETS)
    teacher_only, _ = distillation(teacher, STUDENT, weight=1.0)(student, clips, TARGETS)
    assert labels_only.item() == pytest.approx(target_loss(student(clips), TARGETS, label_smoothing=0.1).item())
    assert teacher_only.item() == pytest.approx(
        imitation_loss(student(clips), teacher(clips), temperature=2.0).item(), rel=1e-6
    )
