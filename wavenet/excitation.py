r"""The voice's source: phase from F0, and a sum of harmonics, exact across any cut of the signal into frames.

F0 is linear between frame centres, phi_t = phi_0 + sum_{u <= t} f0_u / sample_rate [cycles]; amplitudes are linear
between frame centres too. Both are matrix products at frame rate, so a window of frames gives the samples of the whole.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wavenet.config import AudioConfig
from wavenet.pitch.contour import Pitch
from wavenet.upsample import linear_kernel

_FRAMES = 32  # of harmonics at once: they stay in the processor's cache
_FADE = 0.94  # share of half the sample rate from which harmonics fade out, to be gone at the whole of it


def phase(pitch: Pitch, audio: AudioConfig, offset: Tensor | None = None) -> Tensor:
    """phi (B, T) in cycles, in [0, 1), computed in float64: f0 (B, F) [Hz], offset (B,) in cycles or None for 0."""
    kernel = linear_kernel(audio.hop_length).double().to(pitch.f0.device)
    # Divided before the product and not beside it: ONNX Runtime would fuse the two, with a factor in float32.
    f0 = F.pad(pitch.f0.double()[:, None] / audio.sample_rate, (1, 1), mode="replicate")[:, 0].unfold(1, 3, 1)
    within = f0 @ kernel.cumsum(1)  # (B, F, hop): what a frame adds until each of its samples
    start = F.pad(within[..., -1].cumsum(1), (1, 0))[:, :-1, None]
    cycles = (start + within).flatten(1)
    if offset is not None:
        cycles = cycles + offset[:, None].double()
    return cycles.remainder(1.0).to(pitch.f0.dtype)


def voicing(pitch: Pitch, audio: AudioConfig) -> Tensor:
    """voiced (B, F) -> (B, T), linear between frame centres."""
    padded = F.pad(pitch.voiced[:, None], (1, 1), mode="replicate")[:, 0]
    return (padded.unfold(1, 3, 1) @ linear_kernel(audio.hop_length).to(padded)).flatten(1)


def harmonic_count(pitch: Pitch, audio: AudioConfig) -> int:
    """Harmonics that fit below half the sample rate at the lowest voiced F0; at least 1."""
    voiced = pitch.f0[pitch.voiced > 0]
    return max(1, int(audio.sample_rate / 2 / float(voiced.min()))) if voiced.numel() else 1


def fade(frequency: Tensor, audio: AudioConfig) -> Tensor:
    """Gain of a harmonic at `frequency` [Hz]: 1, then linearly to 0 at half the sample rate and beyond."""
    share = frequency / (audio.sample_rate / 2)
    return ((1 - share) / (1 - _FADE)).clamp(0, 1)


def harmonics(cycles: Tensor, amplitude: Tensor, audio: AudioConfig) -> Tensor:
    """sum_k Re(a_k e^{2 pi i k phi}): cycles phi (B, T), complex a (B, H, F) of harmonics 1..H -> (B, T).

    phi is 0 or more, as `phase` gives it.
    """
    hop, count = audio.hop_length, amplitude.shape[1]
    kernel = linear_kernel(hop).to(cycles)
    padded = torch.cat([amplitude[..., :1], amplitude, amplitude[..., -1:]], -1)
    around = padded.unfold(2, 3, 1).permute(0, 2, 3, 1)  # (B, F, 3, H): as rows, products with them are fast
    order = torch.arange(1, count + 1, dtype=cycles.dtype, device=cycles.device)
    blocks = zip(cycles.unflatten(1, (-1, hop, 1)).split(_FRAMES, 1), around.split(_FRAMES, 1), strict=True)
    parts = []
    for turns, shape in blocks:
        angle = (turns * order).frac_().mul_(2 * torch.pi)  # (B, frames, hop, H)
        parts.append(shape.real @ torch.cos(angle).mT - shape.imag @ torch.sin(angle).mT)
    return (torch.cat(parts, 1) * kernel).sum(2).flatten(1)
