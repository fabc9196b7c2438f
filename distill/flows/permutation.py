"""Permutation of coordinates as a flow: what stacked autoregressive flows are interleaved with."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distill.flows.base import Flow
from wavenet.config import require
from wavenet.upsample import Conditioning


class Permutation(Flow):
    """x_i = z_order(i), z (B, m) -> x (B, m); |det| = 1, so log_det is 0. Raises UserError where order is none."""

    order: Tensor
    back: Tensor

    def __init__(self, order: Sequence[int]) -> None:
        super().__init__()
        size = len(order)
        require(sorted(order) == list(range(size)), "order", list(order), f"a permutation of 0 to {size - 1}")
        places = torch.tensor(order, dtype=torch.int64)
        self.register_buffer("order", places, persistent=False)
        self.register_buffer("back", places.argsort(), persistent=False)

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Reorder the coordinates."""
        return noise[:, self.order], noise.new_zeros(noise.shape[0])

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Put them back."""
        return signal[:, self.back], signal.new_zeros(signal.shape[0])
