"""Where a model runs, by name."""

from __future__ import annotations

import torch

from wavenet.errors import UserError


def resolve_device(name: str) -> str:
    """`auto` is the GPU where there is one; raises UserError for a device that this machine lacks."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device: found {name!r}, expected auto, cpu or cuda") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: found {name!r} on a machine without a usable GPU, expected cpu or auto")
    return name
