r"""Probabilistic PCA in closed form: x = W z + mean + noise, z ~ N(0, I_d), noise ~ N(0, sigma^2 I_D).

Tipping and Bishop 1999, *Probabilistic principal component analysis*, equations 3 to 12. With the eigenvectors U and
eigenvalues L of the covariance (divided by N), largest first,

    W = U_d (L_d - sigma^2 I)^(1/2) R,     sigma^2 = (1 / (D - d)) sum_{j > d} L_j

maximise the likelihood; the rotation R is free and is the identity here, so that the posterior's covariance
sigma^2 (W^T W + sigma^2 I)^-1 = diag(sigma^2 / L_d) is diagonal.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from distill.latent.posteriors import Gaussian
from wavenet.config import require
from wavenet.errors import UserError

_LOG_2_PI = math.log(2 * math.pi)


class Spectrum(NamedTuple):
    """mean (D,) of data, and the covariance's eigenvalues (D,), smallest first, with their vectors (D, D)."""

    mean: Tensor
    values: Tensor
    vectors: Tensor

    @classmethod
    def of(cls, data: Tensor) -> Spectrum:
        """The spectrum of data (N, D), in its precision."""
        mean = data.mean(0)
        centred = data - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(data))
        return cls(mean, values, vectors)


@dataclasses.dataclass(frozen=True)
class PPCA:
    """mean (D,), weight W (D, d), variance sigma^2 () > 0, in one precision. Paper -> code: t -> x, q -> d."""

    mean: Tensor
    weight: Tensor
    variance: Tensor

    @classmethod
    def fit(cls, data: Tensor, dimensions: int, variance: float | None = None) -> PPCA:
        """Maximum likelihood from data (N, D), in its precision; `variance` holds sigma^2 instead of fitting it.

        Raises UserError unless 0 < d < D, or where the data lie in d dimensions, so that sigma^2 would be 0.
        """
        return cls.of_spectrum(Spectrum.of(data), dimensions, variance)

    @classmethod
    def of_spectrum(cls, spectrum: Spectrum, dimensions: int, variance: float | None = None) -> PPCA:
        """`fit` on data whose spectrum is there already: one serves every d."""
        mean, values, vectors = spectrum
        width = len(mean)
        require(0 < dimensions < width, "dimensions", dimensions, f"more than 0 and fewer than the data's {width}")
        leading, axes = values.flip(0)[:dimensions], vectors.flip(1)[:, :dimensions]
        # An eigenvalue is known to rounding of the largest; below that, the rest is no noise but nothing at all.
        rest = values[:-dimensions].mean() if variance is None else torch.as_tensor(variance).to(values)
        if rest <= values[-1] * torch.finfo(values.dtype).eps * width:
            raise UserError(
                f"data: found points that lie in {dimensions} dimensions, expected noise in the other "
                f"{width - dimensions}"
            )
        return cls(mean, axes * (leading - rest).clamp(min=0).sqrt(), rest)

    @property
    def dimensions(self) -> int:
        """d."""
        return self.weight.shape[1]

    def log_prob(self, data: Tensor) -> Tensor:
        """log N(x; mean, W W^T + sigma^2 I) of data (N, D) -> (N,) [nats], through d x d matrices only."""
        width, centred = len(self.mean), data - self.mean
        inner = self._inner()  # M
        factor = torch.linalg.cholesky(inner)
        seen = torch.linalg.solve_triangular(factor, (centred @ self.weight).T, upper=False)
        distance = (centred.square().sum(1) - seen.square().sum(0)) / self.variance
        log_det = (width - self.dimensions) * self.variance.log() + 2 * factor.diagonal().log().sum()
        return -0.5 * (width * _LOG_2_PI + log_det + distance)

    def posterior(self, data: Tensor) -> MultivariateNormal:
        """p(z | x) = N(M^-1 W^T (x - mean), sigma^2 M^-1), M = W^T W + sigma^2 I: batch (N,), event (d,)."""
        inverse = torch.linalg.inv(self._inner())
        loc = (data - self.mean) @ self.weight @ inverse
        return MultivariateNormal(loc, self.variance * inverse)

    def independent_posterior(self, data: Tensor) -> Gaussian:
        """The same posterior where W's columns are orthogonal, as `fit` makes them: exact, dimension by dimension."""
        inner = self._inner()
        diagonal = inner.diagonal()
        assert (inner - diagonal.diag()).abs().max() <= 1e-6 * diagonal.max(), "columns that are not orthogonal"
        loc = (data - self.mean) @ self.weight / diagonal
        return Gaussian(loc, (self.variance / diagonal).sqrt().expand_as(loc))

    def decode(self, z: Tensor) -> Tensor:
        """Mean of x given z: (..., d) -> (..., D)."""
        return z @ self.weight.T + self.mean

    def log_likelihood(self, data: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) [nats]: data (N, D), z (..., N, d) -> (..., N)."""
        distance = (data - self.decode(z)).square().sum(-1) / self.variance
        return -0.5 * (len(self.mean) * (_LOG_2_PI + self.variance.log()) + distance)

    def sample(self, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws of x (count, D)."""
        z = torch.randn(count, self.dimensions, generator=generator, dtype=self.mean.dtype)
        noise = torch.randn(count, len(self.mean), generator=generator, dtype=self.mean.dtype)
        return self.decode(z) + self.variance.sqrt() * noise

    def _inner(self) -> Tensor:
        identity = torch.eye(self.dimensions, dtype=self.mean.dtype)
        return self.weight.T @ self.weight + self.variance * identity
