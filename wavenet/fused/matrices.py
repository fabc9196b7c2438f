"""Convolutions as matrices, in float64, and the first two of a stack as one.

On the way to the first layer's gates nothing comes after the input convolution but one of dilation 1: there the two are
one product of the last 2 k - 1 inputs, of which there are a few, in place of k products of all residual channels. The
residual stream still begins with the input convolution alone. Its bias is the weight of an input that is 1 from the
first sample on: the padding before the signal, which each convolution has for itself, has no bias.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavenet.layers import CausalConv1d
from wavenet.stack import Stack

Floats = npt.NDArray[Any]


def matrices(convolution: CausalConv1d) -> Floats:
    """(taps, inputs, outputs), the tap of the longest delay first."""
    return _numbers(convolution.weight).transpose(2, 1, 0)


def bias(convolution: CausalConv1d) -> Floats:
    """(outputs,)."""
    assert convolution.bias is not None
    return _numbers(convolution.bias)


def entry(stack: Stack) -> Floats:
    """The input convolution (taps, inputs + 1, residual): the last input is the one that is 1."""
    weights = matrices(stack.input)
    taps, _, residual = weights.shape
    weights = np.concatenate([weights, np.zeros((taps, 1, residual))], 1)
    weights[-1, -1] = bias(stack.input)
    return weights


def in_one(first: Floats, second: Floats) -> Floats:
    """Convolutions (taps, inputs, residual) and after it (taps, residual, outputs) -> ((2 taps - 1) inputs, outputs).

    Both of dilation 1; a product of the last 2 taps - 1 inputs, the oldest first: out_t = sum_ij second_j first_i
    in_{t - i - j}.
    """
    taps, inputs, outputs = len(second), first.shape[1], second.shape[2]
    both = np.zeros((2 * taps - 1, inputs, outputs))
    for older in range(taps):
        both[older : older + taps] += first @ second[older]
    return both.reshape(-1, outputs)


def _numbers(tensor: Tensor) -> Floats:
    numbers: Floats = tensor.detach().to("cpu", torch.float64).numpy()
    return numbers
