"""What needs no training: Griffin-Lim, and noise in the shape of the mel. A vocoder must beat both to have learnt."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wavenet.config import AudioConfig
from wavenet.features import mel_basis

_MOMENTUM = 0.99
_INVERSION_STEPS = 100
_TINY = 1e-12


def griffin_lim(
    mel: Tensor, audio: AudioConfig, iterations: int = 60, generator: torch.Generator | None = None
) -> Tensor:
    """mel (M, F) in nats -> wav (T,), T = F hop: magnitudes from the mel, phases from consistency alone.

    Fast Griffin-Lim with momentum 0.99 (Perraudin, Balazs, Sondergaard 2013), from random phases (`generator`, or a
    fixed seed).
    """
    framing = Framing(audio, mel.shape[1])
    magnitude = linear_magnitude(mel, audio)
    generator = generator if generator is not None else torch.Generator().manual_seed(0)
    spectrum = torch.polar(magnitude, 2 * math.pi * torch.rand(magnitude.shape, generator=generator))
    before = torch.zeros_like(spectrum)
    for _ in range(iterations):
        consistent = framing.analyse(framing.synthesise(spectrum))
        ahead = consistent + _MOMENTUM * (consistent - before)
        spectrum, before = magnitude * ahead / ahead.abs().clamp(min=_TINY), consistent
    return framing.cut(framing.synthesise(spectrum))


def mel_shaped_noise(mel: Tensor, audio: AudioConfig, generator: torch.Generator | None = None) -> Tensor:
    """mel (M, F) in nats -> wav (T,): white Gaussian noise, filtered frame by frame to the mel's envelope, level."""
    framing = Framing(audio, mel.shape[1])
    noise = framing.analyse(torch.randn(framing.padded, generator=generator))
    # The mel is a mean of magnitudes, and of white noise |N| has the mean sqrt(pi / 4 E|N|^2) in every bin.
    noise = noise / (math.pi / 4 * framing.window.square().sum()).sqrt()
    return framing.cut(framing.synthesise(linear_magnitude(mel, audio) * noise))


def linear_magnitude(mel: Tensor, audio: AudioConfig) -> Tensor:
    """|STFT| (n_fft / 2 + 1, F) whose mel is the given one, never negative; bins above f_max, in no band, are 0.

    Least squares by multiplicative steps (Lee and Seung 2001) from the smooth envelope that the bands draw.
    """
    basis = mel_basis(audio)
    area = basis.sum(dim=1, keepdim=True).clamp(min=_TINY)
    bands, target = basis / area, mel.detach().cpu().float().exp() / area  # every band weighs alike
    wanted = bands.T @ target
    magnitude = wanted / bands.sum(dim=0).clamp(min=_TINY)[:, None]
    for _ in range(_INVERSION_STEPS):
        magnitude = magnitude * wanted / (bands.T @ (bands @ magnitude)).clamp(min=_TINY)
    return magnitude


class Framing:
    """The framing of wavenet.features on the padded signal: frame i is its samples [i hop, i hop + n_fft)."""

    def __init__(self, audio: AudioConfig, frames: int) -> None:
        self.audio, self.frames = audio, frames
        self.margin = (audio.n_fft - audio.hop_length) // 2
        self.padded = (frames - 1) * audio.hop_length + audio.n_fft
        side = audio.n_fft - audio.win_length
        self.window = F.pad(torch.hann_window(audio.win_length), (side // 2, side - side // 2))
        weight = self._overlap_add(self.window.square()[:, None].repeat(1, frames))
        self.weight = weight.clamp(min=1e-2 * float(weight.max()))  # smaller at the very ends alone, which are cut

    def analyse(self, padded: Tensor) -> Tensor:
        """(padded,) -> complex (n_fft / 2 + 1, F)."""
        n_fft, hop = self.audio.n_fft, self.audio.hop_length
        return torch.stft(padded, n_fft, hop, window=self.window, center=False, return_complex=True)

    def synthesise(self, spectrum: Tensor) -> Tensor:
        """The signal (padded,) whose spectrum is nearest to `spectrum` (least squares)."""
        frames = torch.fft.irfft(spectrum, self.audio.n_fft, dim=0) * self.window[:, None]
        return self._overlap_add(frames) / self.weight

    def cut(self, padded: Tensor) -> Tensor:
        """Without the margins: (padded,) -> (T,), T = F hop."""
        return padded[self.margin : self.margin + self.frames * self.audio.hop_length]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        size = (1, self.padded)
        return F.fold(frames[None], size, (1, self.audio.n_fft), stride=(1, self.audio.hop_length))[0, 0, 0]
