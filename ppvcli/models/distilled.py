"""A DML pair: PP-TSMv2 student and PP-TSM teacher that were trained against each other, as one network and one file.

Source: Zhang et al. 2018, "Deep Mutual Learning"; tensors and numbers of PaddleVideo's `PPTSMv2_k400_*_dml.pdparams`.
"""

from __future__ import annotations

from dataclasses import replace

import paddle
from paddle import nn

from ppvcli.models.layers import check_clips
from ppvcli.models.pptsm import PPTSM
from ppvcli.models.pptsmv2 import PPTSMv2, reparameterize
from ppvcli.specs import NetworkSpec


class DistilledPair(nn.Layer):
    """float32 [N, T, 3, H, W] -> the student's logits [N, K]; `forward_both` is for training.

    The sub-layers carry the names of the released files: keys are `Teacher.0.*`, `Teacher.1.fc.*` and `Student.0.*`.
    `dropout` applies to both where given.
    """

    def __init__(self, spec: NetworkSpec, num_classes: int, *, dropout: float | None = None) -> None:
        super().__init__()
        assert spec.teacher is not None
        self.num_segments = spec.num_segments
        teacher = PPTSM(spec.teacher, num_classes, dropout=dropout)
        student = PPTSMv2(replace(spec, teacher=None), num_classes, dropout=dropout)
        self.Teacher = nn.Sequential(teacher.backbone, teacher.head)
        self.Student = nn.Sequential(student.backbone)

    def forward(self, clips_ntchw: paddle.Tensor) -> paddle.Tensor:
        """Raises: UsageError for another number of dimensions, channels or frames."""
        check_clips(clips_ntchw, self.num_segments)
        return self.Student[0](clips_ntchw.flatten(0, 1))

    def forward_both(self, clips_ntchw: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Logits [N, K] of the student and of the teacher, gradients into both."""
        student_logits = self.forward(clips_ntchw)
        features = self.Teacher[0](clips_ntchw.flatten(0, 1))
        return student_logits, self.Teacher[1](features, self.num_segments)

    def reparameterize(self) -> None:
        """Merges the student's depthwise branches for inference: same logits, fewer operations."""
        reparameterize(self.Student)
