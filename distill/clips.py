"""Held-out recordings for an evaluation: which, read and checked before anything is sampled."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from wavenet.audio import READABLE, has_original, read_info
from wavenet.config import AudioConfig, require
from wavenet.data import load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.likelihood import clip_speaker
from wavenet.manifest import Clip


class NamedClip(NamedTuple):
    """A recording (T,) and its name; speaker (1,) int64 is handed on to the systems where there is one.

    text: what is said, where it is known; the word error rate needs it.
    """

    name: str
    wav: Tensor
    speaker: Tensor | None = None
    text: str = ""


def choose_clips(data: str, split: str | None, count: int, audio: AudioConfig) -> tuple[list[Clip], list[str]]:
    """At most `count` held-out clips, and a line for each file that is none; split None: test clips, dev without any.

    A folder with recordings directly inside is no corpus: all of it counts as held out. Raises UserError for no clip.
    """
    folder = Path(data)
    found_there = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [path for path in found_there if path.suffix.lower() in READABLE and not has_original(path)]
    if files and split is None:
        found, problems = [], []
        for path in files[:count]:
            try:
                info = read_info(path)
                found.append(Clip(path.stem, path, info.frames, info.sample_rate, "", "", "test"))
            except UserError as error:
                problems.append(str(error))
        return found, problems
    corpus = open_corpus(data, audio)
    for note in corpus.notes:
        print(f"{data}: {note}", file=sys.stderr)
    clips = {"test": corpus.test, "dev": corpus.dev, None: corpus.test or corpus.dev}[split][:count]
    if not clips:
        raise UserError(f"{data}: found no {split or 'test or dev'} clips, expected at least one")
    return clips, []


def read_clips(clips: Sequence[Clip], models: Sequence[Any]) -> tuple[list[Clip], list[NamedClip], list[str]]:
    """Every clip read and checked before anything is sampled: those that can be used, their sound, other clips' faults.

    Models of several speakers must agree on their names. Raises UserError when they do not.
    """
    several = [model.config for model in models if model.config.speakers]
    for config in several:
        first, found = several[0].speaker_names, config.speaker_names
        require(found == first, "speakers", found, f"the first model's {first}")
    audio, shortest = models[0].config.audio, LogMel.shortest(models[0].config.audio)
    used, named, problems = [], [], []
    for clip in clips:
        try:
            wav = load_clip(clip, audio)
            if len(wav) < shortest:
                raise UserError(f"{clip.path}: found {len(wav)} samples, expected at least {shortest}")
            named.append(NamedClip(clip.id, wav, clip_speaker(clip, several[0]) if several else None, clip.text))
            used.append(clip)
        except UserError as error:
            problems.append(str(error))
    return used, named, problems
