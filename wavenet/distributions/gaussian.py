"""Normal distribution by location and log scale."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import constraints

from wavenet.distributions.base import NoiseDriven, Shape, open_interval


class Gaussian(NoiseDriven):
    """N(loc, exp(log_scale)^2), element-wise over the batch shape. temperature multiplies the scale."""

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        "loc": constraints.real,
        "log_scale": constraints.real,
    }
    has_rsample = True
    support = constraints.real

    def __init__(self, loc: Tensor, log_scale: Tensor) -> None:
        self.loc, self.log_scale = torch.broadcast_tensors(loc, log_scale)
        super().__init__(self.loc.shape, self.loc)

    def expand(self, batch_shape: Shape, _instance: None = None) -> Gaussian:
        """The same distribution over a larger batch shape."""
        return Gaussian(self.loc.expand(batch_shape), self.log_scale.expand(batch_shape))

    def affine(self, shift: Tensor, log_scale: Tensor) -> Gaussian:
        """The law of shift + exp(log_scale) x."""
        return Gaussian(shift + torch.exp(log_scale) * self.loc, self.log_scale + log_scale)

    @property
    def scale(self) -> Tensor:
        """Standard deviation."""
        return torch.exp(self.log_scale)

    @property
    def mean(self) -> Tensor:
        """loc."""
        return self.loc

    @property
    def variance(self) -> Tensor:
        """scale^2."""
        return torch.exp(2 * self.log_scale)

    def entropy(self) -> Tensor:
        """log_scale + log(2 pi e) / 2, in nats."""
        return self.log_scale + 0.5 * math.log(2 * math.pi * math.e)

    def log_prob(self, value: Tensor) -> Tensor:
        """Log density in nats."""
        z = (value - self.loc) * torch.exp(-self.log_scale)
        return -0.5 * z * z - self.log_scale - 0.5 * math.log(2 * math.pi)

    def cdf(self, value: Tensor) -> Tensor:
        """P(x <= value)."""
        return torch.special.ndtr((value - self.loc) * torch.exp(-self.log_scale))

    def icdf(self, value: Tensor) -> Tensor:
        """Quantile function on [0, 1]."""
        return self.loc + self.scale * torch.special.ndtri(open_interval(value))

    def transform(self, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """loc + temperature scale Phi^-1(u), differentiable in loc and log_scale."""
        return self.loc + temperature * self.scale * torch.special.ndtri(open_interval(uniforms[..., 0]))

    def rsample(self, sample_shape: Shape = ()) -> Tensor:
        """Reparametrised draws."""
        return self.transform(
            torch.rand(*sample_shape, *self.batch_shape, 1, dtype=self.loc.dtype, device=self.loc.device)
        )
