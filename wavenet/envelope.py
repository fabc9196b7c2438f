r"""The spectral envelope that a log-mel states, in the units of the signal: amplitudes of lines, densities of noise.

A mel band is a weighted sum of |X_k|, the magnitude spectrum of a windowed frame; divided by the weights' sum it is the
mean |X| around the band's centre. Two facts of the window w turn that into a level, for any n_fft, hop and bands:

    a line of amplitude A adds         sum_k |X_k| = A * line,      line = mean over w of sum_k |W(w_k - w)| / 2
    noise of spectral magnitude |H|    E |X_k|     = |H| * noise,   noise = sqrt(pi / 4 * sum_n w_n^2)

(unit variance before the filter; |X| of Gaussian noise is Rayleigh). The lines of a voice stand f0 apart, so the line
at k f0 owns one period of the frequency axis: A_k = f0 / (df * line) * mean of |X| over [k f0 - f0/2, k f0 + f0/2].

Both are means over the window's length. By Parseval the power of a frame is the sum of w_n^2 x_n^2; where the power of
the signal is linear between frame centres, frame i states

    sum_j blur_j P_{i+j},   blur_j = sum_n w_n^2 triangle(n / hop - j) / sum_n w_n^2,   n from the window's middle

and a magnitude the root of that, nearly. `MelEnvelope.sharpened` undoes it in part.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import AudioConfig
from wavenet.features import mel_basis

_OFFSETS = 32  # places of a line between two bins, over which the sum of its lobe is averaged
_SMALLEST = 1e-9  # magnitude, far under any recording's: keeps logarithms finite
_PLACES = 8  # of a line between two bins, for which its mel is tabulated
_ABOVE_BANDS = -12.0  # dB an octave: how speech falls where the mel has ended


class MelEnvelope(nn.Module):
    """mel (B, M, F) in nats -> smooth magnitude spectra; parameter-free.

    bins: frequencies of the analysis, n_fft / 2 + 1 of them, `spacing` Hz apart. line, noise, blur: see above.
    """

    interpolation: Tensor
    area: Tensor
    basis: Tensor
    line_mels: Tensor
    blur: Tensor

    def __init__(self, audio: AudioConfig) -> None:
        super().__init__()
        self.audio = audio
        self.bins = audio.n_fft // 2 + 1
        self.spacing = audio.sample_rate / audio.n_fft
        window = torch.hann_window(audio.win_length, dtype=torch.float64)
        self.line = _line_sum(window, audio.n_fft)
        self.noise = float((torch.pi / 4 * window.square().sum()).sqrt())
        basis = mel_basis(audio).double()
        frequency = torch.arange(self.bins, dtype=torch.float64) * self.spacing
        centres = (basis @ frequency) / basis.sum(1).clamp(min=_SMALLEST)
        interpolation = _linear(centres, frequency) * _roll_off(centres[-1], frequency)
        self.register_buffer("interpolation", interpolation.float(), persistent=False)
        self.register_buffer("basis", basis.float(), persistent=False)
        self.register_buffer("line_mels", _line_mels(window, audio.n_fft, basis).float(), persistent=False)
        self.register_buffer("blur", _blur(window.square(), audio.hop_length).float(), persistent=False)
        self.register_buffer("area", basis.sum(1).clamp(min=_SMALLEST).float()[:, None], persistent=False)

    def magnitude(self, mel: Tensor) -> Tensor:
        """Mean |X| at every bin, (B, F, bins), linear between band centres, which keeps its integral."""
        density = torch.exp(mel) / self.area
        return torch.matmul(density.transpose(1, 2), self.interpolation).clamp(min=_SMALLEST)

    @property
    def blur_reach(self) -> int:
        """Frames to either side that one update of `sharpened` sees."""
        return len(self.blur) - 1

    def sharpened(self, mel: Tensor, voiced: Tensor, updates: int) -> Tensor:
        r"""The mel whose mean over the window is nearer to the given one, in voiced frames: mel, voiced (B, F) -> mel.

        Updates of Richardson 1972 and Lucy 1974 on the powers p = e^(2 mel): a <- a * blur(p / blur(a)), from a = p
        (the blur is its own transpose but for the ends). They keep a positive. Unvoiced frames are left as they are:
        noise in a frame is one draw, and what differs from frame to frame is chance, which would grow.
        """
        sharp = mel
        for _ in range(updates):
            sharp = sharp + self._blurred(mel - self._blurred(sharp))
        return torch.where(voiced[:, None] > 0, sharp, mel)

    def _blurred(self, mel: Tensor) -> Tensor:
        """mel (B, M, F) whose powers are averaged over frames with the weights `blur`, the end frames repeated."""
        reach = len(self.blur) // 2
        around = F.pad(torch.exp(2 * mel), (reach, reach), mode="replicate").unfold(2, len(self.blur), 1)
        return 0.5 * (around @ self.blur.to(mel)).clamp(min=_SMALLEST**2).log()

    def integral(self, mel: Tensor) -> Tensor:
        """C(f), the integral of the magnitude from 0 to every bin, in bins: (B, F, bins) float64.

        What is quiet after what is loud is a small difference of large sums: in float32 it would be lost.
        """
        magnitude = self.magnitude(mel).double()
        steps = 0.5 * (magnitude[..., 1:] + magnitude[..., :-1])
        return F.pad(steps, (1, 0)).cumsum(-1)

    def smoothed(self, integral: Tensor, frequency: Tensor, width: Tensor) -> Tensor:
        """Mean of the magnitude over [f - width/2, f + width/2]: frequency (B, F, N), width (B, F) [Hz] -> (B, F, N).

        Never over less than two bins. The spectrum is even around 0 and around half the sample rate.
        """
        half = (0.5 * width.double() / self.spacing).clamp(min=1.0)[..., None]
        place = frequency.double() / self.spacing
        mean = (self._at(integral, place + half) - self._at(integral, place - half)) / (2 * half)
        return mean.clamp(min=_SMALLEST).to(frequency.dtype)

    def mel_of_lines(self, frequency: Tensor) -> Tensor:
        """exp(mel) of a line of amplitude 1 at each frequency (B, F, H) [Hz]: (B, F, H, M)."""
        place = (frequency / self.spacing * _PLACES).round().long()
        return self.line_mels[place.clamp(0, len(self.line_mels) - 1)]

    def _at(self, integral: Tensor, place: Tensor) -> Tensor:
        """C at fractional bins, odd around 0 and around the last bin."""
        last = self.bins - 1
        folded = torch.where(place.abs() > last, 2 * last - place.abs(), place.abs()).clamp(0, last)
        low = folded.floor().long().clamp(max=last - 1)
        share = folded - low
        value = integral.gather(2, low) * (1 - share) + integral.gather(2, low + 1) * share
        value = torch.where(place.abs() > last, 2 * integral[..., -1:] - value, value)
        return value * place.sign()


def _line_sum(window: Tensor, n_fft: int) -> float:
    """Sum over bins of the magnitude of a unit-amplitude line, averaged over its place between bins."""
    time = torch.arange(len(window), dtype=window.dtype)
    offsets = torch.arange(_OFFSETS, dtype=window.dtype)[:, None] / _OFFSETS
    spectra = torch.fft.fft(window * torch.exp(2j * torch.pi * offsets * time / n_fft), n_fft)
    return float(spectra.abs().sum(1).mean() / 2)


def _blur(weights: Tensor, hop: int) -> Tensor:
    """Weights, of odd number and sum 1, of frames hop samples apart in the weighted mean of what is linear between."""
    place = (torch.arange(len(weights), dtype=weights.dtype) - len(weights) / 2) / hop
    reach = -(-len(weights) // (2 * hop))
    frames = torch.arange(-reach, reach + 1, dtype=weights.dtype)[:, None]
    return (1 - (place - frames).abs()).clamp(min=0) @ weights / weights.sum()


def _line_mels(window: Tensor, n_fft: int, basis: Tensor) -> Tensor:
    """exp(mel) of a unit line at every 1 / _PLACES of a bin from 0 to half the sample rate, (places, M)."""
    time = torch.arange(len(window), dtype=window.dtype)
    bins = torch.arange(basis.shape[1])
    away = (bins[:, None] - bins) % n_fft  # (bin, the line's bin)
    mels = []
    for offset in range(_PLACES):
        lobe = torch.fft.fft(window * torch.exp(2j * torch.pi * offset / _PLACES * time / n_fft), n_fft).abs() / 2
        mels.append(basis @ lobe[away])  # (M, the line's bin)
    return torch.stack(mels, 2).flatten(1).T[: 1 - _PLACES]


def _linear(centres: Tensor, frequency: Tensor) -> Tensor:
    """(M, bins): weights that interpolate values at `centres` linearly, constant beyond the first and the last."""
    right = torch.searchsorted(centres, frequency).clamp(1, len(centres) - 1)
    left = right - 1
    share = ((frequency - centres[left]) / (centres[right] - centres[left])).clamp(0, 1)
    weights = torch.zeros(len(centres), len(frequency), dtype=centres.dtype)
    places = torch.arange(len(frequency))
    weights[left, places] += 1 - share
    weights[right, places] += share
    return weights


def _roll_off(top: Tensor, frequency: Tensor) -> Tensor:
    octaves = torch.log2((frequency / top).clamp(min=1.0))
    return 10 ** (_ABOVE_BANDS * octaves / 20)
