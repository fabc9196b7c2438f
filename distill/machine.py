"""What a speed was measured on: the machine by name, and the ceilings that no program on it can pass."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from distill.timing import synchronize

_GEMM, _GEMV, _COPY = 1024, 512, 1 << 24  # sides of the matrices, floats copied
_SECONDS = 0.6  # for each ceiling


def describe(device: str = "cpu") -> dict[str, Any]:
    """CPU model, cores (of the machine, and those this process may use), memory [GB], versions, and the load now.

    load_average is the mean number of runnable processes of the last minute, None where it is not kept: a number near
    the cores or above says that the machine was not ours alone.
    """
    found: dict[str, Any] = {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": _memory_gb(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }
    if torch.device(device).type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(torch.device(device)), "cuda": torch.version.cuda}
    return found


def cpu_model() -> str:
    """The processor's name as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def ceilings(device: str = "cpu", seconds: float = _SECONDS) -> dict[str, float]:
    """The best this machine does, with the threads that torch has now: the fastest run in `seconds` of each kind.

    gemm_gflops: float32 matrix times matrix, 1024 x 1024 (bounds a pass over the whole signal). gemv_gflops: float32
    matrix times vector, 512 x 512, which stays in cache (bounds one sample at a time). A multiply-accumulate counts as
    two operations. copy_gb_per_s: 64 MiB copied, read and written bytes together.
    """
    where = torch.device(device)
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=generator).to(where)

    left, right, product = random(_GEMM, _GEMM), random(_GEMM, _GEMM), random(_GEMM, _GEMM)
    matrix, vector, result = random(_GEMV, _GEMV), random(_GEMV), random(_GEMV)
    source, target = random(_COPY), random(_COPY)
    gemm = _fastest(lambda: torch.mm(left, right, out=product), where, seconds)
    gemv = _fastest(lambda: torch.mv(matrix, vector, out=result), where, seconds)
    copy = _fastest(lambda: target.copy_(source), where, seconds)
    return {
        "gemm_gflops": 2 * _GEMM**3 / gemm / 1e9,
        "gemv_gflops": 2 * _GEMV**2 / gemv / 1e9,
        "copy_gb_per_s": 2 * 4 * _COPY / copy / 1e9,
    }


def _fastest(run: Callable[[], object], device: torch.device, seconds: float) -> float:
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        best = min(best, time.perf_counter() - start)
    return best


def _memory_gb() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    except (AttributeError, ValueError, OSError):
        return None
