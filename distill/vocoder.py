r"""The student as a graph that an exporter can write: noise, mel, and F0 where it is taken, to audio.

The networks are the student's own modules. What the ONNX operators lack (complex numbers, transforms back to a real
signal, loops whose count is a length) is written as real products, equal but for rounding:

    rfft, irfft       sums by tables of cosine and sine: sum_m c_m e^{-2 pi i m k / n} for every wanted k
    filters           by overlap-save with the same tables, a frame at a time
    sum over lines    k = 16 a + b: sum_a Re(e^{2 pi i 16 a phi} sum_{b=1..16} a_{16a+b} e^{2 pi i b phi}), so that the
                      largest arrays have 1/16 of the harmonics, where excitation.harmonics goes block by block
"""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.flows.source_filter import SourceConditioning, SourceFilter
from distill.student import Student
from wavenet.config import AudioConfig
from wavenet.excitation import phase
from wavenet.pitch.contour import Pitch
from wavenet.source import LONGER, Source, between, lag_window
from wavenet.upsample import Conditioning, linear_kernel

_GROUP = 16  # harmonics of one inner sum


class Vocoder(nn.Module):
    """noise (B, T), mel (B, M, F), then what `inputs` names -> wav (B, T), T = F hop: equal to `student(...)`.wav.

    inputs: names of the arguments, in order. f0 (B, F) [Hz] and voiced (B, F) in [0, 1] for a source-filter student,
    speaker (B,) int64 for one with several speakers.
    """

    def __init__(self, student: Student) -> None:
        super().__init__()
        self.student = copy.deepcopy(student)
        self.inputs = ["noise", "mel"]
        config = student.config
        if self.student.prior is not None:
            real = RealSource(config.audio, config.pre_emphasis, student.gain)
            self.student.prior.source = real.to(next(student.parameters()))
            self.inputs += ["f0", "voiced"]
        if config.speakers:
            self.inputs.append("speaker")

    def forward(
        self,
        noise: Tensor,
        mel: Tensor,
        f0: Tensor | None = None,
        voiced: Tensor | None = None,
        speaker: Tensor | None = None,
    ) -> Tensor:
        """Every argument that `inputs` names is needed, the others are none."""
        student, cond, signal = self.student, self._frames(mel, speaker), noise
        if student.prior is not None:
            assert f0 is not None, "a source-filter student takes its pitch"
            assert voiced is not None
            pitch = Pitch(f0, voiced)
            cycles, standardised = phase(pitch, student.config.audio), student.upsample.standardised(mel)
            cond = student.prior.condition(cond, mel, standardised, pitch, cycles)
            signal = _source_filter(student.prior, signal, cond)
        for flow in student.flows:
            signal, _ = flow(signal, cond)
        wav: Tensor = student.de_emphasis(signal)[0]
        return wav

    def _frames(self, mel: Tensor, speaker: Tensor | None) -> Conditioning:
        """Upsample.forward without its look at the speaker's values, which no graph can take."""
        upsample = self.student.upsample
        frames = upsample.network(upsample.standardised(mel))
        if upsample.embedding is not None and upsample.voice is not None:
            frames = frames + upsample.voice(upsample.embedding(speaker))[:, :, None]
        return Conditioning(F.pad(frames, (1, 1), mode="replicate"), upsample.kernel)


class RealSource(Source):
    """Source in real arithmetic."""

    def voice(self, log_magnitude: Tensor, pitch: Pitch, cycles: Tensor, refinement: Tensor | None = None) -> Tensor:
        """The harmonics (B, T), as in Source."""
        frequency = self._frequencies(pitch)
        magnitude = self._amplitudes(log_magnitude, pitch, frequency)
        if refinement is not None:
            magnitude = magnitude * refinement
        size = 2 * (log_magnitude.shape[-1] - 1)
        minimum = -_folded(log_magnitude) @ _table(log_magnitude, size, size // 2 + 1, size // 2 + 1, sine=True)
        angle = between(minimum, self._places(frequency))
        return real_harmonics(cycles, magnitude * torch.cos(angle), magnitude * torch.sin(angle), self.audio)

    def response(self, log_magnitude: Tensor, taps: int) -> Tensor:
        """The filter of minimum phase (B, F, taps), as in Source."""
        log_magnitude = _limited(log_magnitude, taps)
        cepstrum, half = _folded(log_magnitude), log_magnitude.shape[-1]
        size = 2 * (half - 1)
        bins = size // 2 + 1
        log_real = cepstrum @ _table(cepstrum, size, half, bins)
        turn = -cepstrum @ _table(cepstrum, size, half, bins, sine=True)
        weight = torch.full((bins,), 2.0 / size).to(cepstrum)
        weight = F.pad(weight[1:-1], (1, 1), value=1.0 / size)
        level = torch.exp(log_real) * weight
        real = (level * torch.cos(turn)) @ _table(cepstrum, size, bins, taps)
        rest = real - (level * torch.sin(turn)) @ _table(cepstrum, size, bins, taps, sine=True)
        return torch.cat([torch.exp(cepstrum[..., :1]), rest[..., 1:]], -1)

    def _frequencies(self, pitch: Pitch) -> Tensor:
        """k f0 of every harmonic below half the sample rate and a few more, whole groups of them, (B, F, H) [Hz].

        Those beyond half the sample rate have no amplitude.
        """
        top = self.audio.sample_rate / 2
        lowest = torch.where(pitch.voiced > 0, pitch.f0, top).flatten().amin(0)
        groups = (top / lowest / _GROUP).ceil().long().item()
        torch._check(groups >= 1)
        order = torch.arange(1, groups * _GROUP + 1, device=pitch.f0.device).to(pitch.f0.dtype)
        return pitch.f0[..., None] * order


def _limited(log_magnitude: Tensor, taps: int) -> Tensor:
    """wavenet.source.limited by real products."""
    bins = log_magnitude.shape[-1]
    size = 2 * (bins - 1)
    lags = min(taps, size // 2)
    power = torch.exp(2 * log_magnitude.double())
    ends = torch.full((bins,), 2.0 / size, dtype=torch.float64)
    ends[0] = ends[-1] = 1.0 / size
    window = lag_window(lags)
    correlation = (power * ends) @ _table(power, size, bins, lags) * window
    double = torch.full((lags,), 2.0, dtype=torch.float64)
    double[0] = 1.0
    smooth = (correlation * double) @ _table(power, LONGER * size, lags, LONGER * (bins - 1) + 1)
    return (0.5 * torch.log(smooth)).to(log_magnitude.dtype)


def real_harmonics(cycles: Tensor, real: Tensor, imaginary: Tensor, audio: AudioConfig) -> Tensor:
    """excitation.harmonics for amplitudes real + i imaginary (B, F, H), H whole groups: cycles (B, T) -> (B, T)."""
    hop, kernel = audio.hop_length, linear_kernel(audio.hop_length).to(cycles)
    turns = cycles.unflatten(1, (-1, hop, 1))  # (B, F, hop, 1)
    inner = _angle(turns, torch.arange(1, _GROUP + 1).to(cycles))
    cosine, sine = torch.cos(inner), torch.sin(inner)
    real, imaginary = _around(real), _around(imaginary)  # (B, F, 16, groups * 3)
    part_real = (cosine @ real - sine @ imaginary).unflatten(-1, (-1, 3))
    part_imaginary = (cosine @ imaginary + sine @ real).unflatten(-1, (-1, 3))
    groups = torch.arange(part_real.shape[-2], device=cycles.device).to(cycles)
    outer = _angle(turns, _GROUP * groups)[..., None]  # (B, F, hop, groups, 1)
    total = (part_real * torch.cos(outer) - part_imaginary * torch.sin(outer)).sum(-2)
    return (total * kernel.T).sum(-1).flatten(1)


def _angle(turns: Tensor, order: Tensor) -> Tensor:
    return 2 * torch.pi * (turns * order).remainder(1.0)


def _around(amplitude: Tensor) -> Tensor:
    """(B, F, H) -> (B, F, 16, groups * 3): of each harmonic those of the frames before, at and after."""
    before = torch.cat([amplitude[:, :1], amplitude[:, :-1]], 1)
    after = torch.cat([amplitude[:, 1:], amplitude[:, -1:]], 1)
    around = torch.stack([before, amplitude, after], -1)  # (B, F, H, 3)
    return around.unflatten(2, (-1, _GROUP)).transpose(2, 3).flatten(3)


def _source_filter(prior: SourceFilter, noise: Tensor, cond: Conditioning) -> Tensor:
    """SourceFilter.forward by overlap-save, in which no array has a row a sample: noise (B, T) -> signal (B, T).

    A frame and what its filters reach before it, n samples, times each filter of three in the frequency domain.
    """
    assert isinstance(cond, SourceConditioning)
    hop, taps = prior.audio.hop_length, prior.config.taps
    own = noise.unflatten(1, (-1, hop))  # (B, F, hop)
    before = range(-(-(taps - 1) // hop), 0, -1)
    earlier = [F.pad(own, (0, 0, count, 0))[:, : own.shape[1]] for count in before]
    frames = torch.cat([*earlier, own], 2)  # (B, F, n)
    size = frames.shape[2]
    bins = size // 2 + 1
    real, imaginary = frames @ _table(noise, size, size, bins), -frames @ _table(noise, size, size, bins, sine=True)
    filters = cond.filters.transpose(1, 2)  # (B, F + 2, taps)
    response = filters @ _table(noise, size, taps, bins), -filters @ _table(noise, size, taps, bins, sine=True)
    even = [2.0 / size] * (bins - 2 + size % 2) + [1.0 / size] * (1 - size % 2)
    weight = torch.tensor([1.0 / size, *even], dtype=torch.float64).to(noise)
    cosine, sine = (_table(noise, size, bins, size, sine=part)[:, -hop:] for part in (False, True))
    signal = cond.voice.unflatten(1, (-1, hop))
    for place, share in enumerate(prior.kernel):
        there_real, there_imaginary = (part[:, place : part.shape[1] - 2 + place] for part in response)
        product_real = (real * there_real - imaginary * there_imaginary) * weight
        product_imaginary = (real * there_imaginary + imaginary * there_real) * weight
        signal = signal + share * (product_real @ cosine - product_imaginary @ sine)
    return signal.flatten(1)


def _folded(log_magnitude: Tensor) -> Tensor:
    """First half, n / 2 + 1 values, of the cepstrum of minimum phase of log |H| (..., n / 2 + 1): the rest is 0."""
    half = log_magnitude.shape[-1]
    size = 2 * (half - 1)
    weight = F.pad(torch.full((half - 2,), 2.0 / size), (1, 1), value=1.0 / size).to(log_magnitude)
    fold = F.pad(torch.full((half - 2,), 2.0), (1, 1), value=1.0).to(log_magnitude)
    return (log_magnitude * weight) @ _table(log_magnitude, size, half, half) * fold


def _table(like: Tensor, size: int, rows: int, columns: int, sine: bool = False) -> Tensor:
    """cos or sin of 2 pi m k / size for m < rows, k < columns, in the precision of `like`, of exact angles.

    Looked up in one period, so that a graph holds the period and not the product.
    """
    angle = 2 * torch.pi * torch.arange(size, dtype=torch.float64) / size
    period = (torch.sin(angle) if sine else torch.cos(angle)).to(like)
    return period[torch.arange(rows)[:, None] * torch.arange(columns) % size]
