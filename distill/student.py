r"""The student: noise -> (source-filter ->) inverse-autoregressive flows (-> 1 / A) -> waveform, and its exact law.

van den Oord et al. 2017, arXiv 1711.10433, section 4. With flows i = 1..N in emphasised units of unit rms,
m_tot = sum_i m_i prod_{j>i} s_j and log s_tot = sum_i log s_i; de-emphasis then gives, given z_<t,
x_t ~ Logistic(m_tot / g + a x_{t-1}, s_tot / g), or Normal. With linear prediction the flows make the residual e of
wavenet/prediction.py, and what e_t -> u_t = (e_t - rest_t) / scale_t does to m_tot and s_tot comes before.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill.config import StudentConfig
from distill.flows.autoregressive import IAF
from distill.flows.base import Chain, draw, log_prob, require_length
from distill.flows.emphasis import DeEmphasis
from distill.flows.prediction import Synthesis
from distill.flows.source_filter import SourceFilter
from wavenet.config import require
from wavenet.device import full_precision
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import Logistic
from wavenet.errors import UserError
from wavenet.excitation import phase
from wavenet.features import LogMel
from wavenet.layers import shift_right
from wavenet.pitch.contour import Pitch
from wavenet.pitch.net import PitchNet
from wavenet.prediction import LinearPrediction, whiten
from wavenet.source import SIGNALS
from wavenet.upsample import Conditioning, Upsample

# The flows after a prior, however they are computed: signal (B, T), Conditioning of the same T -> signal (B, T).
Engine = Callable[[Tensor, Conditioning], Tensor]

# What the flows after a prior begin with, as a factor on their last layer: near the identity.
_NEAR_IDENTITY = 0.05


class Sample(NamedTuple):
    """One pass: wav (B, T), distribution of x_t given z_<t with .loc and .scale (B, T), noise (B, T), log_det (B,)."""

    wav: Tensor
    distribution: Logistic | Gaussian
    noise: Tensor
    log_det: Tensor


class Student(nn.Module):
    """Complete without the teacher: mel (B, M, F) and noise (B, T), T = F hop, to audio.

    With config.prior source_filter, F0 and voicing come from the mel by `pitch`, a network inside, unless they are
    given; `corrected` false then leaves out what flow 0 has learnt. chunk_length: samples that `sample` makes at once.
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
        self.prior: SourceFilter | None = None
        self.pitch: PitchNet | None = None
        near = 1.0
        if config.prior == "source_filter":
            spread = float(self.base(torch.zeros(())).stddev)
            self.prior = SourceFilter(config.source_filter, config.audio, config.pre_emphasis, self.gain, spread)
            self.pitch = PitchNet(config.pitch).requires_grad_(False)
            near = _NEAR_IDENTITY
        share = 0.0 if self.prior else config.initial_log_scale / len(config.flows)
        signals = SIGNALS if self.prior else 0
        self.flows = nn.ModuleList(
            IAF(stack, self.upsample.channels, config.log_scale_range, share, signals, near) for stack in config.flows
        )
        order = config.linear_prediction
        self.prediction = LinearPrediction(config.audio, order, config.pre_emphasis, self.gain) if order else None
        self.synthesis = Synthesis(config.audio.hop_length) if order else None
        self.de_emphasis = DeEmphasis(config.pre_emphasis, self.gain)

    @property
    def receptive_field(self) -> int:
        """x_t depends on at most this many noise samples before z_t through the flows (what comes after has no end)."""
        return sum(flow.receptive_field for flow in self._steps())

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates a sample."""
        return sum(flow.macs_per_sample for flow in self._steps()) + 7 * self.config.linear_prediction

    def base(self, like: Tensor) -> Logistic | Gaussian:
        """The distribution of the noise: standard logistic or standard normal, one value."""
        zero = like.new_zeros(())
        return self._law(zero, zero)

    def noise(self, mel: Tensor, temperature: float = 1.0, generator: torch.Generator | None = None) -> Tensor:
        """z (B, T) for mel (B, M, F), from a CPU generator; temperature scales it."""
        return draw(self.base(mel), mel, self.config.audio.hop_length, temperature, generator)

    def forward(
        self,
        noise: Tensor,
        mel: Tensor,
        speaker: Tensor | None = None,
        pitch: Pitch | None = None,
        offset: Tensor | None = None,
    ) -> Sample:
        """noise (B, T), mel (B, M, F) -> Sample. Raises UserError when lengths disagree.

        pitch: the mel's own F0 and voicing (B, F), the recording's instead of predicted; offset (B,): the voice's
        phase at the start [cycles].
        """
        cond = self.conditioning(mel, speaker, pitch, offset)
        require_length("noise", noise, cond.length)
        signal, loc, log_scale = noise, torch.zeros_like(noise), torch.zeros_like(noise)
        for flow in self._steps():
            m, log_s = flow.affine(signal, cond)
            s = torch.exp(log_s)
            signal, loc, log_scale = signal * s + m, loc * s + m, log_scale + log_s
        if self.synthesis is not None:
            assert cond.whitening is not None
            signal = self.synthesis.speech(signal, cond)
            rest, scale = whiten(signal, cond.whitening, self.synthesis.kernel)
            loc, log_scale = (loc - rest) / scale, log_scale - scale.log()
        wav, _ = self.de_emphasis(signal)
        loc = loc / self.gain + self.config.pre_emphasis * shift_right(wav)
        log_scale = log_scale - math.log(self.gain)
        return Sample(wav, self._law(loc, log_scale), noise, log_scale.sum(1))

    def conditioning(
        self,
        mel: Tensor,
        speaker: Tensor | None = None,
        pitch: Pitch | None = None,
        offset: Tensor | None = None,
        corrected: bool = True,
    ) -> Conditioning:
        """What the flows are driven by, for mel (B, M, F); pitch and offset as in `forward`."""
        cond = self.upsample(mel, speaker)
        if self.prior is None:
            return cond if self.prediction is None else dataclasses.replace(cond, whitening=self.prediction(mel))
        pitch = self._pitch(mel, pitch)
        cycles = phase(pitch, self.config.audio, offset)
        return self.prior.condition(cond, mel, self.upsample.standardised(mel), pitch, cycles, corrected)

    @torch.no_grad()
    @full_precision()
    def sample(
        self,
        mel: Tensor,
        temperature: float = 1.0,
        generator: torch.Generator | None = None,
        speaker: Tensor | None = None,
        pitch: Pitch | None = None,
        signal_model: bool = False,
        engine: Engine | None = None,
    ) -> Tensor:
        """mel (B, M, F) -> wav (B, T) in one pass, or, where longer than chunk_length, in a pass for each chunk.

        Chunks overlap by the receptive field and carry the voice's phase on, so the result is the same; they bound the
        memory. pitch (B, F): what is to be heard, where it is not what the mel says. signal_model: flow 0 alone,
        without anything learned from audio but the prediction of pitch. engine: what computes the other flows, one of
        distill.engines, in place of `through`.
        """
        if temperature < 0:
            raise UserError(f"temperature: found {temperature}, expected 0 or more")
        require(not signal_model or self.prior is not None, "signal_model", signal_model, "a student with a prior")
        noise, cond = self.noise(mel, temperature, generator), self.upsample(mel, speaker)
        hop = self.config.audio.hop_length
        frames, step, overlap = mel.shape[2], max(1, self.chunk_length // hop), -(-self.receptive_field // hop)
        if self.prior is not None:
            own = self._pitch(mel, None)
            pitch = own if pitch is None else self._pitch(mel, pitch)
            cycles, standardised = phase(pitch, self.config.audio), self.upsample.standardised(mel)
        chunks = []
        for first in range(0, frames, step):
            begin, end = max(0, first - overlap), min(frames, first + step)
            window = cond.window(begin, end)
            if self.prior is not None and pitch is not None:
                start, stop = max(0, begin - self.prior.context), min(frames, end + self.prior.context)
                window = self.prior.condition(
                    cond.window(start, stop),
                    mel[:, :, start:stop],
                    standardised[:, :, start:stop],
                    pitch.frames(start, stop),
                    cycles[:, start * hop : stop * hop],
                    not signal_model,
                    None if pitch is own else own.frames(start, stop),
                ).window(begin - start, end - start)
            signal = noise[:, begin * hop : end * hop]
            if self.prior is not None:
                signal, _ = self.prior(signal, window)
            if not signal_model:
                signal = (engine or self.through)(signal, window)
            chunks.append(signal[:, (first - begin) * hop :])
        signal = torch.cat(chunks, 1)
        if self.synthesis is not None and self.prediction is not None:
            signal = self.synthesis.speech(signal, dataclasses.replace(cond, whitening=self.prediction(mel)))
        wav, _ = self.de_emphasis(signal)
        return wav

    def through(self, signal: Tensor, cond: Conditioning) -> Tensor:
        """signal (B, T) -> (B, T) through every flow but a source-filter's flow 0: the engine that the others equal."""
        for flow in self.iafs:
            signal, _ = flow(signal, cond)
        return signal

    @property
    def iafs(self) -> list[IAF]:
        """The flows that are networks, first to last."""
        return [flow for flow in self.flows if isinstance(flow, IAF)]

    @torch.no_grad()
    @full_precision()
    def log_prob(self, wav: Tensor, mel: Tensor, speaker: Tensor | None = None, pitch: Pitch | None = None) -> Tensor:
        """Exact log density of wav (B, T) given mel (B, M, F), in nats (B,), by the sequential inverse."""
        cond = self.conditioning(mel, speaker, pitch)
        require_length("wav", wav, cond.length)
        return log_prob(self.chain, self.base(wav), wav, cond)

    @property
    def chain(self) -> Chain:
        """The whole map as one flow: the prior where there is one, the IAFs, 1 / A where there is, de-emphasis."""
        return Chain([*self._steps(), *([] if self.synthesis is None else [self.synthesis]), self.de_emphasis])

    def _law(self, loc: Tensor, log_scale: Tensor) -> Logistic | Gaussian:
        return Logistic(loc, log_scale) if self.config.noise == "logistic" else Gaussian(loc, log_scale)

    def _pitch(self, mel: Tensor, given: Pitch | None) -> Pitch:
        if given is None:
            assert self.pitch is not None
            with torch.autocast(mel.device.type, enabled=False):  # bf16 would round F0 by 2%
                return self.pitch.predict(mel)
        expected = (mel.shape[0], mel.shape[2])
        require(
            tuple(given.f0.shape) == expected, "pitch", tuple(given.f0.shape), f"a value for each frame, {expected}"
        )
        return given

    def _steps(self) -> list[SourceFilter | IAF]:
        prior = [] if self.prior is None else [self.prior]
        return [*prior, *self.iafs]
