"""The one table of engines, and which of them `auto` takes."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch

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


ENGINES: dict[str, Callable[[Student], Engine]] = {
    "torch": _torch,
    "compile": _compile,
    "onnx": _onnx,
    "tiled": _tiled,
}
AUTO, DEFAULT = "auto", "torch"
_ON_CPU = ("onnx", "tiled")


def build(name: str, student: Student) -> Engine:
    """The engine of that name for a student; `auto` is tiled on a CPU, torch on a GPU and where tiled fails.

    tiled was the fastest for every size measured (docs/engines.md), so nothing is timed here. Raises UserError for
    a name that is none, and for one that does not run on the student's device or without packages that are missing.
    """
    require(name in (AUTO, *ENGINES), "engine", name, f"one of {', '.join((AUTO, *ENGINES))}")
    place = next(student.parameters())
    fits = place.device.type == "cpu" and place.dtype == torch.float32
    if name == AUTO:
        return _fastest(student) if fits else _torch(student)
    if name in _ON_CPU and not fits:
        raise UserError(f"engine: found {name!r} for a model in {place.dtype} on {place.device}, expected torch")
    return ENGINES[name](student)


def _fastest(student: Student) -> Engine:
    try:
        return _tiled(student)
    except Exception as error:  # a broken compiler raises anything; audio is worth more than speed
        print(f"engine: torch, as tiled fails here ({' '.join(str(error).split())})", file=sys.stderr)
        return _torch(student)
