"""How close a system's waveform is to the recording: spectrum, pitch, voicing, periodicity.

All take wav (T,) in [-1, 1] and return a number; `measure` returns them all by name.
"""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavenet.config import AudioConfig
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.pitch.tracker import RATE as F0_RATE
from wavenet.pitch.tracker import F0Track, at_internal_rate, correlate, frame_centres, peak, track


class Metric(NamedTuple):
    """What a number is: heading, unit ("" for a share or ratio), which way is better, and what it says."""

    heading: str
    unit: str
    better: Literal["lower", "higher"]
    meaning: str


METRICS = {
    "mel_distance": Metric("mel distance", "nats", "lower", "mean absolute difference of the log-mel spectrograms"),
    "stft_distance": Metric(
        "STFT distance", "", "lower", "spectral convergence plus mean absolute log magnitude, three resolutions"
    ),
    "f0_rmse_cents": Metric("F0 error", "cents", "lower", "root mean square over the frames that both voice"),
    "f0_within_3_percent": Metric(
        "F0 within 3%", "", "higher", "share of the recording's voiced frames that are voiced at the right pitch"
    ),
    "voicing_error": Metric("voicing error", "", "lower", "share of frames voiced in one and not in the other"),
    "voiced_autocorrelation": Metric(
        "voiced autocorrelation", "", "higher", "periodicity of voiced frames: hoarseness and whispering lower it"
    ),
    "band_error": Metric("band error", "dB", "lower", "mean absolute error of level, by octaves"),
}

_BAND_EDGES = (500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)  # Hz; as many as the sample rate allows
_WINDOW_MS = (50.0, 25.0, 10.0)
_PERIODICITY_WINDOW = 0.040  # seconds
_PITCH_MARGIN = 1.1  # the pitch range of a recording, widened on both sides
_SMALL = 1e-5  # magnitude that counts as silence beside a full-scale sine


def measure(wav: Tensor, reference: Tensor, audio: AudioConfig) -> dict[str, float]:
    """Every metric of METRICS for wav (T,) against the recording (T,); NaN where one is not defined (nothing voiced).

    Lengths may differ by a hop and are cut to the shorter, in whole frames; more raises UserError.
    """
    wav, reference = trim(wav, reference, audio)
    ours = track(wav, audio.sample_rate, audio.hop_length)
    theirs = track(reference, audio.sample_rate, audio.hop_length)
    return {
        "mel_distance": mel_distance(wav, reference, audio),
        "stft_distance": stft_distance(wav, reference, audio.sample_rate),
        **f0_errors(ours, theirs),
        "voiced_autocorrelation": voiced_autocorrelation(wav, theirs, audio),
        "band_error": float(np.abs(band_levels(wav, reference, audio.sample_rate)).mean()),
    }


def trim(wav: Tensor, reference: Tensor, audio: AudioConfig) -> tuple[Tensor, Tensor]:
    """Both cut to the same whole number of frames. Raises UserError where they cannot belong together."""
    for name, signal in (("wav", wav), ("reference", reference)):
        if signal.dim() != 1:
            raise UserError(f"{name}: found shape {tuple(signal.shape)}, expected (T,)")
    if abs(len(wav) - len(reference)) > audio.hop_length:
        expected = f"the recording's {len(reference)} within one hop of {audio.hop_length}"
        raise UserError(f"wav: found {len(wav)} samples, expected {expected}")
    length = min(len(wav), len(reference))
    length -= length % audio.hop_length
    return wav[:length], reference[:length]


def mel_distance(wav: Tensor, reference: Tensor, audio: AudioConfig) -> float:
    """Mean |log-mel difference| over bands and frames in nats, with the analysis that the networks are driven by.

    A gain of g alone costs |log g|, except where a band lies at the floor of the analysis.
    """
    log_mel = LogMel(audio)
    return float((log_mel(wav[None].float()) - log_mel(reference[None].float())).abs().mean())


def stft_distance(wav: Tensor, reference: Tensor, sample_rate: int) -> float:
    r"""Multi-resolution STFT distance of wav (T,) from reference (T,), Yamamoto et al. 2020, arXiv 1910.11480.

    Mean over windows of 50, 25 and 10 ms (hop a quarter) of || |R| - |S| ||_F / || |R| ||_F + mean |log |S| - log |R||.
    Magnitudes are floored 100 dB under a full-scale sine.
    """
    distances = []
    for milliseconds in _WINDOW_MS:
        ours, theirs = (_magnitude(x, 2 * round(milliseconds * sample_rate / 2000)) for x in (wav, reference))
        convergence = torch.linalg.norm(theirs - ours) / torch.linalg.norm(theirs)
        distances.append(float(convergence + (ours.log() - theirs.log()).abs().mean()))
    return sum(distances) / len(distances)


def f0_errors(ours: F0Track, theirs: F0Track) -> dict[str, float]:
    """Pitch and voicing errors of one track against the recording's of equal length; NaN where no frame is voiced.

    f0_within_3_percent counts a frame that lost its voicing as wrong.
    """
    both = ours.voiced & theirs.voiced
    ratio = ours.f0[both] / theirs.f0[both]
    voiced = int(theirs.voiced.sum())
    return {
        "f0_rmse_cents": float(np.sqrt(np.mean((1200 * np.log2(ratio)) ** 2))) if len(ratio) else math.nan,
        "f0_within_3_percent": float((np.abs(ratio - 1) <= 0.03).sum() / voiced) if voiced else math.nan,
        "voicing_error": float((ours.voiced != theirs.voiced).mean()) if len(both) else math.nan,
    }


def voiced_autocorrelation(wav: Tensor, reference: F0Track, audio: AudioConfig) -> float:
    """Mean over the recording's voiced frames of wav's normalised autocorrelation, 40 ms, at its best lag.

    The lag is free within the recording's pitch range (5th to 95th percentile, 10% wider): a system of another
    intonation is not punished here, one that breathes where it should hum is. Noise shaped like speech has about 0.6,
    not 0, so the recording's own value and that of noise are the ends of the scale.
    """
    if not reference.voiced.any():
        return math.nan
    low, high = np.percentile(reference.f0[reference.voiced], [5, 95]) * (1 / _PITCH_MARGIN, _PITCH_MARGIN)
    lags = np.arange(int(F0_RATE / high) - 1, int(np.ceil(F0_RATE / low)) + 2)
    centres = frame_centres(len(reference.voiced), audio.sample_rate, audio.hop_length)[reference.voiced]
    signal = at_internal_rate(wav, audio.sample_rate)
    correlation, _ = correlate(signal, centres, lags, _PERIODICITY_WINDOW)
    _, height = peak(correlation[:, :-2], correlation[:, 1:-1], correlation[:, 2:])
    best = correlation[:, 1:-1].argmax(axis=1)
    return float(np.minimum(height[np.arange(len(best)), best], 1.0).mean())


def band_levels(wav: Tensor, reference: Tensor, sample_rate: int) -> np.ndarray:
    """Energy of wav (T,) over the reference's (T,) in dB, in bands: below 500 Hz, then octaves up to half the rate."""
    power = torch.fft.rfft(torch.stack([wav, reference]).detach().cpu().double()).abs().square()
    frequency = torch.fft.rfftfreq(len(wav), 1 / sample_rate)
    edges = torch.tensor([edge for edge in _BAND_EDGES if edge < sample_rate / 2], dtype=frequency.dtype)
    band = torch.bucketize(frequency, edges, right=True)
    ours, theirs = torch.zeros(2, len(edges) + 1, dtype=torch.float64).index_add(1, band, power) + 1e-12
    return np.asarray((10 * torch.log10(ours / theirs)).numpy())


def _magnitude(wav: Tensor, size: int) -> Tensor:
    """|STFT| relative to a full-scale sine's, in float64, (size / 2 + 1, frames)."""
    window = torch.hann_window(size, dtype=torch.float64)
    padded = torch.nn.functional.pad(wav.detach().cpu().double(), (size // 2, size // 2))
    spectrum = torch.stft(padded, size, max(1, size // 4), window=window, center=False, return_complex=True)
    return (spectrum.abs() * 2 / window.sum()).clamp(min=_SMALL)
