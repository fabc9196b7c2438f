"""Gate and draw as one launch each, for a sampler that asks for operations one by one (wavenet.sampling.block)."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from wavenet.heads import GaussianHead, MixtureHead, MuLawHead
from wavenet.kernels.pieces import chosen, gated, likeliest, moved
from wavenet.kernels.weights import numbers, padded


@triton.jit(do_not_specialize=["stride"])
def gate_row(row, content, stride, HALF: tl.constexpr, SIZE: tl.constexpr):
    """content (B, HALF) from both halves of row (B, 2 HALF), whose rows are `stride` apart; grid (B,)."""
    n, index = tl.program_id(0).to(tl.int64), tl.arange(0, SIZE)
    here = index < HALF
    left = tl.load(row + n * stride + index, mask=here, other=0.0)
    right = tl.load(row + n * stride + HALF + index, mask=here, other=0.0)
    tl.store(content + n * HALF + index, gated(left, right), mask=here)


@triton.jit(do_not_specialize=["stride", "wave_stride"])
def draw_row(
    outputs,
    noise,
    previous,
    sample,
    levels,
    numbers,
    stride,
    wave_stride,
    CHANNELS: tl.constexpr,
    KINDS: tl.constexpr,
    COUNT: tl.constexpr,
    SIZE: tl.constexpr,
    GRID: tl.constexpr,
    GREEDY: tl.constexpr,
):
    """sample (B,) from outputs (B, KINDS COUNT) and noise (B, CHANNELS), previous (B,) before it; grid (B,).

    KINDS: 3 for a mixture (logits, locations, log scales), 2 for a Gaussian, 1 for classes, SIZE the padded COUNT.
    """
    n, index = tl.program_id(0).to(tl.int64), tl.arange(0, SIZE)
    here = index < COUNT
    own, drawn = outputs + n * stride + index, noise + n * CHANNELS
    if KINDS == 1:
        logits = tl.load(own, mask=here, other=-float("inf"))
        if GREEDY:
            value = tl.load(levels + likeliest(logits, SIZE))
        else:
            logits = logits / tl.load(numbers + 4).to(logits.dtype)
            value = tl.load(levels + chosen(logits, tl.load(drawn), COUNT, SIZE))
    else:
        loc = tl.load(own + (KINDS - 2) * COUNT, mask=here, other=0.0)
        raw = tl.load(own + (KINDS - 1) * COUNT, mask=here, other=0.0)
        logits = tl.where(here, 0.0, -float("inf")).to(loc.dtype)
        if KINDS == 3:
            logits = tl.load(own, mask=here, other=-float("inf"))
        before = tl.load(previous + n * wave_stride)
        value = moved(logits, loc, raw, drawn, numbers, before, COUNT, SIZE, GRID)
    tl.store(sample + n * wave_stride, value)


def gate(row: Tensor) -> Tensor:
    """tanh x sigmoid: (B, 2 H) -> (B, H)."""
    half = row.shape[1] // 2
    content = row.new_empty(len(row), half)
    gate_row[(len(row),)](row, content, row.stride(0), HALF=half, SIZE=padded(half))
    return content


class KernelDraw:
    """As wavenet.sampling.draws.Draw, in one launch."""

    def __init__(
        self,
        head: MixtureHead | GaussianHead | MuLawHead,
        gain: float,
        coefficient: float,
        temperature: float,
        like: Tensor,
    ) -> None:
        kinds = {MixtureHead: 3, GaussianHead: 2, MuLawHead: 1}[type(head)]
        count = head.channels // kinds
        self.numbers = numbers(head, gain, coefficient, temperature).to(like.device)
        self.levels = like.new_zeros(1)
        if isinstance(head, MuLawHead):
            self.levels = head.mulaw.decode(torch.arange(count), like.dtype).to(like.device)
        self.sizes = {
            "KINDS": kinds,
            "COUNT": count,
            "SIZE": padded(count),
            "GRID": int(isinstance(head, MixtureHead) and head.grid is not None),
            "GREEDY": int(temperature == 0),
        }

    def prepare(self, deviates: Tensor) -> Tensor:
        """(B, T, n) -> (B, T, m): a Gaussian is a mixture of one, whose choice is made."""
        return torch.cat([torch.full_like(deviates, 0.5), deviates], -1) if self.sizes["KINDS"] == 2 else deviates

    def __call__(self, outputs: Tensor, noise: Tensor, previous: Tensor, sample: Tensor) -> None:
        """outputs (B, O), noise (B, m), previous (B,) = x_{t-1} -> sample (B,) = x_t, written in place."""
        draw_row[(len(outputs),)](
            outputs,
            noise,
            previous,
            sample,
            self.levels,
            self.numbers,
            outputs.stride(0),
            sample.stride(0),
            CHANNELS=noise.shape[1],
            **self.sizes,
        )
