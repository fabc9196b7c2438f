"""Posteriors q(z | x_i) of a batch of patches: Gaussian, or a Gaussian carried on by inverse autoregressive flow.

Both draw z with its log density, and state the density of any point under every one of them, which is what an
aggregated posterior q(z) = (1/n) sum_i q(z | x_i) and the mutual information are made of.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from distill.latent.masked import MaskedStep

_LOG_2_PI = math.log(2 * math.pi)
_NOTHING = -1e30
_PAIRS = 2**17  # of points and posteriors that an inverse flow takes at a time


def log_normal(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log N(z; loc, diag scale^2), summed over the last axis [nats]."""
    return -(0.5 * ((z - loc) / scale).square() + scale.log() + 0.5 * _LOG_2_PI).sum(-1)


def pairwise_log_normal(z: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """log N(z_k; loc_i, diag scale_i^2) of every pair: z (K, d), loc and scale (n, d) -> (K, n) [nats].

    The squares are multiplied out, so that one matrix product does the work; in float64, for its parts cancel.
    """
    dtype = z.dtype
    centre = loc.detach().double().mean(0)
    z, loc, precision = z.double() - centre, loc.double() - centre, scale.double() ** -2
    constant = loc.square().mul(precision).sum(1) / 2 + scale.double().log().sum(1) + 0.5 * loc.shape[1] * _LOG_2_PI
    points = torch.cat([z.square(), z, torch.ones_like(z[:, :1])], 1)
    return (points @ torch.cat([-0.5 * precision, loc * precision, -constant[:, None]], 1).T).to(dtype)


class Gaussian:
    """q(z | x_i) = N(loc_i, diag scale_i^2): loc and scale (n, d)."""

    def __init__(self, loc: Tensor, scale: Tensor) -> None:
        self.loc, self.scale = loc, scale

    def __len__(self) -> int:
        return len(self.loc)

    def __getitem__(self, places: slice | Tensor) -> Gaussian:
        """The posteriors of some of the patches."""
        return Gaussian(self.loc[places], self.scale[places])

    def centre(self) -> Tensor:
        """The mean of every posterior, (n, d)."""
        return self.loc

    def draw(self, draws: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Reparametrised z (draws, n, d) = loc + scale eps, and log q(z | x_i) (draws, n) [nats]."""
        noise = torch.randn(draws, *self.loc.shape, generator=generator, dtype=self.loc.dtype).to(self.loc)
        z = self.loc + self.scale * noise
        return z, -(0.5 * noise.square() + self.scale.log() + 0.5 * _LOG_2_PI).sum(-1)

    def log_prob_all(self, z: Tensor) -> Tensor:
        """log q(z_k | x_i) of every point under every posterior: z (K, d) -> (K, n) [nats]."""
        return pairwise_log_normal(z, self.loc, self.scale)

    def kl_to_standard_normal(self) -> Tensor:
        """KL(q(z_j | x_i) || N(0, 1)) = (scale^2 + loc^2 - 1) / 2 - log scale of each dimension, (n, d) [nats]."""
        return 0.5 * (self.scale.square() + self.loc.square() - 1) - self.scale.log()


class Flowing:
    """q(z | x_i): the Gaussian's draw through masked steps that see a context of x_i (Kingma et al. 2016).

    arXiv 1606.04934. base: Gaussian of n; context (n, C); steps: first to last, the order of dimensions reversed
    between them. log q(z) = log q(z_0) - sum of the steps' log determinants.
    """

    def __init__(self, base: Gaussian, context: Tensor, steps: Sequence[MaskedStep]) -> None:
        self.base, self.context, self.steps = base, context, steps

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, places: slice | Tensor) -> Flowing:
        """The posteriors of some of the patches."""
        return Flowing(self.base[places], self.context[places], self.steps)

    def centre(self) -> Tensor:
        """Where the mean of every base goes, (n, d)."""
        z = self.base.loc
        for step in self.steps:
            z = step(z, self.context)[0].flip(-1)
        return z

    def draw(self, draws: int, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Reparametrised z (draws, n, d) in one pass of each step, and log q(z | x_i) (draws, n) [nats]."""
        z, log_prob = self.base.draw(draws, generator)
        for step in self.steps:
            z, log_det = step(z, self.context)
            z, log_prob = z.flip(-1), log_prob - log_det
        return z, log_prob

    def log_prob(self, z: Tensor) -> Tensor:
        """log q(z | x_i) by the inverse, d passes of each step: z (..., n, d) -> (..., n) [nats]."""
        total = z.new_zeros(z.shape[:-1])
        for step in reversed(self.steps):
            z, log_det = step.inverse(z.flip(-1), self.context)
            total = total + log_det
        found = log_normal(z, self.base.loc, self.base.scale) + total
        # The noise of a point far outside may overflow: its density is 0, in any sum.
        return torch.where(found.isfinite(), found, found.new_tensor(_NOTHING))

    def log_prob_all(self, z: Tensor) -> Tensor:
        """log q(z_k | x_i) of every point under every posterior: z (K, d) -> (K, n) [nats]. K n d passes: for few."""
        rows = max(1, _PAIRS // len(self))
        return torch.cat([self.log_prob(part[:, None].expand(-1, len(self), -1)) for part in z.split(rows)])


Posterior = Gaussian | Flowing
