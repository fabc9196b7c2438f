"""What no program on a GPU passes: rates of its matrix products in each precision, and of its memory.

A launch takes a host longer than a small product takes the device: many are asked for between two events of the device,
and the operands are large. Not yet run on a GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

SIDE, COPIED = 8192, 1 << 28  # of square matrices; floats copied, 1 GiB
_ROWS = 5  # of launches, the fastest of which counts
_MOST = 1 << 20  # launches of a row, however short

Clock = Callable[[Callable[[], object], int], float]
_GEMM, _HALF = "gemm_gflops", "gemm_float16_gflops"
# What methods multiply in, and products that they make of one. The two parts of `triton`'s values meet in three.
_ENGINES = {"triton16": (_HALF, 1), "triton": (_HALF, 3)}


def gpu_ceilings(
    device: str | torch.device, seconds: float, *, side: int = SIDE, copied: int = COPIED, clock: Clock | None = None
) -> dict[str, float]:
    """The fastest in about `seconds` of each kind; a multiply-add counts as two operations.

    gemm_gflops: float32 matrix times matrix, `side` squared each, without TF32; gemm_tf32_gflops with it;
    gemm_float16_gflops and gemm_bfloat16_gflops in these. gemv_gflops: float32 matrix times vector. copy_gb_per_s:
    `copied` floats, bytes read and written together. clock: seconds that so many launches of a run take, one after the
    other; by default events on the device.
    """
    where = torch.device(device)
    generator = torch.Generator().manual_seed(0)
    clock = clock or _events(where)
    found = {}
    left, right = (torch.rand(side, side, generator=generator).to(where) for _ in range(2))
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for name, dtype in {
            _GEMM: torch.float32,
            "gemm_tf32_gflops": torch.float32,
            _HALF: torch.float16,
            "gemm_bfloat16_gflops": torch.bfloat16,
        }.items():
            torch.backends.cuda.matmul.allow_tf32 = "tf32" in name
            found[name] = 2 * side**3 / _product(left.to(dtype), right.to(dtype), clock, seconds) / 1e9
        torch.backends.cuda.matmul.allow_tf32 = False
        found["gemv_gflops"] = 2 * side**2 / _product(left, right[:, 0].contiguous(), clock, seconds) / 1e9
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    del left, right
    source = torch.ones(copied, device=where)
    target = torch.empty_like(source)
    found["copy_gb_per_s"] = 2 * 4 * copied / _launch(lambda: target.copy_(source), clock, seconds) / 1e9
    return found


def arithmetic_limit(method: str, limits: Mapping[str, float]) -> float | None:
    """Multiply-adds, in GFLOP/s, that a method cannot pass on a GPU of those limits: its products in what it multiplies
    in, float32 but for the engines on tensor cores. None where they are no GPU's."""
    name, products = _ENGINES.get(method, (_GEMM, 1))
    return limits[name] / products if _HALF in limits else None


def _product(left: Tensor, right: Tensor, clock: Clock, seconds: float) -> float:
    """Seconds of one product."""
    result = left @ right
    return _launch(lambda: torch.matmul(left, right, out=result), clock, seconds)


def _launch(run: Callable[[], object], clock: Clock, seconds: float) -> float:
    """Seconds a launch, in the fastest of a few rows that together last about `seconds`."""
    clock(run, 1)  # libraries set themselves up
    count, took = 1, clock(run, 1)
    while took < seconds / _ROWS and count < _MOST:
        count *= 2
        took = clock(run, count)
    return min(took, *(clock(run, count) for _ in range(_ROWS - 1))) / count


def _events(device: torch.device) -> Clock:
    def clock(run: Callable[[], object], count: int) -> float:
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            for _ in range(count):
                run()
            end.record()
            end.synchronize()
            return max(start.elapsed_time(end) / 1e3, 1e-9)  # it tells milliseconds

    return clock
