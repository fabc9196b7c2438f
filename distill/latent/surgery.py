r"""What an ELBO consists of (Hoffman and Johnson 2016, *ELBO surgery*).

With i uniform over n patches, q(z) = (1/n) sum_i q(z | x_i) and q(i | z) = q(z | x_i) / (n q(z)),

    ELBO = E[log p(x_i | z)]  -  (log n - E_q(z) H[q(i | z)])  -  KL(q(z) || p(z))
           reconstruction        mutual information of i and z    marginal KL

where the last two make up the average KL, (1/n) sum_i KL(q(z | x_i) || p(z)). q(z) is exact, a log-sum-exp over all n
posteriors at each draw; only the expectations over z are estimated. H lies between 0 and log n at every z, so that the
estimated mutual information does between 0 and log n, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import torch
from torch import Tensor

from distill.latent.posteriors import Gaussian, Posterior
from distill.latent.priors import Prior, StandardNormal
from wavenet.config import require

_CELLS = 2**21  # of the table of points and posteriors that is held at a time: near the processor's caches


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over the n patches [nats per patch] and its standard error, which comes from the draws of z alone."""

    value: float
    error: float


@dataclasses.dataclass(frozen=True)
class Surgery:
    """The terms of an ELBO over n patches, `elbo` and `average_kl` from draws of their own."""

    n: int
    elbo: Estimate
    reconstruction: Estimate
    average_kl: Estimate
    mutual_information: Estimate
    marginal_kl: Estimate

    @property
    def remainder(self) -> Estimate:
        """ELBO - (reconstruction - mutual information - marginal KL): 0 within its error."""
        terms = (self.reconstruction, self.mutual_information, self.marginal_kl)
        value = self.elbo.value - (terms[0].value - terms[1].value - terms[2].value)
        # Terms of one z go together at worst; so many errors added up are an upper bound.
        return Estimate(value, math.hypot(self.elbo.error, sum(term.error for term in terms)))


def surgery(
    posterior: Posterior,
    prior: Prior,
    log_likelihood: Callable[[Tensor, slice], Tensor],
    draws: int = 2,
    generator: torch.Generator | None = None,
) -> Surgery:
    """Take the ELBO of n patches apart, `draws` of z a patch, at least 2 (their spread is the error).

    log_likelihood(z (draws, b, d), places) -> log p(x_i | z) (draws, b) [nats] of the patches at these places.
    """
    elbo, kl = elbo_terms(posterior, prior, log_likelihood, draws, generator)
    reconstruction, information, marginal = [], [], []
    for places in _parts(len(posterior), draws):
        z, _ = posterior[places].draw(draws, generator)
        log_probs = posterior.log_prob_all(z.flatten(0, 1))
        largest = log_probs.amax(1)
        weights = (log_probs - largest[:, None]).exp_()  # q(i | z), not yet divided by their sum
        mass = weights.sum(1)
        total = largest + mass.log()
        expected = (weights[:, None] @ log_probs[:, :, None]).flatten() / mass  # of log q(z | x_i) under q(i | z)
        entropy = (total - expected).clamp(0, math.log(len(posterior)))
        aggregate = total - math.log(len(posterior))
        reconstruction.append(log_likelihood(z, places))
        information.append((math.log(len(posterior)) - entropy).unflatten(0, z.shape[:2]))
        marginal.append(aggregate.unflatten(0, z.shape[:2]) - prior.log_prob(z))
    found = [_estimate(torch.cat(parts, 1)) for parts in (reconstruction, information, marginal)]
    return Surgery(len(posterior), elbo, found[0], kl, found[1], found[2])


def elbo_terms(
    posterior: Posterior,
    prior: Prior,
    log_likelihood: Callable[[Tensor, slice], Tensor],
    draws: int = 2,
    generator: torch.Generator | None = None,
) -> tuple[Estimate, Estimate]:
    """The ELBO itself and its average KL, which is in closed form for Gaussian posteriors under N(0, I)."""
    require(draws >= 2, "draws", draws, "at least 2: their spread is the error")
    elbo, kl = [], []
    for places in _parts(len(posterior), draws):
        part = posterior[places]
        z, log_q = part.draw(draws, generator)
        if isinstance(part, Gaussian) and isinstance(prior, StandardNormal):
            divergence = part.kl_to_standard_normal().sum(1).expand(draws, -1)
        else:
            divergence = log_q - prior.log_prob(z)
        kl.append(divergence)
        elbo.append(log_likelihood(z, places) - divergence)
    return _estimate(torch.cat(elbo, 1)), _estimate(torch.cat(kl, 1))


def _estimate(values: Tensor) -> Estimate:
    """(draws, n): draws of a patch are independent, patches are all there are, so only draws vary."""
    values = values.double()
    draws, n = values.shape
    return Estimate(float(values.mean()), float((values.var(0).sum() / draws).sqrt() / n))


def _parts(n: int, draws: int) -> list[slice]:
    size = max(1, _CELLS // (n * draws))
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]
