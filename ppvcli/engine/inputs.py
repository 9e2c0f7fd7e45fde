"""What a run shows its network: from a config and a row of the zoo to typed facts that the layers below take."""

from __future__ import annotations

from dataclasses import replace

from ppvcli.configs.schema import InputConfig, TrainConfig
from ppvcli.models.zoo import ModelRow, get_model_row
from ppvcli.specs import Crop, NetworkSpec, Preprocess, Resize, Sampling
from ppvcli.video.transforms import Augment, MultiScale


def network_spec(config: TrainConfig) -> NetworkSpec:
    """The network of the config's model, with the number of frames and the shift that the config asks for."""
    spec = get_model_row(config.model.name).network
    if spec.num_segments is not None and config.input.num_segments is not None:
        teacher = spec.teacher and replace(spec.teacher, num_segments=config.input.num_segments)
        spec = replace(spec, num_segments=config.input.num_segments, teacher=teacher)
    return replace(spec, temporal_shift=config.model.temporal_shift)


def val_preprocess(config: TrainConfig) -> Preprocess:
    """How held-out clips are looked at after every epoch: one clip and one crop of each."""
    row, chosen = get_model_row(config.model.name), config.input
    resize = row.preprocess.resize if chosen.resize is None else Resize(**chosen.resize.model_dump())
    return replace(
        row.preprocess,
        sampling=_sampling(config, row, mode=chosen.val_sampling),
        resize=resize,
        crop=_crop(chosen, row, whole_frame=resize.size_hw is not None),
    )


def train_preprocess(config: TrainConfig) -> Preprocess:
    """The same for training, where `Augment` takes the place of the crop."""
    row = get_model_row(config.model.name)
    return replace(val_preprocess(config), sampling=_sampling(config, row, mode=config.input.train_sampling))


def final_preprocess(config: TrainConfig) -> Preprocess:
    """What the run's weights say about themselves: how evaluation and prediction are to look at a clip."""
    if config.input.test == "published":
        return get_model_row(config.model.name).preprocess
    return val_preprocess(config)


def augment(config: TrainConfig) -> Augment:
    """The random changes of a training clip."""
    chosen = config.augment
    return Augment(
        flip_ratio=chosen.flip_ratio,
        min_area_ratio=1.0 if chosen.min_area_ratio is None else chosen.min_area_ratio,
        multi_scale=None if chosen.multi_scale is None else MultiScale(**chosen.multi_scale.model_dump()),
    )


def learning_rate_factor(config: TrainConfig, *, world_size: int) -> float:
    """What the config's learning rates are multiplied with for the clips that a step really has."""
    meant_for = config.optimizer.learning_rate_batch_size
    return 1.0 if meant_for is None else config.batch_size * config.accumulate_steps * world_size / meant_for


def _sampling(config: TrainConfig, row: ModelRow, *, mode: str | None) -> Sampling:
    published = row.preprocess.sampling
    mode = mode or published.mode
    interval = (config.input.frame_interval or published.frame_interval) if mode == "window" else None
    return Sampling(
        mode=mode,  # type: ignore[arg-type]  # the schema allows the same names
        num_segments=config.input.num_segments or published.num_segments,
        frame_interval=interval,
    )


def _crop(chosen: InputConfig, row: ModelRow, *, whole_frame: bool) -> Crop:
    if whole_frame:
        return Crop(kind="none")
    published = row.preprocess.crop
    return Crop(
        kind="center",
        size=chosen.crop_size or published.size,
        rounding=chosen.crop_rounding or published.rounding,
    )
