"""What a training step minimises: labels alone, two networks that teach each other, or a frozen teacher beside labels.

An objective takes clips and targets to a loss and the logits that accuracy is counted from.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle
import paddle.nn.functional as F

from ppvcli.engine.losses import Targets, imitation_loss, mutual_loss, target_loss
from ppvcli.specs import Preprocess

Objective = Callable[[paddle.nn.Layer, paddle.Tensor, Targets], tuple[paddle.Tensor, paddle.Tensor]]
"""(network in train mode, clips float32 [N, T, 3, H, W], targets) -> (loss, logits [N, K])."""


class Supervised:
    """Cross entropy against the labels."""

    def __init__(self, *, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(
        self, network: paddle.nn.Layer, clips_ntchw: paddle.Tensor, targets: Targets
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        logits_nk = network(clips_ntchw)
        return target_loss(logits_nk, targets, label_smoothing=self.label_smoothing), logits_nk


class MutualLearning:
    """CE(student) + CE(teacher) + mutual loss of a `DistilledPair`; both learn. The logits are the student's."""

    def __init__(self, *, label_smoothing: float) -> None:
        self.label_smoothing = label_smoothing

    def __call__(
        self, network: paddle.nn.Layer, clips_ntchw: paddle.Tensor, targets: Targets
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        student_nk, teacher_nk = network.forward_both(clips_ntchw)
        loss = mutual_loss(student_nk, teacher_nk)
        for logits_nk in (student_nk, teacher_nk):
            loss = loss + target_loss(logits_nk, targets, label_smoothing=self.label_smoothing)
        return loss, student_nk


class Distillation:
    """(1 - weight) * CE(labels) + weight * imitation of a frozen teacher on the same clips, as `TeacherConfig` says."""

    def __init__(
        self,
        teacher: paddle.nn.Layer,
        *,
        student_preprocess: Preprocess,
        teacher_preprocess: Preprocess,
        weight: float,
        temperature: float,
        label_smoothing: float,
    ) -> None:
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature
        self.label_smoothing = label_smoothing
        self.size_hw = teacher_preprocess.input_hw
        # from what the student's normalisation made of a pixel to what the teacher's would have
        scale = np.array(student_preprocess.std) / np.array(teacher_preprocess.std)
        offset = (np.array(student_preprocess.mean) - np.array(teacher_preprocess.mean)) / teacher_preprocess.std
        self.scale, self.offset = (
            paddle.to_tensor(values.astype(np.float32).reshape(1, 1, 3, 1, 1)) for values in (scale, offset)
        )

    def __call__(
        self, network: paddle.nn.Layer, clips_ntchw: paddle.Tensor, targets: Targets
    ) -> tuple[paddle.Tensor, paddle.Tensor]:
        with paddle.no_grad():
            teacher_nk = self.teacher(self._teacher_view(clips_ntchw))
        logits_nk = network(clips_ntchw)
        loss = (1.0 - self.weight) * target_loss(logits_nk, targets, label_smoothing=self.label_smoothing)
        return loss + self.weight * imitation_loss(logits_nk, teacher_nk, temperature=self.temperature), logits_nk

    def _teacher_view(self, clips_ntchw: paddle.Tensor) -> paddle.Tensor:
        clips = clips_ntchw * self.scale + self.offset
        if tuple(clips.shape[3:]) == self.size_hw:
            return clips
        frames = F.interpolate(clips.flatten(0, 1), size=list(self.size_hw), mode="bilinear", align_corners=False)
        return frames.reshape([*clips.shape[:3], *self.size_hw])
