"""Corpus layouts: a folder or a file list -> which recordings there are, by whom, with which text, in which split.

Nothing is decoded here; `path` may name a file that turns out to be missing or broken. Layouts: LJSpeech (metadata.csv
+ wavs/), VCTK (wav48*/ + txt/), LibriTTS (speaker/chapter/*.wav + .normalized.txt), a file list, any tree of .wav and
.flac.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePath
from typing import TypeVar

from wavenet.audio import AUDIO_SUFFIXES
from wavenet.errors import UserError

SPLITS = ("train", "dev", "test")
DEFAULT_SHARE = 0.02


@dataclasses.dataclass(frozen=True)
class Recording:
    """One file of a corpus. id: unique, a relative path without suffix; split: None where the corpus does not say."""

    id: str
    path: Path
    speaker: str
    text: str = ""
    split: str | None = None


@dataclasses.dataclass
class Scan:
    """What a corpus holds. notes: what the user should know; problems: one line for each file left out already here."""

    layout: str
    recordings: list[Recording]
    notes: list[str]
    problems: list[str]


R = TypeVar("R")


def scan(root: str | Path) -> Scan:
    """Find out the layout of `root` and list its recordings, sorted by id. Raises UserError when there are none."""
    root = Path(root)
    notes: list[str] = []
    layout, read = _layout(root)
    recordings, problems = _unique(read(root, notes))
    if not recordings:
        raise UserError(f"{root}: found no recordings, expected .wav or .flac files ({layout})")
    if root.is_dir():
        recordings = _honour_lists(root, recordings, notes)
    return Scan(layout, recordings, notes, problems)


def split_by_seed(ids: Sequence[str], dev: float, test: float, seed: int) -> dict[str, str]:
    """Deal ids to train, dev and test: a number of clips (1 or more) or a share (below 1, at least one clip).

    Ids are ranked by a hash of (seed, id): the order of listing does not matter, and added clips displace few.
    """
    counts = {name: _count(name, size, len(ids)) for name, size in (("test", test), ("dev", dev))}
    if sum(counts.values()) >= len(ids):
        if dev >= 1 or test >= 1:
            raise UserError(
                f"dev + test: found {sum(counts.values())} clips, expected fewer than the {len(ids)} there are"
            )
        counts = dict.fromkeys(counts, 0)
    ranked = sorted(ids, key=lambda name: hashlib.sha256(f"{seed}:{name}".encode()).digest())
    dealt = dict.fromkeys(ids, "train")
    for name, first in (("test", 0), ("dev", counts["test"])):
        dealt.update(dict.fromkeys(ranked[first : first + counts[name]], name))
    return dealt


def assign_splits(recordings: Sequence[Recording], dev: float, test: float, seed: int) -> list[Recording]:
    """Give every recording a split: the corpus's own lists where it has them, else `split_by_seed`."""
    open_ids = [recording.id for recording in recordings if recording.split is None]
    if not open_ids:
        return list(recordings)
    dealt = split_by_seed(open_ids, dev, test, seed)
    return [dataclasses.replace(r, split=r.split or dealt[r.id]) for r in recordings]


def _count(name: str, size: float, total: int) -> int:
    if size < 0 or (size >= 1 and size != int(size)):
        raise UserError(f"{name}: found {size}, expected a share below 1 or a whole number of clips")
    return int(size) if size >= 1 or size == 0 else max(1, round(size * total))


def _layout(root: Path) -> tuple[str, Callable[[Path, list[str]], list[Recording]]]:
    if root.is_file():
        if root.suffix.lower() in AUDIO_SUFFIXES:
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
    present = {_bare(path.relative_to(root / "wavs")): path for path in _audio_files(root / "wavs")}
    recordings = []
    for fields in _rows(root / "metadata.csv"):
        name = _bare(fields[0])
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
            recordings.append(Recording(_bare(relative), path, speaker, _text(path.with_suffix(".txt"))))
    if by_folder:
        notes.append("speakers are named after the first folder level")
    return recordings


def _read_filelist(root: Path, notes: list[str]) -> list[Recording]:
    speaker = root.stem
    recordings = []
    for fields in _rows(root):
        text, name = (fields[1] if len(fields) > 1 else ""), (fields[2] if len(fields) > 2 else "")
        recordings.append(Recording(_bare(fields[0]), root.parent / fields[0], name or speaker, text))
    return recordings


def _vctk_audio(root: Path) -> Path | None:
    return next((root / name for name in ("wav48_silence_trimmed", "wav48") if (root / name).is_dir()), None)


def _audio_files(root: Path) -> Iterable[Path]:
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(files):
            if name.lower().endswith(AUDIO_SUFFIXES) and not name.startswith("."):
                yield Path(folder, name)


def _rows(path: Path) -> list[list[str]]:
    """Lines of fields parted by |, blank lines left out. No quoting: LJSpeech's texts hold lone quotation marks."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found bytes that are no UTF-8 ({error.reason}), expected a text file") from None
    return [[field.strip() for field in line.split("|")] for line in lines if line.split("|")[0].strip()]


def _text(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8", errors="replace").split()) if path.is_file() else ""


def _bare(path: str | PurePath) -> str:
    """A relative path as an id: no suffix of an audio file, no way up or to the root, forward slashes."""
    path = PurePath(path)
    parts = [part for part in path.parts if part not in ("..", path.anchor)]
    name = "/".join(parts)
    return name[: -len(path.suffix)] if path.suffix.lower() in AUDIO_SUFFIXES else name


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


def _honour_lists(root: Path, recordings: list[Recording], notes: list[str]) -> list[Recording]:
    """Splits by train.txt, dev.txt, test.txt (ids or paths; what follows a | is ignored) where the corpus has them."""
    lists = {name: root / f"{name}.txt" for name in SPLITS if (root / f"{name}.txt").is_file()}
    if not lists:
        return recordings
    ids = _names(root, recordings)
    splits: dict[str, str] = {}
    for name, path in lists.items():
        wanted = [_bare(fields[0]) for fields in _rows(path)]
        found = {ids[line] for line in wanted if line in ids}
        if wanted and not found:
            raise UserError(f"{path}: found no line that names a recording of this corpus, expected ids or paths")
        if len(wanted) > len(found):
            notes.append(f"{path.name}: {len(wanted) - len(found)} lines name no recording of this corpus")
        for recording_id in sorted(found):
            if splits.setdefault(recording_id, name) != name:
                raise UserError(
                    f"{path}: found {recording_id}, expected it in one list only (also in {splits[recording_id]}.txt)"
                )
    rest = None if "train" in lists else "train"
    kept = [dataclasses.replace(r, split=splits.get(r.id, rest)) for r in recordings if r.id in splits or rest]
    if len(kept) < len(recordings):
        listed = ", ".join(path.name for path in lists.values())
        notes.append(f"{len(recordings) - len(kept)} recordings are in none of {listed}: not used")
    return kept


def _names(root: Path, recordings: Sequence[Recording]) -> dict[str, str]:
    """Every way to name a recording -> its id: id, path from the root, and file name where that is unique."""
    names: dict[str, str] = {}
    ambiguous = set()
    for recording in recordings:
        stem = recording.path.stem
        if names.setdefault(stem, recording.id) != recording.id:
            ambiguous.add(stem)
    for stem in ambiguous:
        del names[stem]
    for recording in recordings:
        names[_bare(recording.path.relative_to(root))] = recording.id
        names[recording.id] = recording.id
    return names
