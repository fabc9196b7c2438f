"""What each kind of vocoder gives: density and samples, in how many passes of its networks, and at what cost."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from distill.coupling import likelihood as coupling
from distill.coupling.model import CouplingFlow
from distill.student import Student
from distill.wavevae.learning import held_out as held_out_bound
from distill.wavevae.model import WaveVAE
from wavenet import likelihood
from wavenet.data import Clip, load_clip
from wavenet.teacher import Teacher

_ROUNDS = 3
_SPEED_SECONDS = 2.0


class Kind(NamedTuple):
    """What is true of a kind: how its density is known, in how many passes it and T samples come, what `nats` is."""

    density: str
    density_passes: str
    sampling_passes: str
    nats: str = "exact"  # or "bound"


# The first that a model is an instance of counts.
KINDS: dict[type, Kind] = {
    Teacher: Kind("exact", "1", "T"),
    WaveVAE: Kind("lower bound", "2", "1", "bound"),  # the encoder, then the decoder
    Student: Kind("exact", "T", "1"),
    CouplingFlow: Kind("exact", "1", "1", "bound"),  # exact where it is given: cells are filled with noise
}


def kind_of(model: Any) -> Kind:
    """The kind of a vocoder."""
    return next(kind for known, kind in KINDS.items() if isinstance(model, known))


@torch.no_grad()
def nats(model: Any, clips: Sequence[Clip]) -> float:
    """Held-out -log density of wav in [-1, 1], or a bound from above on it, means over samples [nats/sample].

    Of a teacher it is the mass of the cells of the recordings' levels over their width, of a coupling flow a bound on
    that, of a student the density at the levels; of a source-filter student that given the F0 which it predicts.
    """
    if isinstance(model, Teacher):
        return likelihood.held_out(model, clips).nll_density
    if isinstance(model, CouplingFlow):
        return coupling.held_out(model, clips).nll_density
    if isinstance(model, WaveVAE):
        return -held_out_bound(model, clips)["elbo/elbo"]
    total, count = 0.0, 0
    for clip in clips:
        wav = load_clip(clip, model.config.audio)[None]
        total -= float(model.log_prob(wav, model.log_mel(wav)))
        count += wav.shape[1]
    return total / count


def figures_of(model: Any, clips: Sequence[Clip]) -> dict[str, Any]:
    """{"nats", "macs", "kind", "density_x", "sampling_x"}: density, multiply-accumulates a sample, what is true of the
    kind, and how many seconds of audio a CPU-second makes and scores, of two seconds of the first clip.
    """
    kind = kind_of(model)
    audio = model.config.audio
    frames = max(1, round(_SPEED_SECONDS * audio.sample_rate / audio.hop_length))
    wav = load_clip(clips[0], audio)[None, : frames * audio.hop_length]
    mel = model.log_mel(wav)
    seconds = wav.shape[1] / audio.sample_rate
    generator = torch.Generator().manual_seed(0)
    return {
        "nats": nats(model, clips),
        "macs": model.macs_per_sample,
        "kind": kind._asdict(),
        "density_x": seconds / _cpu_seconds(lambda: _score(model, wav, mel)),
        "sampling_x": seconds / _cpu_seconds(lambda: model.sample(mel, generator=generator)),
    }


@torch.no_grad()
def _score(model: Any, wav: Tensor, mel: Tensor) -> Tensor:
    if isinstance(model, Teacher):
        return model(wav, mel).log_density(wav)
    if isinstance(model, WaveVAE):
        return model.elbo(wav, mel, generator=torch.Generator().manual_seed(0)).bound
    scored: Tensor = model.log_prob(wav, mel)
    return scored


def _cpu_seconds(work: Callable[[], object]) -> float:
    """Median of a few rounds after one that compiles what wants compiling."""
    work()
    taken = []
    for _ in range(_ROUNDS):
        begun = time.process_time()
        work()
        taken.append(time.process_time() - begun)
    return statistics.median(taken)
