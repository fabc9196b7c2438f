"""How normal data look once they are sent back to noise: the indicator of a fit that needs no density to compare with.

By the theorem of docs/theory.md, section 33, KL(data || model) = KL(noise of the data || N(0, I)).
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Normality:
    """ks: largest Kolmogorov-Smirnov distance of a coordinate from N(0, 1); ks_radius: that of |z|^2 from chi^2_m.

    ks_limit, ks_radius_limit: what true draws of N(0, I), as many, exceed in one set of twenty. mean: largest |mean|
    of a coordinate. covariance: largest |cov - I|. gaussian_kl: KL(N(mean, cov) || N(0, I)) [nats], the part of the KL
    that two moments see. worst: the coordinate of ks.
    """

    ks: float
    ks_limit: float
    ks_radius: float
    ks_radius_limit: float
    mean: float
    covariance: float
    gaussian_kl: float
    worst: int


def normality(noise: Tensor) -> Normality:
    """noise (N, m) -> its figures."""
    from scipy import stats

    rows, size = noise.shape
    z = noise.double()
    distances = [float(stats.kstest(column.numpy(), "norm").statistic) for column in z.unbind(1)]
    radius = float(stats.kstest(z.square().sum(1).numpy(), stats.chi2(size).cdf).statistic)
    mean, covariance = z.mean(0), torch.cov(z.T).reshape(size, size)
    identity = torch.eye(size, dtype=z.dtype)
    log_det = torch.linalg.slogdet(covariance).logabsdet
    return Normality(
        ks=max(distances),
        ks_limit=float(stats.kstwo(rows).ppf(0.95 ** (1 / size))),
        ks_radius=radius,
        ks_radius_limit=float(stats.kstwo(rows).ppf(0.95)),
        mean=float(mean.abs().max()),
        covariance=float((covariance - identity).abs().max()),
        gaussian_kl=float(0.5 * (covariance.trace() + mean.square().sum() - size - log_det)),
        worst=distances.index(max(distances)),
    )
