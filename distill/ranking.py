"""Which system leads a column of the table, and where the clips are too few to say so."""

from __future__ import annotations

from statistics import fmean
from typing import Any, NamedTuple

from distill.intervals import students
from distill.metrics import METRICS

# The pitch error is that of frames voiced in both. A system that voices a few frames by accident has few errors: below
# this share of frames at the right pitch its error describes those few, not its pitch.
_NEEDS = {"f0_rmse_cents": ("f0_within_3_percent", 0.3)}


class Ranking(NamedTuple):
    """Systems of a column: the best mean, those not told apart from it, and those whose number cannot be compared."""

    best: str | None
    near: frozenset[str]
    unfit: frozenset[str]


def rank(metrics: dict[str, Any], metric: str, recording: str) -> Ranking:
    """Rank the systems other than the recording by the mean of one metric, or of its distance from the recording's.

    Two systems are told apart when the 95% interval of their difference, paired by clip, leaves out 0 (Student's t).
    best is None where fewer than two can be compared and where the best is told apart from none: then the column has
    nothing to mark.
    """
    if metric not in METRICS:
        return Ranking(None, frozenset(), frozenset())
    found = nearness(metrics["systems"], metric, recording)
    systems = {name: values for name, values in found.items() if name != recording}
    unfit = frozenset(name for name, values in systems.items() if not _fit(values["mean"], metric))
    means = {name: values["mean"].get(metric) for name, values in systems.items() if name not in unfit}
    known = {name: mean for name, mean in means.items() if mean is not None}
    if len(known) < 2:
        return Ranking(None, frozenset(), unfit)
    choose = max if METRICS[metric].better == "higher" else min
    best = choose(known, key=lambda name: known[name])
    others = known.keys() - {best}
    near = frozenset(name for name in others if not _apart(systems[name], systems[best], metric))
    return Ranking(best, near, unfit) if near != others else Ranking(None, frozenset(), unfit)


def nearness(systems: dict[str, Any], metric: str, recording: str) -> dict[str, Any]:
    """Systems ({"clips", "mean"} each) with a `nearest` metric replaced by its distance from the recording's own."""
    if METRICS[metric].better != "nearest":
        return systems
    own = {clip: row.get(metric) for clip, row in systems.get(recording, {"clips": {}})["clips"].items()}
    result = {}
    for name, values in systems.items():
        clips = {}
        for clip, row in values["clips"].items():
            ours, theirs = row.get(metric), own.get(clip)
            clips[clip] = row | {metric: None if ours is None or theirs is None else abs(ours - theirs)}
        known = [row[metric] for row in clips.values() if row[metric] is not None]
        result[name] = {"clips": clips, "mean": values["mean"] | {metric: fmean(known) if known else None}}
    return result


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
