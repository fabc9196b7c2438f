"""Mel-cepstral distortion: how far the spectral envelope of a system lies from the recording's, whatever the level."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from distill.levels import silent

ORDER = 24  # coefficients d = 1, ..., 24

_BANDS = 80
_F_MAX = 8000.0  # Hz, or half the sample rate where that is less
_WINDOW, _HOP = 0.025, 0.010  # seconds
_FFT_RESOLUTION = 16.0  # Hz, at most: the lowest mel bands are 38 Hz apart
_FLOOR = 1e-7  # of the loudest band: what lies 70 dB under it is not heard beside it, and a gain moves it along

_Floats = npt.NDArray[np.float64]


def mel_cepstrum(wav: Tensor, sample_rate: int) -> _Floats:
    r"""Coefficients c_1, ..., c_24 (N, 24) of wav (T,) every 10 ms, by the DCT of the log mel power of 80 bands.

    log P_m = c_0 + 2 sum_d c_d cos(pi d (m + 1/2) / M), c_d = 1/M sum_m log P_m cos(pi d (m + 1/2) / M); the factor 2
    is that of a cepstrum, so that 10/log 10 sqrt(2 sum_d dc_d^2) is a root mean square level difference in dB.
    """
    from librosa.filters import mel

    power, size = _power(wav, sample_rate)
    basis = mel(sr=sample_rate, n_fft=size, n_mels=_BANDS, fmin=0.0, fmax=min(_F_MAX, sample_rate / 2), norm=None)
    basis = basis.astype(np.float64) / basis.sum(axis=1, keepdims=True)
    bands = power @ basis.T
    log_power = np.log(np.maximum(bands, _FLOOR * bands.max(initial=0.0) + 1e-30))
    angles = np.pi * np.arange(1, ORDER + 1)[:, None] * (np.arange(_BANDS) + 0.5) / _BANDS
    return np.asarray(log_power @ np.cos(angles).T / _BANDS)


def mel_cepstral_distortion(wav: Tensor, reference: Tensor, sample_rate: int) -> float:
    r"""Mean over frames of 10/log 10 sqrt(2 sum_{d=1}^{24} (c_d - c'_d)^2) in dB, Kubichek 1993; NaN without speech.

    wav and reference (T,) are compared frame by frame, without time warping: systems driven by the recording's mel
    are aligned with it. Frames where the recording is silent, more than 30 dB under its speech, are left out. c_0 is
    too: a gain alone costs nothing.
    """
    power, _ = _power(reference, sample_rate)
    if len(power) == 0:
        return math.nan
    spoken = ~silent(10 * np.log10(power.sum(axis=1) + 1e-30))
    difference = mel_cepstrum(wav, sample_rate)[spoken] - mel_cepstrum(reference, sample_rate)[spoken]
    return float(10 / math.log(10) * np.sqrt(2 * np.square(difference).sum(axis=1)).mean())


def _power(wav: Tensor, sample_rate: int) -> tuple[_Floats, int]:
    """|STFT|^2 (N, size / 2 + 1) of whole windows, and the transform's size."""
    width, hop = round(_WINDOW * sample_rate), round(_HOP * sample_rate)
    size = 2 ** math.ceil(math.log2(sample_rate / _FFT_RESOLUTION))
    window = torch.hann_window(width, dtype=torch.float64)
    samples = wav.detach().cpu().double()
    if len(samples) < width:
        return np.zeros((0, size // 2 + 1)), size
    spectrum = torch.fft.rfft(samples.unfold(0, width, hop) * window, size)
    return spectrum.abs().square().numpy(), size
