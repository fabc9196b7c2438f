"""What commands make audio from: recordings, mels in .npy files, and folders of them."""

from __future__ import annotations

import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavenet.audio import READABLE, has_original, read_audio
from wavenet.config import AudioConfig
from wavenet.corpora import scan
from wavenet.data import BUNDLED, corpus_folder
from wavenet.errors import UserError
from wavenet.features import LogMel

MEL_SUFFIX = ".npy"
_SUFFIXES = (*READABLE, MEL_SUFFIX)
_TENSORS = (".pt", ".pth")
_OTHER_SOUNDS = (
    ".aac",
    ".aif",
    ".aiff",
    ".amr",
    ".au",
    ".m4a",
    ".mp2",
    ".mp3",
    ".mp4",
    ".oga",
    ".ogg",
    ".opus",
    ".webm",
    ".wma",
)
_OTHERS = (*(name for name in _OTHER_SOUNDS if name not in READABLE), *_TENSORS, ".npz")  # worth a line, if left out
_USUAL_NATS = (-30.0, 12.0)  # beyond what a 16-bit recording gives at any clamp and window
_SILENT_NATS = 1e-3  # above the clamp
_LASTING = 0.5  # seconds in which a mel has somewhere little to say
_ROUNDING = 0.1  # nats


def read_mel(path: Path, model: Any) -> tuple[Tensor, list[str]]:
    """The mel (1, M, F) of a recording or a .npy file, in the model's precision and place, and notes to print.

    A recording is mixed down, resampled and cut to whole frames. Raises UserError naming the file.
    """
    audio, weights = model.config.audio, next(model.parameters())
    try:
        if path.suffix.lower() == MEL_SUFFIX:
            mel, notes = load_mel(path, audio.n_mels)
            notes += _scale_notes(mel, audio)
        elif path.suffix.lower() in READABLE:
            wav, notes = _whole_frames(path, audio)
            mel = model.log_mel(wav[None].to(weights))[0]
        elif path.suffix.lower() in _TENSORS and path.is_file():
            raise UserError(f"{path}: found a file of torch's, expected a mel in {MEL_SUFFIX}: save it with numpy.save")
        else:
            raise UserError(f"{path}: found {_kind(path)}, expected one of {', '.join(_SUFFIXES)}, or a folder of them")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    if float(mel.max()) <= math.log(audio.log_clamp) + _SILENT_NATS:
        notes = [*notes, "silent from end to end"]
    return mel[None].to(weights), notes


def load_mel(path: Path, n_mels: int) -> tuple[Tensor, list[str]]:
    """A .npy file of (M, F), or (F, M), natural log -> mel (M, F) float32, notes. Square means (M, F).

    Nothing in the file is executed (no pickle). Raises UserError for all but a finite float matrix of n_mels bands.
    """
    expected = f"expected a float array of shape ({n_mels}, F) or (F, {n_mels})"
    if not path.is_file() or path.stat().st_size == 0:
        raise UserError(f"{path}: found {'an empty file' if path.is_file() else _kind(path)}, {expected}")
    try:
        # Mapped, so that a header that lies about its size is an error and not an allocation.
        stored = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TypeError, TokenError):
        raise UserError(f"{path}: found a truncated or foreign file, {expected}") from None
    if not isinstance(stored, np.ndarray):
        raise UserError(f"{path}: found an archive of arrays, {expected}")
    if not np.issubdtype(stored.dtype, np.floating):
        raise UserError(f"{path}: found dtype {stored.dtype}, {expected}")
    if stored.ndim == 3 and stored.shape[0] == 1:  # acoustic models save their batch axis
        stored = stored[0]
    if stored.ndim == 3:
        raise UserError(f"{path}: found shape {stored.shape}, a batch, {expected}: save each mel in a file of its own")
    if stored.ndim != 2 or n_mels not in stored.shape or stored.size == 0:
        raise UserError(f"{path}: found shape {stored.shape}, {expected} with F > 0")
    values = np.asarray(stored if stored.shape[0] == n_mels else stored.T, dtype=np.float32)
    if not np.isfinite(values).all():
        raise UserError(f"{path}: found NaN or infinite values, expected finite natural logarithms")
    low, high = float(values.min()), float(values.max())
    notes = []
    if low < _USUAL_NATS[0] or high > _USUAL_NATS[1]:
        notes.append(
            f"values from {low:.1f} to {high:.1f} where natural logarithms of magnitudes lie between "
            f"{_USUAL_NATS[0]:.0f} and {_USUAL_NATS[1]:.0f} (are these decibels?)"
        )
    return torch.from_numpy(values.copy()), notes


def _scale_notes(mel: Tensor, audio: AudioConfig) -> list[str]:
    """A hint where no value of a mel (M, F) that lasts is below what decadic logarithms of the clamp can be.

    Natural ones go far below it, in pauses and in the bands above a vowel's.
    """
    lasting = mel.shape[1] * audio.hop_length >= _LASTING * audio.sample_rate
    low, silence = float(mel.min()), math.log(audio.log_clamp)
    if not lasting or low < math.log10(audio.log_clamp) - _ROUNDING:
        return []
    natural = f"where natural logarithms of magnitudes go down towards {silence:.1f}"
    return [f"no value below {low:.1f}, {natural} (are these decadic logarithms, or a normalised mel?)"]


def not_used(folder: Path, out: Path) -> str | None:
    """A line for the recordings and tensors of a folder that `expand` leaves out: how many, and of which kinds."""
    others = [path for path in _files(folder, out) if path.suffix.lower() in _OTHERS]
    beside = [path for path in _readable(folder, out) if has_original(path)]
    found = []
    if others:
        kinds = ", ".join(sorted({path.suffix.lower() for path in others}))
        found.append(f"{len(others)} {'file' if len(others) == 1 else 'files'} of other kinds not used: {kinds}")
    if beside:
        found.append(f"{len(beside)} compressed with loss not used: beside the same without, such as {beside[0].name}")
    return f"{folder}: {'; '.join(found)}" if found else None


def _whole_frames(path: Path, audio: AudioConfig) -> tuple[Tensor, list[str]]:
    wav, info = read_audio(path, audio.sample_rate)
    shortest = LogMel.shortest(audio)
    if len(wav) < shortest:
        raise UserError(f"{path}: found {len(wav)} samples at {audio.sample_rate} Hz, expected at least {shortest}")
    return wav[: len(wav) - len(wav) % audio.hop_length], list(info.notes)


def expand(inputs: Sequence[str], out: Path) -> Iterator[Path]:
    """Folders become the files below them that can be read, sorted; an empty one stays, to fail under its own name.

    `bundled`, where no such file is, becomes the test clips that the package brings along.
    """
    for name in inputs:
        path = Path(name)
        if name == BUNDLED and not path.exists():
            yield from (clip.path for clip in scan(corpus_folder(BUNDLED)).recordings if clip.split == "test")
        else:
            yield from (_inside(path, out) if path.is_dir() else []) or [path]


def looks_like_input(name: str) -> bool:
    """Whether a word of a command names a recording or a mel, by its suffix: no checkpoint has one of these."""
    return name == BUNDLED or Path(name).suffix.lower() in _SUFFIXES


def _inside(folder: Path, out: Path) -> list[Path]:
    """What can be read, but for recordings compressed with loss that lie beside the same without."""
    return [path for path in _readable(folder, out) if not has_original(path)]


def _readable(folder: Path, out: Path) -> list[Path]:
    return [path for path in _files(folder, out) if path.suffix.lower() in _SUFFIXES]


def _files(folder: Path, out: Path) -> list[Path]:
    """Hidden files are no inputs; nor is what lies in `out` below the folder: an earlier run made it."""
    made = out.resolve()
    below = folder.resolve() in made.parents
    return [
        path
        for path in sorted(folder.rglob("*"))
        if not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (below and made in path.resolve().parents)
    ]


def output_names(items: Sequence[Path]) -> dict[Path, Path]:
    """Where each input goes in --out: <stem>.wav, in the folders below the one that all inputs of its stem share."""
    folders = {item: os.path.dirname(os.path.abspath(item)) for item in items}
    namesakes: dict[str, list[str]] = defaultdict(list)
    for item, folder in folders.items():
        namesakes[item.stem].append(folder)
    return {
        item: Path(folder).relative_to(os.path.commonpath(namesakes[item.stem])) / f"{item.stem}.wav"
        for item, folder in folders.items()
    }


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a folder without such files"
    return f"suffix {path.suffix!r}" if path.exists() else "no such file"
