r"""A new run that begins with trained weights: of the same model, moved to the level of its own recordings.

With gain g_0 in the weights and g_1 on the new recordings, every network's mel statistics move by log(g_0 / g_1):
speech that is merely louder or softer than that of the first training then looks the same to all of them.

A teacher may get another law of x_t so: the last layer of its network alone depends on that, and begins anew. A student
with a prior may get other noise: flow 0 brings it to the same level. Of several speakers each keeps what was learned of
the speaker of that name.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.config import PitchConfig
from wavenet.errors import UserError
from wavenet.pitch.net import PitchNet
from wavenet.restoration import configuration, fill, restore
from wavenet.run import flat
from wavenet.standardised import MelInput
from wavenet.weights import digest

# What may differ between the weights' configuration and the recipe's: the level, what only a fresh start or the
# training of another network reads, and what the mel goes through that no weight belongs to (the run is told of it).
_FREE = {
    "gain",
    "speaker_names",
    "initial_log_scale",
    "warm_start",
    "source_filter.breath",
    "pitch.mel_jitter",
    "pitch.level_jitter",
}
_SHARPENING = "source_filter.sharpening"
_LAW = {f"distribution.{name}" for name in ("kind", "components", "bits", "log_scale_floor")}
_LAST_LAYER = "stack.output."
_SPEAKERS = "upsample.embedding.weight"


class Initial:
    """The trained weights behind --init: a run folder, a file, or the name of shipped weights.

    Raises UserError, naming --init, for a model of another kind, and for the run itself.
    """

    def __init__(self, path: str, kind: str, run: Path) -> None:
        if Path(path).resolve() == run.resolve():  # a shipped name would mean the run as soon as that exists
            raise UserError(f"--init: found {path}, which is --out too, expected other weights")
        self.path = path
        self.stored = checkpoint.load(path)
        self.tensors = checkpoint.weights(self.stored)
        if self.stored.kind != kind:
            raise UserError(f"--init: found {path}, a {self.stored.kind}, expected a {kind}")

    @property
    def digest(self) -> str:
        """What a run that began with these weights remembers of them."""
        return digest(self.tensors)

    def pitch(self) -> PitchNet:
        """The pitch network inside, frozen. Raises UserError where the model has none."""
        own = {name.removeprefix("pitch."): value for name, value in self.tensors.items() if name.startswith("pitch.")}
        if not own:
            raise UserError(f"--init: found {self.path}, a {self.stored.kind} without a pitch network, expected one")
        config = self.stored.config.get("pitch", {})
        part = dataclasses.replace(self.stored, kind="pitch", config=config, model_state=own, ema_state=None)
        return restore(PitchNet, PitchConfig, part, self.path).eval().requires_grad_(False)

    def into(self, model: Any) -> str:
        """Give `model` these weights, at its own level; what to say about it.

        Raises UserError that names every setting in which the configurations differ, unless weights do not know of it
        or the model can do with them nevertheless (see the top of this file).
        """
        known = configuration(type(model.config), self.stored, self.path)
        theirs, ours = flat(to_dict(known)), flat(to_dict(model.config))
        pitched = getattr(model, "pitch", None) is not None  # else its settings say nothing of the weights
        free = _FREE | (_LAW if self.stored.kind == "teacher" else set())
        free |= {"noise", _SHARPENING} if getattr(model, "prior", None) is not None else set()
        differing = [
            name
            for name in sorted(theirs.keys() | ours.keys())
            if theirs.get(name) != ours.get(name) and (pitched or not name.startswith("pitch."))
        ]
        wrong = [f"{name} = {theirs.get(name)}, expected {ours.get(name)}" for name in differing if name not in free]
        if wrong:
            raise UserError(f"--init: found {self.path} with {'; '.join(wrong)}, as the recipe says")
        changed = [f"{name} = {ours.get(name)}" for name in differing if name in _LAW | {"noise", _SHARPENING}]
        tensors = self.tensors | self._speakers(model, known.speaker_names)
        fresh = {name: value for name, value in model.state_dict().items() if name.startswith(_LAST_LAYER)}
        sizes = {name for name, value in fresh.items() if name in tensors and tensors[name].shape != value.shape}
        renewed = bool(sizes) and not _LAW.isdisjoint(differing)
        if renewed:
            with torch.random.fork_rng(devices=[]):  # a run's own draws are the same with every law
                stored = type(model)(known)
            fill(stored, self.tensors, self.path)  # whole, by its own configuration, before a part of it is left
        fill(model, tensors | fresh if renewed else tensors, self.path)
        louder = math.log((known.gain or 1.0) / (model.config.gain or 1.0))
        move(model, louder)
        level = f", recordings {20 * louder / math.log(10):+.1f} dB from those of its training"
        other = f", for {', '.join(changed)}{', with a new last layer' if renewed else ''}" if changed else ""
        unknown = [name for name in model.config.speaker_names if name not in known.speaker_names]
        new = f", speakers new to them: {', '.join(unknown)}" if unknown and model.config.speakers else ""
        return f"weights: those of {self.path} at step {self.stored.step}, to begin with{level}{other}{new}"

    def _speakers(self, model: Any, names: list[str]) -> dict[str, Tensor]:
        """The speakers' rows in the model's order; who is new to the weights keeps the model's own, untrained."""
        rows = self.tensors.get(_SPEAKERS)
        if rows is None or not model.config.speakers:
            return {}
        own = model.state_dict()[_SPEAKERS].clone()
        if rows.shape != own.shape:
            return {}
        for place, name in enumerate(model.config.speaker_names):
            if name in names:
                own[place] = rows[names.index(name)]
        return {_SPEAKERS: own}


@torch.no_grad()
def move(model: nn.Module, louder: float) -> None:
    """Move the mel statistics of every network in the model by `louder` [nats], for recordings louder by so much."""
    for module in model.modules():
        if isinstance(module, MelInput):
            module.mean.add_(louder)
