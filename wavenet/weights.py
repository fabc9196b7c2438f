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
from torch import Tensor

from wavenet.arguments import from_dict
from wavenet.config import AudioConfig
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.manifest import fingerprint as audio_fingerprint

SUFFIX = ".safetensors"
USUAL = "student"  # of what is shipped: what speaks where nothing is said against it
FOLDER = Path(__file__).parent / "shipped"
KEY, VERSION = "wavenet-distillation weights", 1
MOST_MB = 12.0
_APART = 1e-3  # nats by which the same mel may differ from machine to machine
_PRIME, _FRAMES = 65521, 40
_MOST_NATS = 1e3  # of a mel's fingerprint: beyond any number that is one
_DEEPEST = 32  # level of a card's sections; a header may be nested without end
_TYPES_OF_WEIGHTS = (torch.float32, torch.float64, torch.int64, torch.bool)


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

    Raises UserError for weights that `read` refuses or above MOST_MB, OSError where it cannot be written.
    """
    _require_sound(path, tensors, ": not written")
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

    Refused: a truncated or foreign file, another version, an incomplete card, weights that are not the card's, not
    finite or of low precision, a level that was not measured, and mels that this installation computes otherwise than
    they were in training. Whether the weights are those of the configuration is for wavenet.restoration to say.
    """
    card, tensors = _open(path, with_tensors=True)
    if digest(tensors) != card.digest:
        raise UserError(f"{path}: found weights of digest {digest(tensors)}, expected {card.digest}: damaged")
    _require_sound(path, tensors)
    if card.config.get("gain", 1.0) is None:
        raise UserError(f"{path}: found no gain, expected the level that was measured in training")
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


def is_weights(path: Path) -> bool:
    """Whether a file is one of weights with a card, by its name or, whatever that is, by how it begins."""
    if path.suffix.lower() == SUFFIX:
        return True
    if not path.is_file():
        return False
    with path.open("rb") as file:  # 8 bytes of length, then a header in JSON
        return file.read(9)[8:] == b"{"


def digest(tensors: Mapping[str, Tensor]) -> str:
    """Short name of weights: equal exactly when names and values are."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(name.encode())
        found.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]


def features(audio: AudioConfig) -> dict[str, Any]:
    """{"audio": fingerprint of the settings, "mel": band by band the mean log-mel [nats] of a fixed noise}.

    The noise is made of integers, the same on every machine, so that another way of computing mels is noticed.
    """
    count = torch.arange(1000, 1000 + _FRAMES * audio.hop_length + audio.n_fft, dtype=torch.int64)
    noise = (count**3 % _PRIME).double() / _PRIME - 0.5
    mel = LogMel(audio).of_padded(noise[None].float())[0].mean(1)
    return {"audio": audio_fingerprint(audio), "mel": [round(float(value), 4) for value in mel]}


def _open(path: Path, with_tensors: bool) -> tuple[Card, dict[str, Tensor]]:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            names = file.keys() if with_tensors else []
            tensors = {name: file.get_tensor(name) for name in names}
    except PermissionError:
        raise
    except (safetensors.SafetensorError, OSError, ValueError, TypeError):
        raise UserError(f"{path}: found a truncated or foreign file, expected weights in {SUFFIX}") from None
    if KEY not in header:
        raise UserError(f"{path}: found another program's {SUFFIX}, expected a header with {KEY!r}")
    return _card(path, header[KEY]), tensors


def _card(path: Path, text: str) -> Card:
    try:
        stated = json.loads(text)
    except (ValueError, RecursionError):
        stated = None
    if not isinstance(stated, dict) or _depth(stated) > _DEEPEST:
        raise UserError(f"{path}: found a damaged header, expected a card in JSON")
    version = stated.pop("version", None)
    if version != VERSION:
        raise UserError(
            f"{path}: found weights of format version {version}, expected {VERSION} (written by a newer version?)"
        )
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
    numbers = isinstance(theirs, list) and all(
        isinstance(one, (int, float)) and abs(one) < _MOST_NATS for one in theirs
    )
    if not isinstance(theirs, list) or not numbers or len(theirs) != len(ours["mel"]):
        raise UserError(f"{path}: found a damaged mel fingerprint, expected {len(ours['mel'])} values")
    apart = max(abs(mine - other) for mine, other in zip(ours["mel"], theirs, strict=True))
    if not apart <= _APART:
        found = f"a mel fingerprint {apart:.3g} nats from the mels computed here, expected at most {_APART:g}"
        raise UserError(f"{path}: found {found}")


def _require_sound(path: Path, tensors: Mapping[str, Tensor], ending: str = "") -> None:
    for name, value in tensors.items():
        if value.dtype not in _TYPES_OF_WEIGHTS:
            found = str(value.dtype).removeprefix("torch.")
            raise UserError(f"{path}: found {found} values in {name}, expected float32{ending}")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(f"{path}: found NaN or infinite values in {name}, expected finite weights{ending}")


def _depth(tree: Any) -> int:
    """How deep sections and lists are nested, counted no further than to what is refused."""
    depth, level = 0, [tree]
    while level and depth <= _DEEPEST:
        inner = [list(item.values()) if isinstance(item, dict) else item for item in level]
        level = [one for items in inner for one in items if isinstance(one, (dict, list))]
        depth += 1
    return depth
