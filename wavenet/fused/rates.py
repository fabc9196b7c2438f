"""How fast this processor reads weights and multiplies: the products of the loop, with nothing around them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from wavenet.fused.compilation import kept, ready, sources
from wavenet.fused.products import PAD, address, matmul, padded, size_of

_PANEL, _ROWS, _REPEATS = (64, 32), 8, 2000  # operands that stay in the nearest cache
_PASS = 2**23  # multiply-adds in one call at least, half a millisecond: calling takes a thousandth of it


def stream_rate(shapes: Sequence[tuple[int, int]], seconds: float = 0.3, sustained: bool = False) -> float:
    """Multiply-adds a second of vectors times matrices (inputs, outputs), read one after the other, float32, 1 thread.

    The matrices lie side by side and are read again and again: from whatever cache they fit into together. The fastest
    call in `seconds`, or with `sustained` all of them together, in processor time.
    """
    sizes = np.array([(inputs, padded(outputs)) for inputs, outputs in shapes], np.int64)
    weights = _aligned(int(sizes.prod(1).sum()))
    x, y = np.zeros(int(sizes[:, 0].max()), np.float32), _aligned(int(sizes[:, 1].max()))
    work = sum(inputs * outputs for inputs, outputs in shapes)
    repeats = -(-_PASS // work)
    arguments = weights, sizes, x, y, repeats
    ready(_stream, *arguments)
    return repeats * work / (_mean if sustained else _fastest)(lambda: _stream(*arguments), seconds)


def multiply_add_rate(seconds: float = 0.3, sustained: bool = False) -> float:
    """Multiply-adds a second on operands in the nearest cache, float32, 1 thread: as stream_rate."""
    inputs, outputs = _PANEL
    weights, x, y = _aligned(inputs * outputs), np.zeros((_ROWS, inputs), np.float32), _aligned(_ROWS * outputs)
    arguments = weights, x, y.reshape(_ROWS, outputs), _REPEATS
    ready(_multiply, *arguments)
    work = _REPEATS * _ROWS * inputs * outputs
    return work / (_mean if sustained else _fastest)(lambda: _multiply(*arguments), seconds)


def _aligned(values: int) -> Any:
    """Numbers from a cache line's beginning on, in large pages where the system gives them.

    Written once: the system maps memory that never was to one page of zeros, which is always in the cache.
    """
    memory = np.empty(max(values, 2**20) + PAD, np.float32)
    memory.fill(1e-3)
    at = -memory.ctypes.data % 64 // memory.itemsize
    return memory[at : at + values]


def _fastest(run: Callable[[], object], seconds: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def _mean(run: Callable[[], object], seconds: float) -> float:
    """Processor time of a run, over as many as take `seconds` of it."""
    run()
    runs, start = 0, time.process_time()
    while (spent := time.process_time() - start) < seconds or not runs:
        run()
        runs += 1
    return spent / runs


def _compile_stream() -> Any:
    version = sources()

    def stream(weights, sizes, x, y, repeats):
        version  # noqa: B018  compiled code on disk is found by it
        zero = weights.dtype.type(0)
        for _ in range(repeats):
            at = address(weights)
            for matrix in range(len(sizes)):
                inputs, outputs = sizes[matrix]
                matmul(zero, 1, at, inputs, outputs, address(x), inputs, address(y), outputs)
                at += inputs * outputs * size_of(zero)

    return kept(stream)


def _compile_multiply() -> Any:
    version = sources()

    def multiply(weights, x, y, repeats):
        version  # noqa: B018  compiled code on disk is found by it
        zero = weights.dtype.type(0)
        for _ in range(repeats):
            matmul(
                zero, len(x), address(weights), x.shape[1], y.shape[1], address(x), x.shape[1], address(y), y.shape[1]
            )

    return kept(multiply)


_stream, _multiply = _compile_stream(), _compile_multiply()
