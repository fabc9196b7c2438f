"""The one table of model kinds, and loading by path."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from distill.config import StudentConfig
from distill.coupling.config import FlowConfig
from distill.coupling.model import CouplingFlow
from distill.latent.segmentvae import SegmentConfig, SegmentVAE
from distill.phones.classifier import PhoneClassifier, PhoneConfig
from distill.student import Student
from distill.vectors.model import VectorConfig, VectorModel
from distill.wavevae.config import WaveVAEConfig
from distill.wavevae.model import WaveVAE
from wavenet import checkpoint
from wavenet.arguments import unlike
from wavenet.config import PitchConfig, TeacherConfig
from wavenet.device import resolve_device
from wavenet.errors import UserError
from wavenet.pitch.net import PitchNet
from wavenet.restoration import restore
from wavenet.teacher import Teacher

KINDS: dict[str, tuple[type[Any], type[Any]]] = {
    "teacher": (TeacherConfig, Teacher),
    "student": (StudentConfig, Student),
    "flow": (FlowConfig, CouplingFlow),
    "pitch": (PitchConfig, PitchNet),
    "phones": (PhoneConfig, PhoneClassifier),
    "segmentvae": (SegmentConfig, SegmentVAE),
    "vectors": (VectorConfig, VectorModel),
    "wavevae": (WaveVAEConfig, WaveVAE),
}
# Those that make audio from a mel.
VOCODERS = ("teacher", "student", "flow", "wavevae")


def load(path: str | os.PathLike[str], device: str = "cpu") -> Any:
    """The model of a run folder, checkpoint or .safetensors file, or of shipped weights by name ("student").

    Averaged weights where there are any, in eval mode. What exists under `path` wins over a name. Everything needed is
    inside the file: kind, configuration, weights. Raises UserError when the file is missing, truncated, of an unknown
    kind, or its weights do not fit its configuration.
    """
    device = resolve_device(device)
    stored = checkpoint.load(path)
    if stored.kind not in KINDS:
        newer = " (written by a newer version?)"
        raise UserError(f"{path}: found a model of kind {stored.kind!r}, expected one of {', '.join(KINDS)}{newer}")
    config_class, model_class = KINDS[stored.kind]
    other = _kind_of(stored.config)
    if other is not None and unlike(config_class, stored.config)[0]:
        raise UserError(f"{path}: found the settings of a {other}, expected those of a {stored.kind}, as its kind says")
    model: nn.Module = restore(model_class, config_class, stored, path)
    return model.to(device).eval().requires_grad_(False)


def load_vocoder(path: str | os.PathLike[str], device: str = "cpu") -> Any:
    """`load`, of what makes audio from a mel: raises UserError for the other kinds too."""
    model = load(path, device)
    for kind, (_, model_class) in KINDS.items():
        if kind not in VOCODERS and isinstance(model, model_class):
            raise UserError(f"{path}: found a model of kind {kind!r}, expected one of {', '.join(VOCODERS)}")
    return model


def _kind_of(config: Any) -> str | None:
    """The kind whose settings these are, all of them and no others, if there is one."""
    if not isinstance(config, dict):
        return None
    return next((kind for kind, (known, _) in KINDS.items() if unlike(known, config) == ([], [])), None)
