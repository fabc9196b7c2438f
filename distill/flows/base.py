"""What a flow is: an invertible map with a known log determinant. Forward is noise -> signal, everywhere."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from wavenet.distributions.base import NoiseDriven
from wavenet.errors import UserError
from wavenet.upsample import Conditioning


class Flow(nn.Module):
    """z (B, T) -> x (B, T), log_det (B,) = log |det dx/dz| in nats; `inverse` goes back and returns log |det dz/dx|."""

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """noise (B, T) -> signal (B, T), log |det d signal / d noise| (B,)."""
        raise TypeError(f"{type(self).__name__} does not define forward")

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """signal (B, T) -> noise (B, T), log |det d noise / d signal| (B,)."""
        raise TypeError(f"{type(self).__name__} does not define inverse")


class Chain(Flow):
    """Composition, first to last: x = f_n(... f_1(z)); log determinants add."""

    def __init__(self, flows: Sequence[Flow]) -> None:
        super().__init__()
        self.flows = nn.ModuleList(flows)

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Through every flow in order."""
        total = noise.new_zeros(noise.shape[0])
        for flow in self.flows:
            noise, log_det = flow(noise, cond)
            total = total + log_det
        return noise, total

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Back through every flow in reverse order."""
        total = signal.new_zeros(signal.shape[0])
        for flow in reversed(self.flows):
            assert isinstance(flow, Flow)
            signal, log_det = flow.inverse(signal, cond)
            total = total + log_det
        return signal, total


class Inverse(Flow):
    """The same map turned round: its forward is the other's inverse."""

    def __init__(self, flow: Flow) -> None:
        super().__init__()
        self.flow = flow

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """The inner flow's inverse."""
        return self.flow.inverse(noise, cond)

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """The inner flow's forward."""
        result: tuple[Tensor, Tensor] = self.flow(signal, cond)
        return result


def draw(
    base: NoiseDriven, mel: Tensor, hop_length: int, temperature: float = 1.0, generator: torch.Generator | None = None
) -> Tensor:
    """z (B, T) of the law `base` for mel (B, M, F), T = F hop_length, from a CPU generator; temperature scales it."""
    uniform = torch.rand(mel.shape[0], mel.shape[2] * hop_length, 1, generator=generator, dtype=mel.dtype)
    return base.transform(uniform.to(mel.device), temperature)


def require_length(name: str, signal: Tensor, length: int) -> None:
    """Raise UserError unless `signal` is (B, length), as long as its mel."""
    if signal.dim() != 2 or signal.shape[1] != length:
        expected = f"(B, {length}), the mel's frames x hop_length"
        raise UserError(f"{name}: found shape {tuple(signal.shape)}, expected {expected}")


def log_prob(flow: Flow, base: torch.distributions.Distribution, signal: Tensor, cond: Conditioning | None) -> Tensor:
    """log p(x) = log p_base(f^-1(x)) + log |det df^-1/dx|: signal (B, T) -> (B,) nats, base element-wise."""
    noise, log_det = flow.inverse(signal, cond)
    result: Tensor = base.log_prob(noise).sum(1) + log_det
    return result
