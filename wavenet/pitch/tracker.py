"""Fundamental frequency of speech: normalised cross-correlation and a Viterbi path over lags.

The correlation is that of Talkin 1995 (RAPT), taken symmetrically around the middle of the frame so that a glide is not
biased. Everything happens at 8 kHz, and the pitch is looked for between 40 Hz and 1 kHz. What is unvoiced remembers the
lag it came from, as in pYIN (Mauch and Dixon 2014): a frame's pause is no way round the cost of an octave's jump.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavenet.audio import resample
from wavenet.errors import UserError

RATE = 8000  # Hz, internal

_Floats = npt.NDArray[np.float64]
BAND = (40.0, 1000.0)  # Hz: the first harmonics, without rumble below and formants above
WINDOW = 0.035  # seconds correlated at every lag
F_MIN, F_MAX = 40.0, 500.0  # Hz: where F0 is looked for unless said otherwise
_SILENCE = 0.01  # amplitude, as a share of the clip's loud frames, that correlates with nothing
_VOICING_THRESHOLD = 0.51  # correlation from which a loud frame is voiced
_QUIET = 0.02  # added to that for every dB beyond 30 dB under the loud frames: a room's hum is no voice
_LAG_COST = 0.2  # the longest lag's correlation counts so much less: the first of the equal peaks wins
_GLIDE_COST = 3.0  # of a change of pitch, per unit of log ratio
_JUMP_COST = 1.0  # the most that a change of pitch costs where it is voiced
_WALK_COST = 2.0  # of a change of pitch across what is unvoiced, per squared log ratio, over a step
_SWITCH_COST = 0.25  # of a change between voiced and unvoiced
_STEP = 0.010  # seconds for which a score counts once: the frame rate shifts no balance


class F0Track(NamedTuple):
    """f0 (F,) float64 [Hz], 0 where unvoiced; voiced (F,) bool."""

    f0: _Floats
    voiced: npt.NDArray[np.bool_]


def track(wav: Tensor, sample_rate: int, hop_length: int, f_min: float = F_MIN, f_max: float = F_MAX) -> F0Track:
    """F0 of wav (T,) at sample_rate [Hz]: F = T // hop_length frames, frame i centred on [i hop, (i + 1) hop).

    Levels count relative to the clip's own loud frames: a quiet recording gives the same track as a loud one.
    Raises UserError unless wav is one channel and 0 < f_min < f_max <= 1000 Hz.
    """
    if wav.dim() != 1:
        raise UserError(f"wav: found shape {tuple(wav.shape)}, expected (T,)")
    if not 0 < f_min < f_max <= RATE / 8:
        raise UserError(f"f_min, f_max: found {f_min}, {f_max} Hz, expected 0 < f_min < f_max <= {RATE // 8}")
    frames = len(wav) // hop_length
    if frames == 0:
        return F0Track(np.zeros(0), np.zeros(0, dtype=bool))
    signal = _band_pass(at_internal_rate(wav, sample_rate))
    # One lag more at either end, so that every peak inside the range has both its neighbours.
    lags = np.arange(int(RATE / f_max) - 1, int(np.ceil(RATE / f_min)) + 2)
    correlation, level = correlate(signal, frame_centres(frames, sample_rate, hop_length), lags, WINDOW)
    states = _path(correlation[:, 1:-1], level, lags[1:-1], hop_length / sample_rate)
    voiced = states > 0
    lag = np.where(voiced, _refine(correlation, lags, states), 1.0)
    return F0Track(np.where(voiced, RATE / lag, 0.0), voiced)


def at_internal_rate(wav: Tensor, sample_rate: int) -> _Floats:
    """wav (T,) at 8 kHz without its mean, float64."""
    signal = resample(wav.detach().cpu().to(torch.float32), sample_rate, RATE).numpy().astype(np.float64)
    return np.asarray(signal - signal.mean())


def frame_centres(frames: int, sample_rate: int, hop_length: int) -> _Floats:
    """Middle of each frame in samples at 8 kHz, (F,)."""
    return (np.arange(frames) + 0.5) * hop_length * RATE / sample_rate


def correlate(signal: _Floats, centres: _Floats, lags: npt.NDArray[np.int_], window: float) -> tuple[_Floats, _Floats]:
    r"""Normalised cross-correlation (F, L) of signal (T,) at 8 kHz, and the frames' rms (F,).

    r_l = sum_n x_n x_{n+l} / sqrt(sum_n x_n^2 sum_n x_{n+l}^2), n over `window` seconds, the pair of windows centred
    on the frame. Beyond its ends the signal counts as silence. A floor 40 dB under the loud frames, added under the
    root as in RAPT, keeps the edge of a sound from correlating with the silence beside it.
    """
    width, margin = round(window * RATE), round(window * RATE) + int(lags.max())
    padded = np.pad(signal, margin)
    energy = np.concatenate([[0.0], np.cumsum(padded**2)])
    middle = np.clip(np.round(centres - width / 2).astype(int) + margin, 0, len(padded) - width)
    frame_energy = np.maximum(energy[middle + width] - energy[middle], 0)
    floor = _SILENCE**2 * np.percentile(frame_energy, 95) + 1e-30
    result = np.empty((len(centres), len(lags)))
    for column, lag in enumerate(lags):
        products = np.concatenate([[0.0], np.cumsum(padded[:-lag] * padded[lag:])])
        start = np.clip(np.round(centres - (width + lag) / 2).astype(int) + margin, 0, len(padded) - width - lag)
        power = (energy[start + width] - energy[start]) * (energy[start + lag + width] - energy[start + lag])
        result[:, column] = (products[start + width] - products[start]) / np.sqrt(np.maximum(power, 0) + floor**2)
    return result, np.sqrt(frame_energy / width)


def _band_pass(signal: _Floats) -> _Floats:
    from scipy.signal import butter, sosfilt

    sections = butter(2, BAND, "bandpass", fs=RATE, output="sos")
    # Forwards, then backwards: no delay.
    return np.asarray(sosfilt(sections, sosfilt(sections, signal)[::-1])[::-1])


def peak(left: _Floats, middle: _Floats, right: _Floats) -> tuple[_Floats, _Floats]:
    """Place, in [-1/2, 1/2] from the middle, and height of the parabola through three points a sample apart."""
    curvature = np.minimum(left - 2 * middle + right, -1e-9)
    place = np.clip((left - right) / (2 * curvature), -0.5, 0.5)
    return place, middle - (left - right) * place / 4


def _path(correlation: _Floats, level: _Floats, lags: npt.NDArray[np.int_], step: float) -> npt.NDArray[np.int_]:
    """Best path (F,): 0 for unvoiced, i + 1 for lags[i].

    Two states a lag: voiced at it, and unvoiced since it. Across n unvoiced steps the pitch walks at random: the best
    way to a log ratio d costs _WALK_COST d^2 / n, as far as whole lags allow, so that a pause frees the pitch and a gap
    of one frame is no cheap way to another octave.
    """
    below = 20 * np.log10(np.maximum(level, 1e-30) / (np.percentile(level, 95) + 1e-30))
    unvoiced = _VOICING_THRESHOLD + _QUIET * np.maximum(0, -30 - below)
    voiced = correlation - _LAG_COST * (lags - lags[0]) / (lags[-1] - lags[0])
    # Rumble correlates at every short lag, falling from lag 0 on: that shoulder is no period.
    voiced[:, :-1][np.logical_and.accumulate(np.diff(correlation, axis=1) < 0, axis=1)] = -1.0
    voiced, unvoiced = voiced * (step / _STEP), unvoiced * (step / _STEP)
    distance = np.abs(np.log(lags[:, None] / lags))
    glide = np.minimum(_GLIDE_COST * distance, _JUMP_COST)
    walk = _WALK_COST * distance**2 * (_STEP / step)
    count, every = len(lags), np.arange(len(lags))
    singing, silent = voiced[0], np.full(count, unvoiced[0])  # best scores of paths that end voiced, unvoiced
    back = np.empty((len(voiced), 2 * count), dtype=np.int16)
    for i in range(1, len(voiced)):
        glided, walked = singing - glide, silent - walk  # symmetric costs: [to, from] as well as [from, to]
        before, since = glided.argmax(axis=1), walked.argmax(axis=1)
        on, off = glided[every, before], walked[every, since]
        starts, ends = off - _SWITCH_COST > on, singing - _SWITCH_COST > off
        back[i, :count] = np.where(starts, count + since, before)
        back[i, count:] = np.where(ends, every, count + since)
        singing, silent = (
            np.where(starts, off - _SWITCH_COST, on) + voiced[i],
            np.where(ends, singing - _SWITCH_COST, off) + unvoiced[i],
        )
    states = np.empty(len(voiced), dtype=int)
    states[-1] = np.concatenate([singing, silent]).argmax()
    for i in range(len(voiced) - 1, 0, -1):
        states[i - 1] = back[i, states[i]]
    return np.where(states < count, states + 1, 0)


def _refine(correlation: _Floats, lags: npt.NDArray[np.int_], states: npt.NDArray[np.int_]) -> _Floats:
    """Lag in fractions of a sample: the parabola over the highest of the chosen lag and its two neighbours."""
    rows = np.arange(len(states))
    around = np.clip(states[:, None] + np.arange(-1, 2), 1, len(lags) - 2)  # state s is lags[s]: one lag leads
    best = around[rows, correlation[rows[:, None], around].argmax(axis=1)]
    place, _ = peak(*(correlation[rows, best + shift] for shift in (-1, 0, 1)))
    return np.asarray(lags[best] + place)
