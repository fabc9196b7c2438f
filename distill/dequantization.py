r"""Dequantisation: a density that bounds the likelihood of levels from below, by noise that fills each level's cell.

The mass of a vector of levels x on a grid of step D is the density's over its cell, y in x + D [-1/2, 1/2]^m:

    log P(x) = log int_cell p(y) dy  >=  E_q(y|x) [log p(y) - log q(y|x)]

for any q on the cell, by Jensen's inequality; equal where q(y|x) is p given the cell. Uniform q (Theis et al. 2015,
arXiv 1511.01844): log q = -m log D. Variational q (Flow++, Ho et al. 2019, arXiv 1902.00275): a conditional flow. Both
are unbiased for the mass itself, P(x) = E_q[p(y) / q(y|x)]; the mean of several draws' ratios bounds it more tightly.

Paper -> code: u in [0, 1)^m on levels 0, 1, ... by rounding down -> y - x in D [-1/2, 1/2]^m by rounding to nearest. A
law that gives its end levels the tails beyond the grid has mass there that no cell holds: the bound leaves it out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.flows.base import Chain, Flow
from distill.flows.permutation import Permutation
from distill.flows.vectors import VectorIAF, conditioning
from wavenet.config import require
from wavenet.distributions.base import open_interval


class UniformDequantizer(nn.Module):
    """q(y|x) = step^-m on the cell of x; step: between levels, in the data's units (Grid.step)."""

    def __init__(self, step: float) -> None:
        super().__init__()
        require(0 < step < math.inf, "step", step, "a positive number")
        self.step = step

    def transform(self, levels: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, m), u (B, m) in [0, 1] -> y (B, m) in the cell of x, log q(y|x) (B,) in nats."""
        log_q = levels.new_full((levels.shape[0],), -levels.shape[1] * math.log(self.step))
        return self._place(levels, uniforms), log_q

    def forward(self, levels: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """x (B, m) -> a draw y (B, m), log q(y|x) (B,), from a CPU generator."""
        uniforms = torch.rand(levels.shape, generator=generator, dtype=levels.dtype).to(levels.device)
        return self.transform(levels, uniforms)

    def _place(self, levels: Tensor, within: Tensor) -> Tensor:
        return levels + self.step * (within - 0.5)


class VariationalDequantizer(UniformDequantizer):
    """q(y|x): logistic noise through a flow conditioned on x, squashed into the cell; it begins as the uniform one.

    y = x + step (sigma(w) - 1/2), w = flow(e, x), e logistic. The flow: `flows` VectorIAFs, orders reversed between
    them. shift, scale: what brings x near zero mean and unit variance for the network; kept with the weights.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self, step: float, size: int, hidden: Sequence[int], flows: int = 2, shift: float = 0.0, scale: float = 1.0
    ) -> None:
        super().__init__(step)
        require(flows > 0, "flows", flows, "a positive integer")
        self.register_buffer("shift", torch.tensor(shift))
        self.register_buffer("scale", torch.tensor(scale))
        chain: list[Flow] = []
        for place in range(flows):
            chain += [Permutation(list(range(size))[::-1])] if place else []
            # Wide enough a range that log_scale 0 is 0 to rounding: at first q is the uniform one.
            chain.append(VectorIAF(size, hidden, None, size, (-40.0, 40.0), 0.0))
        self.flow = Chain(chain)

    def transform(self, levels: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, m), u (B, m) in [0, 1] -> y (B, m) in the cell of x, log q(y|x) (B,) in nats."""
        noise = torch.logit(open_interval(uniforms))
        cond = conditioning((levels - self.shift) / self.scale, levels.shape[1])
        wide, log_det = self.flow(noise, cond)
        log_q = log_slope(noise) - log_det - log_slope(wide)
        return self._place(levels, torch.sigmoid(wide)), log_q - levels.shape[1] * math.log(self.step)


def bound(
    log_prob: Callable[[Tensor], Tensor],
    dequantizer: UniformDequantizer,
    levels: Tensor,
    draws: int = 1,
    generator: torch.Generator | None = None,
    weighted: bool = False,
) -> Tensor:
    """A lower bound on log P(x) in nats (B,), by Monte Carlo over `draws` of q: x (B, m), log_prob (B, m) -> (B,).

    Plain: the mean of log p(y) - log q(y|x), unbiased for the bound. weighted: the log of the mean of p(y) / q(y|x),
    which lies between that and log P(x) on average, and tends to log P(x) (Burda et al. 2015, arXiv 1509.00519).
    """
    require(draws > 0, "draws", draws, "a positive integer")
    ratios = []
    for _ in range(draws):
        drawn, log_q = dequantizer(levels, generator)
        ratios.append(log_prob(drawn) - log_q)
    stacked = torch.stack(ratios)
    return torch.logsumexp(stacked, 0) - math.log(draws) if weighted else stacked.mean(0)


def log_slope(logits: Tensor) -> Tensor:
    """log d sigma(w) / dw, summed over the vector: also the log density of the standard logistic."""
    return (F.logsigmoid(logits) + F.logsigmoid(-logits)).sum(1)
