"""The likelihood step: a teacher's loss, and its held-out likelihood."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from wavenet.data import Batch, Clip, load_clip
from wavenet.device import full_precision
from wavenet.errors import UserError
from wavenet.stopwatch import part
from wavenet.teacher import Teacher


class Speaking(Protocol):
    """Settings of a model that may know several speakers (0: it has one voice and no names)."""

    @property
    def speakers(self) -> int:
        """How many."""

    @property
    def speaker_names(self) -> list[str]:
        """Their names, by index."""


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
    offset = random_offset(batch, generator)
    with part("network"):
        scored = model(batch.wav, batch.mel, batch.speaker, batch.pitch, offset, start)
    with part("likelihood"):
        nll = -scored.log_prob(batch.wav[:, start:]).mean()
    return {"loss": nll, "nll": nll.detach(), "bits": nll.detach() / math.log(2)}


def random_offset(batch: Batch, generator: torch.Generator | None) -> Tensor | None:
    """Phase of the voice at the start of each crop (B,) [cycles], at random: it must tell nothing of the recording."""
    if batch.pitch is None:
        return None
    return torch.rand(len(batch.wav), generator=generator).to(batch.wav)


@torch.no_grad()
@full_precision()
def held_out(model: Teacher, clips: Sequence[Clip]) -> HeldOut:
    """Exact likelihood of whole clips from their first sample, averaged over samples.

    Raises UserError for a clip of a speaker that a model of several does not know.
    """
    device = next(model.parameters()).device
    mass, density, count = 0.0, 0.0, 0
    for clip in clips:
        wav = load_clip(clip, model.config.audio)[None].to(device)
        speaker = clip_speaker(clip, model.config, device)
        distribution = model(wav, model.log_mel(wav), speaker)
        mass -= float(distribution.log_prob(wav).double().sum())
        density -= float(distribution.log_density(wav).double().sum())
        count += wav.shape[1]
    return HeldOut(mass / count, density / count, count)


def speaker_index(name: str, names: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
    """A speaker's place among the names that a model was trained with, (1,) int64; UserError for another name."""
    if name not in names:
        known = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        raise UserError(f"speaker: found {name!r}, expected one that the model knows: {known}")
    return torch.tensor([list(names).index(name)], device=device)


def clip_speaker(clip: Clip, config: Speaking, device: torch.device | str = "cpu") -> Tensor | None:
    """The clip's speaker for a model of several, (1,) int64, else None; UserError names the clip."""
    if not config.speakers:
        return None
    try:
        return speaker_index(clip.speaker, config.speaker_names, device)
    except UserError as error:
        raise UserError(f"{clip.path}: {error}") from None
