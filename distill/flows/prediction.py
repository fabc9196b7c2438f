"""Linear prediction as a flow: from the residual, which the networks make, back to emphasised speech."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distill.flows.base import Flow
from wavenet.fused.availability import expect_compiler
from wavenet.prediction import whiten
from wavenet.upsample import Conditioning, linear_kernel


class Synthesis(Flow):
    """e (B, T) -> u (B, T) with e_t = rest_t(u_<t) + scale_t u_t, the lattice of wavenet/prediction.py.

    Triangular with 1 / scale_t on its diagonal: log_det = -sum log scale_t. cond.whitening holds the lattice. Back from
    the signal is parallel; to the signal it is a recursion of the predictor's order a sample, whose gradient is another
    one, from the last sample to the first. Differentiable in the signals; in the lattice only on the way back.
    """

    kernel: Tensor

    def __init__(self, hop_length: int) -> None:
        super().__init__()
        self.register_buffer("kernel", linear_kernel(hop_length), persistent=False)

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Residual -> emphasised speech, and the log determinant. Raises UserError as `speech` does."""
        speech = self.speech(noise, cond)
        return speech, -self.inverse(speech, cond)[1]

    def speech(self, residual: Tensor, cond: Conditioning | None) -> Tensor:
        """The signal alone. Raises UserError where numba does not compile."""
        expect_compiler("linear prediction", "a model without it")
        with torch.autocast(residual.device.type, enabled=False):  # the filter is part of the signal itself
            made: Tensor = _Colour.apply(residual, _lattice(cond), self.kernel)
        return made

    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """Emphasised speech -> residual."""
        rest, scale = whiten(signal, _lattice(cond), self.kernel)
        return rest + scale * signal, scale.log().sum(1)


class _Colour(torch.autograd.Function):
    """wavenet.fused.lattice.colour, with the transposed recursion as its gradient."""

    @staticmethod
    def forward(ctx: Any, residual: Tensor, lattice: Tensor, kernel: Tensor) -> Tensor:
        """Speech (B, T) of a residual (B, T)."""
        from wavenet.fused.lattice import colour  # numba takes half a second to import, and most models do without

        assert not ctx.needs_input_grad[1], "lattices come from mels, which are data"
        ctx.save_for_backward(lattice, kernel)
        return colour(residual, lattice, kernel)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        """Of the residual."""
        from wavenet.fused.lattice import transposed

        return transposed(gradients[0], *ctx.saved_tensors), None, None


def _lattice(cond: Conditioning | None) -> Tensor:
    lattice = None if cond is None else cond.whitening
    assert lattice is not None, "conditioning without a lattice"
    return lattice
