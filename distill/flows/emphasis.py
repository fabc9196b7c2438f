"""De-emphasis as a flow: the last step from emphasised speech of unit rms to plain audio."""

from __future__ import annotations

import math

from torch import Tensor

from distill.flows.base import Flow
from wavenet.emphasis import de_emphasis, pre_emphasis
from wavenet.upsample import Conditioning


class DeEmphasis(Flow):
    """x_t = u_t / gain + a x_{t-1}: unit triangular but for the gain, log_det = -T log gain, exactly."""

    def __init__(self, coefficient: float, gain: float) -> None:
        super().__init__()
        self.coefficient, self.gain = coefficient, gain

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Emphasised signal (B, T) -> audio (B, T)."""
        return de_emphasis(noise, self.coefficient, self.gain), self._log_det(noise, -1.0)

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Audio (B, T) -> emphasised signal (B, T)."""
        return pre_emphasis(signal, self.coefficient, self.gain), self._log_det(signal, 1.0)

    def _log_det(self, signal: Tensor, sign: float) -> Tensor:
        return signal.new_full((signal.shape[0],), sign * signal.shape[1] * math.log(self.gain))
