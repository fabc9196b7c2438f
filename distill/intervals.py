"""Means over clips with 95% intervals: Student's t for scores, the bootstrap for pooled error rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_RESAMPLES = 10_000


class Interval(NamedTuple):
    """A mean and half the width of its 95% interval; None where not defined."""

    mean: float | None
    half_width: float | None


def students(values: Sequence[float | None]) -> Interval:
    """Mean of a score over clips, Student's t; clips without a value are left out."""
    from scipy.stats import t

    found = [value for value in values if value is not None]
    n = len(found)
    mean = statistics.fmean(found) if found else None
    return Interval(mean, float(t.ppf(0.975, n - 1)) * statistics.stdev(found) / math.sqrt(n) if n > 1 else None)


def pooled(errors: Sequence[int], words: Sequence[int], seed: int = 0) -> Interval:
    """Sum of errors over sum of words, and a percentile bootstrap over clips (10,000 resamples, Efron 1979).

    errors may be differences between two systems on the same clips: the bootstrap is then a paired one.
    """
    if not sum(words):
        return Interval(None, None)
    mean = sum(errors) / sum(words)
    if len(words) < 2:
        return Interval(mean, None)
    drawn = np.random.default_rng(seed).integers(len(words), size=(_RESAMPLES, len(words)))
    rates = np.asarray(errors)[drawn].sum(axis=1) / np.asarray(words)[drawn].sum(axis=1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return Interval(mean, float(high - low) / 2)
