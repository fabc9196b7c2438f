"""Sequential sampling by the compiled loop: the whole waveform in one call, on a CPU."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wavenet.fused.availability import expect_compiler
from wavenet.heads import GaussianHead, MixtureHead, MuLawHead
from wavenet.sampling.deviates import deviates
from wavenet.sampling.drivable import Drivable

if TYPE_CHECKING:
    from wavenet.fused.loop import Law

# What of wavenet.fused needs numba is imported where it is used: it takes half a second, and most commands do without.


def sample_fused(
    model: Drivable, mel: Tensor, uniforms: Tensor, temperature: float = 1.0, speaker: Tensor | None = None
) -> Tensor:
    """mel (B, M, F), uniforms (B, T, n) -> wav (B, T): the naive sampler's, at the speed of streaming the weights.

    Runs on the CPU whatever the model's device, with torch's number of threads; see wavenet.fused. Raises UserError
    where numba does not compile.
    """
    expect_compiler("method fused", "cached")
    from wavenet.fused.engine import drive

    cond = model.conditioning(mel, speaker)
    noise = deviates(model.head, uniforms)
    return drive(model.stack, cond, _law(model, temperature), noise=noise, signals=cond.signals).signal.to(mel)


@torch.no_grad()
def forced_outputs(model: Drivable, wav: Tensor, mel: Tensor, speaker: Tensor | None = None) -> Tensor:
    """The network's outputs (B, T, P) when it is fed wav (B, T): what the engine computes, to be held against
    `Teacher`'s parallel pass."""
    from wavenet.fused.draws import FORCED
    from wavenet.fused.engine import drive

    cond = model.conditioning(mel, speaker)
    law = _law(model, 1.0)._replace(kind=FORCED)
    return drive(model.stack, cond, law, given=wav, signals=cond.signals, record=True).outputs


def _law(model: Drivable, temperature: float) -> Law:
    from wavenet.fused.draws import CLASSES, GAUSSIAN, MIXTURE
    from wavenet.fused.loop import Law

    head = model.head
    kind = {MixtureHead: MIXTURE, GaussianHead: GAUSSIAN, MuLawHead: CLASSES}[type(head)]
    law = Law(
        kind,
        gain=float(model.gain),
        log_gain=math.log(model.gain),
        coefficient=float(model.config.pre_emphasis),
        temperature=float(temperature),
    )
    if isinstance(head, MuLawHead):
        return law._replace(levels=head.mulaw.decode(torch.arange(head.mulaw.levels), torch.float64).numpy())
    step = head.grid.step if isinstance(head, MixtureHead) and head.grid is not None else 0.0
    return law._replace(floor=float(head.floor), step=step)
