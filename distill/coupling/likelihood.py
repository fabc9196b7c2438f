r"""The likelihood of recordings under a coupling flow: the loss of its training, and that of held-out clips.

A recording is levels of 2^bits, a flow a density; noise that fills each level's cell, uniform or of a flow of its own,
bounds the mass of the levels from above in nll (distill/dequantization.py). `nll` is that bound, in nats per sample,
and comparable with a teacher's, which is the mass of the same cells exactly; `nll_density` is the density's on the
scale of wav.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.coupling.model import CouplingFlow
from distill.dequantization import bound
from wavenet.data import Batch, Clip, load_clip
from wavenet.device import full_precision
from wavenet.likelihood import HeldOut, clip_speaker
from wavenet.quantize import Grid
from wavenet.stopwatch import part


def log_mass_bound(
    model: CouplingFlow, wav: Tensor, mel: Tensor, speaker: Tensor | None, generator: torch.Generator | None
) -> Tensor:
    """An unbiased estimate of a lower bound on the log mass of the cells around wav (B, T): (B,) in nats."""
    levels = Grid(model.config.bits).quantize(wav)
    return bound(lambda filled: model.log_prob(filled, mel, speaker), model.dequantizer, levels, 1, generator)


def likelihood_loss(model: nn.Module, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Negative of the bound of a crop in nats per sample, {"loss", "nll", "bits"}; all of the crop counts."""
    assert isinstance(model, CouplingFlow)
    with part("network"):
        mass = log_mass_bound(model, batch.wav, batch.mel, batch.speaker, generator)
    nll = -mass.mean() / batch.wav.shape[1]
    return {"loss": nll, "nll": nll.detach(), "bits": nll.detach() / math.log(2)}


@torch.no_grad()
@full_precision()
def held_out(model: CouplingFlow, clips: Sequence[Clip]) -> HeldOut:
    """The same of whole clips, averaged over samples: one draw of the cells' noise, seeded by the clip's place."""
    device, total, count = next(model.parameters()).device, 0.0, 0
    for place, clip in enumerate(clips):
        wav = load_clip(clip, model.config.audio)[None].to(device)
        speaker, generator = clip_speaker(clip, model.config, device), torch.Generator().manual_seed(place)
        total -= float(log_mass_bound(model, wav, model.log_mel(wav), speaker, generator))
        count += wav.shape[1]
    nll = total / count
    return HeldOut(nll, nll + math.log(Grid(model.config.bits).step), count)
