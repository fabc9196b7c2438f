"""The teacher: p(x) = prod_t p(x_t | x_<t, mel), a WaveNet that returns distributions."""

from __future__ import annotations

import dataclasses
import itertools
import math
import operator
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from wavenet.config import TeacherConfig, require
from wavenet.device import full_precision
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import DiscretizedMixtureLogistic
from wavenet.emphasis import pre_emphasis
from wavenet.errors import UserError
from wavenet.excitation import phase
from wavenet.features import LogMel
from wavenet.fused.availability import unusable
from wavenet.heads import make_head
from wavenet.layers import shift_right
from wavenet.noise import uniforms
from wavenet.notice import announce
from wavenet.pitch.contour import Pitch
from wavenet.pitch.net import PitchNet
from wavenet.prediction import LinearPrediction, Stepwise, whiten
from wavenet.sampling.cached import sample_cached
from wavenet.sampling.fused import sample_fused
from wavenet.sampling.graph import sample_graph
from wavenet.sampling.naive import sample_naive
from wavenet.sampling.persistent import sample_persistent
from wavenet.sampling.residual import sample_by_residual
from wavenet.source import SIGNALS, Source
from wavenet.stack import Stack
from wavenet.upsample import Conditioning, Upsample

AUTO = "auto"
SAMPLERS: dict[str, Callable[..., Tensor]] = {
    "naive": sample_naive,
    "cached": sample_cached,
    "fused": sample_fused,
    "graph": sample_graph,
    "persistent": sample_persistent,
}
ON_CPU = ("fused",)  # the samplers that compute on the CPU, wherever the model is


class Teacher(nn.Module):
    """WaveNet (van den Oord et al. 2016, arXiv 1609.03499) conditioned on log-mel frames.

    wav (B, T) in [-1, 1] and mel (B, M, F), T = F hop -> Distribution of x_t given x_<t, batch shape (B, T). The shift
    by one sample happens here and nowhere else. Level and pre-emphasis are inside (see heads.py), and linear prediction
    where config.linear_prediction asks for it (see prediction.py): the public input and output are plain audio.
    `receptive_field`: x_t depends on exactly the `receptive_field` samples before it.
    """

    def __init__(self, config: TeacherConfig) -> None:
        super().__init__()
        self.config = config
        self.gain = 1.0 if config.gain is None else config.gain
        self.head = make_head(config.distribution, config.pre_emphasis)
        self.log_mel = LogMel(config.audio)
        self.upsample = Upsample(
            config.upsample, config.audio.n_mels, config.audio.hop_length, config.speakers, config.speaker_channels
        )
        order = config.linear_prediction
        require(order == 0 or config.distribution.kind != "mulaw", "linear_prediction", order, "0 with mu-law classes")
        self.prediction = LinearPrediction(config.audio, order, config.pre_emphasis, self.gain) if order else None
        self.source = Source(config.audio, config.pre_emphasis, self.gain) if config.source else None
        self.pitch = PitchNet(config.pitch).requires_grad_(False) if config.source else None
        inputs = 1 + (SIGNALS if config.source else 0)
        self.stack = Stack(config.stack, inputs, self.head.channels, self.upsample.channels)
        with torch.no_grad():
            assert self.stack.output.bias is not None
            self.stack.output.bias.copy_(self.head.initial_bias())

    @property
    def receptive_field(self) -> int:
        """Number of past samples that x_t depends on."""
        return self.stack.receptive_field + self.config.linear_prediction + (1 if self.config.pre_emphasis else 0)

    @property
    def least_log_scale(self) -> float:
        """Under which no scale of x_t's law lies, on any recording's mel: the floor, or with prediction silence's."""
        floor = self.config.distribution.log_scale_floor
        if self.prediction is None:
            return floor
        silence = torch.full((1, self.config.audio.n_mels, 1), math.log(self.config.audio.log_clamp))
        lattice, kernel = self.prediction(silence.to(self.prediction.kernel)), self.prediction.kernel
        _, scale = whiten(kernel.new_zeros(1, kernel.shape[1]), lattice, kernel)
        return floor - math.log(float(scale.max()) * self.gain)

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates a sample."""
        return self.stack.macs_per_sample + 7 * self.config.linear_prediction

    @property
    def noise_channels(self) -> int:
        """Uniforms that one draw of x_t eats."""
        return self.head.noise_channels

    def forward(
        self,
        wav: Tensor,
        mel: Tensor,
        speaker: Tensor | None = None,
        pitch: Pitch | None = None,
        offset: Tensor | None = None,
        first: int = 0,
    ) -> Distribution:
        """Distribution of x_t given x_<t and mel: wav (B, T), mel (B, M, F) -> batch shape (B, T - first).

        first: of the samples first, ..., T - 1 alone, which is all that is then computed. Only with config.source:
        pitch (B, F) instead of the predicted one, offset (B,) the voice's phase at the start.
        """
        return self.conditional(wav, self.conditioning(mel, speaker, pitch, offset), first)

    def conditioning(
        self,
        mel: Tensor,
        speaker: Tensor | None = None,
        pitch: Pitch | None = None,
        offset: Tensor | None = None,
    ) -> Conditioning:
        """What the network is driven by, for mel (B, M, F); with config.source the voice's source is part of it."""
        cond = self.upsample(mel, speaker)
        if self.prediction is not None:
            cond = dataclasses.replace(cond, whitening=self.prediction(mel))
        if self.source is None or self.pitch is None:
            return cond
        with torch.autocast(mel.device.type, enabled=False):  # phases and levels are part of the signal itself
            pitch = self.pitch.predict(mel) if pitch is None else pitch
            cycles = phase(pitch, self.config.audio, offset)
            voice = self.source.voice(self.source.log_magnitude(mel, pitch), pitch, cycles)
            return dataclasses.replace(cond, signals=self.source.signals(pitch, cycles, voice))

    def conditional(self, wav: Tensor, cond: Conditioning, first: int = 0) -> Distribution:
        """The same from conditioning already computed; raises UserError when lengths disagree."""
        if wav.dim() != 2 or wav.shape[1] != cond.length:
            expected = f"(B, {cond.length}), the mel's frames x hop_length"
            raise UserError(f"wav: found shape {tuple(wav.shape)}, expected {expected}")
        emphasised = pre_emphasis(wav, self.config.pre_emphasis, self.gain)
        residual = emphasised
        if self.prediction is not None:
            assert cond.whitening is not None
            rest, scale = whiten(emphasised, cond.whitening, self.prediction.kernel)
            residual = emphasised * scale + rest
        inputs = shift_right(residual)[:, None]
        if cond.signals is not None:
            inputs = torch.cat([inputs, cond.signals], 1)
        params = self.stack(inputs, cond, first).to(wav.dtype)  # autocast ends at the network
        shift = self.config.pre_emphasis * shift_right(wav)[:, first:]
        if self.prediction is None:
            return self.head(params, shift, self.gain)
        return self._shaped(params, shift, rest[:, first:], scale[:, first:])

    def _shaped(self, params: Tensor, shift: Tensor, rest: Tensor, scale: Tensor) -> Distribution:
        """From the law of e_t to that of x_t = (e_t - rest) / (scale gain) + shift, all (B, T)."""
        law = self.head(params, torch.zeros_like(shift), 1.0)
        assert isinstance(law, Gaussian | DiscretizedMixtureLogistic)
        return law.affine(shift - rest / (scale * self.gain), -torch.log(scale * self.gain))

    def stepper(self, mel: Tensor, speaker: Tensor | None = None) -> Callable[[Tensor], Distribution]:
        """A callable x_{t-1} (B, 1) -> Distribution of x_t, batch shape (B, 1), for t = 0, 1, ...; begin with zeros."""
        cond = self.conditioning(mel, speaker)
        stack_step = self.stack.stepper(mel.shape[0], cond)
        a, gain = self.config.pre_emphasis, self.gain
        before = mel.new_zeros(mel.shape[0], 1)
        beside = itertools.repeat(before[:, :0]) if cond.signals is None else iter(cond.signals.unbind(2))
        lattice = None
        if self.prediction is not None:
            assert cond.whitening is not None
            lattice = Stepwise(cond.whitening, self.prediction.kernel)

        def step(previous: Tensor) -> Distribution:
            nonlocal before
            residual = gain * (previous - a * before)
            if lattice is not None:
                residual = lattice.take(residual)
            params = stack_step(torch.cat([residual, next(beside)], 1))[..., None]
            before, shift = previous, a * previous
            return self.head(params, shift, gain) if lattice is None else self._shaped(params, shift, *lattice.ahead())

        return step

    def windows(self, mel: Tensor, speaker: Tensor | None = None) -> Iterator[tuple[int, Conditioning]]:
        """For each t: the first sample and the conditioning of the shortest window of frames that decides x_t."""
        cond, hop = self.conditioning(mel, speaker), self.config.audio.hop_length
        for t in range(cond.length):
            first = max(0, t - self.receptive_field) // hop
            yield first * hop, cond.window(first, t // hop + 1)

    @torch.no_grad()
    @full_precision()
    def sample(
        self,
        mel: Tensor,
        method: str = AUTO,
        generator: torch.Generator | None = None,
        temperature: float = 1.0,
        speaker: Tensor | None = None,
        seed: int | Sequence[int] | None = None,
    ) -> Tensor:
        """Draw wav (B, T) sequentially from mel (B, M, F).

        method: auto is fused, which computes on the CPU wherever the model is, or cached, with a line on stderr, where
        numba does not compile. graph and persistent run on a GPU only, and auto takes neither until they have been run
        on one. The noise is uniform, drawn first and for the whole signal, so every method gives the same samples for
        the same generator (a CPU one). With
        seeds instead, one for each signal (an int stands for seed, seed + 1, ...), the noise is counter-based
        (wavenet/noise.py): a signal is then the same alone and in any batch, but for rounding, which may move it by a
        level. temperature scales the scales (divides the logits of mu-law classes). Raises UserError for an unknown
        method, and for one that the model's device or machine lacks.
        """
        if method == AUTO:
            method = _usual()
        if method not in SAMPLERS:
            raise UserError(f"method: found {method!r}, expected one of {', '.join((AUTO, *SAMPLERS))}")
        if temperature < 0:
            raise UserError(f"temperature: found {temperature}, expected 0 or more")
        batch, length = mel.shape[0], mel.shape[2] * self.config.audio.hop_length
        if seed is None:
            noise = torch.rand(batch, length, self.noise_channels, generator=generator, dtype=mel.dtype).to(mel.device)
        else:
            require(generator is None, "generator", generator, "none beside a seed")
            seeds = _seeds(seed, batch)
            noise = uniforms(seeds, length, self.noise_channels, dtype=mel.dtype, device=mel.device)
        if self.prediction is None or method in ("naive", "cached"):
            return SAMPLERS[method](self, mel, noise, temperature, speaker)
        return sample_by_residual(SAMPLERS[method], self, mel, noise, temperature, speaker)


def _usual() -> str:
    """The sampler that auto stands for, on a GPU too: launch by launch, a small network leaves one idle."""
    reason = unusable()
    if reason:
        announce(f"method: cached, as fused does not run here ({reason})")
    return "cached" if reason else "fused"


def _seeds(seed: int | Sequence[int], batch: int) -> list[int]:
    try:
        seeds = list(range(operator.index(seed), operator.index(seed) + batch))  # type: ignore[arg-type]
    except TypeError:
        require(isinstance(seed, Sequence), "seed", seed, "a whole number, or one for each signal")
        seeds = [operator.index(one) for one in seed]  # type: ignore[union-attr]
    require(len(seeds) == batch, "seed", seeds, f"one for each of {batch} signals")
    return seeds
