"""A stack's weights in the order in which the loop reads them."""

from __future__ import annotations

import contextlib
import math
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from wavenet.fingerprint import fingerprint
from wavenet.fused.loop import Sizes, Weights
from wavenet.fused.matrices import Floats, bias, entry, in_one, matrices
from wavenet.fused.narrow import narrow_panels, pays
from wavenet.fused.products import padded, panels
from wavenet.layers import GatedBlock
from wavenet.stack import Stack

_HUGE = 2**22  # bytes from which the system gives an array large pages

# What was packed last of each stack: the state of its parameters then, and the results, in narrow panels and not.
_PACKED: weakref.WeakKeyDictionary[Stack, tuple[object, dict[bool, tuple[Sizes, Weights]]]]
_PACKED = weakref.WeakKeyDictionary()
_asked: bool | None = None  # of `packed`: None where `pays` says


@contextlib.contextmanager
def packed(narrow: bool) -> Iterator[None]:
    """Within it, one signal's weights in float32 are narrow, or are not, whatever pays; they are packed anew.

    For measurements and tests: in one thread at a time.
    """
    global _asked
    before, _asked = _asked, narrow
    _PACKED.clear()
    try:
        yield
    finally:
        _asked = before
        _PACKED.clear()


def pack(stack: Stack, alone: bool = False) -> tuple[Sizes, Weights]:
    """Sizes and packed weights, in the stack's precision; packed again only when a parameter has changed.

    alone: for one signal; what every sample reads is then in narrow panels, where they pay.
    """
    state, dtype = fingerprint(stack), _precision(stack)
    if stack not in _PACKED or _PACKED[stack][0] != state:
        _PACKED[stack] = state, {}
    count, made = sum(inputs * outputs for inputs, outputs in streamed(stack)), _PACKED[stack][1]
    narrow = alone and (pays(dtype, count) if _asked is None else _asked and dtype == np.float32)
    if narrow not in made:
        made[narrow] = _pack(stack, dtype, narrow)
    return made[narrow]


def streamed(stack: Stack) -> list[tuple[int, int]]:
    """(inputs, outputs) of every matrix that a sample waits for, in order; the last residual goes nowhere."""
    config = stack.config
    residual, gates, skip = config.residual_channels, config.gate_channels, config.skip_channels
    layer = [(residual, gates), (gates // 2, residual + skip)]
    first = (config.kernel_size * stack.input.in_channels, residual)
    last = [(residual, gates), (gates // 2, skip), (skip, skip), (skip, stack.output.out_channels)]
    return [first, *layer * (len(stack.blocks) - 1), *last]


def _precision(stack: Stack) -> type[np.floating[Any]]:
    return np.float64 if next(stack.parameters()).dtype == torch.float64 else np.float32


def _pack(stack: Stack, dtype: type[np.floating[Any]], narrow: bool) -> tuple[Sizes, Weights]:
    """The scalings of the residual sum and of the skips are in the matrices here."""
    streamed = narrow_panels if narrow else panels
    blocks = [block for block in stack.blocks if isinstance(block, GatedBlock)]
    config, layers = stack.config, len(blocks)
    residual = config.residual_channels
    scales = np.array([math.sqrt(0.5)] * residual + [1 / math.sqrt(layers)] * config.skip_channels)
    dilated = [matrices(block.dilated) for block in blocks]  # (taps, residual, gates) each, the oldest first
    mixes = [matrices(block.output)[0] * scales for block in blocks]
    mix_biases = np.stack([bias(block.output) for block in blocks]) * scales
    space = np.zeros((config.gate_channels // 2, padded(residual) - residual))
    first = entry(stack)
    present: list[Floats] = []
    for taps, mix in zip(dilated, mixes, strict=True):
        to_residual, to_skip = np.split(mix, [residual], 1)
        last = taps is dilated[-1]  # whose residual nothing reads
        tap = in_one(first, taps) if taps is dilated[0] else taps[-1]
        present += [streamed(tap), streamed(to_skip if last else np.hstack([to_residual, space, to_skip]))]
    gate_bias = np.zeros((layers, padded(config.gate_channels)))
    gate_bias[:, : config.gate_channels] = np.stack([bias(block.dilated) for block in blocks])
    sizes = Sizes(
        first.shape[1],
        residual,
        config.gate_channels,
        config.skip_channels,
        stack.output.out_channels,
        config.kernel_size,
        int(narrow),
    )
    arrays: dict[str, Floats] = {
        "input": panels(first.reshape(-1, residual)),
        "present": np.concatenate(present),
        "past": np.concatenate([panels(tap) for taps in dilated[1:] for tap in taps[:-1]] or [np.zeros(0)]),
        "gate_bias": gate_bias.reshape(-1),
        "mix_bias": mix_biases[:, :residual],
        "skip_bias": mix_biases[:, residual:].sum(0),
        "hidden": streamed(matrices(stack.hidden)[0]),
        "hidden_bias": bias(stack.hidden),
        "output": streamed(matrices(stack.output)[0]),
        "output_bias": bias(stack.output),
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
