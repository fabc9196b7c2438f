"""Nets of the literature's sizes, untrained: a speed does not ask what the weights are."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from distill.config import StudentConfig
from distill.student import Student
from wavenet.config import StackConfig, TeacherConfig
from wavenet.teacher import Teacher


def _small() -> Teacher:
    return Teacher(TeacherConfig(stack=StackConfig(2, 10, 2, 64, 128, 64), gain=10.0))


def _paper() -> Teacher:
    return Teacher(TeacherConfig(stack=StackConfig(3, 10, 3, 128, 256, 128), gain=10.0))


def _student() -> Student:
    flows = [StackConfig(cycles, 10, 2, 64, 128, 64) for cycles in (1, 1, 1, 3)]
    return Student(StudentConfig(flows=flows, gain=10.0))


# small: 20 layers of 64 channels. paper: 30 layers of 128 channels, kernel size 3, as public vocoders have it. student:
# flows of 10, 10, 10 and 30 layers of 64 channels (van den Oord et al. 2017, arXiv 1711.10433). All at 22.05 kHz.
REFERENCES: dict[str, Callable[[], nn.Module]] = {"small": _small, "paper": _paper, "student": _student}


def reference(name: str, device: str = "cpu") -> nn.Module:
    """The net of that name, with fixed random weights, in eval mode."""
    state = torch.random.get_rng_state()
    try:
        torch.manual_seed(0)
        return REFERENCES[name]().to(device).eval().requires_grad_(False)
    finally:
        torch.random.set_rng_state(state)
