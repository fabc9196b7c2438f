r"""F0 as fast as it moves: the contour of which a tracked one is the mean over the tracker's window.

A tracker correlates a stretch of the signal, so what it says of frame i is a mean over that stretch in which loud
samples count for more. With c_j the log F0 at the frames' centres, linear between them as the voice's phase has it
(wavenet/excitation.py), e(t) the energy in the tracker's band, as the mel states it, and n_j(t) the hat functions,

    y_i = sum_j s_ij c_j,    s_ij = int_W e(t) n_j(t) dt / int_W e(t) dt,    W = |t - t_i| < w / 2

over the voiced stretch that the frame is of. A voice that follows y itself is averaged twice by the time it is tracked
again: an onset's glide, whose window lies in its loud end, comes out as half of one. c is the smoothed least-squares
solution,

    c = argmin sum_i (y_i - sum_j s_ij c_j)^2 + sum_j (tau (c_{j+1} - c_j) / step)^2,

a banded system. Nothing here is learned. Derivation: docs/theory.md.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavenet.config import AudioConfig
from wavenet.features import mel_basis
from wavenet.pitch.contour import Pitch, bridged
from wavenet.pitch.tracker import BAND, F_MAX, F_MIN, WINDOW

_Floats = npt.NDArray[np.float64]
_TAU = 0.002  # seconds: what a steep contour costs, against what it explains
_MOST = 0.3  # log F0 that is put right at most, five semitones
_JUMP = 1 / 3  # log ratio from which the tracker jumps rather than glides: it chose a lag there, and took no mean
_SILENT = 1e-12  # of the loudest frame's energy: what a frame counts for at least
_RIDGE = 1e-6  # holds a frame that no other speaks of at what was tracked


@torch.no_grad()
def resolved(pitch: Pitch, mel: Tensor, audio: AudioConfig) -> Pitch:
    """Pitch (B, F), tracked or predicted as tracked, of mel (B, M, F) -> the pitch that moves as the voice does.

    Voicing stays, F0 stays within the tracker's range, and is interpolated through what is unvoiced. Whole clips: the
    ends of a crop lack neighbours.
    """
    if pitch.f0.numel() == 0:
        return pitch
    step = audio.hop_length / audio.sample_rate
    half, penalty = WINDOW / 2 / step, (_TAU / step) ** 2
    voiced = pitch.voiced > 0.5
    levels = np.nan_to_num(mel.detach().cpu().double().numpy(), posinf=1e6, neginf=-1e6).transpose(0, 2, 1)
    energy = np.exp(2 * (levels - levels.max(axis=(1, 2), keepdims=True))) @ _shares(audio)
    log_f0 = pitch.f0.detach().cpu().double().log().numpy()
    rows = zip(log_f0, voiced.cpu().numpy(), energy, strict=True)
    found = np.stack([_solve(tracked, there, level, half, penalty) for tracked, there, level in rows])
    solved = torch.from_numpy(found).to(pitch.f0)
    moved = bridged(solved, voiced).exp().clamp(F_MIN, F_MAX)
    return Pitch(torch.where(voiced.any(1, keepdim=True), moved, pitch.f0), pitch.voiced)


@functools.lru_cache(maxsize=8)
def _shares(audio: AudioConfig) -> _Floats:
    """Share of each mel band that lies in the tracker's band, (M,); all of each where none does."""
    basis = mel_basis(audio).double().numpy()
    frequency = np.arange(basis.shape[1]) * audio.sample_rate / audio.n_fft
    inside = (frequency >= BAND[0]) & (frequency <= BAND[1])
    shares = basis[:, inside].sum(1) / np.maximum(basis.sum(1), 1e-30)
    return np.asarray(shares if shares.any() else np.ones_like(shares))


def _solve(tracked: _Floats, voiced: npt.NDArray[np.bool_], energy: _Floats, half: float, penalty: float) -> _Floats:
    """c (F,) for y = tracked (F,) where voiced, y elsewhere; half: of the window, in frames."""
    from scipy.linalg import solveh_banded  # a fifth of a second to import

    frames, reach = len(tracked), math.ceil(half)
    linked = voiced[1:] & voiced[:-1] & (np.abs(np.diff(tracked)) < _JUMP)
    share = _weights(energy, np.where(voiced, np.concatenate([[0], np.cumsum(~linked)]), -1), half)
    # A = S^T S + penalty D^T D, of which scipy keeps A_{j, j + d} at [width - d, j + d].
    width = 2 * reach
    upper, right = np.zeros((width + 1, frames)), np.zeros(frames)
    for a in range(-reach, reach + 1):
        for b in range(a, reach + 1):
            first, last = max(0, -a), frames - max(0, b)
            if first < last:
                product = share[first:last, reach + a] * share[first:last, reach + b]
                upper[width - (b - a), first + b : last + b] += product
        first, last = max(0, -a), frames - max(0, a)
        if first < last:
            right[first + a : last + a] += share[first:last, reach + a] * tracked[first:last]
    together = penalty * linked
    upper[width, 1:] += together
    upper[width, :-1] += together
    upper[width - 1, 1:] -= together
    alone = np.where(voiced, _RIDGE, 1.0)
    upper[width] += alone
    found = solveh_banded(upper, right + alone * tracked)
    return np.asarray(np.clip(found, tracked - _MOST, tracked + _MOST))


def _weights(energy: _Floats, stretch: npt.NDArray[np.int_], half: float) -> _Floats:
    """s_{i, i + a} (F, 2 K + 1), a = -K ... K, K = ceil(half), of energy (F,): rows sum to 1, to 0 in stretch -1.

    stretch (F,): the number of the one that a frame is of; others count for nothing.
    """
    reach = math.ceil(half)
    levels = np.pad(np.maximum(energy, _SILENT * energy.max()) + np.finfo(float).tiny, reach)
    numbers = np.pad(stretch, reach, constant_values=-1)
    numbers = np.lib.stride_tricks.sliding_window_view(numbers, 2 * reach + 1)  # (F, 2 K + 1), as `share`
    same = (numbers == stretch[:, None]) & (stretch[:, None] >= 0)
    levels = np.lib.stride_tricks.sliding_window_view(levels, 2 * reach + 1)
    share = (levels * same) @ _hat_products(half)
    # Over a frame beyond its ends a stretch fades, and holds its F0: what falls to the next frame is the last one's.
    share[:, :-1] += np.where(same[:, :-1] & ~same[:, 1:], share[:, 1:], 0.0)
    share[:, 1:] += np.where(same[:, 1:] & ~same[:, :-1], share[:, :-1], 0.0)
    share = share * same
    return np.asarray(share / np.maximum(share.sum(1, keepdims=True), 1e-300))


@functools.lru_cache(maxsize=8)
def _hat_products(half: float) -> _Floats:
    """int_{-half}^{half} n_a(u) n_b(u) du of hats at the whole numbers a, b = -K ... K, (2 K + 1, 2 K + 1)."""
    reach = math.ceil(half)
    nodes = np.arange(-reach, reach + 1)
    edges = np.unique(np.concatenate([[-half, half], nodes[np.abs(nodes) < half]]))
    # Squares between the edges: Simpson's rule is exact.
    points = np.concatenate([edges[:-1], (edges[:-1] + edges[1:]) / 2, edges[1:]])
    weights = np.concatenate([np.diff(edges) / 6, np.diff(edges) * 4 / 6, np.diff(edges) / 6])
    hats = np.maximum(0, 1 - np.abs(points - nodes[:, None]))
    return np.asarray((hats * weights) @ hats.T)
