"""Where a model runs, by name, and with what arithmetic."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

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
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device: found {name!r}, expected auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"device: found {name!r} on a machine without a usable GPU, expected cpu or auto")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: found {name!r}, expected cuda:0 to cuda:{torch.cuda.device_count() - 1}")
    return name


def in_bf16(autocast: str, device: str) -> bool:
    """Whether a training with this `train.autocast` (none, bf16, auto) multiplies in bfloat16 on this device.

    auto: where the processor or the GPU has instructions for it. A processor without them emulates bfloat16, and a
    training step takes several times what it takes in float32.
    """
    if autocast != "auto":
        return autocast == "bf16"
    if torch.device(device).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.cpu._is_avx512_bf16_supported()


@contextlib.contextmanager
def full_precision() -> Iterator[None]:
    """Float32 is float32: no TF32 on a GPU meanwhile.

    Convolutions would take it and the one-sample steps would not, and the two schedules of a network must agree.
    """
    convolution, product = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolution, product
