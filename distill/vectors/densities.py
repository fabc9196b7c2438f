"""Densities of the plane that are known exactly, to draw data from and to measure a fit against by quadrature."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

_AT_ONCE = 10000  # points of the plane
_ARC_NODES = 64  # of Gauss-Legendre along half a circle: exact to rounding for arcs as wide as these


class Density:
    """A density p(x) of the plane. extent: half the side of a square around the origin that holds its mass."""

    extent = 5.0

    def log_prob(self, vectors: Tensor) -> Tensor:
        """x (B, 2) -> log p(x) (B,) in nats."""
        raise TypeError(f"{type(self).__name__} does not define log_prob")

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Draws (rows, 2), float64."""
        raise TypeError(f"{type(self).__name__} does not define sample")


class EightGaussians(Density):
    """Eight equal normals of deviation 0.2 on a circle of radius 2: modes apart, which no single affine step has."""

    radius, deviation = 2.0, 0.2

    def log_prob(self, vectors: Tensor) -> Tensor:
        """x (B, 2) -> (B,) nats."""
        centres = self._centres(torch.arange(8)).to(vectors)
        return _log_blobs(vectors, centres, vectors.new_full((8,), math.log(1 / 8)), self.deviation)

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Draws (rows, 2)."""
        centres = self._centres(torch.randint(8, (rows,), generator=generator))
        return centres + self.deviation * _normal(rows, generator)

    def _centres(self, index: Tensor) -> Tensor:
        angle = index.double() * (math.pi / 4)
        return self.radius * torch.stack([angle.cos(), angle.sin()], 1)


class Moons(Density):
    """Two half circles that reach into each other, blurred by a normal of deviation 0.1, centred at the origin.

    scikit-learn's make_moons with angles drawn uniformly. p(x) = 1/2 sum_arcs int_0^pi N(x; arc(t), 0.1^2 I) dt / pi.
    """

    deviation = 0.1
    extent = 3.0

    def log_prob(self, vectors: Tensor) -> Tensor:
        """x (B, 2) -> (B,) nats, the integral by Gauss-Legendre."""
        places, weights = np.polynomial.legendre.leggauss(_ARC_NODES)
        angle = torch.from_numpy((places + 1) / 2 * math.pi)
        centres = torch.cat([self._arc(angle, torch.zeros_like(angle)), self._arc(angle, torch.ones_like(angle))])
        log_weights = torch.from_numpy(np.log(weights / 4)).repeat(2)
        return _log_blobs(vectors, centres.to(vectors), log_weights.to(vectors), self.deviation)

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Draws (rows, 2)."""
        angle = math.pi * torch.rand(rows, generator=generator, dtype=torch.float64)
        lower = torch.randint(2, (rows,), generator=generator).double()
        return self._arc(angle, lower) + self.deviation * _normal(rows, generator)

    def _arc(self, angle: Tensor, lower: Tensor) -> Tensor:
        upper = torch.stack([angle.cos(), angle.sin()], 1)
        other = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
        return torch.where(lower[:, None] > 0, other, upper) - torch.tensor([0.5, 0.25], dtype=angle.dtype)


class Banana(Density):
    """x_1 ~ N(0, 1), x_2 ~ N((x_1^2 - 1) / 2, 0.5^2): one affine step from white noise, if it goes in this order."""

    deviation = 0.5
    extent = 18.0

    def log_prob(self, vectors: Tensor) -> Tensor:
        """x (B, 2) -> (B,) nats."""
        first, second = vectors.unbind(1)
        z = (second - (first.square() - 1) / 2) / self.deviation
        return -0.5 * (first.square() + z.square()) - math.log(2 * math.pi * self.deviation)

    def sample(self, rows: int, generator: torch.Generator) -> Tensor:
        """Draws (rows, 2)."""
        noise = _normal(rows, generator)
        return torch.stack([noise[:, 0], (noise[:, 0].square() - 1) / 2 + self.deviation * noise[:, 1]], 1)


DENSITIES: dict[str, type[Density]] = {"moons": Moons, "eight-gaussians": EightGaussians, "banana": Banana}


def divergence(density: Density, log_prob: Callable[[Tensor], Tensor], points: int = 400) -> tuple[float, float]:
    """KL(density || model) and the density's entropy, in nats, by a sum over points x points of its square.

    log_prob (B, 2) -> (B,), float64: the model's. Equidistant sums of what is smooth and vanishes at the edge converge
    faster than any power of the distance.
    """
    axis = torch.linspace(-density.extent, density.extent, points, dtype=torch.float64)
    area = float(axis[1] - axis[0]) ** 2
    kl = entropy = 0.0
    for plane in torch.cartesian_prod(axis, axis).split(_AT_ONCE):
        true = density.log_prob(plane)
        mass = true.exp() * area
        kl += float((mass * (true - log_prob(plane))).sum())
        entropy -= float((mass * true).sum())
    return kl, entropy


def _normal(rows: int, generator: torch.Generator) -> Tensor:
    return torch.randn(rows, 2, generator=generator, dtype=torch.float64)


def _log_blobs(vectors: Tensor, centres: Tensor, log_weights: Tensor, deviation: float) -> Tensor:
    squares = (vectors[:, None] - centres).square().sum(2)
    log_terms = log_weights - 0.5 * squares / deviation**2 - math.log(2 * math.pi * deviation**2)
    return torch.logsumexp(log_terms, 1)
