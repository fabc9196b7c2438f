r"""Logistic distribution, mixtures of it, and the mixture discretised on a grid of levels.

PixelCNN++ (Salimans et al. 2017, arXiv 1701.05517); Parallel WaveNet (arXiv 1711.10433). All in log space: with
c = (x - m) / s and d = step / s, the mass of a bin is

    sigma(c + d/2) - sigma(c - d/2) = sigma(c + d/2) sigma(d/2 - c) (1 - e^-d),

a product of positive factors that is exact in both tails, at any scale, with a gradient everywhere.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributions import constraints

from wavenet.distributions.base import NoiseDriven, Shape, open_interval
from wavenet.quantize import Grid


class Logistic(NoiseDriven):
    """Density e^-z / (s (1 + e^-z)^2), z = (x - loc) / s, s = exp(log_scale). temperature multiplies the scale."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "log_scale": constraints.real,
    }
    has_rsample = True
    support = constraints.real

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(self.loc.shape, self.loc)

    def expand(self, batch_shape: Shape, _instance: None = None) -> Logistic:
        """The same distribution over a larger batch shape."""
        return Logistic(self.loc.expand(batch_shape), self.log_scale.expand(batch_shape))

    @property
    def scale(self) -> Tensor:
        """s; the standard deviation is s pi / sqrt(3)."""
        return torch.exp(self.log_scale)

    @property
    def mean(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """(s pi)^2 / 3."""
        return torch.exp(2 * self.log_scale) * (math.pi**2 / 3)

    def entropy(self) -> Tensor:
        """log_scale + 2, in nats."""
        return self.log_scale + 2

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats."""
        return _log_density(value, self.loc, self.log_scale)

    def cdf(self, value: Tensor) -> Tensor:
        """P(x <= value)."""
        return torch.sigmoid((value - self.loc) * torch.exp(-self.log_scale))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile function on [0, 1]."""
        return self.loc + self.scale * torch.logit(open_interval(value))

    def transform(self, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """loc + temperature s log(u / (1 - u)), differentiable in loc and log_scale."""
        return self.loc + temperature * self.scale * torch.logit(open_interval(uniforms[..., 0]))

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Reparametrised draws."""
        return self.transform(
            torch.rand(*sample_shape, *self.batch_shape, 1, dtype=self.loc.dtype, device=self.loc.device)
        )


class MixtureLogistic(NoiseDriven):
    """sum_k pi_k Logistic(loc_k, exp(log_scale_k)); logits, loc, log_scale (*batch_shape, K). Continuous.

    A draw eats two uniforms: the component by inverse CDF of the weights, then its logistic. temperature multiplies the
    scales and leaves the weights alone; at 0 a draw is the location of its component.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "logits": constraints.real_vector,
        "loc": constraints.real_vector,
        "log_scale": constraints.real_vector,
    }
    noise_channels = 2
    support: constraints.Constraint = constraints.real

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor) -> None:
        self.logits, self.loc, self.log_scale = torch.broadcast_tensors(logits, loc, log_scale)
        super().__init__(self.loc.shape[:-1], self.loc)

    def expand(self, batch_shape: Shape, _instance: None = None) -> MixtureLogistic:
        """The same distribution over a larger batch shape."""
        return MixtureLogistic(*self._expanded(batch_shape))

    @property
    def mean(self) -> Tensor:
        """sum_k pi_k loc_k."""
        return (self.logits.softmax(-1) * self.loc).sum(-1)

    @property
    def variance(self) -> Tensor:
        """Within and between the components."""
        weights, spread = self.logits.softmax(-1), (self.loc - self.mean[..., None]).square()
        return (weights * (torch.exp(2 * self.log_scale) * (math.pi**2 / 3) + spread)).sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats, value (..., *batch_shape)."""
        return self._mix(_log_density(value[..., None], self.loc, self.log_scale))

    def cdf(self, value: Tensor) -> Tensor:
        """P(x <= value)."""
        z = (value[..., None] - self.loc) * torch.exp(-self.log_scale)
        return (self.logits.softmax(-1) * torch.sigmoid(z)).sum(-1)

    def transform(self, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """u (..., *batch_shape, 2) -> draws (..., *batch_shape)."""
        edges = self.logits.softmax(-1).cumsum(-1)
        # u in units of the rounded total: otherwise u near 1 draws the last component, however small its weight.
        chosen = open_interval(uniforms[..., :1]) * edges[..., -1:]
        component = (chosen >= edges[..., :-1]).sum(-1, keepdim=True)
        shape = (*uniforms.shape[:-1], self.loc.shape[-1])
        loc, log_scale = (t.expand(shape).gather(-1, component)[..., 0] for t in (self.loc, self.log_scale))
        return loc + temperature * torch.exp(log_scale) * torch.logit(open_interval(uniforms[..., 1]))

    def _mix(self, log_terms: Tensor) -> Tensor:
        return torch.logsumexp(self.logits + log_terms, -1) - torch.logsumexp(self.logits, -1)

    def _expanded(self, batch_shape: Shape) -> list[Tensor]:
        return [t.expand(*batch_shape, t.shape[-1]) for t in (self.logits, self.loc, self.log_scale)]


class DiscretizedMixtureLogistic(MixtureLogistic):
    """The mixture rounded to the nearest level of a Grid, beyond the ends to the end levels: masses sum to 1.

    log_prob: log mass of the level nearest to the value; log_density: the continuous mixture's. mean, variance and cdf
    are the continuous mixture's, before rounding and clipping. Draws are the mixture's, rounded: exactly the masses;
    with rounds false, they are left as they are.
    """

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor, grid: Grid, rounds: bool = True) -> None:
        super().__init__(logits, loc, log_scale)
        self.grid, self.rounds = grid, rounds

    def affine(self, shift: Tensor, log_scale: Tensor) -> DiscretizedMixtureLogistic:
        """The law of shift + exp(log_scale) x, x the continuous mixture, on the same grid; its draws are not rounded.

        shift, log_scale: of the batch shape.
        """
        loc = shift[..., None] + torch.exp(log_scale)[..., None] * self.loc
        return DiscretizedMixtureLogistic(
            self.logits, loc, self.log_scale + log_scale[..., None], self.grid, rounds=False
        )

    @property
    def support(self) -> constraints.Constraint:  # type: ignore[override]
        """Levels in [-1, 1]; every number where draws are not rounded."""
        return constraints.interval(-1.0, 1.0) if self.rounds else constraints.real

    def expand(self, batch_shape: Shape, _instance: None = None) -> DiscretizedMixtureLogistic:
        """The same distribution over a larger batch shape."""
        logits, loc, log_scale = self._expanded(batch_shape)
        return DiscretizedMixtureLogistic(logits, loc, log_scale, self.grid, self.rounds)

    def continuous(self) -> MixtureLogistic:
        """The mixture before rounding."""
        return MixtureLogistic(self.logits, self.loc, self.log_scale)

    def log_density(self, value: Tensor) -> Tensor:
        """Log density of the continuous mixture, in nats on the scale of wav."""
        return MixtureLogistic.log_prob(self, value)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log mass in nats of the level nearest to value (..., *batch_shape)."""
        level = self.grid.index(value)
        # The level as a sum of two numbers: rounded to float32 alone it is off by a good part of a narrow scale.
        exact = self.grid.value(level, torch.float64)
        coarse = exact.to(self.loc.dtype)
        centred = (coarse[..., None] - self.loc) + (exact - coarse).to(self.loc.dtype)[..., None]
        inverse = torch.exp(-self.log_scale)
        half = self.grid.half_step * inverse
        below_top = F.logsigmoid(centred * inverse + half)  # log P(component at most this level)
        above_bottom = F.logsigmoid(half - centred * inverse)  # log P(component at least this level)
        inside = below_top + above_bottom + torch.log(-torch.expm1(-2 * half))
        bottom, top = (level == 0)[..., None], (level == self.grid.levels - 1)[..., None]
        return self._mix(torch.where(bottom, below_top, torch.where(top, above_bottom, inside)))

    def transform(self, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """The continuous mixture's draw, rounded to the grid."""
        drawn = super().transform(uniforms, temperature)
        return self.grid.quantize(drawn) if self.rounds else drawn


def _log_density(value: Tensor, loc: Tensor, log_scale: Tensor) -> Tensor:
    # log sigma(z) + log sigma(-z) - log s, by |z|: one softplus, symmetric, exact in both tails.
    z = ((value - loc) * torch.exp(-log_scale)).abs()
    return -z - 2 * F.softplus(-z) - log_scale
