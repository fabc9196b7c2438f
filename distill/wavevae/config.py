"""Typed configuration of a WaveVAE and of the loss that it is trained by."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from distill.config import StudentConfig
from distill.objective import ObjectiveConfig
from wavenet.config import DistributionConfig, StackConfig, TeacherConfig, require

_SPECTRAL = ("stft", "mel", "power")
_STEEPNESS = 12.0  # of the sigmoid: 0.0025 at step 0, 0.9975 at annealing_steps


@dataclasses.dataclass(frozen=True)
class WaveVAEConfig(StudentConfig):
    """The decoder is the student that the other settings say, with normal noise, the prior; warm_start has no teacher.

    encoder: stack of the Gaussian WaveNet; log_scale_floor: as a teacher's. whitening: the encoder's order of linear
    prediction, with which the decoder's noise has the spectrum that the mel states, too, else that of de-emphasis.
    likelihood: flow (x_t around the flow's output at z_<=t) or one_step_ahead (x_t by the flow's law given z_<t).
    posterior_scale: standard deviation of q(z_t | x_<=t) at the start; output_scale: that of the noise around the
    flow's output at the start, in units of the flow's own scale.
    """

    noise: Literal["logistic", "normal"] = "normal"
    warm_start: bool = False
    encoder: StackConfig = dataclasses.field(default_factory=lambda: StackConfig(cycles=2))
    log_scale_floor: float = -9.0
    whitening: int = 0
    likelihood: Literal["flow", "one_step_ahead"] = "flow"
    posterior_scale: float = 0.5
    output_scale: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.noise == "normal", "noise", self.noise, "normal, the prior of a WaveVAE")
        require(self.linear_prediction == 0, "linear_prediction", self.linear_prediction, "0: see whitening")
        require(not self.warm_start, "warm_start", self.warm_start, "false: a WaveVAE has no teacher")
        for name in ("posterior_scale", "output_scale"):
            require(0 < getattr(self, name) < math.inf, name, getattr(self, name), "a positive number")
        _ = self.teacher  # what a teacher refuses is known now

    @property
    def teacher(self) -> TeacherConfig:
        """The encoder as the Gaussian WaveNet that it is."""
        return TeacherConfig(
            audio=self.audio,
            stack=self.encoder,
            upsample=self.upsample,
            distribution=DistributionConfig("gaussian", log_scale_floor=self.log_scale_floor),
            pre_emphasis=self.pre_emphasis,
            gain=self.gain,
            linear_prediction=self.whitening,
            speakers=self.speakers,
            speaker_names=self.speaker_names,
            speaker_channels=self.speaker_channels,
        )


@dataclasses.dataclass(frozen=True)
class ElboConfig:
    """-E[log p(x | z)] + w KL(q(z | x) || N(0, 1)) [nats/sample] and spectral terms, each a name with its weight.

    w rises from 0 to kl_weight, linearly until annealing_steps or as the sigmoid of 12 (step / annealing_steps - 1/2)
    (Bowman et al. 2016, arXiv 1511.06349); 0 steps: kl_weight from the start. reconstruction: spectral terms of the
    flow's output at z ~ q(z | x); prior: of its output at z ~ N(0, 1), what synthesis makes. Terms: stft, mel, power,
    as in distill.objective; an empty section has none, and without prior the second pass is left out.
    """

    kl_weight: float = 1.0
    annealing: Literal["sigmoid", "linear"] = "sigmoid"
    annealing_steps: int = 1000
    reconstruction: dict[str, float] = dataclasses.field(default_factory=lambda: {"stft": 1.0})
    prior: dict[str, float] = dataclasses.field(default_factory=lambda: {"stft": 1.0, "mel": 1.0})
    stft_sizes: list[int] = dataclasses.field(default_factory=lambda: [2048, 1024, 512])
    power_size: int = 1024

    def __post_init__(self) -> None:
        require(0 < self.kl_weight < math.inf, "objective.kl_weight", self.kl_weight, "a positive number, finite")
        require(self.annealing_steps >= 0, "objective.annealing_steps", self.annealing_steps, "0 or more")
        for name in ("reconstruction", "prior"):
            unknown = ", ".join(sorted(set(getattr(self, name)) - set(_SPECTRAL)))
            require(not unknown, f"objective.{name}", unknown, f"terms out of {', '.join(_SPECTRAL)}")
            _ = self.spectral(name)  # weights and windows that are refused are refused now

    def annealed(self, step: int) -> float:
        """The weight of the KL in training step `step`, the first being 0."""
        if self.annealing_steps == 0:
            return self.kl_weight
        share = step / self.annealing_steps
        if self.annealing == "linear":
            return self.kl_weight * min(share, 1.0)
        return self.kl_weight / (1 + math.exp(-_STEEPNESS * (share - 0.5)))

    def spectral(self, section: str) -> ObjectiveConfig | None:
        """The spectral terms of a section, or None where it has none."""
        weights = {"reconstruction": self.reconstruction, "prior": self.prior}[section]
        if not weights:
            return None
        return ObjectiveConfig(dict(weights), stft_sizes=self.stft_sizes, power_size=self.power_size)
