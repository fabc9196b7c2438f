"""What can be evaluated side by side: models, what a model is made of, and what needs no training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill import models
from distill.baselines import griffin_lim, mel_shaped_noise
from wavenet import checkpoint
from wavenet.config import AudioConfig
from wavenet.errors import UserError
from wavenet.pitch.contour import Pitch, filled
from wavenet.pitch.resolution import resolved
from wavenet.pitch.tracker import track
from wavenet.teacher import AUTO, Teacher
from wavenet.weights import of_name

System = Callable[..., Tensor]
GRIFFIN_LIM, NOISE = "griffin-lim", "mel-shaped noise"


def untrained(audio: AudioConfig) -> dict[str, System]:
    """The systems that need no training: Griffin-Lim and mel-shaped noise."""
    return {
        GRIFFIN_LIM: lambda mel, generator, *_: griffin_lim(mel[0], audio, generator=generator)[None],
        NOISE: lambda mel, generator, *_: mel_shaped_noise(mel[0], audio, generator)[None],
    }


def load_systems(paths: Sequence[str], device: str) -> dict[str, Any]:
    """Models by the name of their run folder, file or shipped weights (with its folder's where two are equal).

    Raises UserError when their audio settings differ or names collide.
    """
    found = [Path(path) for path in paths]
    folders = [(path if path.exists() else of_name(path) or path).resolve() for path in found]
    folders = [path.parent if path.name == checkpoint.FILE_NAME else path for path in folders]
    short = [path.stem if path.is_file() else path.name for path in folders]
    named: dict[str, Any] = {}
    first = ""
    for path, folder, name in zip(paths, folders, short, strict=True):
        name = f"{folder.parent.name}-{name}" if short.count(name) > 1 else name
        if name in named:
            raise UserError(f"{path}: found a second system called {name!r}, expected each once")
        named[name] = models.load_vocoder(path, device)
        first = first or name
        ours, theirs = named[name].config.audio, named[first].config.audio
        if ours != theirs:
            raise UserError(f"{path}: found {ours}, expected the audio settings of {paths[0]}: {theirs}")
    return named


def as_system(model: Any, temperature: float = 1.0, method: str = AUTO) -> System:
    """A model as a system: sequential sampling by `method` for a teacher, one pass for a student."""
    device = next(model.parameters()).device
    extra = {"method": method} if isinstance(model, Teacher) else {}

    def system(mel: Tensor, generator: torch.Generator, speaker: Tensor | None = None) -> Tensor:
        where = speaker.to(device) if speaker is not None and model.config.speakers else None
        sampled: Tensor = model.sample(
            mel.to(device), generator=generator, temperature=temperature, speaker=where, **extra
        )
        return sampled

    return system


def parts(name: str, model: Any) -> dict[str, System]:
    """What a source-filter student owes to its signal model: flow 0 untrained, and that with one F0 for all; else {}.

    The one F0 is the median of the predicted: without it no figure of pitch says that pitch was predicted.
    """
    if getattr(model, "prior", None) is None:
        return {}

    def alone(mel: Tensor, generator: torch.Generator, *_: Tensor) -> Tensor:
        sampled: Tensor = model.sample(_to(model, mel), generator=generator, signal_model=True, **_voice(model, *_))
        return sampled

    def level(mel: Tensor, generator: torch.Generator, *_: Tensor) -> Tensor:
        mel = _to(model, mel)
        own = model.pitch.predict(mel)
        voiced = own.f0[own.voiced > 0]
        middle = voiced.median() if voiced.numel() else own.f0.median()
        pitch = Pitch(torch.full_like(own.f0, float(middle)), own.voiced)
        sampled: Tensor = model.sample(mel, generator=generator, pitch=pitch, signal_model=True, **_voice(model, *_))
        return sampled

    return {f"{name}, flow 0 untrained": alone, f"{name}, flow 0 with one F0": level}


def from_recording(name: str, model: Any) -> dict[str, System]:
    """A source-filter student with the recording's F0, tracked and resolved, instead of the predicted one."""
    if getattr(model, "prior", None) is None:
        return {}
    audio = model.config.audio

    def tracked(wav: Tensor, mel: Tensor, generator: torch.Generator, *_: Tensor) -> Tensor:
        pitch = resolved(filled(track(wav[0], audio.sample_rate, audio.hop_length)), mel, audio)
        pitch = Pitch(*(_to(model, values) for values in pitch))
        sampled: Tensor = model.sample(_to(model, mel), generator=generator, pitch=pitch, **_voice(model, *_))
        return sampled

    return {f"{name}, F0 of the recording": tracked}


def _to(model: Any, values: Tensor) -> Tensor:
    return values.to(next(model.parameters()).device)


def _voice(model: Any, *speaker: Tensor) -> dict[str, Tensor]:
    return {"speaker": _to(model, speaker[0])} if speaker and model.config.speakers else {}
