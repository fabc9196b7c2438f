"""A stack's weights in the order in which the loop reads them."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavenet.fingerprint import fingerprint
from wavenet.fused.loop import Sizes, Weights
from wavenet.fused.products import padded, panels
from wavenet.layers import CausalConv1d, GatedBlock
from wavenet.stack import Stack

_HUGE = 2**22  # bytes from which the system gives an array large pages

Floats = npt.NDArray[Any]


# What was packed last of each stack: the state of its parameters then, and the result.
_PACKED: weakref.WeakKeyDictionary[Stack, tuple[object, tuple[Sizes, Weights]]] = weakref.WeakKeyDictionary()


def pack(stack: Stack) -> tuple[Sizes, Weights]:
    """Sizes and packed weights, in the stack's precision; packed again only when a parameter has changed."""
    state = fingerprint(stack)
    if stack not in _PACKED or _PACKED[stack][0] != state:
        _PACKED[stack] = state, _pack(stack)
    return _PACKED[stack][1]


def _pack(stack: Stack) -> tuple[Sizes, Weights]:
    """The scalings of the residual sum and of the skips are in the matrices here."""
    dtype = np.float64 if next(stack.parameters()).dtype == torch.float64 else np.float32
    blocks = [block for block in stack.blocks if isinstance(block, GatedBlock)]
    config, layers = stack.config, len(blocks)
    residual = config.residual_channels
    scales = np.array([math.sqrt(0.5)] * residual + [1 / math.sqrt(layers)] * config.skip_channels)
    dilated = [_matrices(block.dilated) for block in blocks]  # (taps, residual, gates) each, the oldest first
    mixes = [_matrices(block.output)[0] * scales for block in blocks]
    mix_biases = np.stack([_bias(block.output) for block in blocks]) * scales
    space = np.zeros((config.gate_channels // 2, padded(residual) - residual))
    present: list[Floats] = []
    for taps, mix in zip(dilated, mixes, strict=True):
        to_residual, to_skip = np.split(mix, [residual], 1)
        last = taps is dilated[-1]  # whose residual nothing reads
        present += [panels(taps[-1]), panels(to_skip if last else np.hstack([to_residual, space, to_skip]))]
    gate_bias = np.zeros((layers, padded(config.gate_channels)))
    gate_bias[:, : config.gate_channels] = np.stack([_bias(block.dilated) for block in blocks])
    sizes = Sizes(
        stack.input.in_channels,
        residual,
        config.gate_channels,
        config.skip_channels,
        stack.output.out_channels,
        config.kernel_size,
    )
    arrays: dict[str, Floats] = {
        "input": panels(_matrices(stack.input).reshape(-1, residual)),
        "input_bias": _bias(stack.input),
        "present": np.concatenate(present),
        "past": np.concatenate([panels(tap) for taps in dilated for tap in taps[:-1]] or [np.zeros(0)]),
        "gate_bias": gate_bias.reshape(-1),
        "mix_bias": mix_biases[:, :residual],
        "skip_bias": mix_biases[:, residual:].sum(0),
        "hidden": panels(_matrices(stack.hidden)[0]),
        "hidden_bias": _bias(stack.hidden),
        "output": panels(_matrices(stack.output)[0]),
        "output_bias": _bias(stack.output),
    }
    placed = _side_by_side(arrays, dtype)
    return sizes, Weights(dilations=np.array(config.dilations, np.int64), **placed)


def _side_by_side(arrays: dict[str, Floats], dtype: type[np.floating[Any]]) -> dict[str, Floats]:
    """Copies of the arrays in one piece of memory, each from the beginning of a cache line on."""
    line = 64 // np.dtype(dtype).itemsize
    lengths = [-(-array.size // line) * line for array in arrays.values()]
    memory = np.zeros(max(sum(lengths) + line, _HUGE // np.dtype(dtype).itemsize), dtype)
    at, placed = -memory.ctypes.data % 64 // np.dtype(dtype).itemsize, {}
    for (name, array), length in zip(arrays.items(), lengths, strict=True):
        view = memory[at : at + array.size].reshape(array.shape)
        view[...] = array
        placed[name], at = view, at + length
    return placed


def _matrices(convolution: CausalConv1d) -> Floats:
    """(taps, inputs, outputs) float64, the tap of the longest delay first."""
    return _numbers(convolution.weight).transpose(2, 1, 0)


def _bias(convolution: CausalConv1d) -> Floats:
    assert convolution.bias is not None
    return _numbers(convolution.bias)


def _numbers(tensor: Tensor) -> Floats:
    numbers: Floats = tensor.detach().to("cpu", torch.float64).numpy()
    return numbers
