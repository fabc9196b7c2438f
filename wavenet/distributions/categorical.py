"""Categorical distribution over mu-law classes, read in units of wav."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from wavenet.distributions.base import NoiseDriven, Shape, open_interval
from wavenet.quantize import MuLaw


class MuLawCategorical(NoiseDriven):
    """Classes of a MuLaw scale with the given logits (*batch_shape, Q); values are samples in [-1, 1].

    log_prob: log mass of the value's class; log_density: the same minus the log width of the class, i.e. the density
    that is constant over each class. Draws are class centres. temperature divides the logits; at 0 the likeliest class.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {"logits": constraints.real_vector}
    support = constraints.interval(-1.0, 1.0)

    def __init__(self, logits: Tensor, mulaw: MuLaw) -> None:
        self.logits, self.mulaw = logits, mulaw
        super().__init__(logits.shape[:-1], logits)

    def expand(self, batch_shape: Shape, _instance: None = None) -> MuLawCategorical:
        """The same distribution over a larger batch shape."""
        return MuLawCategorical(self.logits.expand(*batch_shape, self.logits.shape[-1]), self.mulaw)

    @property
    def mean(self) -> Tensor:
        """Expected sample."""
        return (self.logits.softmax(-1) * self._centres()).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Variance of the sample."""
        spread = (self._centres() - self.mean[..., None]).square()
        return (self.logits.softmax(-1) * spread).sum(-1)

    def entropy(self) -> Tensor:
        """Entropy of the class in nats; a class of no mass (logit -inf) adds nothing."""
        log_mass = self.logits.log_softmax(-1)
        return -(log_mass.exp() * log_mass.clamp(min=torch.finfo(log_mass.dtype).min)).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats of the class of value (..., *batch_shape)."""
        return self._log_mass(self.mulaw.encode(value))

    def log_density(self, value: Tensor) -> Tensor:
        """log_prob minus the log width of the class."""
        index = self.mulaw.encode(value)
        return self._log_mass(index) - self.mulaw.log_width().to(self.logits)[index]

    def transform(self, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """u (..., *batch_shape, 1) -> samples (..., *batch_shape), by inverse CDF."""
        if temperature == 0:
            index = self.logits.argmax(-1).expand(uniforms.shape[:-1])
        else:
            edges = (self.logits / temperature).softmax(-1).cumsum(-1)
            # u in units of the rounded total: otherwise u near 1 draws the last class, full scale, however unlikely.
            index = (open_interval(uniforms) * edges[..., -1:] >= edges[..., :-1]).sum(-1)
        return self.mulaw.decode(index, self.logits.dtype)

    def _log_mass(self, index: Tensor) -> Tensor:
        shape = torch.broadcast_shapes(index.shape, self.batch_shape)
        log_mass = self.logits.log_softmax(-1).expand(*shape, self.logits.shape[-1])
        return log_mass.gather(-1, index.expand(shape)[..., None])[..., 0]

    def _centres(self) -> Tensor:
        index = torch.arange(self.mulaw.levels, device=self.logits.device)
        return self.mulaw.decode(index, self.logits.dtype)
