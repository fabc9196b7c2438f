"""Quality and intelligibility by other people's models: STOI, PESQ, DNSMOS. Each needs its optional package.

wav and reference are (T,) in [-1, 1] at any sample rate [Hz]; every model gets them at the rate that it was made for.
"""

from __future__ import annotations

import math
import warnings

import numpy as np
import numpy.typing as npt
from torch import Tensor

from wavenet.audio import resample

WIDEBAND = 16_000  # Hz: PESQ's and DNSMOS's rate


def stoi(wav: Tensor, reference: Tensor, sample_rate: int) -> float:
    """Short-time objective intelligibility, Taal et al. 2011, at 10 kHz (package pystoi).

    Correlation of one-third octave envelopes over 384 ms, about 0 to 1. Frames 40 dB under the recording's loudest
    are left out; NaN where fewer than 30 are left.
    """
    from pystoi import stoi as short_time_intelligibility

    with warnings.catch_warnings():
        # pystoi answers 1e-5 and a warning when there is too little speech: that is no measurement.
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(short_time_intelligibility(_samples(reference), _samples(wav), sample_rate))
        except RuntimeWarning:
            return math.nan


def pesq_wideband(wav: Tensor, reference: Tensor, sample_rate: int) -> float:
    """PESQ, wideband, ITU-T P.862.2, at 16 kHz (package pesq): MOS-LQO 1.04 to 4.64; NaN where it finds no speech."""
    from pesq import PesqError, pesq

    theirs, ours = (_samples(resample(signal, sample_rate, WIDEBAND)) for signal in (reference, wav))
    if not ours.any() or not theirs.any():
        return math.nan
    try:
        return float(pesq(WIDEBAND, theirs, ours, "wb"))
    except PesqError:
        return math.nan


def dnsmos(wav: Tensor, sample_rate: int) -> dict[str, float]:
    """DNSMOS P.835 (Reddy et al. 2022, arXiv 2110.01763) at 16 kHz: overall, signal, background, 1 to 5.

    No reference. The package speechmos holds the model; it repeats clips shorter than its window of 9.01 s, and
    averages over windows a second apart in longer ones. Samples beyond full scale are clipped, as in a file.
    """
    from speechmos.dnsmos import run

    found = run(_samples(resample(wav, sample_rate, WIDEBAND)).clip(-1, 1), sr=WIDEBAND)
    return {f"dnsmos_{name}": float(found[f"{name}_mos"]) for name in ("ovrl", "sig", "bak")}


def _samples(wav: Tensor) -> npt.NDArray[np.float32]:
    return np.asarray(wav.detach().cpu().float().numpy())
