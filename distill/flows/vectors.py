r"""Gaussian autoregressive flows on vectors: one MADE, two directions.

IAF (Kingma et al. 2016, arXiv 1606.04934): x_i = z_i exp(s_i(z_<i)) + m_i(z_<i), < in the network's order: one pass to
sample, m passes to invert. MAF (Papamakarios et al. 2017, arXiv 1705.07057) is the same map turned round: its density
takes one pass, its samples m. distill/flows/autoregressive.py with MADE in the place of causal convolutions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.flows.base import Flow, Inverse
from distill.flows.made import MADE
from wavenet.layers import soft_clamp
from wavenet.upsample import Conditioning


class VectorIAF(Flow):
    """x_i = z_i exp(log_scale_i) + loc_i, both functions of what stands before z_i, and of cond; log_det their sum.

    z (B, m), cond by `conditioning`, of `features` channels -> x (B, m), log_det (B,) in nats. order, hidden: MADE's.
    log_scale lies softly inside log_scale_range. output_gain: factor on the last layer's first weights (0: identity).
    """

    def __init__(
        self,
        size: int,
        hidden: Sequence[int],
        order: Sequence[int] | None = None,
        features: int = 0,
        log_scale_range: tuple[float, float] = (-7.0, 5.0),
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.low, self.high = log_scale_range
        self.network = MADE(size, hidden, 2, order, features)
        with torch.no_grad():
            self.network.last.weight.mul_(output_gain)
            self.network.last.bias.zero_()

    def affine(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """loc (B, m) and log_scale (B, m) of x_i given what stands before z_i."""
        features = None if cond is None else cond.frames[:, :, 1]
        loc, raw = self.network(noise, features).to(noise.dtype).unbind(1)
        return loc, soft_clamp(raw, self.low, self.high)

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """In one pass of the network."""
        loc, log_scale = self.affine(noise, cond)
        return noise * torch.exp(log_scale) + loc, log_scale.sum(1)

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """z_i = (x_i - loc_i) exp(-log_scale_i), one coordinate a pass of the network: m passes; differentiable."""
        noise, total = torch.zeros_like(signal), signal.new_zeros(signal.shape[0])
        for place in self.network.order:
            loc, log_scale = self.affine(noise, cond)
            # One column a pass: all of them at once would pass through infinities, and 0 times those is not 0.
            entry = (signal[:, place] - loc[:, place]) * torch.exp(-log_scale[:, place])
            noise = torch.cat([noise[:, :place], entry[:, None], noise[:, place + 1 :]], 1)
            total = total - log_scale[:, place]
        return noise, total


class VectorMAF(Inverse):
    """Noise -> vector by the inverse of a VectorIAF: x_i = (z_i - m_i(x_<i)) exp(-s_i(x_<i)).

    `inverse` (density) takes one pass, `forward` (sampling) m. Arguments are VectorIAF's.
    """

    def __init__(
        self,
        size: int,
        hidden: Sequence[int],
        order: Sequence[int] | None = None,
        features: int = 0,
        log_scale_range: tuple[float, float] = (-7.0, 5.0),
        output_gain: float = 1.0,
    ) -> None:
        super().__init__(VectorIAF(size, hidden, order, features, log_scale_range, output_gain))


def conditioning(features: Tensor, size: int) -> Conditioning:
    """What a flow on vectors of m = size entries is driven by: features (B, C), as one frame that covers the vector."""
    kernel = features.new_zeros(3, size)
    kernel[1] = 1.0
    return Conditioning(features[:, :, None].expand(-1, -1, 3), kernel)
