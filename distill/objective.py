"""The distillation objective: named terms times weights that must match exactly, and what is logged beside them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.distributions import Distribution

from distill import kl
from distill.contrastive import bounded
from distill.coupling.model import Draw
from distill.perceptual import perceptual_terms
from distill.phones.classifier import PhoneClassifier
from distill.spectral import mel_distance, power_loss, stft_terms
from distill.student import Sample
from wavenet.config import AudioConfig, require
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import Logistic
from wavenet.emphasis import pre_emphasis
from wavenet.features import LogMel
from wavenet.stopwatch import part

TERMS = ("kl", "contrastive", "regulariser", "stft", "mel", "power", "perceptual")
# What is missing where a pair of models lacks a term.
_NEEDS = {
    "regulariser": "a Gaussian teacher and student (distribution.kind gaussian, noise normal)",
    "kl": "a teacher",
    "contrastive": "a teacher under another clip's conditioning",
}


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """weights: term -> weight; a term not named is neither computed nor added.

    kl: KL(student || teacher) [nats/sample]; contrastive: -contrastive_gamma KL(student || teacher of another clip),
    bounded by contrastive_cap [nats/sample]; regulariser: (log s_p - log s_q)^2, Gaussian teacher and student only;
    stft: multi-resolution STFT distance from the recording, averaged over stft_sizes; mel: distance of log-mels
    [nats]; power: squared distance of powers averaged over time, windows of power_size; perceptual: feature +
    style_weight style of a phone classifier.
    kl_estimator: conditional (fresh draws of each x_t; closed form for a Gaussian pair) or log_ratio (log q - log p_t
    at the sample itself: all that a coupling flow has). draws: stratified draws per sample for the cross entropy
    against a mixture.
    """

    weights: dict[str, float] = dataclasses.field(default_factory=lambda: {"kl": 1.0, "stft": 30.0})
    draws: int = 8
    stft_sizes: list[int] = dataclasses.field(default_factory=lambda: [2048, 1024, 512])
    kl_estimator: Literal["conditional", "log_ratio"] = "conditional"
    power_size: int = 1024
    contrastive_gamma: float = 0.3
    contrastive_cap: float = 3.0
    style_weight: float = 1.0

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(TERMS))
        require(not unknown, "objective.weights", ", ".join(unknown), f"terms out of {', '.join(TERMS)}")
        require(bool(self.weights), "objective.weights", self.weights, "at least one term")
        positive = all(0 < weight < math.inf for weight in self.weights.values())
        require(positive, "objective.weights", self.weights, "positive weights, finite")
        alone = "contrastive" in self.weights and "kl" not in self.weights
        require(not alone, "objective.weights", self.weights, "kl beside contrastive, which alone only drives away")
        require(self.draws > 0, "objective.draws", self.draws, "at least 1")
        sizes_fit = bool(self.stft_sizes) and all(_is_window(size) for size in self.stft_sizes)
        require(sizes_fit, "objective.stft_sizes", self.stft_sizes, "window sizes of 16 or more, divisible by 4")
        require(_is_window(self.power_size), "objective.power_size", self.power_size, "16 or more, divisible by 4")
        for name in ("contrastive_gamma", "contrastive_cap", "style_weight"):
            value = getattr(self, name)
            require(0 < value < math.inf, f"objective.{name}", value, "a positive number, finite")

    def windows(self, audio: AudioConfig) -> dict[str, int]:
        """The longest window of each spectral term in use, by the setting that gives it [samples]."""
        longest = {
            "stft": ("objective.stft_sizes", max(self.stft_sizes)),
            "mel": ("audio.n_fft", audio.n_fft),
            "power": ("objective.power_size", self.power_size),
        }
        return dict(setting for term, setting in longest.items() if term in self.weights)


class Objective:
    """Terms of one student sample under one teacher pass; `start`: the first sample of a crop that counts.

    coefficient and gain: the emphasis of stft and power; log_mel: the analysis of mel; phones: the classifier of the
    perceptual term.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        coefficient: float,
        gain: float,
        scale_floor: float = -math.inf,
        start: int = 0,
        phones: PhoneClassifier | None = None,
        log_mel: LogMel | None = None,
    ) -> None:
        self.config, self.start, self.phones, self.log_mel = config, start, phones, log_mel
        self.coefficient, self.gain, self.scale_floor = coefficient, gain, scale_floor

    @property
    def needs_teacher(self) -> bool:
        """Whether any term asks for the teacher's distribution."""
        return not {"kl", "regulariser"}.isdisjoint(self.config.weights)

    @property
    def needs_other(self) -> bool:
        """Whether any term asks for the teacher's distribution under another clip's conditioning."""
        return "contrastive" in self.config.weights

    def __call__(
        self,
        sample: Sample | Draw,
        teacher: Distribution | None,
        recording: Tensor,
        generator: torch.Generator | None,
        other: Distribution | None = None,
    ) -> dict[str, Tensor]:
        """{"loss": ..., "loss/<term>": each weighted term, "kl/...", "stft/...": parts}, all scalars.

        teacher, other: the teacher's law of the scored samples, batch shape (B, T - start), at the student's sample
        under its own and under another clip's conditioning.
        """
        terms: dict[str, Tensor] = {}
        parts: dict[str, Tensor] = {}
        if teacher is not None:
            with part("kl"):
                self._divergences(sample, teacher, other, generator, terms, parts)
        found, said = self.signal_terms(sample.wav, recording)
        terms, parts = terms | found, parts | said
        weighted = self._weigh(terms)
        return {"loss": torch.stack(list(weighted.values())).sum()} | weighted | parts

    def _divergences(
        self,
        sample: Sample | Draw,
        teacher: Distribution,
        other: Distribution | None,
        generator: torch.Generator | None,
        terms: dict[str, Tensor],
        parts: dict[str, Tensor],
    ) -> None:
        teachers = [teacher] if other is None else [teacher, other]
        entropy, crossed = self._estimate(sample, teachers, generator)
        terms["kl"] = parts["kl/kl"] = (crossed[0] - entropy).mean()
        parts |= {"kl/entropy": entropy.mean(), "kl/cross_entropy": crossed[0].mean()}
        if other is not None:
            apart = crossed[1] - entropy
            terms["contrastive"] = -self.config.contrastive_gamma * bounded(apart, self.config.contrastive_cap).mean()
            parts["contrastive/kl"] = apart.mean()
        if isinstance(sample, Draw):
            return
        student = self._scored(sample.distribution)
        if isinstance(student, Gaussian) and isinstance(teacher, Gaussian):
            terms["regulariser"] = parts["kl/regulariser"] = kl.scale_regulariser(student, teacher).mean()
        at_floor = (student.log_scale < self.scale_floor + 0.1).to(entropy.dtype).mean()
        parts["student/scales_at_floor"] = at_floor

    def _estimate(
        self, sample: Sample | Draw, teachers: Sequence[Distribution], generator: torch.Generator | None
    ) -> tuple[Tensor, list[Tensor]]:
        """H(p_s) (B,) and H(p_s, p) (B,) for each of the teachers, at the same draws [nats/sample]."""
        if isinstance(sample, Draw):
            require(self.start == 0, "start", self.start, "0: only the whole of a coupling flow's signal has a density")
            log_q = kl.flow_log_density(sample.base, sample.noise, sample.log_det)
            crossed = [kl.cross_entropy_at(sample.wav[None], law).mean(1) for law in teachers]
            return -log_q / sample.wav.shape[1], crossed
        student, start = self._scored(sample.distribution), self.start
        if self.config.kl_estimator == "log_ratio":
            zero = sample.noise.new_zeros(())
            noise = sample.noise[:, start:]
            # log |det| of the scored part: the Jacobian is triangular.
            log_det = student.log_scale.sum(1)
            entropy = -kl.flow_log_density(type(student)(zero, zero), noise, log_det) / noise.shape[1]
            return entropy, [kl.cross_entropy_at(sample.wav[None, :, start:], law).mean(1) for law in teachers]
        if isinstance(student, Gaussian) and all(isinstance(law, Gaussian) for law in teachers):
            crossed = [kl.cross_entropy_gaussian(student, law) for law in teachers if isinstance(law, Gaussian)]
        else:
            # Uniforms of the whole crop: a draw of a sample does not hang on where the scored part begins.
            uniforms = kl.stratified_uniforms(sample.distribution.loc, self.config.draws, generator)
            draws = student.transform(uniforms[:, :, start:, None])
            crossed = [kl.cross_entropy_at(draws, law) for law in teachers]
        return kl.entropy(student).mean(1), [one.mean(1) for one in crossed]

    def _scored(self, law: Logistic | Gaussian) -> Logistic | Gaussian:
        return type(law)(law.loc[:, self.start :], law.log_scale[:, self.start :])

    def signal_terms(self, wav: Tensor, recording: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What compares a sample (B, T) with the recording (B, T): {term: unweighted}, and parts as in the log."""
        weights, config = self.config.weights, self.config
        terms: dict[str, Tensor] = {}
        parts: dict[str, Tensor] = {}
        if "stft" in weights:
            with part("stft"):
                stft = stft_terms(*self._emphasised(wav, recording), config.stft_sizes)
                terms["stft"] = torch.stack(list(stft.values())).mean()
                parts |= stft
        if "power" in weights:
            with part("power"):
                power = power_loss(*self._emphasised(wav, recording), config.power_size)
                terms["power"] = parts[f"power/{config.power_size}"] = power
        if "mel" in weights:
            assert self.log_mel is not None
            with part("mel"):
                ours, theirs = wav[:, self.start :], recording[:, self.start :]
                terms["mel"] = parts["mel/nats"] = mel_distance(ours, theirs, self.log_mel)
        if "perceptual" in weights:
            assert self.phones is not None
            with part("perceptual"):
                seen = perceptual_terms(self.phones, wav[:, self.start :], recording[:, self.start :])
            terms["perceptual"] = seen["perceptual/feature"] + config.style_weight * seen["perceptual/style"]
            parts |= seen
        return terms, parts

    def _emphasised(self, wav: Tensor, recording: Tensor) -> tuple[Tensor, Tensor]:
        ours, theirs = (pre_emphasis(signal, self.coefficient, self.gain) for signal in (wav, recording))
        return ours[:, self.start :], theirs[:, self.start :]

    def _weigh(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        missing = sorted(set(self.config.weights) - set(terms))
        needs = "; ".join(f"{name} needs {_NEEDS[name]}" for name in missing)
        require(not missing, "objective.weights", ", ".join(missing), f"terms that this pair has; {needs}")
        return {f"loss/{name}": weight * terms[name] for name, weight in self.config.weights.items()}


def _is_window(size: int) -> bool:
    return size >= 16 and size % 4 == 0
