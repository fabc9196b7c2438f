"""Flows by torch.compile, which works when the first signal comes, for a minute or more."""

from __future__ import annotations

import os
import shutil

import torch

from distill.engines.recorded import Recorded
from distill.student import Engine, Student
from wavenet.errors import UserError
from wavenet.kernels.availability import expect_triton


def compiled(student: Student) -> Engine:
    """On a GPU its launches are recorded too. Raises UserError on a CPU without a C++ compiler (CXX, or g++ or clang++
    on the path), on a GPU without Triton or the C compiler that it wants."""
    place = next(student.parameters()).device
    compilers = (os.environ.get("CXX", ""), "g++", "clang++")
    if place.type == "cpu" and not any(shutil.which(name) for name in compilers if name):
        raise UserError("engine: found no C++ compiler, which compile needs, expected CXX or g++ or clang++")
    if place.type == "cuda":
        expect_triton("engine", "another engine than compile")
    engine: Engine = torch.compile(student.through, dynamic=True)
    return Recorded(engine) if place.type == "cuda" else engine
