"""Learning-rate schedules as pure functions of the step, so that a resumed run follows the same curve."""

from __future__ import annotations

import math

from wavenet.config import TrainConfig


def learning_rate(config: TrainConfig, step: int) -> float:
    """Learning rate of step 0, 1, ...: linear warm-up times the named schedule.

    cosine and linear are flat for the share `flat` of the steps, then fall to final_ratio at config.steps; halving
    halves every halve_every steps; constant does not fall.
    """
    return config.lr * _warmup(config, step) * _decay(config, step)


def _warmup(config: TrainConfig, step: int) -> float:
    return min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0


def _decay(config: TrainConfig, step: int) -> float:
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "halving":
        return 0.5 ** (step // config.halve_every)
    progress = min(1.0, max(0.0, (step / config.steps - config.flat) / (1 - config.flat)))
    shape = 1 - progress if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return config.final_ratio + (1 - config.final_ratio) * shape
