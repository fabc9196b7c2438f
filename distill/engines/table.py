"""The one table of engines, and which of them `auto` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

from distill.engines.current import Current
from distill.student import Engine, Student
from wavenet.config import require
from wavenet.errors import UserError


def _torch(student: Student) -> Engine:
    return student.through


def _compile(student: Student) -> Engine:
    from distill.engines.compiled import compiled

    return compiled(student)


def _onnx(student: Student) -> Engine:
    from distill.engines.onnx_runtime import OnnxFlows

    return OnnxFlows(student)


def _tiled(student: Student) -> Engine:
    from distill.engines.tiled import TiledFlows  # numba takes a second to import

    return TiledFlows(student.iafs)


def _cudagraph(student: Student) -> Engine:
    from distill.engines.recorded import Recorded, expect_gpu

    expect_gpu("cudagraph", next(student.parameters()).device)
    return Recorded(student.through)


def _triton(student: Student) -> Engine:
    return _fused_layers(student, exact=True)


def _triton16(student: Student) -> Engine:
    return _fused_layers(student, exact=False)


def _fused_layers(student: Student, exact: bool) -> Engine:
    from distill.engines.fused_layers import FusedFlows
    from distill.engines.recorded import Recorded

    flows = FusedFlows(student.iafs, exact)
    return Recorded(flows) if next(student.parameters()).device.type == "cuda" else flows


ENGINES: dict[str, Callable[[Student], Engine]] = {
    "torch": _torch,
    "compile": _compile,
    "onnx": _onnx,
    "tiled": _tiled,
    "cudagraph": _cudagraph,
    "triton": _triton,
    "triton16": _triton16,
}
AUTO, DEFAULT = "auto", "torch"
# Largest difference from torch's samples at the same noise, as a share of the largest sample: those that round.
ROUNDS = {"triton16": 0.02}
_ON_CPU = ("onnx", "tiled")


def build(name: str, student: Student) -> Engine:
    """The engine of that name for a student; `auto` is tiled on a CPU, torch on a GPU and where tiled fails.

    tiled was the fastest for every size measured (docs/engines.md), so nothing is timed here. Engines that copy weights
    are made again when these have changed. Raises UserError for a name that is none, and for one that does not run on
    the student's device or without packages that are missing.
    """
    require(name in (AUTO, *ENGINES), "engine", name, f"one of {', '.join((AUTO, *ENGINES))}")
    if name == AUTO:
        return _fastest(student) if _fits(student) else _torch(student)
    return _torch(student) if name == DEFAULT else Current(student, lambda changed: _made(name, changed))


def _made(name: str, student: Student) -> Engine:
    if name in _ON_CPU and not _fits(student):
        place = next(student.parameters())
        raise UserError(f"engine: found {name!r} for a model in {place.dtype} on {place.device}, expected torch")
    return ENGINES[name](student)


def _fits(student: Student) -> bool:
    """Whether the engines of a CPU do."""
    place = next(student.parameters())
    return place.device.type == "cpu" and place.dtype == torch.float32


def _fastest(student: Student) -> Engine:
    try:
        return Current(student, lambda changed: _made("tiled", changed))
    except Exception as error:  # a broken compiler raises anything; audio is worth more than speed
        print(f"engine: torch, as tiled fails here ({' '.join(str(error).split())})", file=sys.stderr)
        return _torch(student)
