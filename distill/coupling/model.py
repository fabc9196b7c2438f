r"""`flow`: a vocoder with an exact density in one pass and samples in one pass (RealNVP, arXiv 1605.08803).

    noise --couplings--> inner signal (--linear prediction--> emphasised speech) --de-emphasis--> audio

All steps are flows with a log_det, so log p(x) = log p(z) - log_det. Trained by likelihood (distill/coupling/train.py),
or distilled from a teacher by the log ratio (distill/train.py): x has no law given its past, but q(x) is known.
"""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.coupling.config import FlowConfig
from distill.coupling.dequantizer import SignalDequantizer
from distill.coupling.multiscale import MultiScale
from distill.dequantization import UniformDequantizer
from distill.flows.base import Chain, Flow, draw, log_prob, require_length
from distill.flows.emphasis import DeEmphasis
from distill.flows.prediction import Synthesis
from wavenet.device import full_precision
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import Logistic
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.prediction import LinearPrediction
from wavenet.quantize import Grid
from wavenet.upsample import Conditioning, Upsample


class Draw(NamedTuple):
    """One pass: wav (B, T), the noise's element-wise law, noise (B, T), log_det (B,) = log |det d wav / d noise|."""

    wav: Tensor
    base: Logistic | Gaussian
    noise: Tensor
    log_det: Tensor


class CouplingFlow(nn.Module):
    """mel (B, M, F) and noise (B, T), T = F hop, to audio and back. chunk_length: samples `sample` makes at once."""

    chunk_length = 2**18

    def __init__(self, config: FlowConfig) -> None:
        super().__init__()
        self.config = config
        self.gain = 1.0 if config.gain is None else config.gain
        audio, order = config.audio, config.linear_prediction
        self.log_mel = LogMel(audio)
        # Of squeezed time: a frame covers hop_length / squeeze steps.
        hop = audio.hop_length // config.squeeze
        self.upsample = Upsample(config.upsample, audio.n_mels, hop, config.speakers, config.speaker_channels)
        self.flow = MultiScale(config, self.upsample.channels)
        self.prediction = LinearPrediction(audio, order, config.pre_emphasis, self.gain) if order else None
        outer: list[Flow] = [Synthesis(audio.hop_length)] if order else []
        self.dequantizer = UniformDequantizer(Grid(config.bits).step)
        if config.dequantization == "variational":
            self.dequantizer = SignalDequantizer(self.dequantizer.step, config.dequantizer)
        self.outer = Chain([*outer, DeEmphasis(config.pre_emphasis, self.gain)])

    @property
    def receptive_field(self) -> int:
        """Noise samples that x_t may depend on through the couplings (de-emphasis and prediction have no end)."""
        return self.flow.receptive_field

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates a sample."""
        return self.flow.macs_per_sample + 7 * self.config.linear_prediction

    def base(self, like: Tensor) -> Logistic | Gaussian:
        """The law of one value of the noise: standard logistic or standard normal."""
        zero = like.new_zeros(())
        return Logistic(zero, zero) if self.config.noise == "logistic" else Gaussian(zero, zero)

    def noise(self, mel: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """z (B, T) for mel (B, M, F), from a CPU generator; temperature scales it."""
        return draw(self.base(mel), mel, self.config.audio.hop_length, temperature, generator)

    def conditioning(self, mel: Tensor, speaker: Tensor | None = None) -> Conditioning:
        """What the flows are driven by, in squeezed time; with linear prediction its lattice, frame by frame."""
        cond = self.upsample(mel, speaker)
        return cond if self.prediction is None else dataclasses.replace(cond, whitening=self.prediction(mel))

    @property
    def chain(self) -> Chain:
        """The whole map as one flow of audio."""
        return Chain([self.flow, self.outer])

    def forward(self, noise: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Draw:
        """noise (B, T), mel (B, M, F) -> Draw; differentiable. Checks lengths (UserError)."""
        self._require_length("noise", noise, mel)
        wav, log_det = self.chain(noise, self.conditioning(mel, speaker))
        return Draw(wav, self.base(noise), noise, log_det)

    def log_prob(self, wav: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
        """Exact log density of wav (B, T) given mel (B, M, F), in nats (B,), in one pass; differentiable."""
        self._require_length("wav", wav, mel)
        return log_prob(self.chain, self.base(wav), wav, self.conditioning(mel, speaker))

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

        Chunks overlap by the couplings' reach on either side, so the result is the same; they bound the memory.
        """
        if temperature < 0:
            raise UserError(f"temperature: found {temperature}, expected 0 or more")
        noise, cond, hop = self.noise(mel, temperature, generator), self.conditioning(mel, speaker), self._hop
        frames, step, overlap = mel.shape[2], max(1, self.chunk_length // hop), -(-self.flow.reach // hop)
        chunks = []
        for first in range(0, frames, step):
            last = min(frames, first + step)
            begin, end = max(0, first - overlap), min(frames, last + overlap)
            inner, _ = self.flow(noise[:, begin * hop : end * hop], cond.window(begin, end))
            chunks.append(inner[:, (first - begin) * hop : (last - begin) * hop])
        wav, _ = self.outer(torch.cat(chunks, 1), cond)
        return wav

    @property
    def _hop(self) -> int:
        return self.config.audio.hop_length

    def _require_length(self, name: str, signal: Tensor, mel: Tensor) -> None:
        require_length(name, signal, mel.shape[-1] * self._hop)
