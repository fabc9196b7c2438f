"""What may be wrong with a student: named diagnoses, each by its evidence, its threshold, and what to do about it.

Every check takes the thresholds and the scalars of a validation; a scalar that is missing or NaN is no evidence.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Literal

from wavenet.config import require

GRADIENT = "health/grad/"
_BAND = "health/band/"
# Differential entropy of a normal of unit scale, the least of the laws in use [nats].
_NORMAL_ENTROPY = 0.5 * math.log(2 * math.pi * math.e)


@dataclasses.dataclass(frozen=True)
class HealthConfig:
    """When a student is judged, and from where on it is ill.

    every: training steps between two measurements of each term's gradient norm (one backward pass a term; 0: never).
    after: steps before which nothing is judged. persist: validations running that must show a thing. on_collapse: warn
    (stop for "not finite" and "entropy collapse" alone) or stop (for every diagnosis).
    whisper_drop: voiced autocorrelation under the recording's; level_error: mean |dB| over the bands up to which levels
    count as right; band_drop [dB]; floor_share: of scales; kl_above [nats/sample] and kl_growth, times its best: both;
    entropy_margin [nats] under a normal at the teacher's floor; gradient_ratio: between terms; hiss [dB] over the
    recording's noise floor, and hiss_level [dBFS]: both; noise_variance: of back-inferred noise, either way;
    collapsed_kl [nats/sample]: of a posterior that has become the prior.
    """

    every: int = 100
    after: int = 1000
    persist: int = 2
    on_collapse: Literal["warn", "stop"] = "warn"
    whisper_drop: float = 0.15
    level_error: float = 10.0
    band_drop: float = 15.0
    floor_share: float = 0.5
    kl_above: float = 5.0
    kl_growth: float = 3.0
    entropy_margin: float = 0.5
    gradient_ratio: float = 30.0
    hiss: float = 12.0
    hiss_level: float = -70.0
    noise_variance: float = 4.0
    collapsed_kl: float = 0.05

    def __post_init__(self) -> None:
        for name in ("every", "after"):
            require(getattr(self, name) >= 0, f"health.{name}", getattr(self, name), "0 or more")
        require(self.persist > 0, "health.persist", self.persist, "at least 1")
        for name in (
            "whisper_drop",
            "level_error",
            "band_drop",
            "floor_share",
            "kl_above",
            "entropy_margin",
            "hiss",
            "collapsed_kl",
        ):
            require(getattr(self, name) > 0, f"health.{name}", getattr(self, name), "a positive number")
        for name in ("kl_growth", "gradient_ratio", "noise_variance"):
            require(getattr(self, name) > 1, f"health.{name}", getattr(self, name), "more than 1")


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """A name out of DIAGNOSES, what was seen, and what to do."""

    name: str
    evidence: str
    advice: str

    def __str__(self) -> str:
        return f"{self.name}: {self.evidence}; {self.advice}"


@dataclasses.dataclass(frozen=True)
class Case:
    """What is judged: scalars of a validation by name, the teacher's log scale floor, and the best KL before."""

    scalars: Mapping[str, float]
    scale_floor: float
    best_kl: float = math.inf

    def __getitem__(self, name: str) -> float:
        return self.scalars.get(name, math.nan)

    def under(self, prefix: str) -> dict[str, float]:
        """Scalars that begin with `prefix`, by the rest of their names."""
        return {name.removeprefix(prefix): value for name, value in self.scalars.items() if name.startswith(prefix)}


def examine(config: HealthConfig, case: Case) -> list[Diagnosis]:
    """Every diagnosis that the case shows, in the order of DIAGNOSES."""
    found = []
    for name, (check, advice) in DIAGNOSES.items():
        evidence = check(config, case)
        if evidence is not None:
            found.append(Diagnosis(name, evidence, advice))
    return found


def _not_finite(config: HealthConfig, case: Case) -> str | None:
    share = case.scalars.get("health/finite", 1.0)
    if share < 1:
        return f"{100 * (1 - share):.3g}% of the held-out sample is not finite"
    strange = [name for name in ("loss", "kl/kl") if not math.isfinite(case.scalars.get(name, 0.0))]
    return f"held-out {' and '.join(strange)} not finite" if strange else None


def _entropy_collapse(config: HealthConfig, case: Case) -> str | None:
    divergence, entropy = case["kl/kl"], case["kl/entropy"]
    if divergence > config.kl_above and divergence > config.kl_growth * case.best_kl:
        entropies = f"entropy {entropy:.2f}, cross entropy {case['kl/cross_entropy']:.2f}"
        return f"KL of {divergence:.2f} nats/sample, {case.best_kl:.2f} at its best ({entropies})"
    least = case.scale_floor + _NORMAL_ENTROPY - config.entropy_margin
    if entropy < least:
        return f"entropy of {entropy:.2f} nats/sample, under the {least:.2f} that any teacher with this floor has"
    return None


def _scales_at_floor(config: HealthConfig, case: Case) -> str | None:
    share = case["student/scales_at_floor"]
    if share > config.floor_share:
        return f"{100 * share:.0f}% of the student's scales at or under the teacher's floor, {case.scale_floor:g}"
    return None


def _whispering(config: HealthConfig, case: Case) -> str | None:
    ours, theirs = case["health/voiced_autocorrelation"], case["health/voiced_autocorrelation_recording"]
    levels = [abs(level) for level in case.under(_BAND).values()]
    error = sum(levels) / len(levels) if levels else math.nan
    if theirs - ours > config.whisper_drop and error <= config.level_error:
        return f"voiced autocorrelation {ours:.2f}, the recordings' {theirs:.2f}, levels right within {error:.1f} dB"
    return None


def _band_collapse(config: HealthConfig, case: Case) -> str | None:
    low = {band: level for band, level in case.under(_BAND).items() if level < -config.band_drop}
    if not low:
        return None
    return ", ".join(f"{level:.1f} dB in the band from {band} Hz" for band, level in low.items())


def _hiss(config: HealthConfig, case: Case) -> str | None:
    ours, theirs = case["health/noise_floor"], case["health/noise_floor_recording"]
    if ours - theirs > config.hiss and ours > config.hiss_level:
        return f"{ours:.1f} dBFS in pauses, the recordings' {theirs:.1f}"
    return None


def _teacher_noise(config: HealthConfig, case: Case) -> str | None:
    variance = case["health/teacher_noise_variance"]
    if variance > config.noise_variance or variance < 1 / config.noise_variance:
        return f"the noise that the teacher infers from the sample has variance {variance:.2f} instead of 1"
    return None


def _teacher_ignored(config: HealthConfig, case: Case) -> str | None:
    divergence, name, other = _gradients(case)
    if other > config.gradient_ratio * divergence:
        return f"gradient norm of {name} {other:.3g}, of kl {divergence:.3g}"
    return None


def _out_of_balance(config: HealthConfig, case: Case) -> str | None:
    divergence, name, other = _gradients(case)
    if divergence > config.gradient_ratio * other:
        return f"gradient norm of kl {divergence:.3g}, of {name}, the largest other, {other:.3g}"
    return None


def _posterior_collapse(config: HealthConfig, case: Case) -> str | None:
    divergence = case["elbo/kl"]
    if divergence < config.collapsed_kl:
        share = f"{100 * case['elbo/active']:.0f}% of the steps active"
        return f"KL of {divergence:.3g} nats/sample between posterior and prior, {share}: z tells nothing of x"
    return None


def _gradients(case: Case) -> tuple[float, str, float]:
    """Norm of kl's gradient, and the other term with the largest; NaN where one of the two is missing."""
    norms = case.under(GRADIENT)
    divergence = norms.pop("kl", math.nan)
    name = max(norms, key=lambda term: norms[term], default="")
    return divergence, name, norms.get(name, math.nan)


_Check = Callable[[HealthConfig, Case], str | None]

DIAGNOSES: dict[str, tuple[_Check, str]] = {
    "not finite": (_not_finite, "begin a new run with a lower train.lr or train.clip_norm, or train.autocast none"),
    "entropy collapse": (
        _entropy_collapse,
        "begin a new run with a lower train.lr, or lower weights of the terms beside kl: none of them rewards entropy",
    ),
    "scales at the floor": (
        _scales_at_floor,
        "keep regulariser where the pair is Gaussian, else take a teacher with a higher distribution.log_scale_floor",
    ),
    "whispering": (_whispering, "raise the weight of stft, or use model.prior source_filter"),
    "band collapse": (_band_collapse, "raise the weight of stft, and listen whether the teacher's own samples have it"),
    "hiss": (_hiss, "raise the weight of stft, which hears pauses frame by frame, or that of kl"),
    "teacher noise off": (
        _teacher_noise,
        "over 1 the student is noisier than its teacher, under 1 too sure: raise the weight of kl, or train longer",
    ),
    "posterior collapse": (
        _posterior_collapse,
        "begin a new run with more objective.annealing_steps, a lower objective.kl_weight, or likelihood flow",
    ),
    "teacher ignored": (_teacher_ignored, "lower that term's weight, or raise kl's"),
    "terms out of balance": (_out_of_balance, "raise the other terms' weights, or leave them out"),
}
# What no further step mends.
FATAL = ("not finite", "entropy collapse")
