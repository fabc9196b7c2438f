"""`distill-synthesize`: recordings or mels -> WAV, with any kind of model."""

from __future__ import annotations

import math
import os
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from tokenize import TokenError
from typing import Any

import jsonargparse
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from distill import models
from distill.cards import listing
from distill.contours import Contours, contours_of
from distill.engines.table import ENGINES, build
from distill.student import Student
from wavenet.arguments import parse_arguments
from wavenet.audio import AUDIO_SUFFIXES, read_audio, write_audio
from wavenet.config import AudioConfig, require
from wavenet.device import resolve_device
from wavenet.errors import DONE, SOME_FAILED, USER_MISTAKE, UserError, command
from wavenet.features import LogMel
from wavenet.teacher import AUTO, SAMPLERS, Teacher
from wavenet.weights import shipped

MEL_SUFFIX = ".npy"
_SUFFIXES = (*AUDIO_SUFFIXES, MEL_SUFFIX)
_USUAL_NATS = (-30.0, 12.0)  # beyond what a 16-bit recording gives at any clamp and window
_SILENT_NATS = 1e-3  # above the clamp


@command("distill-synthesize")
def main(argv: Sequence[str] | None = None) -> int:
    """CHECKPOINT INPUT... --out DIR: every recording, mel, or folder of them, through a model into DIR/<stem>.wav.

    CHECKPOINT: a run folder, a file, or the name of shipped weights, of which --list prints a table.
    Folders are searched to the bottom. Inputs of one stem keep the folders that differ: DIR/<folder>/<stem>.wav.
    Exit status: 0 all done, 1 some inputs failed (a line each on stderr), 2 all failed or the command is mistaken.
    """
    arguments = parse_arguments(_parser(), argv)
    if arguments.list:
        print(listing(shipped()))
        return DONE
    require(arguments.checkpoint is not None, "CHECKPOINT", None, "a run folder, a file or shipped weights (--list)")
    require(bool(arguments.inputs), "INPUT", None, "recordings, mels, or folders of them")
    require(arguments.out is not None, "--out", None, "a folder")
    require(arguments.seed >= 0, "--seed", arguments.seed, "0 or more")
    require(0 <= arguments.temperature < math.inf, "--temperature", arguments.temperature, "0 or more")
    device = resolve_device(arguments.device)
    model = models.load_vocoder(arguments.checkpoint, device)
    settings = _settings(model, arguments.method, arguments.speaker)
    if isinstance(model, Student):
        settings["engine"] = build(arguments.engine, model)
    else:
        require(arguments.engine == AUTO, "--engine", arguments.engine, f"{AUTO}: only students have engines")
    contours = contours_of(model, arguments.f0, arguments.transpose)
    out = Path(arguments.out)
    require(not out.exists() or out.is_dir(), "--out", arguments.out, "a folder")
    items = list(_expand(arguments.inputs, out))
    batch = Batch(model, items, out, arguments.seed, arguments.temperature, settings, arguments.overwrite, contours)
    failed = 0
    with tqdm(items, unit="file", disable=None if len(items) > 1 else True) as progress:
        for item in progress:
            try:
                tqdm.write(batch.synthesize(item))
            except UserError as error:
                failed += 1
                _complain(str(error))
    if failed == len(items):
        return USER_MISTAKE
    return SOME_FAILED if failed else DONE


class Batch:
    """A model and what the items of one command share; `synthesize` does one of them."""

    def __init__(
        self,
        model: Any,
        items: Sequence[Path],
        out: Path,
        seed: int = 0,
        temperature: float = 1.0,
        settings: dict[str, Any] | None = None,
        overwrite: bool = False,
        contours: Contours | None = None,
    ) -> None:
        self.model, self.out, self.overwrite, self.contours = model, out, overwrite, contours
        self.seed, self.temperature, self.settings = seed, temperature, settings or {}
        self._inputs = {item.resolve() for item in items}
        self._names = _names(items)
        self._taken: dict[Path, Path] = {}

    def synthesize(self, item: Path) -> str:
        """One input to out/<stem>.wav; what to say about it. Notes and warnings go to stderr.

        The noise depends on the seed and the stem alone, so that neither the order nor the rest of the batch matters.
        Raises UserError when this item cannot be done, OSError when the result cannot be written.
        """
        target = self._claim(item)
        mel, notes = read_mel(item, self.model)
        for note in notes:
            _complain(f"{item}: {note}")
        settings = self.settings
        if self.contours is not None:
            settings = settings | {"pitch": self.contours.pitch(item, mel, self.model)}
        self._make_place(item, target)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {item.stem}".encode()))
        start = time.perf_counter()
        try:
            wav = self.model.sample(mel, temperature=self.temperature, generator=generator, **settings)[0].cpu()
        except (MemoryError, RuntimeError) as error:  # torch has no class of its own for a CPU
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise UserError(f"{item}: found {mel.shape[2]} frames, expected fewer: out of memory") from None
        wall = time.perf_counter() - start
        rate = self.model.config.audio.sample_rate
        clipped = write_audio(target, wav, rate)
        if clipped:
            _complain(f"{target}: {clipped} of {len(wav)} samples beyond full scale were clipped")
        seconds = len(wav) / rate
        return f"{target}: {seconds:.2f} s of audio in {wall:.2f} s, {seconds / wall:.3g} x real time"

    def _claim(self, item: Path) -> Path:
        name = self._names[item]
        target = self.out / name
        if first := self._taken.get(name):
            raise UserError(f"{item}: found the output name {name} taken by {first}, expected different stems")
        self._taken[name] = item
        if target.resolve() in self._inputs:
            raise UserError(f"{item}: found its output {target} among the inputs, expected another --out")
        if target.is_dir():
            raise UserError(f"{item}: found a folder at {target}, expected a file to write")
        if target.exists() and not self.overwrite:
            raise UserError(f"{item}: found an existing {target}, expected none (--overwrite replaces it)")
        return target

    def _make_place(self, item: Path, target: Path) -> None:
        """Not before an input was read, so that a batch of bad ones leaves nothing; before the wait for the samples."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{item}: found a file in the way of {target.parent}, expected a folder") from None
        if target.parent != self.out:
            _complain(f"{item}: goes to {target}, another input has its stem")


def read_mel(path: Path, model: Any) -> tuple[Tensor, list[str]]:
    """The mel (1, M, F) of a recording or a .npy file, in the model's precision and place, and notes to print.

    A recording is mixed down, resampled and cut to whole frames. Raises UserError naming the file.
    """
    audio, weights = model.config.audio, next(model.parameters())
    try:
        if path.suffix.lower() == MEL_SUFFIX:
            mel, notes = load_mel(path, audio.n_mels)
        elif path.suffix.lower() in AUDIO_SUFFIXES:
            wav, notes = _whole_frames(path, audio)
            mel = model.log_mel(wav[None].to(weights))[0]
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


def _whole_frames(path: Path, audio: AudioConfig) -> tuple[Tensor, list[str]]:
    wav, info = read_audio(path, audio.sample_rate)
    shortest = LogMel.shortest(audio)
    if len(wav) < shortest:
        raise UserError(f"{path}: found {len(wav)} samples at {audio.sample_rate} Hz, expected at least {shortest}")
    return wav[: len(wav) - len(wav) % audio.hop_length], list(info.notes)


def _expand(inputs: Sequence[str], out: Path) -> Iterator[Path]:
    """Folders become the files below them that can be read, sorted; an empty one stays, to fail under its own name."""
    for name in inputs:
        path = Path(name)
        yield from (_inside(path, out) if path.is_dir() else []) or [path]


def _inside(folder: Path, out: Path) -> list[Path]:
    """Hidden files are no inputs; nor is what lies in `out` below the folder: an earlier run made it."""
    made = out.resolve()
    below = folder.resolve() in made.parents
    return [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in _SUFFIXES
        and not path.is_dir()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (below and made in path.resolve().parents)
    ]


def _names(items: Sequence[Path]) -> dict[Path, Path]:
    """Where each input goes in --out: <stem>.wav, in the folders below the one that all inputs of its stem share."""
    folders = {item: os.path.dirname(os.path.abspath(item)) for item in items}
    namesakes: dict[str, list[str]] = defaultdict(list)
    for item, folder in folders.items():
        namesakes[item.stem].append(folder)
    return {
        item: Path(folder).relative_to(os.path.commonpath(namesakes[item.stem])) / f"{item.stem}.wav"
        for item, folder in folders.items()
    }


def _settings(model: Any, method: str | None, speaker: str | None) -> dict[str, Any]:
    """What model.sample takes beside the mel: the method for a sequential model, the speaker for one with several."""
    settings: dict[str, Any] = {}
    if isinstance(model, Teacher):
        settings["method"] = method or AUTO
    else:
        require(method is None, "--method", method, "none: this model samples in one pass")
    speakers = model.config.speakers
    if speakers:
        names = model.config.speaker_names
        index = names.index(speaker) if speaker in names else int(speaker) if speaker and speaker.isdecimal() else -1
        listed = f" ({', '.join(names[:8])}{', ...' if len(names) > 8 else ''})" if names else ""
        expected = f"a name or 0 to {speakers - 1}: the model has {speakers} speakers{listed}"
        require(0 <= index < speakers, "--speaker", speaker, expected)
        settings["speaker"] = torch.tensor([index], device=next(model.parameters()).device)
    else:
        require(speaker is None, "--speaker", speaker, "none: the model has one speaker")
    return settings


def _kind(path: Path) -> str:
    if path.is_dir():
        return "a folder without such files"
    return f"suffix {path.suffix!r}" if path.exists() else "no such file"


def _complain(line: str) -> None:
    tqdm.write(f"distill-synthesize: {' '.join(line.split())}", file=sys.stderr)


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-synthesize", description=main.__doc__)
    parser.add_argument("checkpoint", type=str, nargs="?", help="a run folder, a file, or the name of shipped weights")
    parser.add_argument("inputs", type=str, nargs="*", help=".wav, .flac, .npy mel (M, F) or (F, M), or a folder")
    parser.add_argument("--out", type=str, help="folder for <stem>.wav, 16-bit PCM")
    parser.add_argument("--list", action="store_true", help="print what weights are shipped, and do nothing else")
    parser.add_argument("--seed", type=int, default=0, help="the noise is drawn from the seed and each input's stem")
    parser.add_argument("--temperature", type=float, default=1.0, help="scales the noise")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda or auto")
    methods = (AUTO, *SAMPLERS)
    parser.add_argument("--method", type=str, choices=methods, help="how a teacher samples (default: the fastest)")
    engines = (AUTO, *ENGINES)
    parser.add_argument("--engine", type=str, choices=engines, default=AUTO, help="of a student's flows; auto: fast")
    parser.add_argument("--speaker", type=str, help="name or index of the voice, for a model with several")
    parser.add_argument("--f0", type=str, help="F0 and voicing: Hz a frame, 0 unvoiced, or time and Hz; file or folder")
    parser.add_argument("--transpose", type=float, default=0.0, help="move F0 by so many semitones")
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    return parser
