r"""The student: noise -> inverse-autoregressive flows -> waveform, in one pass, with its exact distribution.

van den Oord et al. 2017, arXiv 1711.10433, section 4. With flows i = 1..N in emphasised units of unit rms,
m_tot = sum_i m_i prod_{j>i} s_j and log s_tot = sum_i log s_i; de-emphasis then gives, given z_<t,
x_t ~ Logistic(m_tot / g + a x_{t-1}, s_tot / g), or Normal.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.flows.autoregressive import IAF
from distill.flows.base import Chain, log_prob
from distill.flows.emphasis import DeEmphasis
from wavenet.config import StudentConfig
from wavenet.device import full_precision
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import Logistic
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.layers import shift_right
from wavenet.upsample import Upsample


class Sample(NamedTuple):
    """One pass: wav (B, T), distribution of x_t given z_<t with .loc and .scale (B, T), noise (B, T), log_det (B,)."""

    wav: Tensor
    distribution: Logistic | Gaussian
    noise: Tensor
    log_det: Tensor


class Student(nn.Module):
    """Complete without the teacher: mel (B, M, F) and noise (B, T), T = F hop, to audio.

    chunk_length: samples that `sample` makes at once.
    """

    chunk_length = 2**18

    def __init__(self, config: StudentConfig) -> None:
        super().__init__()
        self.config = config
        self.gain = 1.0 if config.gain is None else config.gain
        self.log_mel = LogMel(config.audio)
        self.upsample = Upsample(
            config.upsample, config.audio.n_mels, config.audio.hop_length, config.speakers, config.speaker_channels
        )
        share = config.initial_log_scale / len(config.flows)
        self.flows = nn.ModuleList(
            IAF(stack, self.upsample.channels, config.log_scale_range, share) for stack in config.flows
        )
        self.de_emphasis = DeEmphasis(config.pre_emphasis, self.gain)

    @property
    def receptive_field(self) -> int:
        """x_t depends on at most this many noise samples before z_t through the flows (de-emphasis has no end)."""
        return sum(flow.stack.receptive_field for flow in self._iaf())

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates a sample."""
        return sum(flow.stack.macs_per_sample for flow in self._iaf())

    def base(self, like: Tensor) -> Logistic | Gaussian:
        """The distribution of the noise: standard logistic or standard normal, one value."""
        zero = like.new_zeros(())
        return self._law(zero, zero)

    def noise(self, mel: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """z (B, T) for mel (B, M, F), from a CPU generator; temperature scales it."""
        length = mel.shape[2] * self.config.audio.hop_length
        uniform = torch.rand(mel.shape[0], length, 1, generator=generator, dtype=mel.dtype).to(mel.device)
        return self.base(mel).transform(uniform, temperature)

    def forward(self, noise: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Sample:
        """noise (B, T), mel (B, M, F) -> Sample. Raises UserError when lengths disagree."""
        cond = self.upsample(mel, speaker)
        if noise.dim() != 2 or noise.shape[1] != cond.length:
            expected = f"(B, {cond.length}), the mel's frames x hop_length"
            raise UserError(f"noise: found shape {tuple(noise.shape)}, expected {expected}")
        signal, loc, log_scale = noise, torch.zeros_like(noise), torch.zeros_like(noise)
        for flow in self._iaf():
            m, log_s = flow.affine(signal, cond)
            s = torch.exp(log_s)
            signal, loc, log_scale = signal * s + m, loc * s + m, log_scale + log_s
        wav, _ = self.de_emphasis(signal)
        loc = loc / self.gain + self.config.pre_emphasis * shift_right(wav)
        log_scale = log_scale - math.log(self.gain)
        return Sample(wav, self._law(loc, log_scale), noise, log_scale.sum(1))

    @torch.no_grad()
    @full_precision()
    def sample(
        self,
        mel: Tensor,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        speaker: Tensor | None = None,
    ) -> Tensor:
        """mel (B, M, F) -> wav (B, T) in one pass, or, where longer than chunk_length, in a pass for each chunk.

        Chunks overlap by the receptive field, so the result is the same; they bound the memory.
        """
        if temperature < 0:
            raise UserError(f"temperature: found {temperature}, expected 0 or more")
        noise, cond = self.noise(mel, temperature, generator), self.upsample(mel, speaker)
        hop = self.config.audio.hop_length
        frames, step, overlap = mel.shape[2], max(1, self.chunk_length // hop), -(-self.receptive_field // hop)
        chunks = []
        for first in range(0, frames, step):
            begin, end = max(0, first - overlap), min(frames, first + step)
            signal, window = noise[:, begin * hop : end * hop], cond.window(begin, end)
            for flow in self._iaf():
                signal, _ = flow(signal, window)
            chunks.append(signal[:, (first - begin) * hop :])
        wav, _ = self.de_emphasis(torch.cat(chunks, 1))
        return wav

    @torch.no_grad()
    @full_precision()
    def log_prob(self, wav: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Exact log density of wav (B, T) given mel (B, M, F), in nats (B,), by the sequential inverse."""
        cond = self.upsample(mel, speaker)
        if wav.dim() != 2 or wav.shape[1] != cond.length:
            expected = f"(B, {cond.length}), the mel's frames x hop_length"
            raise UserError(f"wav: found shape {tuple(wav.shape)}, expected {expected}")
        return log_prob(self.chain, self.base(wav), wav, cond)

    @property
    def chain(self) -> Chain:
        """The whole map as one flow: the IAFs, then de-emphasis."""
        return Chain([*self._iaf(), self.de_emphasis])

    def _law(self, loc: Tensor, log_scale: Tensor) -> Logistic | Gaussian:
        return Logistic(loc, log_scale) if self.config.noise == "logistic" else Gaussian(loc, log_scale)

    def _iaf(self) -> list[IAF]:
        return [flow for flow in self.flows if isinstance(flow, IAF)]
