"""Which system leads a column of the table, and where the clips are too few to say so."""

from __future__ import annotations

from typing import Any, NamedTuple

from distill.intervals import students
from distill.metrics import METRICS

# The pitch error is that of frames voiced in both. A system that voices a few frames by accident has few errors: below
# this share of frames at the right pitch its error describes those few, not its pitch.
_NEEDS = {"f0_rmse_cents": ("f0_within_3_percent", 0.3)}
# Less is not better: a system quieter in the pauses than the recording has lost its background.
_NO_BETTER_END = ("noise_floor",)


class Ranking(NamedTuple):
    """Systems of a column: the best mean, those not told apart from it, and those whose number cannot be compared."""

    best: str | None
    near: frozenset[str]
    unfit: frozenset[str]


def rank(metrics: dict[str, Any], metric: str, recording: str) -> Ranking:
    """Rank the systems other than the recording by the mean of one metric.

    Two systems are told apart when the 95% interval of their difference, paired by clip, leaves out 0 (Student's t).
    best is None where the metric has no better end, where fewer than two can be compared, and where the best is told
    apart from none: then the column has nothing to mark.
    """
    systems = {name: values for name, values in metrics["systems"].items() if name != recording}
    unfit = frozenset(name for name, values in systems.items() if not _fit(values["mean"], metric))
    means = {name: values["mean"].get(metric) for name, values in systems.items() if name not in unfit}
    known = {name: mean for name, mean in means.items() if mean is not None}
    if metric not in METRICS or metric in _NO_BETTER_END or len(known) < 2:
        return Ranking(None, frozenset(), unfit)
    choose = min if METRICS[metric].better == "lower" else max
    best = choose(known, key=lambda name: known[name])
    others = known.keys() - {best}
    near = frozenset(name for name in others if not _apart(systems[name], systems[best], metric))
    return Ranking(best, near, unfit) if near != others else Ranking(None, frozenset(), unfit)


def _fit(mean: dict[str, float | None], metric: str) -> bool:
    if metric not in _NEEDS or mean.get(metric) is None:
        return True
    needed, least = _NEEDS[metric]
    return (mean.get(needed) or 0.0) >= least


def _apart(one: dict[str, Any], other: dict[str, Any], metric: str) -> bool:
    """Whether the 95% interval of the paired differences of two systems leaves out 0; never with fewer than two."""
    pairs = [(row.get(metric), other["clips"][clip].get(metric)) for clip, row in one["clips"].items()]
    mean, half_width = students([a - b for a, b in pairs if a is not None and b is not None])
    return mean is not None and half_width is not None and abs(mean) > half_width
