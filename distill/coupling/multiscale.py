"""Couplings on squeezed audio as one flow of plain audio, and the multi-scale arrangement of their channels."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.coupling.config import FlowConfig
from distill.coupling.steps import AffineCoupling, Invertible1x1
from distill.flows.base import Chain, Flow
from distill.flows.permutation import Permutation
from wavenet.upsample import Conditioning


def squeezed(signal: Tensor, size: int) -> Tensor:
    """(B, T) -> (B, size, T / size): neighbouring samples become channels, which are all seen at once."""
    return signal.unflatten(1, (-1, size)).transpose(1, 2)


def unsqueezed(channels: Tensor) -> Tensor:
    """(B, size, N) -> (B, size N), the inverse."""
    return channels.transpose(1, 2).flatten(1)


class MultiScale(Flow):
    """Noise (B, T) -> signal (B, T), by steps of a coupling and a mixing of channels, in one pass each way.

    A step leaves the first channels alone, the more of them the nearer it is to the noise: those channels of the noise
    join late, and from the signal's side leave early (RealNVP, arXiv 1605.08803, section 3.6; WaveGlow). cond is in
    squeezed time, T / squeeze. `reach`: x_t depends on noise at most so many samples away, either way, and on mel.
    """

    def __init__(self, config: FlowConfig, cond_channels: int = 0) -> None:
        super().__init__()
        self.size = config.squeeze
        self.sizes = [config.channels(place) for place in reversed(range(config.couplings))]
        self.steps = nn.ModuleList(
            Chain([AffineCoupling(config.stack, size, cond_channels, config.log_scale_range), _mixing(config, size)])
            for size in self.sizes
        )

    @property
    def reach(self) -> int:
        """In samples: whole squeezed steps, and one less within a step."""
        return (self._steps_seen + 1) * self.size - 1

    @property
    def receptive_field(self) -> int:
        """Noise samples that x_t may depend on, whole squeezed steps."""
        return (2 * self._steps_seen + 1) * self.size

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates a sample of audio: those of a squeezed step, over its samples."""
        mixing = sum(step.permutation.numel() for step in self.modules() if isinstance(step, Invertible1x1))
        return (sum(coupling.stack.macs_per_sample for coupling in self.couplings) + mixing) // self.size

    @property
    def couplings(self) -> list[AffineCoupling]:
        """From noise to signal."""
        return [module for module in self.modules() if isinstance(module, AffineCoupling)]

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """In parallel over t."""
        channels, total = squeezed(noise, self.size), noise.new_zeros(len(noise))
        for step, size in zip(self.steps, self.sizes, strict=True):
            rest, moved = channels.split([self.size - size, size], 1)
            moved, log_det = step(moved, cond)
            channels, total = torch.cat([rest, moved], 1), total + log_det
        return unsqueezed(channels), total

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """In parallel over t too; differentiable."""
        channels, total = squeezed(signal, self.size), signal.new_zeros(len(signal))
        for step, size in zip(reversed(self.steps), reversed(self.sizes), strict=True):
            assert isinstance(step, Flow)
            rest, moved = channels.split([self.size - size, size], 1)
            moved, log_det = step.inverse(moved, cond)
            channels, total = torch.cat([rest, moved], 1), total + log_det
        return unsqueezed(channels), total

    @property
    def _steps_seen(self) -> int:
        return sum(coupling.stack.receptive_field // 2 for coupling in self.couplings)


def _mixing(config: FlowConfig, channels: int) -> Flow:
    return Invertible1x1(channels) if config.mixing == "invertible" else Permutation(range(channels)[::-1])
