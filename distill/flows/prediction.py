"""Linear prediction as a flow: from the residual, which the networks make, back to emphasised speech."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.flows.base import Flow
from wavenet.fused.availability import expect_compiler
from wavenet.prediction import time_varying
from wavenet.upsample import Conditioning, linear_kernel


class Synthesis(Flow):
    """e (B, T) -> u (B, T) with e_t = h_0(t) u_t + sum_{j >= 1} h_j(t) u_{t-j}, the filters h of wavenet/prediction.py.

    Triangular with 1 / h_0 on the diagonal: log_det = -sum log h_0. cond.whitening holds the filters. Back from the
    signal is parallel and differentiable, to the signal a recursion of its order a sample and no network.
    """

    kernel: Tensor

    def __init__(self, hop_length: int) -> None:
        super().__init__()
        self.register_buffer("kernel", linear_kernel(hop_length), persistent=False)

    @torch.no_grad()
    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Residual -> emphasised speech; not differentiable. Raises UserError where numba does not compile."""
        expect_compiler("linear prediction", "a model without it")
        from wavenet.fused.filters import invert  # numba takes half a second to import, and training does without

        speech, sums = invert(noise, _filters(cond), self.kernel)
        return speech, -sums

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Emphasised speech -> residual."""
        predicted, scale = time_varying(signal, _filters(cond), self.kernel)
        return signal * scale + predicted, scale.log().sum(1)


def _filters(cond: Conditioning | None) -> Tensor:
    filters = None if cond is None else cond.whitening
    assert filters is not None, "conditioning without filters"
    return filters
