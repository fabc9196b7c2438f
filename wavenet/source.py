r"""A voice's source as a mel and a pitch state it: spectrum, harmonics, and the signals that networks are given.

Nothing here is learned. Levels come from wavenet.envelope, phases from wavenet.excitation; the signal is the models'
inner one, pre-emphasised speech of unit rms. In voiced frames the magnitude is averaged over one period of the
frequency axis around each frequency, which takes the harmonics out of the envelope.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import AudioConfig
from wavenet.envelope import MelEnvelope
from wavenet.excitation import fade, harmonic_count, harmonics, voicing
from wavenet.pitch.contour import Pitch

SIGNALS = 4  # channels of Source.signals
_TINY = 1e-9
LONGER = 4  # transforms of a filter's response, over those of its spectrum
_MOST = 5.0  # what one band may ask of a harmonic, as a factor
_SEEN = 0.02  # share of the best seen line's weight from which a line counts as seen by the bands


class Source(nn.Module):
    """mel (B, M, F) and pitch (B, F) -> the voiced part of speech (B, T), T = F hop; parameter-free."""

    frequency: Tensor
    emphasis: Tensor

    def __init__(self, audio: AudioConfig, pre_emphasis: float, gain: float) -> None:
        super().__init__()
        self.audio = audio
        self.envelope = MelEnvelope(audio)
        frequency = torch.arange(self.envelope.bins) * self.envelope.spacing
        turn = torch.cos(2 * torch.pi * frequency / audio.sample_rate)
        # |1 - a e^{-iw}|, what pre-emphasis does to a magnitude.
        emphasis = gain * (1 + pre_emphasis**2 - 2 * pre_emphasis * turn).sqrt()
        self.register_buffer("frequency", frequency, persistent=False)
        self.register_buffer("emphasis", emphasis.log(), persistent=False)

    def log_magnitude(self, mel: Tensor, pitch: Pitch) -> Tensor:
        """log of the mean |STFT| of the inner signal at every bin, (B, F, bins)."""
        width = torch.where(pitch.voiced > 0, pitch.f0, torch.zeros_like(pitch.f0))
        every = self.frequency.expand(*pitch.f0.shape, -1)
        return self.envelope.smoothed(self.envelope.integral(mel), every, width).log() + self.emphasis

    def voice(self, log_magnitude: Tensor, pitch: Pitch, cycles: Tensor, refinement: Tensor | None = None) -> Tensor:
        """The harmonics (B, T) of a spectrum (B, F, bins), at the phase `cycles` (B, T) of excitation.phase.

        A harmonic's own phase is the spectrum's minimum phase: the pulse of a vocal tract instead of a click.
        """
        frequency = self._frequencies(pitch)
        place = self._places(frequency)
        magnitude = self._amplitudes(log_magnitude, pitch, frequency)
        if refinement is not None:
            magnitude = magnitude * refinement
        angle = between(_folded_spectrum(log_magnitude).imag, place)
        return harmonics(cycles, torch.polar(magnitude, angle).transpose(1, 2), self.audio)

    def response(self, log_magnitude: Tensor, taps: int) -> Tensor:
        """The filter of minimum phase (B, F, taps) whose spectrum (B, F, bins) that many taps can have."""
        return minimum_phase(limited(log_magnitude, taps), taps, longer=1)

    @torch.no_grad()
    def refinement(self, mel: Tensor, log_voice: Tensor, log_noise: Tensor, pitch: Pitch) -> Tensor:
        r"""One step of analysis by synthesis: factors (B, F, H) on the harmonics of spectrum log_voice (B, F, bins).

        Bands narrower than F0 resolve the harmonics, and smoothing over a period cannot. The mel that lines a_k and
        noise beside them would have, v_m = sum_k a_k t_mk + n_m with t_mk the mel of a unit line, is held against the
        given one, e^mel_m: a_k <- a_k sum_m t_mk e^mel_m / v_m / sum_m t_mk, the multiplicative update of Lee and
        Seung 2001 for the Kullback-Leibler divergence. Lines beyond the bands keep their amplitude.
        """
        frequency = self._frequencies(pitch)
        emphasis = torch.exp(between(self.emphasis.expand(*pitch.f0.shape, -1), self._places(frequency)))
        amplitude = self._amplitudes(log_voice, pitch, frequency) / emphasis
        lines = self.envelope.mel_of_lines(frequency)  # (B, F, H, M)
        noise = torch.exp(log_noise - self.emphasis) @ self.envelope.basis.T
        there = (amplitude[..., None, :] @ lines)[..., 0, :] + noise
        ratio = (torch.exp(mel).transpose(1, 2) / there.clamp(min=_TINY)).clamp(1 / _MOST, _MOST)
        weight = lines.sum(-1)
        factor = (lines @ ratio[..., None])[..., 0] / weight.clamp(min=_TINY)
        seen = weight > _SEEN * weight.amax(-1, keepdim=True)
        return torch.where(seen, factor, torch.ones_like(factor))

    def _frequencies(self, pitch: Pitch) -> Tensor:
        """k f0 of every harmonic below half the sample rate, (B, F, H) [Hz]."""
        order = torch.arange(1, harmonic_count(pitch, self.audio) + 1, device=pitch.f0.device, dtype=pitch.f0.dtype)
        return pitch.f0[..., None] * order

    def _places(self, frequency: Tensor) -> Tensor:
        return frequency.clamp(max=self.audio.sample_rate / 2) / self.envelope.spacing

    def _amplitudes(self, log_magnitude: Tensor, pitch: Pitch, frequency: Tensor) -> Tensor:
        """Amplitudes (B, F, H) of lines whose mean magnitude is the spectrum's: 0 where nothing is voiced."""
        share = pitch.f0 * pitch.voiced / (self.envelope.spacing * self.envelope.line)
        magnitude = torch.exp(between(log_magnitude, self._places(frequency)))
        return magnitude * share[..., None] * fade(frequency, self.audio)

    def signals(self, pitch: Pitch, cycles: Tensor, voice: Tensor) -> Tensor:
        """What a network takes at sample rate, (B, 4, T): voicing, its sine and cosine at F0, and the harmonics."""
        level, angle = voicing(pitch, self.audio), 2 * torch.pi * cycles
        return torch.stack([level, level * torch.sin(angle), level * torch.cos(angle), voice], 1)


def limited(log_magnitude: Tensor, taps: int) -> Tensor:
    r"""log |H| (..., n / 2 + 1) -> (..., 4 n / 2 + 1), smoothed to what a filter of so many taps has exactly.

    The power's autocorrelation is weighted by that of a sine's half wave of `taps` samples, v, and so ends after
    taps - 1 lags. Its transform is a mean of the power with weights |V|^2 and positive: by Fejer and Riesz it is the
    power of a filter of `taps` taps all whose zeros lie inside the unit circle. A response that is merely cut off has
    zeros outside, and an inverse that grows without bound.
    """
    size = 2 * (log_magnitude.shape[-1] - 1)
    lags = min(taps, size // 2)
    # float64: far from the peaks the power is 1e-8 of theirs, below what float32 leaves of the sums.
    correlation = torch.fft.irfft(torch.exp(2 * log_magnitude.double()), size)[..., :lags]
    correlation = correlation * lag_window(lags).to(log_magnitude.device)
    between = F.pad(correlation, (0, LONGER * size - 2 * lags + 1))
    power = torch.fft.rfft(torch.cat([between, correlation[..., 1:].flip(-1)], -1)).real
    return (0.5 * torch.log(power)).to(log_magnitude.dtype)


def lag_window(lags: int) -> Tensor:
    """Autocorrelation (lags,) of sin(pi (i + 1/2) / lags), i < lags, over its first value; float64."""
    wave = torch.sin(torch.pi * (torch.arange(lags, dtype=torch.float64) + 0.5) / lags)
    correlation = torch.fft.irfft(torch.fft.rfft(wave, 2 * lags).abs().square(), 2 * lags)[:lags]
    return correlation / correlation[0]


def minimum_phase(log_magnitude: Tensor, taps: int, longer: int = LONGER) -> Tensor:
    r"""h (..., taps), causal and of minimum phase, from log |H| (..., n / 2 + 1) at the bins of an n-point transform.

    c = irfft(log |H|), with c_1 ... c_{n/2-1} doubled and the other half dropped, h = irfft(exp(rfft(c))) (Oppenheim
    and Schafer, Discrete-Time Signal Processing, 13.5). h_0 is taken as e^{c_0}, c_0 the mean of log |H|: positive for
    every spectrum. The other taps come by `longer` transforms, as a response of a sharp spectrum outlasts n.
    """
    cepstrum = _folded(log_magnitude)
    size = longer * cepstrum.shape[-1]
    rest = torch.fft.irfft(torch.exp(torch.fft.rfft(cepstrum, size)), size)[..., 1:taps]
    return torch.cat([torch.exp(cepstrum[..., :1]), rest], -1)


def between(values: Tensor, place: Tensor) -> Tensor:
    """values (B, F, N) at fractional places (B, F, H), linear -> (B, F, H)."""
    low = place.floor().long().clamp(0, values.shape[-1] - 2)
    share = place - low
    return values.gather(-1, low) * (1 - share) + values.gather(-1, low + 1) * share


def _folded_spectrum(log_magnitude: Tensor) -> Tensor:
    """log H (..., n / 2 + 1) of minimum phase: real part as given, imaginary part the phase, unwrapped [rad]."""
    return torch.fft.rfft(_folded(log_magnitude))


def _folded(log_magnitude: Tensor) -> Tensor:
    """Cepstrum (..., n) of the minimum phase: that of log |H| (..., n / 2 + 1), folded onto its first half."""
    size = 2 * (log_magnitude.shape[-1] - 1)
    fold = torch.full((size,), 2.0, dtype=log_magnitude.dtype, device=log_magnitude.device)
    fold[0] = fold[size // 2] = 1.0
    fold[size // 2 + 1 :] = 0.0
    return torch.fft.irfft(log_magnitude, size) * fold
