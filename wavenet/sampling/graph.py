"""Sequential sampling by a CUDA graph: a block of samples is recorded once, and replayed for every block.

A GPU finishes the operations of a small network faster than a host can ask for them. Recorded, a block's operations
follow each other on the device without the host; wavenet.sampling.block is what is recorded.

Estimate, not a measurement: the network of 2 x 10 layers, 64 residual channels and ten logistics takes about 3 L + 25 =
85 operations a sample, with gate and draw by Triton 2 L + 11 = 51. At 1 to 1.5 microseconds for a recorded operation on
an H100 or H200 that is 8,000 to 12,000 samples/s for one signal, and 13,000 to 20,000 with Triton; signals in one batch
go in lockstep, at almost the same number of steps a second.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from wavenet.errors import UserError
from wavenet.kernels.availability import available
from wavenet.sampling.block import BlockStepper
from wavenet.sampling.drivable import Drivable

BLOCK = 32  # samples of one graph


def sample_graph(
    model: Drivable, mel: Tensor, uniforms: Tensor, temperature: float = 1.0, speaker: Tensor | None = None
) -> Tensor:
    """mel (B, M, F), uniforms (B, T, n) -> wav (B, T). Raises UserError for a model that is not on a CUDA GPU."""
    if mel.device.type != "cuda":
        raise UserError(f"method graph: found a model on {mel.device.type}, expected one on a CUDA GPU")
    with torch.cuda.device(mel.device):
        return sample_in_blocks(model, mel, uniforms, temperature, speaker, kernels=available(), prepare=captured)


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
    prepare: Callable[[BlockStepper], Callable[[], None]] = lambda stepper: stepper.run,
) -> Tensor:
    """The same on any device: `prepare` makes of the stepper what is called once a block, its own `run` by default.

    kernels: as in BlockStepper.
    """
    block = max(block, model.stack.config.kernel_size + 1)
    stepper = BlockStepper(model, model.conditioning(mel, speaker), uniforms, temperature, block, kernels)
    run, wav = prepare(stepper), torch.empty_like(uniforms[..., 0])
    for first in range(0, wav.shape[1], block):
        stepper.load(first)
        run()
        made = wav[:, first : first + block]
        made.copy_(stepper.samples[:, : made.shape[1]])
    return wav


def captured(stepper: BlockStepper) -> Callable[[], None]:
    """`stepper.run` as a graph's replay. The stepper stands at the silence before the first sample afterwards."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # libraries set themselves up at first use, which must not be recorded
        stepper.run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        stepper.run()
    stepper.reset()
    return graph.replay
