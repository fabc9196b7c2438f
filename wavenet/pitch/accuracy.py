"""How far a contour is from another: pitch in cents, voicing in shares of frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from wavenet.pitch.contour import Pitch

_FINE, _GROSS = 0.03, 0.10  # relative deviations of F0: right, and grossly wrong


def pitch_errors(found: Sequence[Pitch], true: Sequence[Pitch]) -> dict[str, float]:
    """Errors over all frames of clips, each Pitch (1, F) or (B, F); NaN where no frame counts.

    Of F0, over frames voiced in both, e = 1200 log2(f / f_true) [cents]: median and 90 % of |e|, root mean square, the
    share within 3 %, the share off by more than 10 %. voicing_error: share of frames voiced in one and not in the
    other; miss: of the truly voiced frames; false_alarm: of the truly unvoiced. flips: frames whose voicing is neither
    neighbour's, of all.
    """
    assert len(found) == len(true)
    assert all(a.f0.shape == b.f0.shape for a, b in zip(found, true, strict=True))
    f0, f0_true = (torch.cat([pitch.f0.flatten() for pitch in side]).double() for side in (found, true))
    ours, theirs = (torch.cat([pitch.voiced.flatten() for pitch in side]) > 0.5 for side in (found, true))
    ratio = (f0 / f0_true)[ours & theirs]
    cents, off = 1200 * ratio.log2().abs(), (ratio - 1).abs()
    wrong = ours != theirs
    return {
        "median_cents": float(cents.quantile(0.5)) if len(cents) else math.nan,
        "rms_cents": math.sqrt(_mean(cents.square())),
        "p90_cents": float(cents.quantile(0.9)) if len(cents) else math.nan,
        "within_3_percent": _mean(off <= _FINE),
        "gross": _mean(off > _GROSS),
        "voicing_error": _mean(wrong),
        "miss": _mean(wrong[theirs]),
        "false_alarm": _mean(wrong[~theirs]),
        "flips": _mean(torch.cat([_flips(pitch.voiced > 0.5) for pitch in found])),
        "frames": float(len(wrong)),
    }


def _mean(values: Tensor) -> float:
    return float(values.double().mean()) if len(values) else math.nan


def _flips(voiced: Tensor) -> Tensor:
    return ((voiced[:, 1:-1] != voiced[:, :-2]) & (voiced[:, 1:-1] != voiced[:, 2:])).flatten()
