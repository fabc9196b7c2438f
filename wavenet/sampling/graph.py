"""Sequential sampling by a CUDA graph: a block of samples is recorded once, and replayed for every block.

A GPU finishes the operations of a small network faster than a host can ask for them. Recorded, a block's operations
follow each other on the device without the host. What is recorded is wavenet.sampling.launches, or
wavenet.sampling.block where Triton does not run.

Estimate, not a measurement: the network of 2 x 10 layers, 64 residual channels and ten logistics takes L + 1 = 21
launches a sample, without Triton about 3 L + 25 = 85 operations. From the end of one recorded launch to the next one's
first instruction passes about a microsecond on an H100 or H200; a layer's launch then waits once for the L2 cache and
sums over the threads of four warps, another 1 to 1.5, and the one between two samples, with two products in a row and
the draw, takes 3 to 4. 20 (1 + 1 to 1.5) + 1 + 3 to 4 are 44 to 55 microseconds, 18,000 to 23,000 samples/s for one
signal. 85 operations of 1 to 1.5 microseconds each are 8,000 to 12,000. Signals of a batch go in lockstep, eight to a
program, one after the other: with 128 of them 20 (1 + 8 to 12) + 1 + 24 to 32 are 200 to 300 microseconds, 0.4 to 0.6
million samples/s.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavenet.errors import UserError
from wavenet.kernels.availability import missing
from wavenet.notice import announce
from wavenet.sampling.block import BlockStepper
from wavenet.sampling.drivable import Drivable
from wavenet.sampling.kept import Kept
from wavenet.sampling.stepper import Stepper

if TYPE_CHECKING:
    from wavenet.sampling.launches import LaunchStepper

BLOCK = 32  # samples of one graph
Run = Callable[[], None]
Prepared = tuple[Stepper, Run]
_KEPT: Kept[Prepared] = Kept(4)


def sample_graph(
    model: Drivable, mel: Tensor, uniforms: Tensor, temperature: float = 1.0, speaker: Tensor | None = None
) -> Tensor:
    """mel (B, M, F), uniforms (B, T, n) -> wav (B, T). Raises UserError for a model that is not on a CUDA GPU.

    Where Triton does not run, a sample is four times as many operations of torch's, and a line on stderr says so.
    """
    if mel.device.type != "cuda":
        raise UserError(f"method graph: found a model on {mel.device.type}, expected one on a CUDA GPU")
    with torch.cuda.device(mel.device):
        return sample_in_blocks(model, mel, uniforms, temperature, speaker, kernels=_kernels(), prepare=captured)


@torch.no_grad()
def sample_in_blocks(
    model: Drivable,
    mel: Tensor,
    uniforms: Tensor,
    temperature: float = 1.0,
    speaker: Tensor | None = None,
    *,
    block: int = BLOCK,
    kernels: bool = False,
    prepare: Callable[[Stepper], Run] = lambda stepper: stepper.run,
) -> Tensor:
    """The same on any device: `prepare` makes of the stepper what is called once a block, its own `run` by default.

    kernels: by Triton's programs instead of tensor operations. Stepper and what `prepare` made of it are kept for
    signals of the same batch, precision and temperature, until the weights change.
    """
    cond, block = model.conditioning(mel, speaker), max(block, model.stack.config.kernel_size + 1)
    law = (type(model.head), tuple(vars(model.head).items()), model.gain, model.config.pre_emphasis, temperature)
    # What another stream was asked for may still be under way; tensors of inference mode are not written to outside it.
    stream = torch.cuda.current_stream(mel.device) if mel.device.type == "cuda" else None
    place = (len(uniforms), uniforms.shape[2], uniforms.dtype, mel.device, stream, torch.is_inference_mode_enabled())

    def make() -> Prepared:
        stepper = _kind(kernels)(model, uniforms, temperature, block)
        return stepper, prepare(stepper)

    with _KEPT.borrowed(model.stack, (law, place, block, kernels, prepare), make) as (stepper, run):
        stepper.reset()
        drive, wav = stepper.drive(model, cond, uniforms), torch.empty_like(uniforms[..., 0])
        for first in range(0, wav.shape[1], block):
            stepper.load(drive, first)
            run()
            made = wav[:, first : first + block]
            made.copy_(stepper.samples[:, : made.shape[1]])
    return wav


def _kind(kernels: bool) -> type[BlockStepper] | type[LaunchStepper]:
    """The stepper of tensor operations, or that of Triton's programs."""
    if not kernels:
        return BlockStepper
    # Imported where it is used: Triton takes a second, and is not installed everywhere.
    from wavenet.sampling.launches import LaunchStepper

    return LaunchStepper


def _kernels() -> bool:
    """Whether the operations are Triton's."""
    if lack := missing():
        announce(f"method graph: by tensor operations, four times as many; {lack}")
    return not lack


def captured(stepper: Stepper) -> Run:
    """`stepper.run` as a graph's replay. Where the stepper stands afterwards is not said: `reset` it."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries set themselves up at first use, which must not be recorded
        stepper.run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stepper.run()
    return graph.replay
