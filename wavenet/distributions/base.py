"""What every output distribution shares: draws are a fixed function of uniform noise."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints

Shape = torch.Size | list[int] | tuple[int, ...]


class NoiseDriven(Distribution):
    """A distribution whose draws are `transform(u)` of uniforms u, so that every sampler can share one noise.

    noise_channels: how many uniforms one draw eats. log_density: the continuous density in nats on the scale of wav,
    comparable between all kinds; the same as log_prob where that is a density already.
    """

    noise_channels = 1
    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}

    def __init__(self, batch_shape: torch.Size, like: Tensor) -> None:
        super().__init__(batch_shape, validate_args=False)
        self._like = like

    def transform(self, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
        """u (..., *batch_shape, noise_channels) in [0, 1] -> draws (..., *batch_shape)."""
        raise TypeError(f"{type(self).__name__} does not define transform")

    def log_density(self, value: Tensor) -> Tensor:
        """Log density of value (..., *batch_shape) on the scale of wav, in nats."""
        return self.log_prob(value)

    @torch.no_grad()
    def sample(self, sample_shape: Shape = ()) -> Tensor:
        """Draws of shape (*sample_shape, *batch_shape) from torch's global generator."""
        shape = (*sample_shape, *self.batch_shape, self.noise_channels)
        return self.transform(torch.rand(shape, dtype=self._like.dtype, device=self._like.device))


def open_interval(uniforms: Tensor) -> Tensor:
    """Keep 0 and 1, which rounding makes of one draw in 2^24 (float32), finite under an inverse CDF.

    Values below eps / 4 move there, half a cell of torch.rand's lattice; 1 becomes the number before it. The bias is
    below 2^-24 in probability.
    """
    eps = torch.finfo(uniforms.dtype).eps
    return uniforms.clamp(eps / 4, 1 - eps / 2)
