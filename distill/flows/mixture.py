r"""An autoregressive flow whose conditionals are mixtures: the distribution function of one, then a normal's quantile.

    z_i = Phi^{-1}(F_i(x_i)),   F_i(x) = sum_k w_ik Phi((x - m_ik) / s_ik),   all of it functions of x_<i

F_i rises from 0 to 1, so the map is invertible whatever the network says, and its density is the mixture's own:
log |dz_i/dx_i| = log f_i(x_i) - log phi(z_i). It is MADE MoG (Papamakarios et al. 2017, arXiv 1705.07057, section 4.1)
as a flow from normal noise; the distribution functions of mixtures as flows are in Flow++ (Ho et al. 2019, arXiv
1902.00275, section 3.2). A teacher with a mixture is such a flow too (distill/health.py reads the noise off it).

Tails: the logarithms of F and of 1 - F are kept, and the quantile is taken of the smaller. Slopes come from Mills's
ratio, Phi / phi = sqrt(pi / 2) erfcx(-z / sqrt 2), never from differences of log densities, of which far out nothing is
left. So z and its slope keep the relative precision of their type at any distance, in float32 too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from distill.flows.base import Flow
from distill.flows.made import MADE
from wavenet.config import require
from wavenet.layers import soft_clamp, soft_unclamp
from wavenet.upsample import Conditioning

_NEWTON = 5
_LEAST_LOG = -2.0  # log probabilities under it take the series of the tail to begin with
_HALVINGS = 64
_ROOT = math.sqrt(math.pi / 2)


class VectorMixture(Flow):
    """z (B, m) normal, cond by `vectors.conditioning` -> x (B, m), log_det (B,) in nats: m passes; back in one.

    components: K of each conditional. order, hidden, features: MADE's. log_scale lies softly inside log_scale_range. It
    begins near the identity: components at the quantiles of the normal, as narrow as gives them its variance together.
    """

    def __init__(
        self,
        size: int,
        hidden: Sequence[int],
        components: int,
        order: Sequence[int] | None = None,
        features: int = 0,
        log_scale_range: tuple[float, float] = (-7.0, 5.0),
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        require(components > 0, "components", components, "a positive integer")
        self.components, (self.low, self.high) = components, log_scale_range
        self.network = MADE(size, hidden, 3 * components, order, features)
        spread = torch.special.ndtri((torch.arange(components, dtype=torch.float64) + 0.5) / components)
        width = (0.5 * (1 - spread.square().mean()).log()).clamp(self.low + 0.1, self.high - 0.1)
        with torch.no_grad():
            self.network.last.weight.mul_(output_gain)
            bias = self.network.last.bias.zero_().view(3, components, size)
            bias[1], bias[2] = spread[:, None], soft_unclamp(width, self.low, self.high)

    def conditionals(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """log weights, means and log scales of x_i given what stands before x_i: (B, K, m) each."""
        features = None if cond is None else cond.frames[:, :, 1]
        found = self.network(signal, features).to(signal.dtype).unflatten(1, (3, self.components))
        logits, loc, raw = found.unbind(1)
        return logits.log_softmax(1), loc, soft_clamp(raw, self.low, self.high)

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """x_i with F_i(x_i) = Phi(z_i), one coordinate a pass of the network; differentiable."""
        signal, total = torch.zeros_like(noise), noise.new_zeros(noise.shape[0])
        for place in self.network.order:
            law = tuple(part[:, :, place] for part in self.conditionals(signal, cond))
            entry, log_slope = _quantile(noise[:, place], *law)
            signal = torch.cat([signal[:, :place], entry[:, None], signal[:, place + 1 :]], 1)
            total = total - log_slope
        return signal, total

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """z_i = Phi^{-1}(F_i(x_i)) in one pass of the network."""
        noise, log_slope = _to_normal(signal[:, None], *self.conditionals(signal, cond))
        return noise, log_slope.sum(1)


def normal_quantile(log_cdf: Tensor, log_sf: Tensor) -> Tensor:
    """Phi^{-1} of a probability p known by log p and log (1 - p), exact in both tails; differentiable once."""
    low = log_cdf < log_sf
    z = _lower_quantile(torch.where(low, log_cdf, log_sf))
    return torch.where(low, z, -z)


def _lower_quantile(log_p: Tensor) -> Tensor:
    """Phi^{-1}(e^y) for y <= log 1/2, by Newton's steps on log Phi, which is concave; the last one has the gradient."""
    with torch.no_grad():
        y = log_p.detach()
        root = (-2 * y.clamp(max=_LEAST_LOG)).sqrt()
        tail = -(root.square() - (2 * math.pi * root.square()).log()).clamp(min=0).sqrt()
        z = torch.where(y > _LEAST_LOG, torch.special.ndtri(y.exp()), tail)
        for _ in range(_NEWTON):
            z = z + (y - torch.special.log_ndtr(z)) * _mills(z)
        slope = _mills(z)
        done = torch.special.log_ndtr(z)
    return z + (log_p - done) * slope


def _mills(z: Tensor) -> Tensor:
    """Phi(z) / phi(z) = d z / d log Phi, for z <= 0."""
    return _ROOT * torch.special.erfcx(-z * math.sqrt(0.5))


def _log_mills(z: Tensor) -> Tensor:
    """log(Phi(z) / phi(z)) for every z."""
    tail, upper = _halves(z)
    return torch.where(z < 0, tail, upper - _log_normal(z))


def _log_ndtr(z: Tensor) -> Tensor:
    """log Phi; torch's own has a gradient that is 5 % off at -1000 in float32, and none at all far out."""
    tail, upper = _halves(z)
    return torch.where(z < 0, tail + _log_normal(z), upper)


def _halves(z: Tensor) -> tuple[Tensor, Tensor]:
    """The log of Mills's ratio where z < 0, log Phi where z >= 0; finite with its gradient on the other side."""
    return _mills(z.clamp(max=0)).log(), torch.log1p(-0.5 * torch.special.erfc(z.clamp(min=0) * math.sqrt(0.5)))


def _log_normal(z: Tensor) -> Tensor:
    return -0.5 * z.square() - 0.5 * math.log(2 * math.pi)


def _log_masses(x: Tensor, log_weight: Tensor, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """log w_k Phi at x, and log w_k (1 - Phi), of every component (axis 1)."""
    standard = (x - loc) * (-log_scale).exp()
    return log_weight + _log_ndtr(standard), log_weight + _log_ndtr(-standard)


def _to_normal(x: Tensor, log_weight: Tensor, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """z = Phi^{-1}(F(x)) and log dz/dx; the components along axis 1.

    In the lower half f / F = sum_k r_k / (s_k M(u_k)), M Mills's ratio at u_k = (x - m_k) / s_k and r_k the shares of
    the components in F, and dz/dx = M(z) f / F; the upper half is its mirror image.
    """
    below, above = _log_masses(x, log_weight, loc, log_scale)
    log_cdf, log_sf = below.logsumexp(1), above.logsumexp(1)
    z = normal_quantile(log_cdf, log_sf)
    low = log_cdf < log_sf
    side = torch.where(low, 1.0, -1.0)
    masses = torch.where(low[:, None], below, above)
    standard = side[:, None] * (x - loc) * (-log_scale).exp()
    ratio = (masses.log_softmax(1) - _log_mills(standard) - log_scale).logsumexp(1)
    return z, ratio + _log_mills(side * z)


def _quantile(z: Tensor, log_weight: Tensor, loc: Tensor, log_scale: Tensor) -> tuple[Tensor, Tensor]:
    """x with Phi^{-1}(F(x)) = z and log dz/dx there, for z (B,): between the components' own quantiles, by halving.

    A last Newton step, whose slope is held, gives x its gradient.
    """
    with torch.no_grad():
        own = loc + log_scale.exp() * z[:, None]
        log_cdf, log_sf = torch.special.log_ndtr(z), torch.special.log_ndtr(-z)
        low, high = own.amin(1), own.amax(1)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            cdf, sf = (part.logsumexp(1) for part in _log_masses(middle[:, None], log_weight, loc, log_scale))
            above = torch.where(z < 0, cdf > log_cdf, sf < log_sf)
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        x = 0.5 * (low + high)
        slope = _to_normal(x[:, None], log_weight, loc, log_scale)[1].exp()
    x = x + (z - _to_normal(x[:, None], log_weight, loc, log_scale)[0]) / slope
    return x, _to_normal(x[:, None], log_weight, loc, log_scale)[1]
