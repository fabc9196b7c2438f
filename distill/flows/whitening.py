"""Mean and covariance of the data as a flow: with it alone a density is the data's Gaussian, in their own units."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.flows.base import Flow
from wavenet.config import require
from wavenet.upsample import Conditioning


class Whitening(Flow):
    """x = shift + factor z, fixed: z (B, m) -> x (B, m), log_det = sum_i log factor_ii.

    shift (m,), factor (m, m) lower triangular with a positive diagonal, the Cholesky factor of a covariance; kept with
    the weights. Raises UserError where the diagonal is not positive.
    """

    shift: Tensor
    factor: Tensor

    def __init__(self, shift: Tensor, factor: Tensor) -> None:
        super().__init__()
        diagonal = factor.diagonal()
        require(bool((diagonal > 0).all()), "factor", float(diagonal.min()), "a positive diagonal")
        self.register_buffer("shift", shift)
        self.register_buffer("factor", factor.tril())

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """White vectors -> data."""
        return self.shift + noise @ self.factor.T, self._log_det(noise)

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Data -> white vectors."""
        white = torch.linalg.solve_triangular(self.factor, (signal - self.shift).T, upper=False).T
        return white, -self._log_det(signal)

    def _log_det(self, signal: Tensor) -> Tensor:
        return self.factor.diagonal().log().sum().expand(signal.shape[0])
