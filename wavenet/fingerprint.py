"""What tells that a module's numbers have changed, for those who keep something made of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def fingerprint(module: nn.Module) -> tuple[object, ...]:
    """Of all parameters: where they lie, how often they were written, and their sums; equal while nothing changed.

    Versions tell of changes, but for those by way of `.data`: sums tell of these. Waits for the device once.
    """
    parameters = list(module.parameters())
    marks = [(parameter.data_ptr(), _version(parameter), parameter.dtype) for parameter in parameters]
    sums = torch.stack([parameter.detach().sum().double() for parameter in parameters])
    return (*marks, *sums.tolist())


def _version(parameter: Tensor) -> int | None:
    """Tensors of inference mode do not count their changes."""
    return None if parameter.is_inference() else parameter._version
