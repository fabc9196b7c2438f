"""Checkpoints: everything that a model or a run is, in one file that appears whole or not at all.

Read with torch's restricted unpickler (weights_only), so that loading a stranger's file runs no code of theirs. What is
shipped has a format of its own: wavenet.weights.
"""

from __future__ import annotations

import dataclasses
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wavenet.errors import UserError
from wavenet.weights import digest, find, is_weights, of_name, read

VERSION = 1
FILE_NAME = "checkpoint.pt"
CARD = "card"  # in `extra`: the name on the card of shipped weights
_FORMAT = "wavenet-distillation"


@dataclasses.dataclass
class Checkpoint:
    """kind of model, its configuration, weights, averaged weights, optimiser state, steps done, and what a run adds."""

    kind: str
    config: dict[str, Any]
    model_state: dict[str, Tensor]
    ema_state: dict[str, Tensor] | None
    optimizer_state: dict[str, Any] | None
    step: int
    extra: dict[str, Any]
    version: int = VERSION

    @property
    def shipped(self) -> bool:
        """Whether it was read from weights with a card, and not from a run."""
        return CARD in self.extra


def save(
    path: str | os.PathLike[str],
    *,
    kind: str,
    config: dict[str, Any],
    model_state: dict[str, Tensor],
    ema_state: dict[str, Tensor] | None = None,
    optimizer_state: dict[str, Any] | None = None,
    step: int = 0,
    extra: dict[str, Any] | None = None,
) -> None:
    """Write atomically: a temporary file in the same folder, flushed to disk, then renamed over the old one.

    Raises OSError, naming the file (a full disk, no permission); the previous file is then untouched and nothing
    half-written stays.
    """
    path = Path(path)
    stored = {
        "format": _FORMAT,
        "version": VERSION,
        "kind": kind,
        "config": config,
        "model_state": model_state,
        "ema_state": ema_state,
        "optimizer_state": optimizer_state,
        "step": step,
        "extra": extra or {},
    }
    # Through memory: torch's writer reports a full disk as an error of its own that does not say so.
    content = io.BytesIO()
    torch.save(stored, content)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = f"{error.strerror}; not saved, the checkpoint before it (if any) is whole"
        raise OSError(error.errno, reason, str(path)) from None
    finally:
        temporary.unlink(missing_ok=True)


def load(path: str | os.PathLike[str], map_location: str | torch.device = "cpu") -> Checkpoint:
    """Read a checkpoint file, the one inside a run folder, a .safetensors file, or shipped weights, by their name.

    What exists under `path` wins over shipped weights of that name. Raises UserError, naming the file, when it is
    missing, truncated, something else, or of a newer version.
    """
    named, path = path, find(path)
    if path.is_dir():
        if not (path / FILE_NAME).is_file():
            hidden = " (it hides the shipped weights of that name)" if of_name(named) is not None else ""
            expected = "expected a run folder or a checkpoint file"
            raise UserError(f"{path}: found a folder without {FILE_NAME}{hidden}, {expected}")
        path = path / FILE_NAME
    if is_weights(path):
        card, tensors = read(path)
        return Checkpoint(card.kind, card.config, tensors, None, None, card.steps, {CARD: card.name})
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a pickle that is refused below, in one line
            stored = torch.load(path, map_location=map_location, weights_only=True)
    except PermissionError:
        raise
    except Exception:  # bytes that are no checkpoint make the unpickler raise anything, IndexError and KeyError too
        raise UserError(f"{path}: found a truncated or foreign file, expected a checkpoint of this project") from None
    if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
        raise UserError(f"{path}: found another program's file, expected a checkpoint of this project")
    version = stored.get("version")
    if not isinstance(version, int) or version > VERSION:
        raise UserError(f"{path}: found checkpoint version {version}, expected {VERSION} or older")
    names = [field.name for field in dataclasses.fields(Checkpoint)]
    missing = [name for name in names if name not in stored]
    if missing:
        raise UserError(f"{path}: found no {', '.join(missing)} in it, expected a whole checkpoint of this project")
    return Checkpoint(**{name: stored[name] for name in names})


def weights(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The weights to use: averaged where the run kept an average, else the plain ones."""
    return checkpoint.model_state if checkpoint.ema_state is None else checkpoint.ema_state


def fingerprint(model: nn.Module) -> str:
    """A digest of the weights, so that a run is not resumed under another teacher or pitch network."""
    return digest(model.state_dict())
