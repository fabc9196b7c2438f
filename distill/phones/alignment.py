"""Which phone is spoken when: forced alignment of a recording with its text by pocketsphinx, kept in one file a corpus.

Phones are CMU's (ARPAbet) without stress, and SIL for silence and noises. English only: the acoustic model and the
dictionary are those that come with pocketsphinx. Alignment works at 16 kHz in frames of 10 ms.
"""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from wavenet.audio import read_audio
from wavenet.config import AudioConfig
from wavenet.data import Corpus
from wavenet.errors import UserError
from wavenet.manifest import Clip

SILENCE = "SIL"
PHONES = (
    SILENCE,
    *[
        "AA",
        "AE",
        "AH",
        "AO",
        "AW",
        "AY",
        "B",
        "CH",
        "D",
        "DH",
        "EH",
        "ER",
        "EY",
        "F",
        "G",
        "HH",
        "IH",
        "IY",
        "JH",
        "K",
        "L",
        "M",
        "N",
        "NG",
        "OW",
        "OY",
        "P",
        "R",
        "S",
        "SH",
        "T",
        "TH",
        "UH",
        "UW",
        "V",
        "W",
        "Y",
        "Z",
        "ZH",
    ],
)
"""The classes of the classifier; a phone's place is its class."""

RATE = 16000
_FRAME = 160
_WINDOW = 410  # what a frame of pocketsphinx's features sees [samples], from 160 i on
_PADDINGS = ((0, 0), (20, 20), (0, 20))
_SIBILANTS, _VOICELESS = ("S", "Z", "SH", "ZH", "CH", "JH"), ("P", "T", "K", "F", "TH")
_NAMED = 5


class Segment(NamedTuple):
    """One phone: its name, first frame and number of frames, of 10 ms."""

    phone: str
    start: int
    frames: int


class Unalignable(ValueError):
    """Why a recording has no alignment: a word that is not in the dictionary, or text and sound that do not fit."""


def words(text: str) -> list[str]:
    """A text as the dictionary spells it: lower case, no accents, no punctuation but apostrophes inside words."""
    plain = unicodedata.normalize("NFKD", text.lower()).replace("\u2019", "'")
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter))
    found = (word.strip("'") for word in re.findall(r"[\w']+", plain))
    return [word for word in found if word]


class Aligner:
    """Forced alignment. Raises UserError where pocketsphinx is not installed."""

    def __init__(self) -> None:
        try:
            import pocketsphinx
        except ImportError:
            install = "pip install 'parallel-wavenet-distillation[eval]'"
            raise UserError(f"phone labels: found no pocketsphinx, expected it installed ({install})") from None
        path = pocketsphinx.get_model_path
        self._decoder = pocketsphinx.Decoder(
            hmm=path("en-us/en-us"), dict=path("en-us/cmudict-en-us.dict"), lm=None, loglevel="FATAL"
        )

    def align(self, wav: Tensor, text: str) -> list[Segment]:
        """wav (T,) in [-1, 1] at 16 kHz and its text -> the phones in order, without gaps.

        A possessive that the dictionary lacks is its noun and S, Z or IH Z. Raises Unalignable, naming any other word
        that is not there, or when text and recording do not fit together.
        """
        spoken = words(text)
        if not spoken:
            raise Unalignable("no text")
        self._teach(spoken)
        pcm = (wav.clamp(-1, 1) * 32767).round().to(torch.int16)
        # A clip cut close to its words may leave the search no path to its end: it gets one through silence around it.
        for before, after in _PADDINGS:
            padded = F.pad(pcm, (before * _FRAME, after * _FRAME)).numpy().tobytes()
            found = self._two_passes(padded, " ".join(spoken))
            if found:
                return _cut(found, before, len(wav) // _FRAME)
        raise Unalignable("text and recording do not fit together")

    def _two_passes(self, pcm: bytes, text: str) -> list[Segment]:
        """Words, then phones inside them; [] where the search finds no path."""
        try:
            self._decoder.set_align_text(text)
            self._search(pcm)
            self._decoder.set_alignment()
            self._search(pcm)
            phones = list(self._decoder.get_alignment().phones())
        except RuntimeError:  # how pocketsphinx says that the search failed
            return []
        return [Segment(p.name if p.name in PHONES else SILENCE, p.start, p.duration) for p in phones]

    def _search(self, pcm: bytes) -> None:
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()

    def _teach(self, spoken: Sequence[str]) -> None:
        """Add the possessives that are missing; raise Unalignable for any other missing word."""
        for word in dict.fromkeys(spoken):
            if self._decoder.lookup_word(word) is not None:
                continue
            noun = self._decoder.lookup_word(word.removesuffix("'s")) if word.endswith("'s") else None
            if noun is None:
                raise Unalignable(f"the word {word!r} is not in the dictionary")
            self._decoder.add_word(word, f"{noun} {plural_sound(noun.split()[-1])}")


def plural_sound(last: str) -> str:
    """How 's sounds after the phone `last`: IH Z after a sibilant, S after a voiceless phone, else Z."""
    return "IH Z" if last in _SIBILANTS else "S" if last in _VOICELESS else "Z"


def frame_phones(segments: Sequence[Segment], frames: int, audio: AudioConfig) -> Tensor:
    """The class at every mel frame, (F,) int64: the phone at the middle of the frame's samples [i hop, (i + 1) hop).

    Frame k of the alignment stands for the middle of the 25.6 ms that it sees, 10 k + 12.8 ms.
    """
    labels = torch.tensor([PHONES.index(s.phone) for s in segments for _ in range(s.frames)])
    middle = (torch.arange(frames) + 0.5) * audio.hop_length * (RATE / audio.sample_rate)
    nearest = ((middle - _WINDOW / 2) / _FRAME).round().long()
    return labels[nearest.clamp(0, len(labels) - 1)]


def align_corpus(corpus: Corpus, folder: Path) -> tuple[dict[str, list[Segment]], list[str]]:
    """Alignments of every clip that has one, by id, and notes on those that have none.

    They are kept in folder/<digest of the corpus>.jsonl, a line a clip, written as they are made: interrupted work goes
    on where it stopped. Raises UserError when no clip has a text or none could be aligned.
    """
    clips = [*corpus.train, *corpus.dev, *corpus.test]
    with_text = [clip for clip in clips if clip.text.strip()]
    if not with_text:
        raise UserError(f"{corpus.root}: found no texts, expected the words of every recording (such as metadata.csv)")
    path = folder / f"{corpus.digest}.jsonl"
    kept = _read(path)
    missing = [clip for clip in with_text if (clip.id, clip.text) not in kept]
    if missing:
        aligner = Aligner()
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            for clip in tqdm(missing, desc="aligning phones", unit="clip", dynamic_ncols=True):
                line = _aligned(aligner, clip)
                file.write(json.dumps(line) + "\n")
                file.flush()
                kept[clip.id, clip.text] = line
    lines = {clip.id: kept[clip.id, clip.text] for clip in with_text}
    found = {name: [Segment(*s) for s in line["phones"]] for name, line in lines.items() if "phones" in line}
    problems = [f"{name}: {line['problem']}" for name, line in lines.items() if "problem" in line]
    problems += [f"{clip.id}: no text" for clip in clips if not clip.text.strip()]
    if not found:
        raise UserError(f"{corpus.root}: found no clip that fits its text ({problems[0]}), expected English speech")
    notes = [f"{len(found)} of {len(clips)} clips are aligned with their texts ({path})"]
    if problems:
        shown = "; ".join(problems[:_NAMED]) + ("; ..." if len(problems) > _NAMED else "")
        notes.append(f"{len(problems)} clips not used: {shown}")
    return found, notes


def cache_folder() -> Path:
    """Where alignments are kept unless told otherwise: the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "parallel-wavenet-distillation" / "phones"


def _aligned(aligner: Aligner, clip: Clip) -> dict[str, Any]:
    wav, _ = read_audio(clip.path, RATE)
    line: dict[str, Any] = {"id": clip.id, "text": clip.text}
    try:
        return line | {"phones": aligner.align(wav, clip.text)}
    except Unalignable as error:
        return line | {"problem": str(error)}


def _read(path: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """The lines of a file of alignments by (id, text); one that was cut short is made again."""
    if not path.is_file():
        return {}
    kept = {}
    content = path.read_text(encoding="utf-8")
    for text in content.splitlines():
        try:
            line = json.loads(text)
            kept[line["id"], line["text"]] = line
        except (ValueError, KeyError, TypeError):
            continue
    if content and not content.endswith("\n"):  # the next line must not be glued to the broken one
        with path.open("a", encoding="utf-8") as file:
            file.write("\n")
    return kept


def _cut(segments: Sequence[Segment], before: int, frames: int) -> list[Segment]:
    """Without the silence put around: `before` frames at the beginning, and all from frame before + `frames` on."""
    cut = []
    for phone, start, length in segments:
        first, last = max(start - before, 0), min(start + length - before, frames)
        if last > first:
            cut.append(Segment(phone, first, last - first))
    return cut
