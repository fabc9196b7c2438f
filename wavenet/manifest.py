"""A prepared corpus on disk: manifest.csv (a row a clip), manifest.json (how it was made), wavs/, perhaps mels/."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wavenet.arguments import to_dict
from wavenet.config import AudioConfig
from wavenet.errors import UserError
from wavenet.splits import SPLITS

FORMAT = "wavenet-corpus 1"
COLUMNS = ("id", "path", "speaker", "split", "frames", "sample_rate", "text")


@dataclasses.dataclass(frozen=True)
class Clip:
    """One recording to train on or to evaluate with. frames and sample_rate [Hz] are the file's own.

    mel: file of the log-mel (M, F) float32, made beforehand with the audio settings that the corpus was opened with.
    """

    id: str
    path: Path
    frames: int
    sample_rate: int
    speaker: str
    text: str
    split: str
    mel: Path | None = None


def fingerprint(audio: AudioConfig) -> str:
    """Short name of the audio settings: mels are interchangeable exactly when it is equal."""
    return hashlib.sha256(json.dumps(to_dict(audio), sort_keys=True).encode()).hexdigest()[:16]


def wav_path(clip_id: str) -> str:
    """Where a prepared folder keeps a clip, relative to it."""
    return f"wavs/{clip_id}.flac"


def mel_path(clip_id: str) -> str:
    """Where a prepared folder keeps a mel, relative to it."""
    return f"mels/{clip_id}.npy"


def is_prepared(root: Path) -> bool:
    """Whether `root` is a folder that wavenet-prepare made (complete or not)."""
    return (root / "manifest.json").is_file() and read_metadata(root).get("format") == FORMAT


def read_metadata(root: Path) -> dict[str, Any]:
    """manifest.json as a mapping, empty when it is some other file."""
    try:
        metadata = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return metadata if isinstance(metadata, dict) else {}


def read_manifest(root: Path, audio: AudioConfig) -> tuple[list[Clip], list[str]]:
    """Clips of a prepared folder and notes. Raises UserError when it is unfinished, damaged, or lacks files."""
    metadata = read_metadata(root)
    path = root / "manifest.csv"
    if not metadata.get("complete") or not path.is_file():
        raise UserError(f"{root}: found an unfinished preparation, expected a complete one (run wavenet-prepare again)")
    notes = []
    mels = bool(metadata.get("mel_cache"))
    if mels and metadata.get("audio_fingerprint") != fingerprint(audio):
        notes.append("the prepared mels were made with other audio settings: not used")
        mels = False
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: found columns {reader.fieldnames}, expected {', '.join(COLUMNS)}")
        clips = [_clip(root, path, row, mels) for row in reader]
    return clips, notes


def write_manifest(root: Path, clips: Sequence[Clip]) -> None:
    """Write manifest.csv, whole or not at all; paths relative to `root`."""
    temporary = root / f".manifest.csv.{os.getpid()}.tmp"
    with temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for clip in clips:
            path = clip.path.relative_to(root).as_posix()
            writer.writerow([clip.id, path, clip.speaker, clip.split, clip.frames, clip.sample_rate, clip.text])
    os.replace(temporary, root / "manifest.csv")


def write_metadata(root: Path, metadata: dict[str, Any]) -> None:
    """Write manifest.json, whole or not at all."""
    temporary = root / f".manifest.json.{os.getpid()}.tmp"
    temporary.write_text(json.dumps(metadata, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, root / "manifest.json")


def _clip(root: Path, manifest: Path, row: dict[str, Any], mels: bool) -> Clip:
    name = row["id"]
    try:
        frames, sample_rate = int(row["frames"]), int(row["sample_rate"])
    except (TypeError, ValueError):
        raise UserError(
            f"{manifest}: found a damaged row for {name}, expected whole numbers of frames and Hz"
        ) from None
    if row["split"] not in SPLITS:
        raise UserError(f"{manifest}: found split {row['split']!r} for {name}, expected one of {', '.join(SPLITS)}")
    path, mel = root / row["path"], (root / mel_path(name) if mels else None)
    for file in (path, mel):
        if file is not None and not file.is_file():
            raise UserError(f"{file}: found no such file, expected it by {manifest}")
    return Clip(name, path, frames, sample_rate, row["speaker"], row["text"] or "", row["split"], mel)
