r"""The two steps of a RealNVP on channels, (B, C, N) -> (B, C, N): affine coupling and invertible 1x1 convolution.

Dinh et al. 2017, arXiv 1605.08803: x_a = z_a, x_b = z_b exp(s(z_a)) + m(z_a). Inverse and log_det need s and m of what
is known on either side, x_a = z_a, so both directions take one pass, whatever the networks are. Glow, Kingma and
Dhariwal 2018, arXiv 1807.03039, mixes the channels between by a learned matrix W = P L U. WaveGlow, Prenger et al.
2019, arXiv 1811.00002, is both on audio.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.flows.base import Flow
from wavenet.config import StackConfig
from wavenet.layers import soft_clamp
from wavenet.stack import Stack
from wavenet.upsample import Conditioning


class AffineCoupling(Flow):
    """x_a = z_a, x_b = z_b exp(log_scale) + loc, both functions of all of z_a and cond; log_det = sum log_scale.

    a: the first half of the channels, the larger one where C is odd. log_scale lies softly inside log_scale_range. A
    fresh coupling is the identity but for what the soft bounds take from a log scale of 0.
    """

    def __init__(
        self,
        config: StackConfig,
        channels: int,
        cond_channels: int = 0,
        log_scale_range: tuple[float, float] = (-7.0, 5.0),
    ) -> None:
        super().__init__()
        self.low, self.high = log_scale_range
        self.sizes = [channels - channels // 2, channels // 2]
        self.stack = Stack(config, self.sizes[0], 2 * self.sizes[1], cond_channels, centred=True)
        nn.init.zeros_(self.stack.output.weight)
        assert self.stack.output.bias is not None
        nn.init.zeros_(self.stack.output.bias)

    def affine(self, kept: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """loc and log_scale of x_b given z_a."""
        loc, raw = self.stack(kept, cond).to(kept.dtype).chunk(2, 1)  # autocast ends here
        return loc, soft_clamp(raw, self.low, self.high)

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """One pass."""
        kept, moved = noise.split(self.sizes, 1)
        loc, log_scale = self.affine(kept, cond)
        return torch.cat([kept, moved * torch.exp(log_scale) + loc], 1), log_scale.sum((1, 2))

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """z_b = (x_b - loc) exp(-log_scale): one pass too, and differentiable."""
        kept, moved = signal.split(self.sizes, 1)
        loc, log_scale = self.affine(kept, cond)
        return torch.cat([kept, (moved - loc) * torch.exp(-log_scale)], 1), -log_scale.sum((1, 2))


class Invertible1x1(Flow):
    """x = W z for every step in time, W = P L (U + diag(s)); log_det = N sum log |s|. It begins as a random rotation.

    P, a permutation, and the signs of s are fixed; L is unit lower, U strictly upper triangular.
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels, dtype=torch.float64))[0]
        permutation, lower, upper = (part.float() for part in torch.linalg.lu(rotation))
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", upper.diagonal().sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_scale = nn.Parameter(upper.diagonal().abs().log())

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """(B, C, N) -> (B, C, N)."""
        with torch.autocast(noise.device.type, enabled=False):
            lower, upper = self._factors()
            return (self.permutation @ lower @ upper) @ noise, self._log_det(noise)

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """By two triangular solutions."""
        with torch.autocast(signal.device.type, enabled=False):
            lower, upper = self._factors()
            back = torch.linalg.solve_triangular(lower, self.permutation.T, upper=False, unitriangular=True)
            back = torch.linalg.solve_triangular(upper, back, upper=True)
            return back @ signal, -self._log_det(signal)

    def _factors(self) -> tuple[Tensor, Tensor]:
        unit = torch.eye(len(self.sign), dtype=self.lower.dtype, device=self.lower.device)
        return self.lower.tril(-1) + unit, self.upper.triu(1) + (self.sign * self.log_scale.exp()).diag()

    def _log_det(self, signal: Tensor) -> Tensor:
        return (signal.shape[2] * self.log_scale.sum()).expand(len(signal))
