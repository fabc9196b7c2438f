"""The distillation objective: named terms times weights that must match exactly, and what is logged beside them."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from distill import kl
from distill.spectral import stft_terms
from distill.student import Sample
from wavenet.config import require
from wavenet.distributions.gaussian import Gaussian
from wavenet.emphasis import pre_emphasis

TERMS = ("kl", "regulariser", "stft")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """weights: term -> weight; a term not named is neither computed nor added.

    kl: KL(student || teacher) [nats/sample]; regulariser: (log s_p - log s_q)^2, Gaussian teacher and student only;
    stft: multi-resolution STFT distance from the recording, averaged over stft_sizes. draws: stratified draws per
    sample for the cross entropy against a mixture (a Gaussian pair uses the closed form).
    """

    weights: dict[str, float] = dataclasses.field(default_factory=lambda: {"kl": 1.0, "stft": 30.0})
    draws: int = 8
    stft_sizes: list[int] = dataclasses.field(default_factory=lambda: [2048, 1024, 512])

    def __post_init__(self) -> None:
        unknown = sorted(set(self.weights) - set(TERMS))
        require(not unknown, "objective.weights", ", ".join(unknown), f"terms out of {', '.join(TERMS)}")
        require(bool(self.weights), "objective.weights", self.weights, "at least one term")
        positive = all(0 < weight < math.inf for weight in self.weights.values())
        require(positive, "objective.weights", self.weights, "positive weights, finite")
        require(self.draws > 0, "objective.draws", self.draws, "at least 1")
        sizes_fit = bool(self.stft_sizes) and all(size >= 16 and size % 4 == 0 for size in self.stft_sizes)
        require(sizes_fit, "objective.stft_sizes", self.stft_sizes, "window sizes of 16 or more, divisible by 4")


class Objective:
    """Terms of one student sample under one teacher pass; `start`: the first sample of a crop that counts."""

    def __init__(
        self, config: ObjectiveConfig, coefficient: float, gain: float, scale_floor: float, start: int
    ) -> None:
        self.config, self.start = config, start
        self.coefficient, self.gain, self.scale_floor = coefficient, gain, scale_floor

    @property
    def needs_teacher(self) -> bool:
        """Whether any term asks for the teacher's distribution."""
        return not {"kl", "regulariser"}.isdisjoint(self.config.weights)

    def __call__(
        self, sample: Sample, teacher: Distribution | None, recording: Tensor, generator: torch.Generator | None
    ) -> dict[str, Tensor]:
        """{"loss": ..., "loss/<term>": each weighted term, "kl/...", "stft/...": parts}, all scalars."""
        terms: dict[str, Tensor] = {}
        parts: dict[str, Tensor] = {}
        if teacher is not None:
            student = sample.distribution
            entropy = kl.entropy(student)[:, self.start :].mean()
            if isinstance(student, Gaussian) and isinstance(teacher, Gaussian):
                crossed = kl.cross_entropy_gaussian(student, teacher)
                regulariser = kl.scale_regulariser(student, teacher)[:, self.start :].mean()
                terms["regulariser"] = parts["kl/regulariser"] = regulariser
            else:
                crossed = kl.cross_entropy(student, teacher, self.config.draws, generator)
            cross_entropy = crossed[:, self.start :].mean()
            terms["kl"] = cross_entropy - entropy
            at_floor = (student.log_scale[:, self.start :] < self.scale_floor + 0.1).to(entropy.dtype).mean()
            parts |= {"kl/kl": terms["kl"], "kl/entropy": entropy, "kl/cross_entropy": cross_entropy}
            parts["student/scales_at_floor"] = at_floor
        if "stft" in self.config.weights:
            ours, theirs = (
                pre_emphasis(wav, self.coefficient, self.gain)[:, self.start :] for wav in (sample.wav, recording)
            )
            stft = stft_terms(ours, theirs, self.config.stft_sizes)
            terms["stft"] = torch.stack(list(stft.values())).mean()
            parts |= stft
        weighted = self._weigh(terms)
        return {"loss": torch.stack(list(weighted.values())).sum()} | weighted | parts

    def _weigh(self, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        missing = sorted(set(self.config.weights) - set(terms))
        pair = "a Gaussian teacher and student (distribution.kind gaussian, noise normal)"
        require(
            not missing, "objective.weights", ", ".join(missing), f"terms that this pair has; regulariser needs {pair}"
        )
        return {f"loss/{name}": weight * terms[name] for name, weight in self.config.weights.items()}
