r"""Linear prediction that a mel states: speech made white by a filter that needs no past but the signal's own.

The mel's envelope gives the power spectrum P of every frame, its inverse transform the autocorrelation r, and the
recursion of Levinson and Durbin the reflection coefficients k_1 ... k_p of the best predictor of order p (Makhoul
1975). Between frames log r_0 and atanh k (the log area ratios) are linear. With c_m = sqrt(1 - k_m^2), the signal at
the level that the mel states goes in as f_0 = b_0 = u_t / sqrt(r_0), and stage m of the normalised lattice (Gray and
Markel 1975) is

    f_m(t) = (f_{m-1}(t) + k_m b_{m-1}(t - 1)) / c_m,      b_m(t) = (k_m f_{m-1}(t) + b_{m-1}(t - 1)) / c_m.

The residual e_t = f_p(t) has unit variance and a flat spectrum, as far as the mel tells. u -> e is triangular with
1 / sigma(t) = 1 / (sqrt(r_0) prod_m c_m) on its diagonal, so that a density moves through it exactly. The way back
turns (f_m, b_{m-1}) into (f_{m-1}, b_m) by a rotation, which keeps energy: white noise e of unit variance becomes a
signal of variance r_0 at most, at every sample and however the frames jump, and rounding does not grow.

A network that models e, the excitation of speech, is left with what a spectrum does not say, and its errors have the
spectrum of speech (LPCNet, Valin and Skoglund 2019, arXiv 1810.11846; LP-WaveNet, Hwang et al. 2020, arXiv 1811.11913).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import AudioConfig, require
from wavenet.envelope import MelEnvelope
from wavenet.layers import shift_right
from wavenet.upsample import linear_kernel

_CORRECTION = 1e-5  # of the power, added as white noise: what is 50 dB down is not filtered up


class LinearPrediction(nn.Module):
    """mel (B, M, F) -> lattices of the inner signal, pre-emphasised speech of unit rms; parameter-free."""

    log_emphasis: Tensor
    kernel: Tensor

    def __init__(self, audio: AudioConfig, order: int, pre_emphasis: float, gain: float) -> None:
        super().__init__()
        most = audio.n_fft // 2
        require(0 < order <= most, "linear_prediction", order, f"1 to audio.n_fft / 2 = {most}")
        self.order = order
        self.envelope = MelEnvelope(audio)
        turn = torch.cos(2 * torch.pi * torch.arange(self.envelope.bins) * self.envelope.spacing / audio.sample_rate)
        # |1 - a e^{-iw}|^2 of the pre-emphasis, and what one unit of noise has in a bin.
        power = gain**2 * (1 + pre_emphasis**2 - 2 * pre_emphasis * turn) / self.envelope.noise**2
        self.register_buffer("log_emphasis", power.log(), persistent=False)
        self.register_buffer("kernel", linear_kernel(audio.hop_length), persistent=False)

    def forward(self, mel: Tensor) -> Tensor:
        """Lattices (B, 1 + order, F + 2): log sqrt(r_0), then log area ratios; one replicated frame at either end."""
        with torch.autocast(mel.device.type, enabled=False):
            power = torch.exp(2 * self.envelope.magnitude(mel).double().log() + self.log_emphasis.double())
            level, reflection = reflections(power, self.order)
            lattice = torch.cat([0.5 * level.log()[..., None], reflection.atanh()], -1).transpose(1, 2)
            return F.pad(lattice, (1, 1), mode="replicate").to(mel.dtype)


def reflections(power: Tensor, order: int) -> tuple[Tensor, Tensor]:
    """r_0 (...) and k_1 ... k_p (..., order) of power spectra (..., n / 2 + 1), float64, by Levinson and Durbin."""
    correlation = torch.fft.irfft(power, 2 * (power.shape[-1] - 1))[..., : order + 1]
    level = error = correlation[..., 0] * (1 + _CORRECTION)
    predictor = torch.ones_like(level)[..., None]
    found = []
    for m in range(1, order + 1):
        reflection = -(predictor * correlation[..., 1 : m + 1].flip(-1)).sum(-1) / error
        longer = F.pad(predictor, (0, 1))
        predictor = longer + reflection[..., None] * longer.flip(-1)
        error = error * (1 - reflection**2)
        found.append(reflection)
    return level, torch.stack(found, -1)


def whiten(signal: Tensor, lattice: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """(rest, scale), (B, T) each, with e_t = rest_t + scale_t signal_t, of signal (B, T); T = F hop.

    rest depends on the past of the signal alone, scale = 1 / sigma on the lattices (B, 1 + order, F + 2) alone. kernel
    (3, hop): weights of the previous, own and next frame for each sample of a frame.
    """
    with torch.autocast(signal.device.type, enabled=False):  # the filter is part of the signal itself
        level, *ratios = (lattice.transpose(0, 1).unfold(2, 3, 1) @ kernel.to(lattice)).flatten(2).unbind(0)
        rest, scale = torch.zeros_like(signal), torch.exp(-level)
        backward = scale * signal
        for ratio in ratios:
            reflection, gain, past = torch.tanh(ratio), torch.cosh(ratio), shift_right(backward)
            backward = gain * (reflection * (rest + scale * signal) + past)
            rest, scale = gain * (rest + reflection * past), gain * scale
        return rest, scale


class Stepwise:
    """The same one sample after the other: `take` the last one, which before the first is 0, and look `ahead`."""

    def __init__(self, lattice: Tensor, kernel: Tensor) -> None:
        self._coefficients = _each_sample(lattice, kernel.to(lattice))
        self._scale = torch.ones_like(lattice[:, :, 0])  # 1 / (sqrt(r_0) c_1 ... c_m)
        self._rest = torch.zeros_like(self._scale)  # f_m but for the sample's own share
        self._reflection = self._backward = self._rest[:, 1:]  # backward: b_0 ... b_{p-1} of the last sample

    def take(self, signal: Tensor) -> Tensor:
        """A sample (B, 1) -> its residual (B, 1)."""
        forward = self._rest + self._scale * signal
        gain = self._scale[:, 1:] / self._scale[:, :-1]
        backward = gain * (self._reflection * forward[:, :-1] + self._backward)
        self._backward = torch.cat([forward[:, :1], backward[:, :-1]], 1)
        return forward[:, -1:]

    def ahead(self) -> tuple[Tensor, Tensor]:
        """(rest, scale), (B, 1) each, of the next sample."""
        self._reflection, self._scale = next(self._coefficients)
        # f_m = scale_m (u + sum_{j <= m} k_j b_{j-1}(t - 1) / scale_{j-1}): the stages' recursion, summed up.
        past = self._reflection * self._backward / self._scale[:, :-1]
        self._rest = self._scale * F.pad(past.cumsum(1), (1, 0))
        return self._rest[:, -1:], self._scale[:, -1:]


def _each_sample(lattice: Tensor, kernel: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """k_1 ... k_p (B, order) and 1 / (sqrt(r_0) c_1 ... c_m) for m = 0 ... p (B, order + 1) of every sample."""
    for around in lattice.unfold(2, 3, 1).unbind(2):
        values = around @ kernel
        scale = torch.cat([torch.exp(-values[:, :1]), torch.cosh(values[:, 1:])], 1).cumprod(1)
        yield from zip(torch.tanh(values[:, 1:]).unbind(2), scale.unbind(2), strict=True)
