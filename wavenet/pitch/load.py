"""A trained pitch network for a model that needs F0, and crops that carry their voice's pitch."""

from __future__ import annotations

import shutil
from pathlib import Path

from torch.utils.data import Dataset

from wavenet import checkpoint
from wavenet.config import AudioConfig, PitchConfig
from wavenet.data import Batch, CropDataset
from wavenet.errors import UserError
from wavenet.pitch.labels import LABELS, PitchedCrops, label
from wavenet.pitch.net import PitchNet
from wavenet.restoration import restore


def load_pitch(path: str | Path, audio: AudioConfig) -> PitchNet:
    """The network of a `wavenet-train-pitch` run, frozen. Raises UserError for another kind or another analysis."""
    stored = checkpoint.load(path)
    if stored.kind != "pitch":
        raise UserError(f"{path}: found a {stored.kind}, expected a run of wavenet-train-pitch")
    net = restore(PitchNet, PitchConfig, stored, path)
    if net.config.audio != audio:
        raise UserError(f"{path}: found {net.config.audio}, expected the model's {audio}")
    return net.eval().requires_grad_(False)


def with_pitch(crops: CropDataset, run: Path, workers: int, pitch: str | None = None) -> Dataset[Batch]:
    """The same crops with their voice's pitch, tracked and resolved.

    The labels of whole clips are kept in the run folder. They begin with those of the run `pitch`, which was trained on
    the same corpus as a rule.
    """
    run.mkdir(parents=True, exist_ok=True)
    labels = run / LABELS
    known = Path(pitch) / LABELS if pitch is not None else labels
    if known.is_file() and not labels.exists():
        shutil.copyfile(known, labels)
    return PitchedCrops(crops, label(crops.clips, crops.audio, labels, workers), resolve=True)
