"""What needs no training: Griffin-Lim, and noise in the shape of the mel. A vocoder must beat both to have learnt."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from distill.framing import Framing
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
