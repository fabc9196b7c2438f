r"""Fundamental frequency and voicing of speech, by normalised cross-correlation and dynamic programming.

    ncc(i, l) = sum_n x[n] x[n + l] / sqrt(sum_n x[n]^2 sum_n x[n + l]^2 + e)

over a window whose two halves lie either side of frame i's centre, then the best path through (lag or unvoiced) over the
frames: the plan of RAPT (Talkin 1995, "A robust algorithm for pitch tracking"). All at 8 kHz below 1 kHz, in numpy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavenet.audio import resample
from wavenet.config import require

_RATE = 8000
_BAND = (40.0, 1000.0)  # [Hz] what is looked at: the first harmonics, without hum below and formants above
_WINDOW = 0.030  # [s]
_FLOOR = 1e-4  # energy of a frame that counts as silence, as a share of a loud frame's
_SHORT_LAGS = 0.12  # preference for the shorter of two lags, a share of ncc over the whole range: against octaves down
_UNVOICED = 0.52  # ncc below which a frame is better called unvoiced
_QUIET = 0.02  # added to that for each dB under -30 dB of a loud frame: a room's hum is no voice
_GLIDE = 3.0  # cost of a change of F0, per unit of log ratio
_JUMP = 0.5  # the most that a change of F0 costs
_ONSET = 0.25  # cost of turning voicing on or off


class F0Track(NamedTuple):
    """f0 (F,) float32 [Hz], voiced (F,) bool; frame i is centred on the samples [i hop, (i + 1) hop).

    Between voiced stretches f0 is interpolated, at either end held; sqrt(f_min f_max) where nothing is voiced.
    """

    f0: Tensor
    voiced: Tensor


def track(
    wav: Tensor | np.ndarray, sample_rate: int, hop_length: int, f_min: float = 40.0, f_max: float = 500.0
) -> F0Track:
    """F0 of wav (T,) at sample_rate [Hz], one value for each hop_length samples -> F0Track of F = T // hop_length frames.

    Does not depend on the level of the recording. f_min, f_max [Hz] bound what is looked for.
    Raises UserError for bounds outside 20 Hz < f_min < f_max <= 1000 Hz.
    """
    require(20 < f_min < f_max <= _BAND[1], "f_max", f_max, f"20 Hz < f_min = {f_min} < f_max <= {_BAND[1]} Hz")
    wav = torch.as_tensor(wav).detach().float().cpu()
    frames = len(wav) // hop_length
    lags = np.arange(int(_RATE / f_max), int(np.ceil(_RATE / f_min)) + 1)
    centres = np.round((np.arange(frames) + 0.5) * hop_length * _RATE / sample_rate).astype(int)
    signal = _band_pass(resample(wav, sample_rate, _RATE).double().numpy())
    ncc, level = _correlate(signal, centres, lags)
    score = ncc - _SHORT_LAGS * (lags - lags[0]) / (lags[-1] - lags[0])
    path = _best_path(
        score, _UNVOICED + _QUIET * np.maximum(0.0, -30.0 - level), np.log(lags), hop_length / sample_rate
    )
    return _to_track(path, ncc, lags, float(np.sqrt(f_min * f_max)))


def _band_pass(signal: np.ndarray) -> np.ndarray:
    from scipy.signal import butter, sosfilt

    sos = butter(2, _BAND, "bandpass", fs=_RATE, output="sos")
    # Forwards and backwards: no delay.
    return np.asarray(sosfilt(sos, sosfilt(sos, signal)[::-1])[::-1])


def _correlate(signal: np.ndarray, centres: np.ndarray, lags: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """ncc (F, L) of each frame at each lag, and the frames' level (F,) in dB of a loud frame's."""
    window, margin = round(_WINDOW * _RATE), lags[-1] + round(_WINDOW * _RATE)
    padded = np.pad(signal, margin)
    energy = _running_sum(padded * padded)
    around = energy[centres + margin + window // 2] - energy[centres + margin - window // 2]
    loud = np.quantile(around, 0.95) + 1e-20 if len(around) else 1.0
    ncc = np.empty((len(centres), len(lags)))
    for place, lag in enumerate(lags):
        product = _running_sum(padded[:-lag] * padded[lag:])
        first = centres + margin - (window + lag) // 2
        power = (energy[first + window] - energy[first]) * (energy[first + lag + window] - energy[first + lag])
        ncc[:, place] = (product[first + window] - product[first]) / np.sqrt(
            np.maximum(power, 0) + (_FLOOR * loud) ** 2
        )
    return ncc, 10 * np.log10(np.maximum(around / loud, 1e-12))


def _running_sum(values: np.ndarray) -> np.ndarray:
    return np.concatenate([[0.0], np.cumsum(values)])


def _best_path(score: np.ndarray, unvoiced: np.ndarray, log_lags: np.ndarray, seconds: float) -> np.ndarray:
    """Viterbi over L lags and, last, unvoiced: score (F, L) and unvoiced (F,) summed along the path less its changes.

    Scores count per 10 ms, so that the frame rate (`seconds` a frame) changes nothing. Returns the states (F,).
    """
    weight, count = seconds / 0.010, len(log_lags)
    local = weight * np.concatenate([score, unvoiced[:, None]], 1)
    cost = np.full((count + 1, count + 1), _ONSET)
    cost[:count, :count] = np.minimum(_GLIDE * np.abs(log_lags[:, None] - log_lags), _JUMP)
    cost[count, count] = 0.0
    best, back = np.zeros(count + 1), np.zeros(local.shape, dtype=np.int64)
    places = np.arange(count + 1)
    for frame, value in enumerate(local):
        total = best - cost.T
        back[frame] = total.argmax(1)
        best = total[places, back[frame]] + value
    states = np.empty(len(local), dtype=np.int64)
    state = int(best.argmax())
    for frame in range(len(local) - 1, -1, -1):
        states[frame] = state
        state = back[frame, state]
    return states


def _to_track(path: np.ndarray, ncc: np.ndarray, lags: np.ndarray, default: float) -> F0Track:
    """Lags refined by a parabola through their neighbours, F0 interpolated (in log) over unvoiced frames."""
    voiced = path < len(lags)
    frames = np.flatnonzero(voiced)
    place = np.clip(path[frames], 1, len(lags) - 2)
    before, here, after = ncc[frames, place - 1], ncc[frames, place], ncc[frames, place + 1]
    offset = 0.5 * (before - after) / np.minimum(before - 2 * here + after, -1e-9)
    period = lags[place] + np.clip(offset, -1.0, 1.0)
    log_f0 = np.full(len(path), np.log(default))
    if len(frames):
        log_f0 = np.interp(np.arange(len(path)), frames, np.log(_RATE / period))
    return F0Track(torch.from_numpy(np.exp(log_f0)).float(), torch.from_numpy(voiced))
