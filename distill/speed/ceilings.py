"""This machine's limits: rates of arithmetic and of memory, and the floor of sequential sampling.

For every sample a sequential sampler must read each weight whose input has only just become known: the present tap of
each layer, its projection to residual and skip, and the head. That, at the measured rate of vector times matrix, is its
floor. What can be added ahead of time in blocks, the taps with a delay, comes on top at the rate of multiply-adds; the
two together are its bound. Both count the network's own weights, as float32: a sampler that reads fewer of them, as
`fused` where it multiplies the first layer's taps out beforehand, or fewer bytes, as `fused` where 24 bits pay, may
pass them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from distill.speed.gpu_ceilings import gpu_ceilings
from wavenet.fused.rates import multiply_add_rate, stream_rate
from wavenet.fused.weights import streamed
from wavenet.stack import Stack

_SIDE, _COPY = 1024, 1 << 24  # of square matrices; floats copied
_SECONDS = 0.5  # for each ceiling


def ceilings(device: str = "cpu", seconds: float = _SECONDS) -> dict[str, float]:
    """The best this machine does with the threads that torch has now: the fastest run in `seconds` of each kind.

    On a GPU as `distill.speed.gpu_ceilings` says, on a CPU:

    gemm_gflops: float32 matrix times matrix, 1024 x 1024 (bounds a pass over a whole signal). gemv_gflops: float32
    matrix times vector, of the same 4 MB. fma_gflops: multiply-adds on values in the nearest cache, all
    threads together. A multiply-add counts as two operations. copy_gb_per_s: 64 MiB copied, bytes read and written
    together.
    """
    if torch.device(device).type != "cpu":
        return gpu_ceilings(device, seconds)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator)

    left, right, product = random(_SIDE, _SIDE), random(_SIDE, _SIDE), random(_SIDE, _SIDE)
    vector, result = random(_SIDE), random(_SIDE)
    source, target = random(_COPY), random(_COPY)
    gemm = _fastest(lambda: torch.mm(left, right, out=product), seconds)
    gemv = _SIDE**2 / _fastest(lambda: torch.mv(left, vector, out=result), seconds)
    copy = _fastest(lambda: target.copy_(source), seconds)
    found = {"gemm_gflops": 2 * _SIDE**3 / gemm / 1e9, "copy_gb_per_s": 2 * 4 * _COPY / copy / 1e9}
    gemv = max(gemv, stream_rate([(_SIDE, _SIDE)], seconds))
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        found["fma_gflops"] = 2 * sum(pool.map(multiply_add_rate, [seconds] * threads)) / 1e9
    return found | {"gemv_gflops": 2 * gemv / 1e9}


def sequential_limits(model: Any, seconds: float = _SECONDS) -> dict[str, float | None]:
    """Of a teacher on one CPU thread: streamed_weights (read for every sample), floor and bound [samples/s].

    floor: streamed weights alone, at the rate measured on matrices of just these sizes. bound: with the multiply-adds
    of the delayed taps, at theirs. Rates kept up for `seconds` each: a machine's caches, shared with others, are for
    seconds at a time a fifth slower than at best, so a share asks for a floor of the same moment. None for a model that
    makes its samples in one pass, and on a GPU.
    """
    stack = getattr(model, "stack", None)
    if not isinstance(stack, Stack) or next(model.parameters()).device.type != "cpu":
        return {"streamed_weights": None, "floor": None, "bound": None}
    shapes = streamed(stack)
    weights = sum(inputs * outputs for inputs, outputs in shapes)
    delayed = len(stack.blocks) * (stack.config.kernel_size - 1) * stack.config.residual_channels
    streaming = weights / stream_rate(shapes, seconds, sustained=True)
    blocks = delayed * stack.config.gate_channels / multiply_add_rate(seconds, sustained=True)
    return {"streamed_weights": weights, "floor": 1 / streaming, "bound": 1 / (streaming + blocks)}


def _fastest(run: Callable[[], object], seconds: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
