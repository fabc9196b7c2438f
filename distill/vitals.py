"""What a validation measures of a student's health: its sample beside the recording, and in the teacher's eyes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.distributions import Distribution

from distill.levels import noise_floor
from distill.metrics import band_levels, voiced_autocorrelation
from wavenet.config import AudioConfig
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import MixtureLogistic
from wavenet.errors import UserError
from wavenet.pitch.tracker import F0Track

# Lower edges of the bands of `band_levels` [Hz].
_BANDS = (0, 500, 1000, 2000, 4000, 8000, 16000)
# Noise added to both signals before bands are compared [dB under the recording]: what is fainter is not compared.
_MASKER_DB = -70.0
_EXTREME = 8.0  # standard deviations; a normal reaches it once in 10^15 draws


def vital_signs(wav: Tensor, recording: Tensor, theirs: F0Track, audio: AudioConfig) -> dict[str, float]:
    """Signs of a sample wav (T,) beside its recording (T,), whose F0 track is `theirs`; NaN where one is not defined.

    health/finite: share of finite samples; unless it is 1, nothing else is measured.
    health/band/HZ: level over the recording's [dB] from HZ up to the next band, over a masker 70 dB under the
    recording; health/voiced_autocorrelation and health/noise_floor [dBFS, in pauses], each also of the recording.
    """
    finite = float(torch.isfinite(wav).double().mean())
    if finite < 1:
        return {"health/finite": finite}
    rate = audio.sample_rate
    masker = torch.randn(len(recording), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    masker = masker * recording.detach().cpu().double().square().mean().sqrt() * 10 ** (_MASKER_DB / 20)
    levels = band_levels(wav.detach().cpu().double() + masker, recording.detach().cpu().double() + masker, rate)
    return {
        "health/finite": finite,
        **{f"health/band/{hertz}": float(level) for hertz, level in zip(_BANDS[: len(levels)], levels, strict=True)},
        "health/voiced_autocorrelation": voiced_autocorrelation(wav, theirs, audio),
        "health/voiced_autocorrelation_recording": voiced_autocorrelation(recording, theirs, audio),
        "health/noise_floor": noise_floor(wav, recording, rate),
        "health/noise_floor_recording": noise_floor(recording, recording, rate),
    }


def teacher_noise(teacher: Distribution, wav: Tensor) -> Tensor:
    r"""The noise with which the teacher would have drawn wav (B, T), float64 (B, T); standard normal if it did.

    Gaussian teacher: (x_t - m_t) / s_t. Mixture of logistics: Phi^-1(u_t), u_t = F_t(x_t | x_<t), the probability
    integral transform, uniform for the teacher's own samples. Values stop at +-8.
    """
    x = wav.detach().double()
    if isinstance(teacher, Gaussian):
        noise = (x - teacher.loc.detach().double()) * torch.exp(-teacher.log_scale.detach().double())
    elif isinstance(teacher, MixtureLogistic):
        parameters = (teacher.logits, teacher.loc, teacher.log_scale)
        noise = torch.special.ndtri(MixtureLogistic(*(values.detach().double() for values in parameters)).cdf(x))
    else:
        raise UserError(f"teacher: found {type(teacher).__name__}, expected a Gaussian or a mixture of logistics")
    return noise.clamp(-_EXTREME, _EXTREME)


def noise_signs(teacher: Distribution, wav: Tensor) -> dict[str, float]:
    """health/teacher_noise_mean and _variance of `teacher_noise`: 0 and 1 where both agree."""
    noise = teacher_noise(teacher, wav)
    return {
        "health/teacher_noise_mean": float(noise.mean()),
        "health/teacher_noise_variance": float(noise.var(correction=0)),
    }


def mean_signs(clips: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean of each sign over the clips that have it; NaN where none has."""
    values: dict[str, list[float]] = {}
    for signs in clips:
        for name, value in signs.items():
            values.setdefault(name, []).append(value)
    known = {name: [value for value in found if not math.isnan(value)] for name, found in values.items()}
    return {name: sum(found) / len(found) if found else math.nan for name, found in known.items()}
