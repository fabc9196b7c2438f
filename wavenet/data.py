"""Corpora -> clips -> hop-aligned training crops.

A clip counts T samples at the recipe's rate, the largest multiple of hop_length that its recording holds: what is left
at the end is cut, nothing is ever padded with zeros.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from wavenet.audio import read_audio, read_info, read_segment, resampled_length, seeks
from wavenet.config import AudioConfig, require
from wavenet.corpora import scan
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.manifest import Clip, is_prepared, read_manifest
from wavenet.pitch.contour import Pitch
from wavenet.splits import DEFAULT_SHARE, SPLITS, assign_splits

BUNDLED = "bundled"
_CACHE_SAMPLES = 32 * 2**20  # 128 MiB of float32 for each process that reads
_NAMED_PROBLEMS = 10


@dataclasses.dataclass
class Corpus:
    """Clips by split, the speakers' names (their place is the speaker id), and notes that the caller should print."""

    root: str
    train: list[Clip]
    dev: list[Clip]
    test: list[Clip]
    speakers: list[str]
    notes: list[str]

    @property
    def digest(self) -> str:
        """What the corpus consists of, wherever it lies: names, lengths, rates and splits of its clips."""
        clips = sorted((c.id, c.frames, c.sample_rate, c.split) for c in (*self.train, *self.dev, *self.test))
        return hashlib.sha256(repr(clips).encode()).hexdigest()[:16]


class Batch(NamedTuple):
    """wav (B, T) float32 in [-1, 1], mel (B, M, F) in nats with T = F * hop_length, speaker (B,) int64 or None.

    pitch: the recording's contour at the same frames, where a recipe asks for one.
    """

    wav: Tensor
    mel: Tensor
    speaker: Tensor | None
    pitch: Pitch | None = None


def corpus_folder(root: str) -> Path:
    """The path that a `root` setting means: the package's own recordings for `bundled`."""
    return Path(__file__).parent / "bundled" if root == BUNDLED else Path(root)


def open_corpus(root: str, audio: AudioConfig) -> Corpus:
    """Open `bundled`, a folder made by wavenet-prepare, or a raw corpus (wavenet.corpora; only headers are read).

    A raw corpus without split lists gets 2% of dev and of test clips, dealt as wavenet-prepare with its defaults does.
    Raises UserError when there is nothing usable to train on.
    """
    folder = corpus_folder(root)
    if folder.is_dir() and is_prepared(folder):
        clips, notes = read_manifest(folder, audio)
    else:
        clips, notes = _raw_clips(folder)
    clips, short = _long_enough(clips, LogMel.shortest(audio), audio)
    notes += short
    by_split = {name: [clip for clip in clips if clip.split == name] for name in SPLITS}
    if not by_split["train"]:
        raise UserError(f"{root}: found no clip to train on, expected at least one usable recording")
    notes += [f"no {name} clips" for name in ("dev", "test") if not by_split[name]]
    notes += _rate_notes(clips, audio)
    speakers = sorted({clip.speaker for clip in clips})
    return Corpus(root, by_split["train"], by_split["dev"], by_split["test"], speakers, notes)


def clip_length(clip: Clip, audio: AudioConfig) -> int:
    """T of a clip: samples at audio.sample_rate, cut to a multiple of hop_length."""
    length = resampled_length(clip.frames, clip.sample_rate, audio.sample_rate)
    return length - length % audio.hop_length


def load_clip(clip: Clip, audio: AudioConfig) -> Tensor:
    """Read a whole clip -> wav (T,) float32 at audio.sample_rate, T = clip_length(clip, audio)."""
    wav, info = read_audio(clip.path, audio.sample_rate)
    if (info.frames, info.sample_rate) != (clip.frames, clip.sample_rate):
        raise UserError(
            f"{clip.path}: found {info.frames} samples at {info.sample_rate} Hz, "
            f"expected {clip.frames} at {clip.sample_rate} Hz as when the corpus was opened"
        )
    return wav[: clip_length(clip, audio)]


class CropDataset(Dataset[Batch]):
    """dataset[step] -> Batch of random crops: a pure function of (seed, step), so that resuming needs no state.

    A clip is drawn in proportion to its duration, then a start on a frame boundary uniformly. The mel of a crop EQUALS
    the whole clip's mel at those frames: the crop is read with the margins that its first and last frames see. Clips
    shorter than a crop are left out (`notes` says so): they are never padded. `speakers` maps names to ids (their
    place); empty: no speaker ids. Only the crop is decoded where the file's rate is the recipe's and it `seeks`;
    other files are read whole and the last used kept, 128 MiB at most. Raises UserError when no clip is long enough.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        audio: AudioConfig,
        crop_length: int,
        batch_size: int,
        seed: int,
        speakers: Sequence[str] = (),
    ) -> None:
        hop = audio.hop_length
        require(crop_length % hop == 0, "train.crop_length", crop_length, f"a multiple of audio.hop_length = {hop}")
        require(seed >= 0, "train.seed", seed, "0 or more")
        self.audio, self.crop_length, self.batch_size, self.seed = audio, crop_length, batch_size, seed
        self.clips, self.notes = _long_enough(clips, max(crop_length, LogMel.shortest(audio)), audio)
        if not self.clips:
            raise UserError(
                f"train.crop_length: found {crop_length}, expected at most the longest of {len(clips)} clips"
            )
        self.lengths = [clip_length(clip, audio) for clip in self.clips]
        self._ends = np.cumsum(self.lengths)
        self._speaker_ids = {name: place for place, name in enumerate(speakers)}
        if unknown := {clip.speaker for clip in self.clips if speakers} - self._speaker_ids.keys():
            raise UserError(
                f"speakers: found {sorted(unknown)[0]!r} in the clips, expected one of {len(speakers)} known"
            )
        self._log_mel = LogMel(audio)
        self._mels_on_disk = all(clip.mel is not None for clip in self.clips)
        self._resampled: collections.OrderedDict[int, Tensor] = collections.OrderedDict()

    def __getitem__(self, step: int) -> Batch:
        crops = self.choose(step)
        margin = 0 if self._mels_on_disk else self._log_mel.margin
        ends = margin + self.crop_length
        stretches = torch.stack([self.stretch(clip, start - margin, start + ends) for clip, start in crops])
        wav = stretches[:, margin : margin + self.crop_length].contiguous()
        if self._mels_on_disk:
            mel = torch.stack([self._read_mel(clip, start) for clip, start in crops])
        else:
            mel = self._log_mel.of_padded(stretches)
        speaker = None
        if self._speaker_ids:
            speaker = torch.tensor([self._speaker_ids[self.clips[clip].speaker] for clip, _ in crops])
        return Batch(wav, mel, speaker)

    def choose(self, step: int) -> list[tuple[int, int]]:
        """The crops of a step: (place in `clips`, first sample), batch_size of them."""
        rng = np.random.default_rng([self.seed, step])
        places = np.searchsorted(self._ends, rng.integers(self._ends[-1], size=self.batch_size), side="right")
        hop = self.audio.hop_length
        starts = [hop * int(rng.integers((self.lengths[place] - self.crop_length) // hop + 1)) for place in places]
        return list(zip(places.tolist(), starts, strict=True))

    def stretch(self, place: int, first: int, last: int) -> Tensor:
        """Samples [first, last) of clip `place`, reflected beyond its ends as in LogMel."""
        inner_first, inner_last = max(first, 0), min(last, self.lengths[place])
        inner = self._read(place, inner_first, inner_last)
        return F.pad(inner[None], (inner_first - first, last - inner_last), mode="reflect")[0]

    def _read(self, place: int, first: int, last: int) -> Tensor:
        clip = self.clips[place]
        if clip.sample_rate == self.audio.sample_rate and seeks(clip.path):
            return read_segment(clip.path, first, last - first)
        wav = self._resampled.pop(place, None)
        if wav is None:
            wav = load_clip(clip, self.audio)
        self._resampled[place] = wav
        while len(self._resampled) > 1 and sum(map(len, self._resampled.values())) > _CACHE_SAMPLES:
            self._resampled.popitem(last=False)
        return wav[first:last]

    def _read_mel(self, place: int, start: int) -> Tensor:
        clip, hop = self.clips[place], self.audio.hop_length
        assert clip.mel is not None
        expected = (self.audio.n_mels, self.lengths[place] // hop)
        try:
            mel = np.load(clip.mel, mmap_mode="r")
        except (OSError, ValueError, EOFError):
            raise UserError(f"{clip.mel}: found an unreadable file, expected a mel of shape {expected}") from None
        if mel.shape != expected:
            raise UserError(f"{clip.mel}: found shape {mel.shape}, expected {expected}")
        return torch.from_numpy(mel[:, start // hop : (start + self.crop_length) // hop].astype(np.float32))


def _raw_clips(root: Path) -> tuple[list[Clip], list[str]]:
    found = scan(root)
    infos, problems, usable = {}, list(found.problems), []
    for recording in found.recordings:
        try:
            infos[recording.id] = read_info(recording.path)
            usable.append(recording)
        except UserError as error:
            problems.append(str(error))
    clips = [
        Clip(r.id, r.path, infos[r.id].frames, infos[r.id].sample_rate, r.speaker, r.text, r.split or "train")
        for r in (assign_splits(usable, DEFAULT_SHARE, DEFAULT_SHARE, seed=0) if usable else [])
    ]
    notes = [f"left out: {problem}" for problem in problems[:_NAMED_PROBLEMS]]
    if len(problems) > _NAMED_PROBLEMS:
        notes.append(f"left out: {len(problems) - _NAMED_PROBLEMS} more files (wavenet-prepare names each)")
    mixed = collections.Counter(note for info in infos.values() for note in info.notes)
    return clips, found.notes + notes + [f"{count} files: {note}" for note, count in mixed.items()]


def _long_enough(clips: Sequence[Clip], shortest: int, audio: AudioConfig) -> tuple[list[Clip], list[str]]:
    kept = [clip for clip in clips if clip_length(clip, audio) >= shortest]
    left_out = len(clips) - len(kept)
    return kept, [f"{left_out} of {len(clips)} clips are shorter than {shortest} samples: not used"] if left_out else []


def _rate_notes(clips: Sequence[Clip], audio: AudioConfig) -> list[str]:
    rates = collections.Counter(clip.sample_rate for clip in clips if clip.sample_rate != audio.sample_rate)
    return [
        f"{count} files at {rate} Hz: resampled to {audio.sample_rate} Hz on loading"
        for rate, count in sorted(rates.items())
    ]
