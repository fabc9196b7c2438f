"""How close a system's waveform is to the recording: the table of metrics, which of them can be measured, and how.

Spectrum, pitch and periodicity are here; the rest has files of its own. All take wav (T,) in [-1, 1] and return a
number; `measure` returns them by name.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Collection
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from distill.cepstral import mel_cepstral_distortion
from distill.levels import noise_floor
from distill.quality import WIDEBAND, dnsmos, pesq_wideband, stoi
from wavenet.config import AudioConfig, require
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.pitch.tracker import RATE as F0_RATE
from wavenet.pitch.tracker import F0Track, at_internal_rate, correlate, frame_centres, peak, track


class Metric(NamedTuple):
    """What a number is: heading, unit ("" for a share or ratio), which way is better, and what it says.

    better nearest: the nearer to the recording's own value; less and more are both worse.

    modules: what must be importable for it, extra: the extra of this project that installs them. rate: the lowest
    sample rate [Hz] that it is defined for. slow: seconds a clip rather than hundredths.
    """

    heading: str
    unit: str
    better: Literal["lower", "higher", "nearest"]
    meaning: str
    modules: tuple[str, ...] = ()
    extra: str = "eval"
    rate: int = 0
    slow: bool = False


def _dnsmos(heading: str, meaning: str) -> Metric:
    return Metric(heading, "MOS", "higher", meaning, ("speechmos.dnsmos",), slow=True)


def _words(heading: str, meaning: str) -> Metric:
    return Metric(heading, "", "lower", meaning, ("pocketsphinx", "jiwer"), rate=WIDEBAND, slow=True)


METRICS = {
    "mel_distance": Metric("mel distance", "nats", "lower", "mean absolute difference of the log-mel spectrograms"),
    "stft_distance": Metric(
        "STFT distance", "", "lower", "spectral convergence plus mean absolute log magnitude, three resolutions"
    ),
    "mcd": Metric(
        "MCD",
        "dB",
        "lower",
        "mel-cepstral distortion: distance of the spectral envelopes of speech, whatever the level",
    ),
    "f0_rmse_cents": Metric("F0 error", "cents", "lower", "root mean square over the frames that both voice"),
    "f0_within_3_percent": Metric(
        "F0 within 3%", "", "higher", "share of the recording's voiced frames that are voiced at the right pitch"
    ),
    "voicing_error": Metric("voicing error", "", "lower", "share of frames voiced in one and not in the other"),
    "voiced_autocorrelation": Metric(
        "voiced autocorrelation",
        "",
        "nearest",
        "periodicity of voiced frames: hoarseness and whispering lower it, buzz raises it above the recording's",
    ),
    "band_error": Metric("band error", "dB", "lower", "mean absolute error of level, by octaves"),
    "noise_floor": Metric(
        "noise floor", "dBFS", "nearest", "level where the recording pauses: compare the recording's own"
    ),
    "stoi": Metric(
        "STOI", "", "higher", "short-time objective intelligibility against the recording, 0 to 1", ("pystoi",)
    ),
    "pesq": Metric(
        "PESQ", "MOS", "higher", "wideband PESQ against the recording, 1.04 to 4.64", ("pesq",), "pesq", WIDEBAND, True
    ),
    "dnsmos_ovrl": _dnsmos("DNSMOS", "overall quality as a network predicts it without the recording"),
    "dnsmos_sig": _dnsmos("DNSMOS signal", "the same of the speech alone"),
    "dnsmos_bak": _dnsmos("DNSMOS background", "the same of the background alone"),
    "wer": _words("WER", "word errors of a speech recogniser over the words spoken, pooled over clips"),
    "wer_gap": _words("WER gap", "WER less the recording's own on the same clips"),
}
SETS = ("fast", "all")

_BAND_EDGES = (500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)  # Hz; as many as the sample rate allows
_WINDOW_MS = (50.0, 25.0, 10.0)
_PERIODICITY_WINDOW = 0.040  # seconds
_PITCH_MARGIN = 1.1  # the pitch range of a recording, widened on both sides
_SMALL = 1e-5  # magnitude that counts as silence beside a full-scale sine


def choose(which: str, audio: AudioConfig, texts: bool = True) -> tuple[list[str], list[str]]:
    """Names of METRICS that can be measured here, and a line for each group that cannot.

    which: "fast" (hundredths of a second a clip), or "all". texts: whether any clip has one. Raises UserError for
    another set.
    """
    require(which in SETS, "metrics", which, f"one of {', '.join(SETS)}")
    names: list[str] = []
    reasons: dict[str, list[str]] = {}
    for name, metric in METRICS.items():
        if metric.slow and which == "fast":
            continue
        reason = _obstacle(metric, audio.sample_rate)
        if reason is None and name.startswith("wer") and not texts:
            reason = "no clip has a text to compare with"
        if reason is None:
            names.append(name)
        else:
            reasons.setdefault(reason, []).append(metric.heading)
    return names, [f"left out: {', '.join(headings)} ({reason})" for reason, headings in reasons.items()]


def measure(
    wav: Tensor,
    reference: Tensor,
    audio: AudioConfig,
    names: Collection[str] | None = None,
    tell: Callable[[str], None] | None = None,
) -> dict[str, float]:
    """Metrics by name for wav (T,) against the recording (T,); NaN where one is not defined (nothing voiced, say).

    names: from `choose`, by default its fast set; the word error rate needs a text and is distill.intelligibility's.
    tell is called with each heading before its turn. Lengths may differ by a hop and are cut to the shorter, in whole
    frames; more raises UserError.
    """
    names = choose("fast", audio)[0] if names is None else names
    wav, reference = trim(wav, reference, audio)
    measured: dict[str, float] = {}
    for group, compute in _GROUPS:
        wanted = [name for name in group if name in names]
        if wanted:
            if tell is not None:
                tell(METRICS[wanted[0]].heading)
            found = compute(wav, reference, audio)
            measured.update({name: found[name] for name in wanted})
    return {name: measured[name] for name in METRICS if name in measured}


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


def _spectrum(wav: Tensor, reference: Tensor, audio: AudioConfig) -> dict[str, float]:
    rate = audio.sample_rate
    return {
        "mel_distance": mel_distance(wav, reference, audio),
        "stft_distance": stft_distance(wav, reference, rate),
        "mcd": mel_cepstral_distortion(wav, reference, rate),
        "band_error": float(np.abs(band_levels(wav, reference, rate)).mean()),
        "noise_floor": noise_floor(wav, reference, rate),
    }


def _pitch(wav: Tensor, reference: Tensor, audio: AudioConfig) -> dict[str, float]:
    ours, theirs = (track(signal, audio.sample_rate, audio.hop_length) for signal in (wav, reference))
    return {**f0_errors(ours, theirs), "voiced_autocorrelation": voiced_autocorrelation(wav, theirs, audio)}


_GROUPS: tuple[tuple[tuple[str, ...], Callable[[Tensor, Tensor, AudioConfig], dict[str, float]]], ...] = (
    (("mel_distance", "stft_distance", "mcd", "band_error", "noise_floor"), _spectrum),
    (("f0_rmse_cents", "f0_within_3_percent", "voicing_error", "voiced_autocorrelation"), _pitch),
    (("stoi",), lambda wav, reference, audio: {"stoi": stoi(wav, reference, audio.sample_rate)}),
    (("pesq",), lambda wav, reference, audio: {"pesq": pesq_wideband(wav, reference, audio.sample_rate)}),
    (("dnsmos_ovrl", "dnsmos_sig", "dnsmos_bak"), lambda wav, _, audio: dnsmos(wav, audio.sample_rate)),
)


def _obstacle(metric: Metric, sample_rate: int) -> str | None:
    """Why it cannot be measured here."""
    if sample_rate < metric.rate:
        return f"{sample_rate} Hz, it needs {metric.rate}"
    for module in metric.modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            package = (error.name or module).partition(".")[0]
            return f"no package {package}: pip install 'parallel-wavenet-distillation[{metric.extra}]'"
    return None
