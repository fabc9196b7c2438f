"""Priors p(z): standard normal, mixture of Gaussians, VampPrior, and the exact aggregated posterior.

The aggregated posterior q(z) = (1/n) sum_i q(z | x_i) over the training patches is the prior under which the ELBO is
largest for a given encoder; the VampPrior (Tomczak and Welling 2018, arXiv 1705.07120) is the same sum over K learned
pseudo-inputs, p(z) = (1/K) sum_k q(z | u_k).
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn

from distill.latent.posteriors import Gaussian, Posterior, log_normal

_CELLS = 2**21  # of the table of points and parts that is held at a time


class Prior(Protocol):
    """What a prior can: log_prob of z (..., d) -> (...,) [nats], and sample -> (count, d)."""

    def log_prob(self, z: Tensor) -> Tensor:
        """z (..., d) -> log p(z) (...,) [nats]."""

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (count, d)."""


class StandardNormal:
    """N(0, I) over d dimensions, on the device and in the precision of `like`."""

    def __init__(self, dimensions: int, like: Tensor) -> None:
        self.zero = torch.zeros(dimensions, dtype=like.dtype, device=like.device)

    def log_prob(self, z: Tensor) -> Tensor:
        """z (..., d) -> (...,) [nats]."""
        return log_normal(z, self.zero, self.zero + 1)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (count, d)."""
        return torch.randn(count, len(self.zero), generator=generator, dtype=self.zero.dtype).to(self.zero)


class Aggregate:
    """sum_i w_i q_i(z) over any posteriors; log_weights (n,) add up to 1 in probability, uniform by default."""

    def __init__(self, parts: Posterior, log_weights: Tensor | None = None) -> None:
        self.parts = parts
        self.log_weights = log_weights

    def log_prob(self, z: Tensor) -> Tensor:
        """z (..., d) -> (...,) [nats], exact: a log-sum-exp over all parts, in chunks of points."""
        found = [self._of(part) for part in z.reshape(-1, z.shape[-1]).split(max(1, _CELLS // len(self.parts)))]
        return torch.cat(found).reshape(z.shape[:-1])

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (count, d): a part by its weight, then of that part."""
        weights = torch.ones(len(self.parts)) if self.log_weights is None else self.log_weights.detach().exp().cpu()
        chosen = torch.multinomial(weights, count, replacement=True, generator=generator)
        return self.parts[chosen].draw(1, generator)[0][0]

    def _of(self, z: Tensor) -> Tensor:
        log_probs = self.parts.log_prob_all(z)
        if self.log_weights is None:
            return log_probs.logsumexp(1) - math.log(len(self.parts))
        return (log_probs + self.log_weights).logsumexp(1)


class MixtureParameters(nn.Module):
    """K learned Gaussians: logits (K,), loc (K, d), log_scale (K, d); spread like N(0, I) at first."""

    def __init__(self, components: int, dimensions: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, dimensions))
        self.log_scale = nn.Parameter(torch.zeros(components, dimensions))

    def forward(self) -> Aggregate:
        """The mixture that the parameters state."""
        return Aggregate(Gaussian(self.loc, self.log_scale.exp()), self.logits.log_softmax(0))
