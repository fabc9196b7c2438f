r"""The linear VAE, its ELBO in closed form: at its optimum it is probabilistic PCA.

    p(x | z) = N(W z + b, sigma^2 I),     q(z | x) = N(V (x - b), diag s^2),     p(z) = N(0, I)

Lucas, Tucker, Grosse and Norouzi 2019, *Don't blame the ELBO!*, arXiv 1911.02469: the ELBO has no local maxima beyond
those of PPCA's likelihood, and at its maximum it equals that likelihood, for the posterior is then exact.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

_LOG_2_PI = math.log(2 * math.pi)


class LinearVAE(nn.Module):
    """Data of D dimensions, d latents. Paper -> code: mu -> bias, D (diagonal) -> exp(2 log_scale)."""

    def __init__(self, width: int, dimensions: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))
        self.decoder = nn.Parameter(torch.randn(width, dimensions) / width**0.5)
        self.encoder = nn.Parameter(torch.randn(dimensions, width) / width**0.5)
        self.log_scale = nn.Parameter(torch.zeros(dimensions))
        self.log_noise = nn.Parameter(torch.zeros(()))

    def elbo(self, data: Tensor) -> Tensor:
        """The ELBO of data (N, D), expectations over q done by hand: (N,) [nats].

        E_q |x - b - W z|^2 = |x - b - W m|^2 + sum_j s_j^2 |w_j|^2, m = V (x - b).
        """
        centred = data - self.bias
        loc, variance = centred @ self.encoder.T, (2 * self.log_scale).exp()
        spread = (variance * self.decoder.square().sum(0)).sum()
        distance = (centred - loc @ self.decoder.T).square().sum(1) + spread
        precision = (-2 * self.log_noise).exp()
        likelihood = -0.5 * (data.shape[1] * (_LOG_2_PI + 2 * self.log_noise) + distance * precision)
        kl = 0.5 * (loc.square() + variance - 1 - 2 * self.log_scale).sum(1)
        return likelihood - kl
