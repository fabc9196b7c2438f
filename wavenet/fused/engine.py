"""A stack run one sample at a time by the compiled loop: signals in lockstep, groups of them over threads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavenet.fused.compilation import ready
from wavenet.fused.loop import Drive, Law, Sizes, State, Weights, run
from wavenet.fused.products import padded
from wavenet.fused.weights import pack
from wavenet.stack import Stack
from wavenet.upsample import Conditioning

LOCKSTEP = 16  # signals that share one stream of weights
_BLOCK = 32  # samples for which work is done ahead, by one signal
_LEAST = 8  # the same, by many
_AT_ONCE = 8192  # samples between two looks at Ctrl-C: a multiple of every block

Floats = npt.NDArray[Any]


class Run(NamedTuple):
    """signal (B, T), log_scales (B,): the sums of a flow's log scales, outputs (B, T, O), or (B, 0, O)."""

    signal: Tensor
    log_scales: Tensor
    outputs: Tensor


def drive(
    stack: Stack,
    cond: Conditioning | None,
    law: Law,
    *,
    noise: Tensor | None = None,
    given: Tensor | None = None,
    signals: Tensor | None = None,
    record: bool = False,
) -> Run:
    """Run `stack` over all samples, each made by `law` from the outputs, and fed back as the next one's input.

    noise (B, T, n): what the law draws with. given (B, T): the signal that it inverts or forces. signals (B, S, T): the
    stack's further inputs. In the precision of the stack, float32 or float64, with as many threads as torch has.
    """
    like = noise if noise is not None else given
    assert like is not None
    sizes, weights = pack(stack)
    dtype = weights.input.dtype.type
    batch, length = like.shape[:2]
    frames, kernel = _frames(stack, cond, batch, dtype)
    whole = Drive(
        frames,
        kernel,
        np.zeros((batch, 0, 0), dtype) if signals is None else _array(signals.transpose(1, 2), dtype),
        np.zeros((batch, 0, 0), dtype) if noise is None else _array(noise, dtype),
        np.zeros((batch, 0), dtype) if given is None else _array(given, dtype),
    )
    out = np.zeros((batch, length), dtype)
    outputs = np.zeros((batch, length if record else 0, sizes.outputs), dtype)
    threads = min(torch.get_num_threads(), batch)
    together = min(LOCKSTEP, -(-batch // threads))
    groups = [slice(first, min(first + together, batch)) for first in range(0, batch, together)]
    states = [_state(sizes, weights, group.stop - group.start, dtype) for group in groups]

    def arguments(index: int, start: int, stop: int) -> tuple[Any, ...]:
        group = groups[index]
        block = max(_LEAST, _BLOCK // (group.stop - group.start))
        mine = Drive(*(array if array is kernel else array[group] for array in whole))
        return sizes, weights, mine, law, states[index], block, start, stop, out[group], outputs[group]

    ready(run, *arguments(0, 0, length))
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, length, _AT_ONCE):
            stop = min(start + _AT_ONCE, length)
            parts = [arguments(index, start, stop) for index in range(len(groups))]
            list(pool.map(lambda part: run(*part), parts))
    log_scales = np.concatenate([state.log_scales for state in states])
    return Run(*(torch.from_numpy(array).to(like.device) for array in (out, log_scales, outputs)))


def _frames(
    stack: Stack, cond: Conditioning | None, batch: int, dtype: type[np.floating[Any]]
) -> tuple[Floats, Floats]:
    """Frames (B, F + 2, L gates padded), projected for every layer, and the kernel (hop, 3)."""
    gates, layers = stack.config.gate_channels, len(stack.blocks)
    if cond is None:
        return np.zeros((batch, 0, 0), dtype), np.zeros((0, 3), dtype)
    assert stack.condition is not None, "this stack was built without conditioning"
    projected = cond.project(stack.condition.weight)
    by_layer = projected.frames.detach().transpose(1, 2).unflatten(2, (layers, gates))
    frames = torch.nn.functional.pad(by_layer, (0, padded(gates) - gates)).flatten(2)
    return _array(frames, dtype), _array(projected.kernel.detach().T, dtype)


def _state(sizes: Sizes, weights: Weights, signals: int, dtype: type[np.floating[Any]]) -> State:
    """Silence before the first sample."""
    lengths = [(sizes.taps - 1) * dilation + _BLOCK for dilation in weights.dilations.tolist()]
    at = np.concatenate([[0], np.cumsum(lengths)]) * signals
    return State(
        np.zeros((at[-1] if sizes.taps > 1 else 0, sizes.residual), dtype),
        at.astype(np.int64),
        np.zeros((signals, sizes.taps * sizes.inputs), dtype),
        np.zeros((signals, 2), dtype),
        np.zeros(signals),
    )


def _array(tensor: Tensor, dtype: type[np.floating[Any]]) -> Floats:
    array: Floats = np.ascontiguousarray(tensor.detach().cpu().numpy(), dtype)
    return array
