"""Linear prediction as a flow: from the residual, which the networks make, back to emphasised speech."""

from __future__ import annotations

import torch
from torch import Tensor

from distill.flows.base import Flow
from wavenet.fused.availability import expect_compiler
from wavenet.prediction import whiten
from wavenet.upsample import Conditioning, linear_kernel


class Synthesis(Flow):
    """e (B, T) -> u (B, T) with e_t = rest_t(u_<t) + scale_t u_t, the lattice of wavenet/prediction.py.

    Triangular with 1 / scale_t on its diagonal: log_det = -sum log scale_t. cond.whitening holds the lattice. Back from
    the signal is parallel and differentiable; to the signal it is a recursion of the predictor's order a sample.
    """

    kernel: Tensor

    def __init__(self, hop_length: int) -> None:
        super().__init__()
        self.register_buffer("kernel", linear_kernel(hop_length), persistent=False)

    @torch.no_grad()
    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Residual -> emphasised speech; not differentiable. Raises UserError where numba does not compile."""
        expect_compiler("linear prediction", "a model without it")
        from wavenet.fused.lattice import colour  # numba takes half a second to import, and training does without

        speech = colour(noise, _lattice(cond), self.kernel)
        return speech, -self.inverse(speech, cond)[1]

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Emphasised speech -> residual."""
        rest, scale = whiten(signal, _lattice(cond), self.kernel)
        return rest + scale * signal, scale.log().sum(1)


def _lattice(cond: Conditioning | None) -> Tensor:
    lattice = None if cond is None else cond.whitening
    assert lattice is not None, "conditioning without a lattice"
    return lattice
