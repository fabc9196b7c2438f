r"""One inverse-autoregressive step over a vector: a masked network of one hidden layer, with a context.

    y_j = sigma_j z_j + (1 - sigma_j) m_j,     sigma = sigmoid(s),     m_j, s_j functions of z_<j and the context

Kingma et al. 2016, arXiv 1606.04934, section 4 (the gated update); masks of distill/flows/made.py, a hidden layer whose
context is added once for all samples of it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.flows.made import MaskedLinear

_FIRST_GATE = 2.0  # sigmoid(2) = 0.88: near the identity at first


class MaskedStep(nn.Module):
    """z (..., d), context (n, C) or (..., C) -> y (..., d), log |det dy/dz| (...,) [nats], of a triangular Jacobian."""

    def __init__(self, dimensions: int, context: int, channels: int) -> None:
        super().__init__()
        degrees = torch.arange(channels) % dimensions - 1  # degree -1 sees the context alone
        places = torch.arange(dimensions)
        self.inner = MaskedLinear(degrees[:, None] >= places)
        self.context = nn.Linear(context, channels, bias=False)
        self.outer = MaskedLinear(places.repeat(2)[:, None] > degrees)
        with torch.no_grad():
            self.outer.weight.mul_(0.1)
            self.outer.bias.zero_()

    def forward(self, z: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Noise to latent, every dimension at once."""
        loc, log_scale, rest = self._affine(z, self.context(context))
        return z * log_scale.exp() + rest * loc, log_scale.sum(-1)

    def inverse(self, y: Tensor, context: Tensor) -> tuple[Tensor, Tensor]:
        """Latent to noise, one dimension after the other; log |det dz/dy|."""
        seen, z = self.context(context), torch.zeros_like(y)
        for place in range(y.shape[-1]):
            loc, log_scale, rest = self._affine(z, seen)
            known = (y[..., place] - rest[..., place] * loc[..., place]) * (-log_scale[..., place]).exp()
            z = torch.cat([z[..., :place], known[..., None], z[..., place + 1 :]], -1)
        return z, -self._affine(z, seen)[1].sum(-1)

    def _affine(self, z: Tensor, seen: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        loc, gate = self.outer(F.silu(self.inner(z) + seen)).chunk(2, -1)
        gate = gate + _FIRST_GATE
        return loc, F.logsigmoid(gate), torch.sigmoid(-gate)
