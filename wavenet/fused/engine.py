"""A stack run one sample at a time by the compiled loop: signals in lockstep, groups of them over threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavenet.fused.compilation import ready
from wavenet.fused.loop import Drive, Law, Room, Sizes, State, Weights, run
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
    batch, length = like.shape[:2]
    threads = max(1, min(torch.get_num_threads(), batch))
    together = max(1, min(LOCKSTEP, -(-batch // threads)))
    sizes, weights = pack(stack, alone=together == 1)
    dtype = weights.input.dtype.type
    out, log_scales = np.zeros((batch, length), dtype), np.zeros(batch)
    outputs = np.zeros((batch, length if record else 0, sizes.outputs), dtype)
    interrupted = threading.Event()

    def group(first: int) -> None:
        """Signals first, first + 1, ... in lockstep; what drives them exists while they run."""
        mine = slice(first, min(first + together, batch))
        count = mine.stop - first
        driven = Drive(
            *_frames(stack, cond, mine, dtype),
            np.zeros((count, 0, 0), dtype) if signals is None else _array(signals[mine].transpose(1, 2), dtype),
            np.zeros((count, 0, 0), dtype) if noise is None else _array(noise[mine], dtype),
            np.zeros((count, 0), dtype) if given is None else _array(given[mine], dtype),
        )
        state, room = _state(sizes, weights, count, dtype), _room(sizes, weights, count, dtype)
        for start in range(0, length, _AT_ONCE):
            if interrupted.is_set():
                return
            stop = min(start + _AT_ONCE, length)
            run(sizes, weights, driven, law, state, room, start, stop, out[mine], outputs[mine])
        log_scales[mine] = state.log_scales

    _prepare(sizes, weights, law, dtype)
    with ThreadPoolExecutor(threads) as pool:
        try:
            list(pool.map(group, range(0, batch, together)))
        finally:
            interrupted.set()
    return Run(*(torch.from_numpy(array).to(like.device) for array in (out, log_scales, outputs)))


def _prepare(sizes: Sizes, weights: Weights, law: Law, dtype: type[np.floating[Any]]) -> None:
    """Have the loop compiled, or loaded, for this precision."""
    three, two = np.zeros((1, 0, 0), dtype), np.zeros((1, 0), dtype)
    nothing = Drive(three, np.zeros((0, 3), dtype), three, three, two)
    state, room = _state(sizes, weights, 1, dtype), _room(sizes, weights, 1, dtype)
    ready(run, sizes, weights, nothing, law, state, room, 0, 0, two, three)


@torch.no_grad()
def _frames(
    stack: Stack, cond: Conditioning | None, mine: slice, dtype: type[np.floating[Any]]
) -> tuple[Floats, Floats]:
    """Frames (N, F + 2, L gates padded) of the signals `mine`, projected for every layer, and the kernel (hop, 3)."""
    gates, layers = stack.config.gate_channels, len(stack.blocks)
    if cond is None:
        return np.zeros((mine.stop - mine.start, 0, 0), dtype), np.zeros((0, 3), dtype)
    assert stack.condition is not None, "this stack was built without conditioning"
    with torch.autocast(cond.frames.device.type, enabled=False):
        weight = stack.condition.weight.to(cond.frames)
        by_layer = torch.matmul(cond.frames[mine].transpose(1, 2), weight.T).unflatten(2, (layers, gates))
    spare = padded(gates) - gates
    frames = torch.nn.functional.pad(by_layer, (0, spare)) if spare else by_layer
    return _array(frames.flatten(2), dtype), _array(cond.kernel.T, dtype)


def _state(sizes: Sizes, weights: Weights, signals: int, dtype: type[np.floating[Any]]) -> State:
    """Silence before the first sample."""
    lengths = [0, *((sizes.taps - 1) * dilation + _BLOCK for dilation in weights.dilations.tolist()[1:])]
    at = np.concatenate([[0], np.cumsum(lengths)]) * signals
    return State(
        np.zeros((at[-1] if sizes.taps > 1 else 0, sizes.residual), dtype),
        at.astype(np.int64),
        np.zeros((signals, (2 * sizes.taps - 1) * sizes.inputs), dtype),
        np.zeros((signals, 2), dtype),
        np.zeros(signals),
    )


def _room(sizes: Sizes, weights: Weights, signals: int, dtype: type[np.floating[Any]]) -> Room:
    layers, columns, skip = len(weights.dilations), padded(sizes.gates), padded(sizes.skip)
    return Room(
        np.zeros((max(_LEAST, _BLOCK // signals), signals, layers * columns), dtype),
        np.zeros((signals, padded(sizes.residual) + skip), dtype),
        np.zeros((signals, sizes.gates // 2), dtype),
        np.zeros((signals, skip), dtype),
        np.zeros((signals, padded(sizes.outputs)), dtype),
    )


def _array(tensor: Tensor, dtype: type[np.floating[Any]]) -> Floats:
    tensor = tensor.detach().cpu()
    plain = tensor if tensor.dtype in (torch.float32, torch.float64) else tensor.float()
    array: Floats = np.ascontiguousarray(plain.numpy(), dtype)
    return array
