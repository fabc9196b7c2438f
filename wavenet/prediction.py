r"""Linear prediction that a mel states: speech made white by a filter that needs no past but the signal's own.

The mel's envelope gives the power spectrum P of every frame, its inverse transform the autocorrelation r, and the
normal equations sum_j r_{|i-j|} a_j = -r_i, j = 1 ... p (Makhoul 1975), the predictor of order p. The residual

    e_t = (u_t + sum_{j >= 1} a_j(t) u_{t-j}) / sigma(t),      sigma^2 = r_0 + sum_j a_j r_j,

has unit variance and a flat spectrum, as far as the mel tells. It is a triangular linear map of u with 1 / sigma on its
diagonal, so a density moves through it exactly. A frame's 1 / A is stable: the normal equations' A has all its zeros
inside the unit circle. What is linear between two frames has not, where a sharp resonance moves far within a frame, and
sampling such a mel may grow without bound: speech does not do that, sweeping tones and frames out of order do. A
network that models e, the excitation of speech, is left with what a spectrum does not say, and its errors have the
spectrum of speech (LPCNet, Valin and Skoglund 2019, arXiv 1810.11846; LP-WaveNet, Hwang et al. 2020, arXiv 1811.11913).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import AudioConfig
from wavenet.envelope import MelEnvelope
from wavenet.upsample import linear_kernel

_CORRECTION = 1e-5  # of the power, added as white noise: what is 50 dB down is not filtered up
_FRAMES = 32  # filtered at once: their rows stay in the processor's cache


class LinearPrediction(nn.Module):
    """mel (B, M, F) -> whitening filters of the inner signal, pre-emphasised speech of unit rms; parameter-free."""

    log_emphasis: Tensor
    kernel: Tensor

    def __init__(self, audio: AudioConfig, order: int, pre_emphasis: float, gain: float) -> None:
        super().__init__()
        self.order = order
        self.envelope = MelEnvelope(audio)
        turn = torch.cos(2 * torch.pi * torch.arange(self.envelope.bins) * self.envelope.spacing / audio.sample_rate)
        # |1 - a e^{-iw}|^2 of the pre-emphasis, and what one unit of noise has in a bin.
        power = gain**2 * (1 + pre_emphasis**2 - 2 * pre_emphasis * turn) / self.envelope.noise**2
        self.register_buffer("log_emphasis", power.log(), persistent=False)
        self.register_buffer("kernel", linear_kernel(audio.hop_length), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """Filters (B, order + 1, F + 2), tap 0 positive, one replicated frame at either end."""
        with torch.autocast(mel.device.type, enabled=False):
            power = torch.exp(2 * self.envelope.magnitude(mel).double().log() + self.log_emphasis.double())
            return F.pad(predictor(power, self.order).transpose(1, 2), (1, 1), mode="replicate").to(mel.dtype)


def predictor(power: Tensor, order: int) -> Tensor:
    """(1, a_1, ..., a_p) / sigma of power spectra (..., n / 2 + 1), float64 -> (..., order + 1)."""
    correlation = torch.fft.irfft(power, 2 * (power.shape[-1] - 1))[..., : order + 1]
    correlation = torch.cat([correlation[..., :1] * (1 + _CORRECTION), correlation[..., 1:]], -1)
    place = torch.arange(order, device=power.device)
    normal = correlation[..., (place[:, None] - place).abs()]
    coefficients = torch.linalg.solve(normal, -correlation[..., 1:, None])[..., 0]
    error = correlation[..., 0] + (coefficients * correlation[..., 1:]).sum(-1)
    return torch.cat([torch.ones_like(error)[..., None], coefficients], -1) / error.sqrt()[..., None]


def time_varying(signal: Tensor, filters: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """sum_{j >= 1} h_j(t) signal_{t-j} and h_0(t), (B, T) each, of signal (B, T).

    filters (B, taps, F + 2), linear between frames by kernel (3, hop), T = F hop.
    """
    with torch.autocast(signal.device.type, enabled=False):  # the products below are part of the signal itself
        reach = filters.shape[1] - 1
        past = F.pad(signal, (reach, -1)).unfold(1, reach, 1).unflatten(1, (-1, kernel.shape[1]))
        around = filters.unfold(2, 3, 1).permute(0, 2, 3, 1)  # (B, F, 3, taps)
        # Each frame as one product: the filters of three frames, backwards, by rows signal_{t-reach}, ...,
        # signal_{t-1}. In this order it and its gradient read the rows as they lie in memory, in half the time and in
        # a third.
        backwards = around[..., 1:].flip(3)
        parts = [taps @ rows.mT for rows, taps in zip(past.split(_FRAMES, 1), backwards.split(_FRAMES, 1), strict=True)]
        kernel = kernel.to(signal)
        filtered = (torch.cat(parts, 1) * kernel).sum(2).flatten(1)
        return filtered, (around[..., 0] @ kernel).flatten(1)
