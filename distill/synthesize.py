"""`distill-synthesize`: recordings or mels -> WAV, with any kind of model."""

from __future__ import annotations

import math
import shlex
import sys
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from tqdm import tqdm

from distill import models
from distill.cards import listing
from distill.contours import Contours, contours_of
from distill.engines.table import ENGINES, build
from distill.inputs import MEL_SUFFIX, expand, looks_like_input, not_used, output_names, read_mel
from distill.projection import STEPS, possible, project
from distill.student import Student
from wavenet.arguments import parse_arguments
from wavenet.audio import write_audio
from wavenet.config import require
from wavenet.device import resolve_device
from wavenet.errors import DONE, SOME_FAILED, USER_MISTAKE, UserError, command
from wavenet.teacher import AUTO, SAMPLERS, Teacher
from wavenet.weights import USUAL, is_weights, shipped

_MUCH = 0.01  # of the samples clipped: no loud voice, but a mel of another scale
_PROJECTION = (
    f"steps that bring a sample to its mel (default: {STEPS} for recordings, "
    "0 for mels, a changed F0 and a chosen speaker)"
)


@command("distill-synthesize")
def main(argv: Sequence[str] | None = None) -> int:
    """CHECKPOINT INPUT... --out DIR: every recording, mel, or folder of them, through a model into DIR/<stem>.wav.

    CHECKPOINT: a run folder, a file, or the name of shipped weights, of which --list prints a table.
    Folders are searched to the bottom; `bundled` is four test sentences that come with the package. Inputs of one stem
    keep the folders that differ: DIR/<folder>/<stem>.wav.
    Exit status: 0 all done, 1 some inputs failed (a line each on stderr), 2 all failed or the command is mistaken.
    """
    arguments = parse_arguments(_parser(), argv)
    if arguments.list:
        print(listing(shipped()))
        return DONE
    require(arguments.checkpoint is not None, "CHECKPOINT", None, "a run folder, a file or shipped weights (--list)")
    _require_order(arguments.checkpoint, argv)
    require(bool(arguments.inputs), "INPUT", None, "recordings, mels, folders of them, or bundled")
    require(arguments.out is not None, "--out", None, "a folder")
    require(arguments.seed >= 0, "--seed", arguments.seed, "0 or more")
    require(0 <= arguments.temperature < math.inf, "--temperature", arguments.temperature, "0 or more")
    steps = arguments.projection
    require(steps is None or steps >= 0, "--projection", steps, "0 or more")
    device = resolve_device(arguments.device)
    model = models.load_vocoder(arguments.checkpoint, device)
    overlapping = possible(model.config.audio)
    require(overlapping or not steps, "--projection", steps, "0: the frames of this model's analysis do not overlap")
    settings = _settings(model, arguments.method, arguments.speaker)
    if isinstance(model, Student):
        settings["engine"] = build(arguments.engine, model)
    else:
        require(arguments.engine == AUTO, "--engine", arguments.engine, f"{AUTO}: only students have engines")
    contours = contours_of(model, arguments.f0, arguments.transpose)
    other = contours is not None  # F0 than the mel's, whose bands state its own harmonics
    require(not (steps and other), "--projection", steps, "0 beside --f0 and --transpose: the mel has its own F0")
    out = Path(arguments.out)
    wall = next((str(place) for place in (out, *out.parents) if place.exists() and not place.is_dir()), None)
    require(wall is None, "--out", wall, "a folder")
    items = list(expand(arguments.inputs, out))
    for folder in [Path(name) for name in arguments.inputs if Path(name).is_dir()]:
        if line := not_used(folder, out):
            _complain(line)
    batch = Batch(
        model, items, out, arguments.seed, arguments.temperature, settings, arguments.overwrite, contours, steps
    )
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
        projection: int | None = None,
    ) -> None:
        self.model, self.out, self.overwrite, self.contours = model, out, overwrite, contours
        self.projection = projection
        self.seed, self.temperature, self.settings = seed, temperature, settings or {}
        self._inputs = {item.resolve() for item in items}
        self._names = output_names(items)
        self._taken: dict[Path, Path] = {}

    def synthesize(self, item: Path) -> str:
        """One input to out/<stem>.wav; what to say about it. Notes and warnings go to stderr.

        The noise depends on the seed and the stem alone, so that neither the order nor the rest of the batch matters.
        Raises UserError when this item cannot be done, OSError when the result cannot be written.
        """
        mel, notes = read_mel(item, self.model)  # first: what cannot be read is told so, whatever lies in --out
        target = self._target(item)
        for note in notes:
            _complain(f"{item}: {note}")
        settings = self.settings
        if self.contours is not None:
            settings = settings | {"pitch": self.contours.pitch(item, mel, self.model)}
        self._make_place(item, target)
        generator = torch.Generator().manual_seed(zlib.crc32(f"{self.seed} {item.stem}".encode()))
        start = time.perf_counter()
        try:
            wav = self.model.sample(mel, temperature=self.temperature, generator=generator, **settings)
            wav = project(wav, mel, self.model.config.audio, self._steps(item))[0].cpu()
        except (MemoryError, RuntimeError) as error:  # torch has no class of its own for a CPU
            if isinstance(error, RuntimeError) and "memory" not in str(error):
                raise
            raise UserError(f"{item}: found {mel.shape[2]} frames, expected fewer: out of memory") from None
        wall = time.perf_counter() - start
        rate = self.model.config.audio.sample_rate
        clipped = write_audio(target, wav, rate)
        self._taken[self._names[item]] = item  # not before: an input that fails leaves its name to another
        if clipped:
            odd = clipped > _MUCH * len(wav) and item.suffix.lower() == MEL_SUFFIX
            hint = " (is the mel natural logarithms of magnitudes?)" if odd else ""
            _complain(f"{target}: {clipped} of {len(wav)} samples beyond full scale were clipped{hint}")
        seconds = len(wav) / rate
        return f"{target}: {seconds:.2f} s of audio in {wall:.2f} s, {seconds / wall:.3g} x real time"

    def _target(self, item: Path) -> Path:
        name = self._names[item]
        target = self.out / name
        if first := self._taken.get(name):
            raise UserError(f"{item}: found the output name {name} taken by {first}, expected different stems")
        if target.resolve() in self._inputs:
            raise UserError(f"{item}: found its output {target} among the inputs, expected another --out")
        if target.is_dir():
            raise UserError(f"{item}: found a folder at {target}, expected a file to write")
        if target.exists() and not self.overwrite:
            raise UserError(f"{item}: found an existing {target}, expected none (--overwrite replaces it)")
        return target

    def _steps(self, item: Path) -> int:
        """Of the projection, unless told: none where the mel may be a mean, of another F0, or of another voice."""
        if self.projection is not None:
            return self.projection
        other = self.contours is not None or "speaker" in self.settings or item.suffix.lower() == MEL_SUFFIX
        return 0 if other or not possible(self.model.config.audio) else STEPS

    def _make_place(self, item: Path, target: Path) -> None:
        """Not before an input was read, so that a batch of bad ones leaves nothing; before the wait for the samples."""
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UserError(f"{item}: found a file in the way of {target.parent}, expected a folder") from None
        if target.parent != self.out:
            _complain(f"{item}: goes to {target}, another input has its stem")


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


def _require_order(checkpoint: str, argv: Sequence[str] | None) -> None:
    """Raise UserError, with the line to type, where the first word is what is to be spoken and not who speaks."""
    place = Path(checkpoint)
    if not looks_like_input(checkpoint) or place.is_dir() or is_weights(place):
        return
    words = list(sys.argv[1:] if argv is None else argv)
    words.insert(words.index(checkpoint) if checkpoint in words else 0, USUAL)
    line = shlex.join(["distill-synthesize", *words])
    raise UserError(f"{checkpoint}: found an input in the place of CHECKPOINT, expected a model before it: {line}")


def _complain(line: str) -> None:
    tqdm.write(f"distill-synthesize: {' '.join(line.split())}", file=sys.stderr)


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-synthesize", description=main.__doc__)
    parser.add_argument("checkpoint", type=str, nargs="?", help="a run folder, a file, or the name of shipped weights")
    parser.add_argument(
        "inputs", type=str, nargs="*", help="a recording, .npy mel (M, F) or (F, M), a folder, or bundled"
    )
    parser.add_argument("--out", type=str, help="folder for <stem>.wav, 16-bit PCM")
    parser.add_argument("--list", action="store_true", help="print what weights are shipped, and do nothing else")
    parser.add_argument("--seed", type=int, default=0, help="the noise is drawn from the seed and each input's stem")
    parser.add_argument("--temperature", type=float, default=1.0, help="scales the noise")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda or auto")
    methods = (AUTO, *SAMPLERS)
    parser.add_argument("--method", choices=methods, help="how a teacher samples (default: the fastest)")
    engines = (AUTO, *ENGINES)
    parser.add_argument("--engine", choices=engines, default=AUTO, help="of a student's flows; auto: fast")
    parser.add_argument("--speaker", type=str, help="name or index of the voice, for a model with several")
    parser.add_argument("--f0", type=str, help="F0 and voicing: Hz a frame, 0 unvoiced, or time and Hz; file or folder")
    parser.add_argument("--transpose", type=float, default=0.0, help="move F0 by so many semitones")
    parser.add_argument("--projection", type=int, help=_PROJECTION)
    parser.add_argument("--overwrite", action="store_true", help="replace outputs that exist")
    return parser
