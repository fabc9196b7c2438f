"""Sequential sampling by programs that stay on a GPU while they loop over all samples, compiled by Triton.

Two layouts, both in wavenet.kernels. `whole`: one program for each signal, any size of network. `circle`: one program
for each layer and one for the head, which hand a signal's samples on to each other; it wants float32 and layers that
fit into a program's registers, and is taken where it can be.

Estimates, not measurements, for 2 x 10 layers of 64 residual and 128 gate channels, kernel 2, one signal, H100 or H200:

- whole. A sample reads 20 (2 x 64 x 128 + 64 x 128) floats, 2.0 MB, from the L2 cache into one multiprocessor. At 64
  bytes a cycle at most, 110 GB/s at 1.75 GHz, that is 18 microseconds, and as the loads of a layer are not in flight
  while the sums of the one before are made, 2 to 3 times that: 15,000 to 30,000 samples/s.
- circle. 98 KB of weights a layer lie in the registers of its multiprocessor (256 KB), but for the past taps, which are
  done while the sample is elsewhere. A hand-over is a write to L2 and the read that finds it, 0.6 to 0.9 microseconds,
  a layer's four products and their sums over threads 0.3 to 0.5, the head and the draw about 2: 20 to 30 microseconds
  a sample, 33,000 to 50,000 samples/s. Both figures are of latency, not of bandwidth: while one signal's sample is at
  one layer, other signals' are at the others. A multiprocessor takes a new one about every microsecond, so that 6
  circles of 21 programs on 132 multiprocessors would make 4 to 6 million samples/s of 128 signals.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from wavenet.config import require
from wavenet.errors import UserError
from wavenet.kernels.availability import expect_triton
from wavenet.sampling.deviates import deviates
from wavenet.sampling.drivable import Drivable

_AT_ONCE = 8192  # samples of one launch: between two, Ctrl-C is heard
_WARPS = 8
_TILE = 8192  # numbers of a matrix that `whole` holds at once
_RESIDENT = 96 * 32 * _WARPS  # numbers that a program of `circle` holds for good: 96 registers of each thread
_WIDEST = 128  # channels of a message in `circle`: a thread reads two words, and every word is read twice or more


@torch.no_grad()
def sample_persistent(
    model: Drivable,
    mel: Tensor,
    uniforms: Tensor,
    temperature: float = 1.0,
    speaker: Tensor | None = None,
    *,
    layout: str | None = None,
) -> Tensor:
    """mel (B, M, F), uniforms (B, T, n) -> wav (B, T).

    layout: whole or circle; None takes circle where the network and the device allow it. Raises UserError for a model
    that is not on a CUDA GPU (Triton's interpreter, TRITON_INTERPRET=1, runs it on a CPU, for tests), without Triton
    or the C compiler that it wants, and for a circle that is not to be had.
    """
    _expect_device(mel.device)
    # Imported where it is used: Triton takes a second, and is not installed everywhere.
    from wavenet.kernels.weights import choices, frames, pack

    cond = model.conditioning(mel, speaker)
    packed = pack(model.stack, model.head, model.gain, model.config.pre_emphasis, temperature)
    projected, kernel = frames(model.stack, cond)
    noise = choices(model.head, deviates(model.head, uniforms))
    signals = noise[..., :0] if cond.signals is None else cond.signals.transpose(1, 2).contiguous()
    wav = torch.zeros_like(uniforms[..., 0])
    rings = wav.new_zeros(len(wav), packed.slots, packed.sizes["WIDTH"])
    sizes = {"HOP": kernel.shape[0], "SLOTS": packed.slots, "CHANNELS": noise.shape[2]} | packed.sizes
    arguments = [*packed.tensors, projected, kernel, signals, noise, rings, wav]
    room = _room(packed.sizes, wav)
    require(layout != "circle" or room > 0, "layout", layout, "whole: this network or device has no room for a circle")
    with torch.cuda.device_of(wav):
        if layout == "whole" or (layout is None and not room):
            _whole(arguments, sizes, projected.shape[1])
        else:
            _circle(arguments, sizes, projected.shape[1], room)
    return wav


def _whole(arguments: list[Tensor], sizes: dict[str, int], frame_count: int) -> None:
    from wavenet.kernels.program import whole
    from wavenet.kernels.weights import head_rows

    batch, length = arguments[-1].shape
    rows = min(sizes["HALF"], max(1, _TILE // max(sizes["WIDTH"], sizes["SKIP"])))
    settings: dict[str, Any] = sizes | {"ROWS": rows, "HEAD_ROWS": head_rows(sizes, _TILE), "num_warps": _WARPS}
    for start in range(0, length, _AT_ONCE):
        stop = min(length, start + _AT_ONCE)
        whole[(batch,)](*arguments, start, stop, length, frame_count, **settings)
        _wait(arguments[-1])


def _circle(arguments: list[Tensor], sizes: dict[str, int], frame_count: int, room: int) -> None:
    from wavenet.kernels.pipeline import circle

    wav = arguments[-1]
    batch, length = wav.shape
    share = -(-batch // min(batch, room))
    grid = (sizes["LAYERS"] + 1, -(-batch // share))
    streams, skips, samples = (
        torch.zeros(shape, dtype=torch.int64, device=wav.device)
        for shape in ((sizes["LAYERS"], batch, sizes["WIDTH"]), (sizes["LAYERS"], batch, sizes["SKIP"]), (batch,))
    )
    settings: dict[str, Any] = {"THREADS": 32 * _WARPS, "num_warps": _WARPS, "launch_cooperative_grid": True}
    # The interpreter runs one program after the other: the circle then turns once a launch.
    at_once = 1 if _interpreted() else _AT_ONCE
    state = (torch.zeros_like(wav), streams, skips, samples)
    for start in range(0, length, at_once):
        stop = min(length, start + at_once)
        circle[grid](*arguments, *state, start, stop, length, frame_count, batch, share, **sizes, **settings)
        _wait(wav)


def _room(sizes: dict[str, int], wav: Tensor) -> int:
    """Circles that fit on the device side by side; 0 where the network does not suit one."""
    half, width, skip = sizes["HALF"], sizes["WIDTH"], sizes["SKIP"]
    layer, head = half * (3 * width + skip), skip * (skip + sizes["KINDS"] * sizes["COUNT_PADDED"])
    if wav.dtype != torch.float32 or max(layer, head) > _RESIDENT or max(width, skip) > _WIDEST:
        return 0
    if wav.device.type != "cuda":
        return 2
    processors: int = torch.cuda.get_device_properties(wav.device).multi_processor_count
    return processors // (sizes["LAYERS"] + 1)


def _expect_device(device: torch.device) -> None:
    if device.type != "cuda" and not _interpreted():
        raise UserError(f"method persistent: found a model on {device.type}, expected one on a CUDA GPU")
    expect_triton("method persistent", "another method", launched=device.type == "cuda")


def _interpreted() -> bool:
    return os.environ.get("TRITON_INTERPRET") == "1"


def _wait(wav: Tensor) -> None:
    if wav.device.type == "cuda":
        torch.cuda.synchronize(wav.device)
