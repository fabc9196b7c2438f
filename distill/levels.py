"""Where a recording speaks and where it pauses, by level, and how loud a system is in those pauses."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from torch import Tensor

QUIET_DB = 30.0  # so far under the speech a frame counts as silent

_FRAME = 0.020  # seconds
_PAUSE_PERCENTILE = 10.0
_ROUNDING_DBFS = -101.1  # rms of the error of rounding to 16 bits, 2^-15 / sqrt(12): what a silent file holds


def silent(level: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Frames (N,) more than 30 dB under the speech, whose level is the 95th percentile of the frames' levels [dB]."""
    return np.asarray(level < np.percentile(level, 95) - QUIET_DB)


def pauses(reference: Tensor, sample_rate: int) -> npt.NDArray[np.bool_]:
    """Frames of 20 ms (N,) of a recording (T,) that hold its background alone.

    Silent (see `silent`), with silent neighbours, and among the quietest tenth of all frames. False everywhere for a
    recording that never pauses.
    """
    level = _levels(reference, sample_rate)
    if len(level) == 0:
        return np.zeros(0, dtype=bool)
    quiet = silent(level)
    beside = np.pad(quiet, 1, constant_values=True)
    return np.asarray(quiet & beside[:-2] & beside[2:] & (level <= np.percentile(level, _PAUSE_PERCENTILE)))


def noise_floor(wav: Tensor, reference: Tensor, sample_rate: int) -> float:
    """Rms of wav (T,) in the pauses of the recording (T,), in dB of full scale (amplitude 1); NaN without a pause.

    The mean of what is measured is taken off first. Never below -101.1 dBFS, the rounding of a 16-bit file.
    """
    where = pauses(reference, sample_rate)
    if not where.any():
        return math.nan
    return max(10 * math.log10(float(np.var(_frames(wav, sample_rate)[where])) + 1e-30), _ROUNDING_DBFS)


def _levels(wav: Tensor, sample_rate: int) -> npt.NDArray[np.float64]:
    """Level of each frame about its own mean [dB], (N,)."""
    return np.asarray(10 * np.log10(np.var(_frames(wav, sample_rate), axis=1) + 1e-30))


def _frames(wav: Tensor, sample_rate: int) -> npt.NDArray[np.float64]:
    size = round(_FRAME * sample_rate)
    samples = wav.detach().cpu().double().numpy()
    return np.asarray(samples[: len(samples) // size * size].reshape(-1, size))
