r"""A stack unrolled over its layers: what each layer's products add to every layer above, as one matrix.

The residual stream is linear between two gates, h_{l+1} = (h_l + R_l z_l + b_l) / sqrt(2), so that z_l reaches every
later stream, and through the present tap P_m every later gate, by matrices that can be multiplied out beforehand:

    h_m     <-  2^{-(m-l)/2} R_l z_l            for every m > l
    gates_m <-  P_m 2^{-(m-l)/2} R_l z_l

One row of all layers' numbers side by side then takes one product a layer, instead of two and a copy: a third fewer
launches, for L / 4 times the arithmetic, on a device on which launches are what takes the time. Composed in float64.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from wavenet.layers import CausalConv1d, GatedBlock
from wavenet.stack import Stack


class Composition(NamedTuple):
    """Matrices (inputs, columns). A row is [gates_0, h_0, gates_1, h_1, ..., skips], W = L (G + R) + S columns.

    start (W,): all biases. wave (k + 1, W - S): of the last k + 1 samples, the oldest first, pre-emphasis and gain
    inside. signals ((I - 1) k, W - S): of the further inputs, the oldest tap first. push: for each layer (G / 2, W -
    (l + 1) (G + R)), what z_l adds to the columns behind its own. past: for each layer k - 1 taps (R, G), the oldest
    first. hidden (S, S), output (S, O), ends (S + O,): the head, whose biases stand side by side.
    """

    start: Tensor
    wave: Tensor
    signals: Tensor
    push: list[Tensor]
    past: list[list[Tensor]]
    hidden: Tensor
    output: Tensor
    ends: Tensor


def compose(stack: Stack, gain: float, coefficient: float) -> Composition:
    """The composition of a teacher's stack, in its precision and on its device.

    gain, coefficient: of the pre-emphasis, gain (x_{t-1} - coefficient x_{t-2}).
    """
    weight = stack.input.weight
    blocks = [_Block(block) for block in stack.blocks if isinstance(block, GatedBlock)]
    width = len(blocks) * blocks[0].width

    def spread(value: Tensor, first: int) -> Tensor:
        """What value (n, R), added to h_first, adds to a row (n, W - S)."""
        row = value.new_zeros(len(value), width)
        for layer in range(first, len(blocks)):
            block, scaled = blocks[layer], value * math.sqrt(0.5) ** (layer - first)
            at = layer * block.width
            row[:, at : at + block.width] = torch.cat([scaled @ block.taps[-1], scaled], 1)
        return row

    root, share = math.sqrt(0.5), 1 / math.sqrt(len(blocks))
    start = spread(_bias(stack.input)[None], 0)
    skips = torch.zeros_like(blocks[0].skip_bias)
    push = []
    for layer, block in enumerate(blocks):
        start += spread(root * block.residual_bias[None], layer + 1)
        start[0, layer * block.width : layer * block.width + block.gates] += block.bias
        skips += share * block.skip_bias
        whole = torch.cat([spread(root * block.residual, layer + 1), share * block.skip], 1)
        push.append(whole[:, (layer + 1) * block.width :])
    taps = _double(weight).permute(2, 1, 0)  # (k, I, R), the oldest first
    samples = taps.new_zeros(len(taps) + 1, taps.shape[2])
    samples[1:] += gain * taps[:, 0]
    samples[:-1] -= gain * coefficient * taps[:, 0]
    inner = Composition(
        torch.cat([start[0], skips]),
        spread(samples, 0),
        spread(taps[:, 1:].flatten(0, 1), 0),
        push,
        [block.taps[:-1] for block in blocks],
        _double(stack.hidden.weight)[:, :, 0].T,
        _double(stack.output.weight)[:, :, 0].T,
        torch.cat([_bias(stack.hidden), _bias(stack.output)]),
    )
    return Composition(*(_like(part, weight) for part in inner))


class _Block:
    """A gated block's matrices (inputs, outputs), in float64."""

    def __init__(self, block: GatedBlock) -> None:
        self.taps = list(_double(block.dilated.weight).permute(2, 1, 0))
        self.bias = _bias(block.dilated)
        self.residual, self.skip = _double(block.output.weight)[:, :, 0].T.split(block.sizes, 1)
        self.residual_bias, self.skip_bias = _bias(block.output).split(block.sizes)
        self.gates = len(self.bias)
        self.width = self.gates + block.sizes[0]


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", torch.float64)


def _bias(convolution: CausalConv1d) -> Tensor:
    assert convolution.bias is not None
    return _double(convolution.bias)


def _like(part, weight: Tensor):  # type: ignore[no-untyped-def]
    if isinstance(part, list):
        return [_like(item, weight) for item in part]
    return part.to(weight).contiguous()
