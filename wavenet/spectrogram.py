"""Spectrogram pictures for logs: an array of colours, without a plotting library."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_RANGE_DB = 80.0
# Dark to light in equal steps of CIE lightness (12.2 each), so that equal steps of dB look equal.
_COLOURS = np.array(
    [
        [0, 0, 4],
        [35, 23, 74],
        [85, 27, 128],
        [137, 50, 137],
        [189, 75, 136],
        [233, 108, 125],
        [252, 156, 125],
        [254, 205, 157],
        [252, 253, 191],
    ],
    dtype=np.float64,
)


def decibels(wav: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """|STFT| in dB (0 dB: a full-scale sine), (n_fft / 2 + 1, frames), of wav (T,)."""
    window = torch.hann_window(n_fft)
    spectrum = torch.stft(
        wav.detach().float().cpu(),
        n_fft,
        hop_length,
        window=window,
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    return 20 * torch.log10(spectrum.abs() * 2 / window.sum() + 1e-9)


def picture(wav: Tensor, sample_rate: int, height: int = 256) -> npt.NDArray[np.uint8]:
    """wav (T,) -> (height, frames, 3) uint8: from the loudest bin, light, 80 dB down to dark; low at the bottom.

    Samples that are NaN or infinite count as 0: the picture of a model that diverged is still a picture.
    """
    wav = wav.detach().float().cpu().nan_to_num(0.0, 0.0, 0.0)
    n_fft = max(64, 2 ** round(np.log2(0.04 * sample_rate)))
    level = decibels(wav, n_fft, max(1, n_fft // 8)).numpy()
    shade = np.clip(1 + (level - max(level.max(), -100.0)) / _RANGE_DB, 0, 1)
    rows = np.linspace(len(shade) - 1, 0, height).round().astype(int)
    place = shade[rows] * (len(_COLOURS) - 1)
    below = np.minimum(place.astype(int), len(_COLOURS) - 2)
    part = (place - below)[..., None]
    return np.asarray(((1 - part) * _COLOURS[below] + part * _COLOURS[below + 1]).round(), dtype=np.uint8)
