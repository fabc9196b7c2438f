"""Levels for listening: the gain that makes every version of a clip speak as loudly as the recording."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from torch import Tensor

ACTIVE_DB = 30.0  # a frame this far under the loudest is a pause
HEADROOM_DB = 1.0  # room above the highest sample: resampling for the sound card raises peaks
LIMIT_DB = 20.0  # amplified further, a failed system is the rounding noise of its own file
RULE = (
    f"rms over 20 ms frames within {ACTIVE_DB:g} dB of the loudest, matched to the recording, amplified by at most "
    f"{LIMIT_DB:g} dB; all versions of a clip then lowered together until the highest peak is {HEADROOM_DB:g} dB under "
    "full scale"
)

_FRAME = 0.020  # seconds


def active_level(wav: Tensor, sample_rate: int) -> float:
    """Rms of wav (T,) where it speaks, in dB of amplitude 1: over 20 ms frames within 30 dB of the loudest.

    Pauses do not count, so a system that hisses in them is not turned down for it. The mean is taken off first: an
    offset is not heard. -inf for silence.
    """
    samples = wav.detach().cpu().double().numpy()
    if not len(samples):
        return -math.inf
    samples = samples - samples.mean()
    size = min(len(samples), max(1, round(_FRAME * sample_rate)))
    power = np.square(samples[: len(samples) // size * size].reshape(-1, size)).mean(axis=1)
    if not power.max() > 0:
        return -math.inf
    active = power >= power.max() * 10 ** (-ACTIVE_DB / 10)
    return float(10 * math.log10(power[active].mean()))


def matching_gains(versions: Sequence[Tensor], sample_rate: int, reference: int = 0) -> list[float]:
    """Gain [dB] for each version (T,) of one clip that brings its active level to that of versions[reference].

    Amplifies by 20 dB at most. Where a gain would lift a peak above -1 dB of full scale, all are lowered alike: the
    match stays exact and nothing clips. A silent version gets what all get.
    """
    levels = [active_level(wav, sample_rate) for wav in versions]
    target = levels[reference]
    gains = [min(target - level, LIMIT_DB) if math.isfinite(target - level) else 0.0 for level in levels]
    peaks = [float(wav.abs().max()) if len(wav) else 0.0 for wav in versions]
    highest = max((20 * math.log10(peak) + gain for peak, gain in zip(peaks, gains, strict=True) if peak), default=0.0)
    lowered = min(0.0, -HEADROOM_DB - highest)
    return [gain + lowered for gain in gains]
