"""Timing that can be quoted: a warm-up, interleaved rounds, wall and processor time, peak memory."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import gc
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_SHORTEST = 1e-9  # seconds: the clocks' own step, so that no rate is infinite


@dataclasses.dataclass(frozen=True)
class Timing:
    """One contestant's rounds: wall and cpu [s], one entry a round; peak_memory_mb [MB = 1e6 bytes] or None.

    cpu counts every thread of the process, so cpu > wall means that several ran at once. beside: what was measured
    around each run, before it and after it, where that was asked for.
    """

    wall: list[float]
    cpu: list[float]
    peak_memory_mb: float | None
    beside: list[tuple[Any, Any]] = dataclasses.field(default_factory=list)

    @property
    def median_wall(self) -> float:
        """Median wall time of a run [s]."""
        return statistics.median(self.wall)

    @property
    def median_cpu(self) -> float:
        """Median processor time of a run [s]."""
        return statistics.median(self.cpu)


def measure(
    contestants: Mapping[str, Callable[[], object]],
    repeats: int,
    device: torch.device | str = "cpu",
    peak: Callable[[str, Callable[[], object]], float | None] | None = None,
    around: Mapping[str, Callable[[], object]] | None = None,
) -> dict[str, Timing]:
    """Run every contestant once untimed, which is when memory is measured, then `repeats` timed rounds.

    peak: runs the contestant of a name once, for its peak memory [MB]; by default peak_memory_mb on `device`.
    around: of some names, what is measured right before each timed run and right after.

    A round runs each contestant once, one after the other, so that a machine that slows down in the middle slows all of
    them and not the last one. Clocks are read with the device idle on both sides.
    """
    device = torch.device(device)
    peak = peak or (lambda _, run: peak_memory_mb(run, device))
    peaks = {name: peak(name, run) for name, run in contestants.items()}
    walls: dict[str, list[float]] = {name: [] for name in contestants}
    cpus: dict[str, list[float]] = {name: [] for name in contestants}
    beside: dict[str, list[tuple[Any, Any]]] = {name: [] for name in contestants}
    around = around or {}
    for _ in range(repeats):
        for name, run in contestants.items():
            before = around[name]() if name in around else None
            wall, cpu = _timed(run, device)
            walls[name].append(wall)
            cpus[name].append(cpu)
            if name in around:
                beside[name].append((before, around[name]()))
    return {name: Timing(walls[name], cpus[name], peaks[name], beside[name]) for name in contestants}


def peak_memory_mb(run: Callable[[], object], device: torch.device | str = "cpu", held: int = 0) -> float | None:
    """Run once; the most memory held meanwhile [MB], or None where the system cannot say.

    CPU: resident memory of the whole process, interpreter and loaded models included (VmHWM, reset before the run;
    Linux only). CUDA: what torch allocated on the device in the run, and `held` bytes that the contestant had allocated
    since before it was built; not the net's weights, nor what other contestants keep.
    """
    device = torch.device(device)
    if device.type == "cuda":
        before = allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        run()
        synchronize(device)
        return (torch.cuda.max_memory_allocated(device) - before + held) / 1e6
    gc.collect()
    _return_free_memory()
    reset = _reset_peak()
    run()
    return _peak() if reset else None


def allocated(device: torch.device | str) -> int:
    """Bytes that torch has allocated on a GPU now; 0 for a CPU."""
    if torch.device(device).type != "cuda":
        return 0
    gc.collect()
    return torch.cuda.memory_allocated(device)


@contextlib.contextmanager
def conditions(threads: int) -> Iterator[None]:
    """The threads asked for, and plain float32 on a GPU: TF32 would make the contestants compute different numbers."""
    before, tf32 = torch.get_num_threads(), torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.allow_tf32 = tf32


def synchronize(device: torch.device) -> None:
    """Wait until the device has nothing left to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _timed(run: Callable[[], object], device: torch.device) -> tuple[float, float]:
    synchronize(device)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    synchronize(device)
    return max(time.perf_counter() - wall, _SHORTEST), max(time.process_time() - cpu, _SHORTEST)


def _return_free_memory() -> None:
    """Give freed heap back to the system, else one contestant's leavings count as the next one's memory (glibc)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError, TypeError):
        return


def _reset_peak() -> bool:
    """Set VmHWM to the present resident size: False where the kernel does not offer that (proc(5), clear_refs)."""
    try:
        _CLEAR.write_text("5")
    except OSError:
        return False
    return True


def _peak() -> float | None:
    try:
        status = _STATUS.read_text(encoding="ascii", errors="replace")
    except OSError:
        return None
    kilobytes = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
    return kilobytes[0] * 1024 / 1e6 if kilobytes else None
