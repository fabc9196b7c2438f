r"""Variational dequantisation of audio: the noise that fills each level's cell, by a flow that sees the levels.

    y_t = x_t + step (sigma(w_t) - 1/2),   w_t = e_t exp(s_t) + m_t,   m_t, s_t of e_<t and of the levels around x_t

with e logistic, so that m = s = 0 is the uniform noise that it begins as. An inverse-autoregressive flow: one pass to
draw, and log q(y|x) beside it (Flow++, Ho et al. 2019, arXiv 1902.00275, there of couplings).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.dequantization import UniformDequantizer, log_slope
from wavenet.config import StackConfig
from wavenet.distributions.base import open_interval
from wavenet.layers import shift_right, soft_clamp
from wavenet.stack import Stack

_AROUND = 8  # levels to either side of a sample's own that decide its noise
_RANGE = (-40.0, 40.0)  # of log scales: so wide that 0 stays 0 to rounding


class SignalDequantizer(UniformDequantizer):
    """q(y|x) of signals of levels x (B, T), `step` apart; at first the uniform one."""

    def __init__(self, step: float, config: StackConfig) -> None:
        super().__init__(step)
        self.stack = Stack(config, 1 + 2 * _AROUND + 1, 2)
        assert self.stack.output.bias is not None
        nn.init.zeros_(self.stack.output.weight)
        nn.init.zeros_(self.stack.output.bias)

    def transform(self, levels: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
        """x (B, T), u (B, T) in [0, 1] -> y (B, T) in the cells of x, log q(y|x) (B,) in nats."""
        noise = torch.logit(open_interval(uniforms))
        # In steps and by asinh: neighbouring levels are apart near silence, and loud ones do not run away.
        around = F.pad(torch.asinh(levels / self.step), (_AROUND, _AROUND)).unfold(1, 2 * _AROUND + 1, 1)
        inputs = torch.cat([shift_right(noise)[:, None], around.transpose(1, 2)], 1)
        loc, raw = self.stack(inputs).to(noise.dtype).unbind(1)  # autocast ends here
        log_scale = soft_clamp(raw, *_RANGE)
        wide = noise * torch.exp(log_scale) + loc
        log_q = log_slope(noise) - log_scale.sum(1) - log_slope(wide)
        uniform = super().transform(levels, torch.sigmoid(wide))
        return uniform[0], log_q + uniform[1]
