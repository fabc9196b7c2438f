"""Causal convolution and the gated residual block, each with two schedules over one set of weights.

`forward` maps a whole signal; `stepper(batch)` returns a callable that maps one sample at a time and keeps the past in
ring buffers (Fast WaveNet, Le Paine et al. 2016, arXiv 1611.09482). Both compute the same numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def shift_right(signal: Tensor) -> Tensor:
    """Delay by one sample, the first one becoming 0: (..., T) -> (..., T). What stands at t then knows x_<t only."""
    return F.pad(signal, (1, 0))[..., :-1]


def soft_floor(value: Tensor, floor: float) -> Tensor:
    """floor + softplus(value - floor): above `floor` everywhere, with a gradient everywhere, = value far above it."""
    return floor + F.softplus(value - floor)


def soft_clamp(value: Tensor, low: float, high: float) -> Tensor:
    """Softly inside (low, high), with a gradient everywhere; = value far from both."""
    return soft_floor(-soft_floor(-value, -high), low)


def soft_unclamp(value: Tensor, low: float, high: float) -> Tensor:
    """The argument for which soft_clamp is `value`, inside (low, high)."""

    def unfloored(floored: Tensor, floor: float) -> Tensor:
        return floor + torch.log(torch.expm1(floored - floor))

    return -unfloored(-unfloored(value, low), -high)


class CausalConv1d(nn.Conv1d):
    """Convolution whose output at t sees inputs t, t - d, ..., t - (k - 1) d: (B, C, T) -> (B, O, T).

    ahead: so many of the k taps look ahead instead, and the output sees t + ahead d, ..., t + (ahead - k + 1) d.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        dilation: int = 1,
        bias: bool = True,
        ahead: int = 0,
    ) -> None:
        # A kernel of one has no dilation to speak of; 2 keeps torch off its slow undilated path on a CPU.
        super().__init__(in_channels, out_channels, kernel_size, dilation=dilation if kernel_size > 1 else 2, bias=bias)
        self.reach = (kernel_size - 1) * dilation
        self.future = ahead * dilation

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, T) -> (B, O, T)."""
        if self.kernel_size == (1,):  # a matrix product, on a CPU much faster as such than as a convolution
            weight = self.weight[:, :, 0].expand(input.shape[0], -1, -1)  # len() would fix it in an export
            return torch.bmm(weight, input) if self.bias is None else torch.baddbmm(self.bias[:, None], weight, input)
        return super().forward(F.pad(input, (self.reach - self.future, self.future)))

    def stepper(self, batch: int) -> Callable[[Tensor], Tensor]:
        """A callable (B, C) -> (B, O) for consecutive samples, starting from silence before the first."""
        assert self.future == 0, "what looks ahead has no next sample"
        weight = self.weight.detach().permute(0, 2, 1).reshape(self.out_channels, -1).contiguous()
        bias = None if self.bias is None else self.bias.detach()
        if self.reach == 0:
            return lambda sample: F.linear(sample, weight, bias)
        past = weight.new_zeros(self.reach, batch, self.in_channels)
        dilation, time = self.dilation[0], 0

        def step(sample: Tensor) -> Tensor:
            nonlocal time
            # Delay j * d stands (reach - j * d) places after the oldest entry of the ring.
            taps = [past[(time + place) % self.reach] for place in range(0, self.reach, dilation)]
            output = F.linear(torch.cat([*taps, sample], 1), weight, bias)
            past[time % self.reach] = sample
            time += 1
            return output

        return step


class GatedBlock(nn.Module):
    """tanh(W_f * h + c_f) sigmoid(W_g * h + c_g), then 1x1 to residual and skip (van den Oord et al. 2016, 1609.03499).

    h (B, R, T), cond (B, gate_channels, T) or None -> h (B, R, T), skip (B, S, T). The residual sum is scaled by
    sqrt(1/2), so that the variance of h does not grow with depth.
    """

    def __init__(
        self,
        residual_channels: int,
        gate_channels: int,
        skip_channels: int,
        kernel_size: int,
        dilation: int,
        ahead: int = 0,
    ) -> None:
        super().__init__()
        self.sizes = [residual_channels, skip_channels]
        self.dilated = CausalConv1d(residual_channels, gate_channels, kernel_size, dilation, ahead=ahead)
        self.output = CausalConv1d(gate_channels // 2, residual_channels + skip_channels, 1)

    def forward(self, hidden: Tensor, cond: Tensor | None) -> tuple[Tensor, Tensor]:
        """(B, R, T), (B, G, T) -> (B, R, T), (B, S, T)."""
        return self._mix(hidden, self.dilated(hidden), cond, self.output)

    def stepper(self, batch: int) -> Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]:
        """A callable ((B, R), (B, G)) -> ((B, R), (B, S)) for consecutive samples."""
        dilated, output = self.dilated.stepper(batch), self.output.stepper(batch)
        return lambda hidden, cond: self._mix(hidden, dilated(hidden), cond, output)

    def _mix(
        self, hidden: Tensor, gates: Tensor, cond: Tensor | None, output: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor, Tensor]:
        if cond is not None:
            gates = gates + cond
        content, gate = gates.chunk(2, 1)
        residual, skip = output(torch.tanh(content) * torch.sigmoid(gate)).split(self.sizes, 1)
        return (hidden + residual) * math.sqrt(0.5), skip
