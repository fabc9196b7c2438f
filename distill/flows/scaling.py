"""Mean and spread of the data as a flow: densities are stated in the data's own units, networks see unit variance."""

from __future__ import annotations

from torch import Tensor

from distill.flows.base import Flow
from wavenet.config import require
from wavenet.upsample import Conditioning


class Scaling(Flow):
    """x_i = shift_i + scale_i z_i, fixed: z (B, m) -> x (B, m), log_det = sum_i log scale_i.

    shift, scale (m,) are kept with the weights. Raises UserError where a scale is not positive.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor, scale: Tensor) -> None:
        super().__init__()
        require(bool((scale > 0).all()), "scale", float(scale.min()), "positive numbers")
        self.register_buffer("shift", shift)
        self.register_buffer("scale", scale)

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Standardised vectors -> data."""
        return self.shift + self.scale * noise, self._log_det(noise)

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Data -> standardised vectors."""
        return (signal - self.shift) / self.scale, -self._log_det(signal)

    def _log_det(self, signal: Tensor) -> Tensor:
        return self.scale.log().sum().to(signal).expand(signal.shape[0])
