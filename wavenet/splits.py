"""Which recordings are trained on, developed on and tested on: by lists of names, or dealt by a seed."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

from wavenet.audio import READABLE
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


def rows(path: Path) -> list[list[str]]:
    """Lines of fields parted by |, blank lines left out. No quoting: LJSpeech's texts hold lone quotation marks."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: found bytes that are no UTF-8 ({error.reason}), expected a text file") from None
    return [[field.strip() for field in line.split("|")] for line in lines if line.split("|")[0].strip()]


def bare(path: str | PurePath) -> str:
    """A relative path as an id: no suffix of an audio file, no way up or to the root, forward slashes."""
    path = PurePath(path)
    parts = [part for part in path.parts if part not in ("..", path.anchor)]
    name = "/".join(parts)
    return name[: -len(path.suffix)] if path.suffix.lower() in READABLE else name


def own_lists(root: Path) -> dict[str, list[Path]]:
    """train.txt, dev.txt and test.txt of a corpus folder, those that there are, as `honour_lists` takes them."""
    return {name: [path] for name in SPLITS if (path := root / f"{name}.txt").is_file()}


def honour_lists(lists: Mapping[str, Sequence[Path]], recordings: list[Recording], notes: list[str]) -> list[Recording]:
    """Recordings with the split of the lists that name them: by id, by path from the list's folder, or by file name.

    What follows a | in a line is ignored. Recordings in no list are for training; where there is a list for training
    they are left out. `notes` gains what the user should know. Raises UserError for a list that cannot be read or that
    names nothing of the corpus, and for a recording in the lists of two splits.
    """
    if not lists:
        return recordings
    splits: dict[str, str] = {}
    for name, paths in lists.items():
        for path in paths:
            for recording_id in _listed(path, recordings, notes):
                if splits.setdefault(recording_id, name) != name:
                    raise UserError(
                        f"{path}: found {recording_id}, expected it in one list only (also in "
                        f"{', '.join(other.name for other in lists[splits[recording_id]])})"
                    )
    rest = None if "train" in lists else "train"
    kept = [dataclasses.replace(r, split=splits.get(r.id, rest)) for r in recordings if r.id in splits or rest]
    if len(kept) < len(recordings):
        listed = ", ".join(path.name for paths in lists.values() for path in paths)
        notes.append(f"{len(recordings) - len(kept)} recordings are in none of {listed}: not used")
    return kept


def _listed(path: Path, recordings: Sequence[Recording], notes: list[str]) -> list[str]:
    if not path.is_file():
        raise UserError(f"{path}: found no such file, expected a list of recordings, a line each")
    ids = _names(path.parent, recordings)
    wanted = [bare(fields[0]) for fields in rows(path)]
    found = {ids[line] for line in wanted if line in ids}
    if wanted and not found:
        raise UserError(f"{path}: found no line that names a recording of this corpus, expected ids or paths")
    if len(wanted) > len(found):
        notes.append(f"{path.name}: {len(wanted) - len(found)} lines name no recording of this corpus")
    return sorted(found)


def _names(folder: Path, recordings: Sequence[Recording]) -> dict[str, str]:
    """Every way to name a recording -> its id: id, path from `folder`, and file name where that is unique."""
    names: dict[str, str] = {}
    ambiguous = set()
    for recording in recordings:
        stem = recording.path.stem
        if names.setdefault(stem, recording.id) != recording.id:
            ambiguous.add(stem)
    for stem in ambiguous:
        del names[stem]
    absolute = os.path.abspath(folder)
    for recording in recordings:
        names[bare(os.path.relpath(os.path.abspath(recording.path), absolute))] = recording.id
        names[recording.id] = recording.id
    return names
