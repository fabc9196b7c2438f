r"""The affine autoregressive flow: one network, two directions.

IAF (Kingma et al. 2016, arXiv 1606.04934; van den Oord et al. 2017, arXiv 1711.10433): x_t = z_t exp(log_scale_t) +
loc_t with loc, log_scale functions of z_<t: one pass to sample, T steps to invert. MAF (Papamakarios et al. 2017, arXiv
1705.07057) is the same map turned round: its density takes one pass, its samples T steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from distill.flows.base import Flow, Inverse
from wavenet.config import StackConfig
from wavenet.fused.availability import expect_compiler
from wavenet.layers import shift_right, soft_clamp
from wavenet.stack import Stack
from wavenet.upsample import Conditioning


class IAF(Flow):
    """x_t = z_t exp(log_scale_t) + loc_t, both functions of z_<t and cond; log_det = sum_t log_scale_t.

    Paper -> code: mu -> loc, s -> exp(log_scale). z (B, T), cond of the same T -> x (B, T), log_det (B,) in nats.
    log_scale lies softly inside log_scale_range; it starts near initial_log_scale. signals: channels of cond.signals
    that the network takes beside the noise. output_gain: factor on the last layer's first weights (small: identity).
    """

    def __init__(
        self,
        config: StackConfig,
        cond_channels: int = 0,
        log_scale_range: tuple[float, float] = (-7.0, 5.0),
        initial_log_scale: float = 0.0,
        signals: int = 0,
        output_gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.low, self.high = log_scale_range
        self.signals = signals
        self.stack = Stack(config, 1 + signals, 2, cond_channels)
        with torch.no_grad():
            self.stack.output.weight.mul_(output_gain)
            assert self.stack.output.bias is not None
            self.stack.output.bias.copy_(torch.tensor([0.0, initial_log_scale]))

    def affine(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """loc (B, T) and log_scale (B, T) of x_t given z_<t."""
        inputs = shift_right(noise)[:, None]
        if self.signals:
            inputs = torch.cat([inputs, self._signals(cond)], 1)
        return self.bounded(self.stack(inputs, cond).to(noise.dtype))  # autocast ends here

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """In parallel over t."""
        loc, log_scale = self.affine(noise, cond)
        return noise * torch.exp(log_scale) + loc, log_scale.sum(1)

    @property
    def receptive_field(self) -> int:
        """x_t depends on at most this many noise samples before z_t."""
        return self.stack.receptive_field

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates a sample."""
        return self.stack.macs_per_sample

    @torch.no_grad()
    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """z_t = (x_t - loc_t) exp(-log_scale_t), one sample after the other; not differentiable.

        Raises UserError where numba does not compile.
        """
        expect_compiler("inverse of a flow", "another machine")
        from wavenet.fused.draws import INVERSE  # numba takes half a second to import, and training does without
        from wavenet.fused.engine import drive
        from wavenet.fused.loop import Law

        law = Law(INVERSE, low=float(self.low), high=float(self.high))
        run = drive(self.stack, cond, law, given=signal, signals=self._signals(cond) if self.signals else None)
        return run.signal, -run.log_scales.to(signal)

    def _signals(self, cond: Conditioning | None) -> Tensor:
        signals = None if cond is None else cond.signals
        assert signals is not None, "this flow was built with sample-rate signals"
        return signals

    def bounded(self, params: Tensor) -> tuple[Tensor, Tensor]:
        """loc (B, T) and log_scale (B, T), softly inside its range, from what the network gives, (B, 2, T)."""
        loc, raw = params.unbind(1)
        return loc, soft_clamp(raw, self.low, self.high)


class MAF(Inverse):
    """Noise -> signal by the inverse of an IAF: z_t = x_t exp(s_t) + m_t with s, m functions of x_<t, i.e.

    x_t = (z_t - m_t(x_<t)) exp(-s_t(x_<t)). `inverse` (density) takes one pass, `forward` (sampling) T steps.
    """

    def __init__(self, config: StackConfig, cond_channels: int = 0) -> None:
        super().__init__(IAF(config, cond_channels))
