"""The variational step: the ELBO of recordings beside spectral terms, and both on held-out clips."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from distill.objective import Objective
from distill.vitals import mean_signs, vital_signs
from distill.wavevae.config import ElboConfig
from distill.wavevae.model import Elbo, WaveVAE
from wavenet.config import AudioConfig, require
from wavenet.data import Batch, Clip, clip_length, load_clip
from wavenet.device import full_precision
from wavenet.errors import UserError
from wavenet.likelihood import clip_speaker, first_scored, random_offset
from wavenet.pitch.tracker import F0Track, track
from wavenet.stopwatch import part
from wavenet.trainer import Validation

_SECONDS = 4.0  # of a held-out clip that is synthesised
_ACTIVE = 0.1  # nats: a step whose KL is under it tells the decoder next to nothing


class StepBatch(NamedTuple):
    """A batch and the training step that it is for."""

    batch: Batch
    step: int


class Numbered(Dataset[StepBatch]):
    """Batches with their step, which the weight of the KL is a function of: resuming needs no state of its own."""

    def __init__(self, batches: Dataset[Batch]) -> None:
        self.batches = batches

    def __getitem__(self, step: int) -> StepBatch:
        return StepBatch(self.batches[step], step)


@dataclasses.dataclass
class VariationalLearning:
    """loss(model, StepBatch, generator): a pass at the posterior's draw and, where a term asks, one at the prior's.

    Raises UserError for spectral windows that a crop cannot hold. `validate` says the same of held-out clips.
    """

    config: ElboConfig
    audio: AudioConfig
    crop_length: int

    def __post_init__(self) -> None:
        self._tracks: dict[Path, F0Track] = {}
        most = self.crop_length // 2  # what every crop scores
        for section in ("reconstruction", "prior"):
            spectral = self.config.spectral(section)
            for setting, size in ({} if spectral is None else spectral.windows(self.audio)).items():
                require(size <= most, setting, size, f"at most {most}, half of train.crop_length")

    def long_enough(self, clips: Sequence[Clip]) -> list[Clip]:
        """The clips that hold the longest window of what validation hears. Raises UserError for none."""
        require(len(clips) > 0, "dev clips", 0, "at least one to validate on")
        spectral = self.config.spectral("prior")
        windows = {} if spectral is None else spectral.windows(self.audio)
        setting, largest = max(windows.items(), key=lambda item: item[1], default=("", 0))
        found = [clip for clip in clips if clip_length(clip, self.audio) >= largest]
        if not found:
            raise UserError(f"dev clips: found {len(clips)}, none longer than {setting} {largest} needs")
        return found

    def loss(self, model: nn.Module, numbered: StepBatch, generator: torch.Generator) -> dict[str, Tensor]:
        """{"loss", "loss/elbo", "loss/<section>_<term>", "elbo/...", "<section>/..."}: scalars."""
        assert isinstance(model, WaveVAE)
        batch, weight = numbered.batch, self.config.annealed(numbered.step)
        start = first_scored(max(model.encoder.receptive_field, model.receptive_field), batch.wav.shape[1])
        offset = random_offset(batch, generator)
        with part("elbo"):
            found = model.elbo(batch.wav, batch.mel, batch.speaker, batch.pitch, offset, generator)
        terms = {"loss/elbo": weight * found.kl[:, start:].mean() - found.reconstruction[:, start:].mean()}
        terms |= self._spectral("reconstruction", model, found.sample.wav, batch.wav, start)
        if self.config.prior:
            with part("prior"):
                noise = model.noise(batch.mel, generator=generator)
                imagined = model(noise, batch.mel, batch.speaker, batch.pitch, offset)
            terms |= self._spectral("prior", model, imagined.wav, batch.wav, start)
        loss = torch.stack([value for name, value in terms.items() if name.startswith("loss/")]).sum()
        return {"loss": loss} | terms | signs(found, start) | {"elbo/kl_weight": torch.tensor(weight)}

    @torch.no_grad()
    @full_precision()
    def validate(self, model: WaveVAE, clips: Sequence[Clip]) -> Validation:
        """The bound of whole clips; of at most 4 s of each, at prior noise, spectral terms and signs of health."""
        scalars = held_out(model, clips)
        sounds: dict[str, Tensor] = {}
        health: list[dict[str, float]] = []
        frames = round(_SECONDS * self.audio.sample_rate) // self.audio.hop_length
        for number, clip in enumerate(clips):
            batch = _whole(model, clip)
            wav, mel = batch.wav[:, : frames * self.audio.hop_length], batch.mel[:, :, :frames]
            made = model.sample(mel, generator=torch.Generator().manual_seed(number), speaker=batch.speaker)
            for name, value in self._spectral("prior", model, made, wav, 0).items():
                scalars[name] = scalars.get(name, 0.0) + float(value) / len(clips)
            if clip.path not in self._tracks:
                self._tracks[clip.path] = track(wav[0], self.audio.sample_rate, self.audio.hop_length)
            health.append(vital_signs(made[0], wav[0], self._tracks[clip.path], self.audio))
            sounds = sounds or {"recording": wav[0], "sample": made[0]}
        return Validation(scalars, sounds, self.audio.sample_rate, mean_signs(health))

    def _spectral(self, section: str, model: WaveVAE, wav: Tensor, recording: Tensor, start: int) -> dict[str, Tensor]:
        """The spectral terms of a section, {"loss/<section>_<term>", "<section>/<part>"}."""
        config = self.config.spectral(section)
        if config is None:
            return {}
        objective = Objective(config, model.config.pre_emphasis, model.gain, start=start, log_mel=model.log_mel)
        terms, parts = objective.signal_terms(wav, recording)
        weighted = {f"loss/{section}_{name}": config.weights[name] * value for name, value in terms.items()}
        return weighted | {f"{section}/{name}": value for name, value in parts.items()}


@torch.no_grad()
def signs(found: Elbo, start: int = 0) -> dict[str, Tensor]:
    """What a bound says from sample `start` on: its terms [nats/sample], and how the KL lies over the steps.

    elbo/kl_10, _50, _90: percentiles of the KL of a step; elbo/active: share of steps with 0.1 nats or more;
    elbo/aggregate: E[z^2] over steps and posteriors, 1 under the prior; elbo/posterior_scale: eps.
    """
    kl, reconstruction, loc, scale = (
        values[:, start:] for values in (found.kl, found.reconstruction, found.posterior.loc, found.posterior.scale)
    )
    ranked = kl.flatten().sort().values
    return {
        "elbo/elbo": (reconstruction - kl).mean(),
        "elbo/reconstruction": reconstruction.mean(),
        "elbo/kl": kl.mean(),
        **{f"elbo/kl_{percent}": ranked[percent * (len(ranked) - 1) // 100] for percent in (10, 50, 90)},
        "elbo/active": (kl >= _ACTIVE).to(kl.dtype).mean(),
        "elbo/aggregate": (loc.square() + scale.square()).mean(),
        "elbo/posterior_scale": scale.mean(),
    }


@torch.no_grad()
@full_precision()
def held_out(model: WaveVAE, clips: Sequence[Clip]) -> dict[str, float]:
    """`signs` of whole clips from their first sample, one draw of z each, averaged over samples.

    -elbo/elbo stands beside a teacher's held-out `nll_density`: both are of the density of wav in [-1, 1].
    """
    sums: dict[str, float] = {}
    total = 0
    for number, clip in enumerate(clips):
        batch, generator = _whole(model, clip), torch.Generator().manual_seed(number)
        found = model.elbo(batch.wav, batch.mel, batch.speaker, batch.pitch, None, generator)
        for name, value in signs(found).items():
            sums[name] = sums.get(name, 0.0) + float(value) * batch.wav.shape[1]
        total += batch.wav.shape[1]
    return {name: value / total for name, value in sums.items()}


def _whole(model: WaveVAE, clip: Clip) -> Batch:
    """A clip as a batch of one, with the pitch that the model itself predicts where it needs one."""
    device = next(model.parameters()).device
    wav = load_clip(clip, model.config.audio)[None].to(device)
    mel = model.log_mel(wav)
    pitch = None if model.pitch is None else model.pitch.predict(mel)
    return Batch(wav, mel, clip_speaker(clip, model.config, device), pitch)
