"""The likelihood step: a teacher's loss, and its held-out likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from wavenet.data import Batch, Clip, load_clip
from wavenet.teacher import Teacher


class HeldOut(NamedTuple):
    """Likelihood of whole clips: nll [nats/sample] as trained, nll_density on the continuous scale of wav, samples."""

    nll: float
    nll_density: float
    samples: int

    @property
    def bits(self) -> float:
        """nll in bits per sample."""
        return self.nll / math.log(2)


def first_scored(receptive_field: int, crop_length: int) -> int:
    """Where the loss of a crop begins: after the receptive field, so that every term has its true past, or half-way."""
    return min(receptive_field, crop_length // 2)


def likelihood_loss(model: nn.Module, batch: Batch, generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Negative log-likelihood of a crop in nats per sample, {"loss", "nll", "bits"}."""
    assert isinstance(model, Teacher)
    start = first_scored(model.receptive_field, batch.wav.shape[1])
    nll = -model(batch.wav, batch.mel, batch.speaker).log_prob(batch.wav)[:, start:].mean()
    return {"loss": nll, "nll": nll.detach(), "bits": nll.detach() / math.log(2)}


@torch.no_grad()
def held_out(model: Teacher, clips: Sequence[Clip], speakers: Sequence[str] = ()) -> HeldOut:
    """Exact likelihood of whole clips from their first sample, averaged over samples."""
    device = next(model.parameters()).device
    mass, density, count = 0.0, 0.0, 0
    for clip in clips:
        wav = load_clip(clip, model.config.audio)[None].to(device)
        speaker = speaker_index(clip, speakers, device) if model.config.speakers else None
        distribution = model(wav, model.log_mel(wav), speaker)
        mass -= float(distribution.log_prob(wav).double().sum())
        density -= float(distribution.log_density(wav).double().sum())
        count += wav.shape[1]
    return HeldOut(mass / count, density / count, count)


def speaker_index(clip: Clip, speakers: Sequence[str], device: torch.device) -> Tensor:
    """The clip's speaker as (1,) int64; one the model never met raises ValueError."""
    return torch.tensor([list(speakers).index(clip.speaker)], device=device)
