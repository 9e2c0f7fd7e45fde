"""Optimizers and the learning rate of every step."""

from __future__ import annotations

import math

import paddle

from ppvcli.configs.schema import OptimizerConfig, ScheduleConfig


def learning_rate(peak: float, schedule: ScheduleConfig, *, epoch: float, num_epochs: int, num_steps: int) -> float:
    """The learning rate at a fractional epoch (step / steps per epoch) of a run with `num_steps` in all.

    `cosine`: from `peak` at epoch 0 to 0 at `num_epochs`; before `warmup_epochs`, half of the run at most, a line from
    the start value to what the cosine has there (a run of a single step would train nothing with it, and has none).
    `step`: `peak`, times `factor` for every milestone that is reached.
    Source: the two schedules of the reference (golden `lr`).
    """
    if schedule.name == "step":
        return peak * schedule.factor ** sum(epoch >= milestone for milestone in schedule.milestones)
    # a run for a try, of one epoch, would else only climb to a cosine that has reached 0
    warmup = min(schedule.warmup_epochs, num_epochs / 2) if num_steps > 1 else 0.0
    if epoch >= warmup:
        return _cosine(peak, epoch, num_epochs)
    start = peak * schedule.warmup_start_ratio
    return start + epoch * (_cosine(peak, warmup, num_epochs) - start) / warmup


def _cosine(peak: float, epoch: float, num_epochs: int) -> float:
    return peak * (1.0 + math.cos(math.pi * epoch / num_epochs)) / 2.0


def build_optimizer(
    network: paddle.nn.Layer, config: OptimizerConfig, *, classifier: tuple[str, ...]
) -> paddle.optimizer.Optimizer:
    """The optimizer over all parameters of `network` that train; `classifier` names those with a rate of their own.

    The step's rate is set from outside with `set_lr(learning_rate(...))`. Momentum decays what the architecture does
    not exempt (a regularizer on the parameter itself wins), AdamW decays weights of two or more dimensions.
    """
    named = {name: p for name, p in network.named_parameters() if not p.stop_gradient}
    if config.classifier_learning_rate is not None:
        for name in classifier:
            named[name].optimize_attr["learning_rate"] = config.classifier_learning_rate / config.learning_rate
    clip = None if config.clip_grad_norm is None else paddle.nn.ClipGradByGlobalNorm(config.clip_grad_norm)
    parameters = list(named.values())
    if config.name == "adamw":
        decayed = {p.name for p in parameters if p.ndim > 1}
        return paddle.optimizer.AdamW(
            config.learning_rate,
            parameters=parameters,
            weight_decay=config.weight_decay,
            apply_decay_param_fun=lambda name: name in decayed,
            grad_clip=clip,
        )
    return paddle.optimizer.Momentum(
        config.learning_rate,
        momentum=0.9 if config.momentum is None else config.momentum,
        parameters=parameters,
        use_nesterov=config.nesterov,
        weight_decay=config.weight_decay or None,
        grad_clip=clip,
    )
