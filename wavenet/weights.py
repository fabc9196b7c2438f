"""Weights as they are shipped: one safetensors file a model; its card, all that is to be known of it, in the header.

The header's one entry `KEY` is the card as JSON. Nothing in a file is executed: there is no pickle on this road.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from wavenet.arguments import from_dict
from wavenet.config import AudioConfig
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.manifest import fingerprint as audio_fingerprint

SUFFIX = ".safetensors"
FOLDER = Path(__file__).parent / "shipped"
KEY, VERSION = "wavenet-distillation weights", 1
MOST_MB = 12.0
_APART = 1e-3  # nats by which the same mel may differ from machine to machine
_PRIME, _FRAMES = 65521, 40


@dataclasses.dataclass(frozen=True)
class Card:
    """What a file says of its weights.

    config: the model's. features: of the mel that they were trained on, see `features`. corpus: name, licence, hours of
    the training split, clips of each split. licence: of the weights. steps: done in training. metrics: "evaluation",
    means over held-out clips, "validation", the last of the training, "log", all of them. recipe, commands: how they
    were trained. teacher: its name, of a student. project: version that wrote the file. digest: of the weights.
    """

    name: str
    kind: str
    config: dict[str, Any]
    features: dict[str, Any]
    corpus: dict[str, Any]
    licence: str
    steps: int
    metrics: dict[str, Any]
    recipe: dict[str, Any]
    commands: list[str]
    teacher: str | None
    project: str
    digest: str


_TYPES = {
    "name": str,
    "kind": str,
    "config": dict,
    "features": dict,
    "corpus": dict,
    "licence": str,
    "steps": int,
    "metrics": dict,
    "recipe": dict,
    "commands": list,
    "teacher": (str, type(None)),
    "project": str,
    "digest": str,
}


def write(path: Path, card: Card, tensors: Mapping[str, Tensor]) -> None:
    """Write atomically; equal weights and cards give equal bytes.

    Raises UserError for weights that are not finite or above MOST_MB, OSError where it cannot be written.
    """
    for name, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: found NaN or infinite values in {name}, expected finite weights: not written")
    stated = {"version": VERSION} | dataclasses.asdict(card)
    text = json.dumps(stated, sort_keys=True, ensure_ascii=False, allow_nan=False)
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    content = safetensors.torch.save(whole, {KEY: text})
    if len(content) > MOST_MB * 1e6:
        raise UserError(f"{path}: found {len(content) / 1e6:.1f} MB, expected at most {MOST_MB:g} MB: not written")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path) -> tuple[Card, dict[str, Tensor]]:
    """The card and the weights, on the CPU. Raises UserError, naming the file, for all but a whole and true one.

    Refused: a truncated or foreign file, another version, an incomplete card, weights that are not the card's, and mels
    that this installation computes otherwise than they were in training. Whether the weights are those of the
    configuration is for `fill` to say.
    """
    card, tensors = _open(path, with_tensors=True)
    if digest(tensors) != card.digest:
        raise UserError(f"{path}: found weights of digest {digest(tensors)}, expected {card.digest}: damaged")
    stated = card.config.get("audio")
    if not isinstance(stated, dict):
        raise UserError(f"{path}: found {stated!r} for audio, expected the audio settings of a model")
    try:
        audio = from_dict(AudioConfig, stated)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    _compare(path, card.features, audio)
    return card, tensors


def read_card(path: Path) -> Card:
    """The card alone, without reading the weights. Raises UserError as `read` does."""
    return _open(path, with_tensors=False)[0]


def shipped() -> dict[str, Path]:
    """The files that come with the package, by name."""
    return {path.stem: path for path in sorted(FOLDER.glob(f"*{SUFFIX}"))}


def of_name(name: str | os.PathLike[str]) -> Path | None:
    """The shipped weights of a name, in which hyphens count as underscores; None where there are none."""
    return shipped().get(os.fspath(name).replace("-", "_"))


def find(path: str | os.PathLike[str]) -> Path:
    """The file or folder that a checkpoint argument means: what exists under that path wins, else shipped weights.

    Raises UserError, with the names of what is shipped, for neither.
    """
    found = Path(path)
    if found.exists():
        return found
    if (known := of_name(path)) is not None:
        return known
    names = ", ".join(shipped()) or "none"
    raise UserError(
        f"{path}: found no such file, expected a run folder, a checkpoint file, or the name of shipped weights: {names}"
    )


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Short name of weights: equal exactly when names and values are."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:16]


def features(audio: AudioConfig) -> dict[str, Any]:
    """{"audio": fingerprint of the settings, "mel": band by band the mean log-mel [nats] of a fixed noise}.

    The noise is made of integers, the same on every machine, so that another way of computing mels is noticed.
    """
    count = torch.arange(1000, 1000 + _FRAMES * audio.hop_length + audio.n_fft, dtype=torch.int64)
    noise = (count**3 % _PRIME).double() / _PRIME - 0.5
    mel = LogMel(audio).of_padded(noise[None].float())[0].mean(1)
    return {"audio": audio_fingerprint(audio), "mel": [round(float(value), 4) for value in mel]}


def fill(model: nn.Module, tensors: Any, path: str | os.PathLike[str]) -> None:
    """Load weights into a model. Raises UserError, naming `path` and a tensor, unless names and shapes agree."""
    own = model.state_dict()
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise UserError(f"{path}: found no weights, expected those of the configuration inside")
    missing, extra = ([name for name in one if name not in other] for one, other in ((own, tensors), (tensors, own)))
    if missing:
        raise UserError(f"{path}: found no tensor {_first(missing)}, expected all of the configuration inside")
    if extra:
        raise UserError(f"{path}: found a tensor {_first(extra)}, expected none but those of the configuration inside")
    other = [name for name, value in own.items() if value.shape != tensors[name].shape]
    if other:
        name = other[0]
        shapes = f"shape {tuple(tensors[name].shape)} of {_first(other)}, expected {tuple(own[name].shape)}"
        raise UserError(f"{path}: found weights of other sizes: {shapes}, by the configuration inside")
    model.load_state_dict(dict(tensors))


def _open(path: Path, with_tensors: bool) -> tuple[Card, dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys() if with_tensors else []
            tensors = {name: file.get_tensor(name) for name in names}
    except PermissionError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError):
        raise UserError(f"{path}: found a truncated or foreign file, expected weights in {SUFFIX}") from None
    if KEY not in header:
        raise UserError(f"{path}: found another program's {SUFFIX}, expected a header with {KEY!r}")
    return _card(path, header[KEY]), tensors


def _card(path: Path, text: str) -> Card:
    try:
        stated = json.loads(text)
    except ValueError:
        stated = None
    if not isinstance(stated, dict):
        raise UserError(f"{path}: found a damaged header, expected a card in JSON")
    version = stated.pop("version", None)
    if version != VERSION:
        raise UserError(f"{path}: found weights of format version {version}, expected {VERSION}")
    for name, kind in _TYPES.items():
        if name not in stated or not isinstance(stated[name], kind):  # type: ignore[arg-type]
            found = repr(stated[name]) if name in stated else "nothing"
            raise UserError(f"{path}: found {found} for {name}, expected a whole card of this project")
    return Card(**{name: stated[name] for name in _TYPES})


def _compare(path: Path, stated: dict[str, Any], audio: AudioConfig) -> None:
    ours = features(audio)
    if stated.get("audio") != ours["audio"]:
        found = f"audio fingerprint {stated.get('audio')}, expected {ours['audio']}, that of its own configuration"
        raise UserError(f"{path}: found {found}")
    theirs = stated.get("mel")
    if not isinstance(theirs, list) or len(theirs) != len(ours["mel"]):
        raise UserError(f"{path}: found a damaged mel fingerprint, expected {len(ours['mel'])} values")
    apart = max(abs(mine - other) for mine, other in zip(ours["mel"], theirs, strict=True))
    if not apart <= _APART:
        found = f"a mel fingerprint {apart:.3g} nats from the mels computed here, expected at most {_APART:g}"
        raise UserError(f"{path}: found {found}")


def _first(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} (and {len(names) - 1} more)"
