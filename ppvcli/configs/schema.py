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
CropScale = Annotated[float, Field(gt=0, le=1)]
SamplingMode = Literal["uniform", "select_left", "linspace", "dense", "window"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class ModelConfig(_Strict):
    """The network and where its weights start."""

    name: str
    """A model of `ppvcli.list_models()`; it fixes network and preprocessing."""
    pretrained: str | None = None
    """`imagenet` (the backbone that the architecture starts from), a backbone or model name, a weight file, or null."""
    temporal_shift: bool = True
    """Off, a `tsm_efflite0` sees its frames without their order: what the shift is worth can be measured."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """Before the classifier; null takes the architecture's own."""
    frozen_stages: Annotated[int, Field(ge=0)] = 0
    """The stem and this many stages keep their weights and run without gradients."""
    freeze_batchnorm: bool = False
    """BatchNorm keeps its stored statistics; its scale and bias still train outside frozen stages."""


class TeacherConfig(_Strict):
    """A frozen network whose scores the trained one is to imitate, beside the labels.

    loss = (1 - weight) * CE(student, labels) + weight * temperature^2 * KL(teacher || student), both softened by the
    temperature. The teacher looks at the student's frames, scaled to its own input size. Source: Hinton et al. 2015.
    """

    weights: str
    """A run folder, weight file or model name, with the classes of the data set in the same order."""
    weight: Ratio = 0.5
    """Of the teacher; the labels have the rest."""
    temperature: PositiveFloat = 1.0
    """Above 1 the teacher's small scores count more."""


class ResizeConfig(_Strict):
    """How a whole frame is scaled."""

    backend: Literal["pillow", "cv2"] = "pillow"
    """`pillow` averages when it scales down, `cv2` does not."""
    short_side: PositiveInt | None = None
    """Scale so that the short side has this many pixels ..."""
    size_hw: Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)] | None = None
    """... or scale the whole frame to this height and width."""
    aspect: Literal["keep", "4:3"] = "keep"
    """With `short_side`: keep the aspect ratio, or force the long side to 4/3 of the short one."""
    rounding: Literal["floor", "round"] = "floor"
    """With `short_side` and `keep`: how the long side becomes an integer."""

    @model_validator(mode="after")
    def _one_size(self) -> ResizeConfig:
        if (self.short_side is None) == (self.size_hw is None):
            raise ValueError("say either short_side or size_hw")
        if self.size_hw is not None and (self.aspect != "keep" or self.rounding != "floor"):
            raise ValueError("aspect and rounding can't take effect with size_hw")
        return self


class InputConfig(_Strict):
    """What the network is shown. Null takes what the model's published preprocessing says."""

    num_segments: PositiveInt | None = None
    """Frames of a clip, in training and validation."""
    train_sampling: SamplingMode | None = None
    val_sampling: SamplingMode | None = None
    """`dense` means the one clip in the middle."""
    frame_interval: PositiveInt | None = None
    """Of `window`."""
    resize: ResizeConfig | None = None
    crop_size: PositiveInt | None = None
    """Side of the square that is cut from the middle in validation; a whole-frame `size_hw` has none."""
    crop_rounding: Literal["floor", "round"] | None = None
    """How an odd margin is halved."""
    test: Literal["published", "validated"] = "validated"
    """How `ppv eval` and `ppv predict` look at clips with the run's weights: as the published protocol of the model, or
    as the validation of the run."""


class DataConfig(_Strict):
    """Clips and their classes: one sub-folder per class under `root`, a CSV file, or list files."""

    root: str
    """The folder of the clips; `ppv train --data DIR` sets it."""
    format: Literal["videos", "frames"] = "videos"
    """`videos`: list rows are `path label`; `frames`: `folder num_frames label`, with files `img_00001.jpg`, ..."""
    csv: str | None = None
    """A CSV file, relative to `root`: columns `path` and `label` (class names), and perhaps `split` (train or val)."""
    train_list: str | None = None
    """Relative to `root`; without lists and CSV the sub-folders of `root` are the classes."""
    val_list: str | None = None
    """The clips to hold out, relative to `root`."""
    suffix: str = ""
    """Added to the paths of the lists, such as `.avi`."""
    labels: str | None = None
    """A file with one class name a line, relative to `root`; needed with lists, not allowed with class folders. A CSV
    without it has the classes that its rows name, sorted."""
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
                raise ValueError(f"no regular expression: {error}") from error
            if num_groups != 1:
                raise ValueError(f"needs exactly one (group), has {num_groups}")
        return value

    @model_validator(mode="after")
    def _split_is_said_once(self) -> DataConfig:
        lists = [self.train_list, self.val_list]
        if self.suffix and not any(lists):
            raise ValueError("suffix belongs to lists")
        if self.csv is not None and any(lists):
            raise ValueError("csv and lists are two ways to name clips; say one")
        if any(lists) or (self.labels is not None and self.csv is None):
            if not all([*lists, self.labels]):
                raise ValueError("train_list, val_list and labels go together; leave all three out for class folders")
            if self.val_ratio is not None or self.group_pattern or self.val_groups:
                raise ValueError(
                    "lists already say the split; val_ratio, group_pattern and val_groups can't take effect"
                )
        elif self.csv is None and self.val_ratio is None and self.val_groups is None:
            raise ValueError("class folders need either val_ratio or val_groups to say what is held out")
        elif self.val_ratio is not None and self.val_groups is not None:
            raise ValueError("val_ratio and val_groups both say what is held out; set one of them to null")
        if self.val_groups is not None and self.group_pattern is None:
            raise ValueError("val_groups needs group_pattern, which finds a clip's group in its file name")
        return self


class MultiScaleConfig(_Strict):
    """A crop with each side one of a few shares of the short side, at one of a few places. Source: Wang et al. 2016."""

    size: PositiveInt
    """The crop is scaled to a square of this side; larger than the network's input, it is then cropped at random."""
    scales: Annotated[tuple[CropScale, ...], Field(strict=False, min_length=1)] = (1.0, 0.875, 0.75, 0.66)
    """Shares of the short side; height and width may be neighbours in this list."""
    num_points: Literal[5, 13] = 5
    """Places: the corners and the centre, or 8 more between them."""
    scale_first: bool = True
    """Whether `input.resize` goes before the crop; if not, the crop is of the original frame."""
    repeat_places: bool = True
    """Whether corners and centre that fall together (the crop is as high or wide as the frame) are still drawn apiece,
    which makes their place likelier."""


class AugmentConfig(_Strict):
    """Random changes of a training clip, the same for all its frames."""

    flip_ratio: Ratio = 0.5
    """Share of the clips that are mirrored; 0 where left and right make the class."""
    min_area_ratio: Annotated[float, Field(gt=0, le=1)] | None = None
    """A random crop keeps at least this share of the frame's area; null is 1, the whole frame."""
    multi_scale: MultiScaleConfig | None = None
    """Crops of the reference instead."""
    mixup_alpha: PositiveFloat | None = None
    """Mixes the clips of a batch in pairs, the share drawn from Beta(alpha, alpha). Source: Zhang et al. 2018."""

    @model_validator(mode="after")
    def _one_crop(self) -> AugmentConfig:
        if self.multi_scale is not None and self.min_area_ratio is not None:
            raise ValueError("min_area_ratio and multi_scale are two ways to crop; say one")
        return self


class OptimizerConfig(_Strict):
    """How weights follow their gradients."""

    name: Literal["momentum", "adamw"]
    """`momentum` decays every weight that the architecture does not exempt; `adamw` those of two or more dimensions."""
    learning_rate: PositiveFloat
    """The peak, for everything but the classifier."""
    learning_rate_batch_size: PositiveInt | None = None
    """Clips of a step, over all processes, that the learning rates are meant for; another number scales them in
    proportion. Null takes them as they are. Source: Goyal et al. 2017."""
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
    """Linear warm-up into a cosine that ends at 0, set anew for every step; or steps at whole epochs."""

    name: Literal["cosine", "step"] = "cosine"
    warmup_epochs: NonNegativeFloat = 0.0
    """Length of the warm-up, fractions are fine; it takes half of the run at most."""
    warmup_start_ratio: Ratio = 0.0
    """Learning rate of the first step, as a share of the peak."""
    milestones: Annotated[tuple[PositiveInt, ...], Field(strict=False)] = ()
    """Of `step`: the learning rate is multiplied by `factor` once each of these numbers of epochs is done."""
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of `step`."""

    @model_validator(mode="after")
    def _steps_have_milestones(self) -> ScheduleConfig:
        if (self.name == "step") != bool(self.milestones):
            raise ValueError("step needs milestones, and only step has some")
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError("milestones must rise")
        if self.name == "step" and self.warmup_epochs:
            raise ValueError("warmup_epochs can't take effect with step")
        return self


class PreciseBNConfig(_Strict):
    """After an epoch, BatchNorm's statistics become the mean over training batches. Source: Wu & Johnson 2021."""

    every_epochs: PositiveInt = 5
    """Counted from the first epoch on; the last epoch has it in any case."""
    num_batches: PositiveInt = 200
    """At most."""


class TrainConfig(_Strict):
    """One training run, complete."""

    model: ModelConfig
    teacher: TeacherConfig | None = None
    data: DataConfig
    input: InputConfig = InputConfig()
    augment: AugmentConfig = AugmentConfig()
    optimizer: OptimizerConfig
    schedule: ScheduleConfig = ScheduleConfig()
    precise_bn: PreciseBNConfig | None = None
    epochs: PositiveInt
    """Passes over the training clips."""
    batch_size: PositiveInt
    """Clips of one forward pass of one process; the last one of an epoch takes what is left."""
    accumulate_steps: PositiveInt = 1
    """Forward passes whose gradients are averaged into one step."""
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the target that is spread over all classes."""
    ema_decay: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Validates and keeps an exponential moving average of the weights, with this share of the old at every step."""
    amp: Literal["O1", "O2"] | None = None
    """Mixed precision, on GPUs only: `O1` runs safe operations in float16, `O2` nearly all."""
    log_interval: PositiveInt = 10
    """Steps from one line of `log.jsonl` to the next; the last step of an epoch always has one."""
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Of everything random: the same seed gives the same run, on one machine and with any number of workers."""

    @model_validator(mode="after")
    def _schedule_ends(self) -> TrainConfig:
        if self.schedule.milestones and self.schedule.milestones[-1] >= self.epochs:
            raise ValueError(
                f"schedule.milestones end at {self.schedule.milestones[-1]}, but there are only {self.epochs} epochs"
            )
        return self
