"""Corpus layouts: a folder or a file list -> which recordings there are, by whom, with which text, in which split.

Nothing is decoded here; `path` may name a file that turns out to be missing or broken. Layouts: LJSpeech (metadata.csv
+ wavs/), VCTK (wav48*/ + txt/), LibriTTS (speaker/chapter/*.wav + .normalized.txt), a file list, any tree of .wav,
.flac and what else libsndfile reads; of a recording with and without loss, what is without.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from wavenet.audio import READABLE, has_original
from wavenet.errors import UserError
from wavenet.splits import Recording, bare, honour_lists, own_lists, rows


@dataclasses.dataclass
class Scan:
    """What a corpus holds. notes: what the user should know; problems: one line for each file left out already here."""

    layout: str
    recordings: list[Recording]
    notes: list[str]
    problems: list[str]


R = TypeVar("R")


def scan(*roots: str | Path, lists: Mapping[str, Sequence[Path]] | None = None) -> Scan:
    """Find out the layout of each root and list the recordings of all, sorted by id.

    lists: split -> files that say which recordings are in it, for all roots together and in the place of their own
    (`wavenet.splits.honour_lists`). Raises UserError when there is no recording in a root.
    """
    notes: list[str] = []
    problems: list[str] = []
    layouts: dict[str, None] = {}
    everything: list[Recording] = []
    for root in map(Path, roots):
        layout, read = _layout(root)
        recordings, twice = _unique(read(root, notes))
        if not recordings:
            raise UserError(f"{root}: found no recordings, expected {', '.join(READABLE)} files ({layout})")
        layouts[layout] = None
        problems += twice
        everything += honour_lists(own_lists(root), recordings, notes) if not lists else recordings
    recordings, twice = _unique(everything)
    if lists:
        recordings = honour_lists(lists, recordings, notes)
    return Scan(" + ".join(layouts), recordings, notes, problems + twice)


def _layout(root: Path) -> tuple[str, Callable[[Path, list[str]], list[Recording]]]:
    if root.is_file():
        if root.suffix.lower() in READABLE:
            raise UserError(f"{root}: found a single recording, expected a corpus folder or a list of files")
        return "file list", _read_filelist
    if not root.is_dir():
        raise UserError(f"{root}: found no such folder, expected a corpus folder, a list of files, or `bundled`")
    if (root / "metadata.csv").is_file() and (root / "wavs").is_dir():
        return "LJSpeech", _read_ljspeech
    if _vctk_audio(root) is not None:
        return "VCTK", _read_vctk
    return "folder tree", _read_tree


def _read_ljspeech(root: Path, notes: list[str]) -> list[Recording]:
    speaker = root.resolve().name
    present = {bare(path.relative_to(root / "wavs")): path for path in _audio_files(root / "wavs")}
    recordings = []
    for fields in rows(root / "metadata.csv"):
        name = bare(fields[0])
        text = next((field for field in reversed(fields[1:]) if field), "")
        recordings.append(Recording(name, present.get(name, root / "wavs" / f"{name}.wav"), speaker, text))
    unlisted = len(present.keys() - {recording.id for recording in recordings})
    if unlisted:
        notes.append(f"{unlisted} files in wavs/ are not in metadata.csv: not used")
    return recordings


def _read_vctk(root: Path, notes: list[str]) -> list[Recording]:
    folder = _vctk_audio(root)
    assert folder is not None
    recordings, second = [], 0
    for path in _audio_files(folder):
        if path.stem.endswith("_mic2"):
            second += 1
            continue
        name, speaker = path.stem.removesuffix("_mic1"), path.parent.name
        recordings.append(Recording(name, path, speaker, _text(root / "txt" / speaker / f"{name}.txt")))
    if second:
        notes.append(f"{second} recordings of the second microphone: not used")
    return recordings


def _read_tree(root: Path, notes: list[str]) -> list[Recording]:
    """LibriTTS where a .normalized.txt lies beside the file; else the first folder below the root names the speaker."""
    recordings, by_folder = [], False
    for path in _audio_files(root):
        relative = path.relative_to(root)
        normalised = path.with_suffix(".normalized.txt")
        if normalised.is_file():
            recordings.append(Recording(path.stem, path, path.parent.parent.name, _text(normalised)))
        else:
            by_folder |= len(relative.parts) > 1
            speaker = relative.parts[0] if len(relative.parts) > 1 else root.resolve().name
            recordings.append(Recording(bare(relative), path, speaker, _text(path.with_suffix(".txt"))))
    if by_folder:
        notes.append("speakers are named after the first folder level")
    return recordings


def _read_filelist(root: Path, notes: list[str]) -> list[Recording]:
    speaker = root.stem
    recordings = []
    for fields in rows(root):
        text, name = (fields[1] if len(fields) > 1 else ""), (fields[2] if len(fields) > 2 else "")
        recordings.append(Recording(bare(fields[0]), root.parent / fields[0], name or speaker, text))
    return recordings


def _vctk_audio(root: Path) -> Path | None:
    return next((root / name for name in ("wav48_silence_trimmed", "wav48") if (root / name).is_dir()), None)


def _audio_files(root: Path) -> Iterable[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            path = Path(folder, name)
            if name.lower().endswith(READABLE) and not name.startswith(".") and not has_original(path):
                yield path


def _text(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8", errors="replace").split()) if path.is_file() else ""


def _unique(recordings: Sequence[Recording]) -> tuple[list[Recording], list[str]]:
    first: dict[str, Recording] = {}
    problems = []
    for recording in recordings:
        name = str(recording.path)
        printable = name.encode(errors="backslashreplace").decode()
        if name != printable:  # os.walk keeps the odd bytes of such a name as lone surrogates
            problems.append(f"{printable}: found a file name that is not UTF-8, expected it renamed")
            continue
        kept = first.setdefault(recording.id, recording)
        if kept is not recording:
            problems.append(
                f"{recording.path}: found the id {recording.id} a second time, expected it once ({kept.path})"
            )
    return sorted(first.values(), key=lambda recording: recording.id), problems
