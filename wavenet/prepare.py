"""wavenet-prepare: check a corpus file by file, resample it, split it, and write it as 16-bit FLAC with a manifest.

An interrupted run is taken up where it stopped: files already written and whole are kept, and none is overwritten.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
from tqdm import tqdm

from wavenet.arguments import parse_arguments, to_dict
from wavenet.audio import read_audio, read_info, resampled_length, write_audio
from wavenet.config import AudioConfig, require
from wavenet.corpora import Scan, scan
from wavenet.data import corpus_folder
from wavenet.errors import DONE, SOME_FAILED, UserError, command
from wavenet.features import LogMel
from wavenet.manifest import (
    FORMAT,
    Clip,
    fingerprint,
    is_prepared,
    mel_path,
    read_metadata,
    wav_path,
    write_manifest,
    write_metadata,
)
from wavenet.splits import DEFAULT_SHARE, SPLITS, Recording, assign_splits

SILENCE_PEAK = 1e-3  # -60 dBFS


@dataclasses.dataclass(frozen=True)
class Rules:
    """Which recordings are usable: min_seconds or longer, no more than max_clipped of its samples at full scale."""

    min_seconds: float = 0.5
    max_clipped: float = 0.01

    def __post_init__(self) -> None:
        require(self.min_seconds >= 0, "min_seconds", self.min_seconds, "0 or more")
        require(0 <= self.max_clipped <= 1, "max_clipped", self.max_clipped, "a share of the samples, 0 to 1")


@dataclasses.dataclass
class Report:
    """What became of the files: frames written by id, one line for each file left out, and how often each note fell."""

    frames: dict[str, int] = dataclasses.field(default_factory=dict)
    left_out: list[str] = dataclasses.field(default_factory=list)
    notes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


@command("wavenet-prepare")
def main(argv: Sequence[str] | None = None) -> int:
    """Entry point: 0 done, 1 some files left out (each named on stderr), 2 a user's mistake or nothing usable."""
    options = parse_arguments(_parser(), argv)
    rules = Rules(options.min_seconds, options.max_clipped)
    require(options.seed >= 0, "seed", options.seed, "0 or more")
    roots, out = [corpus_folder(root) for root in options.root], Path(options.out)
    lists = {name: files for name in SPLITS if (files := [Path(file) for file in options[f"{name}_list"] or []])}
    found = _scan_raw(roots, out, lists)
    if options.speaker:
        found.recordings = [dataclasses.replace(r, speaker=options.speaker) for r in found.recordings]
    assign_splits(found.recordings, options.dev, options.test, options.seed)  # sizes that cannot be are refused now
    identity = {
        "format": FORMAT,
        "source": {
            "name": " + ".join(root.resolve().name for root in roots),
            "layout": found.layout,
            "ids": _digest(r.id for r in found.recordings),
        },
        "audio": to_dict(options.audio),
        "audio_fingerprint": fingerprint(options.audio),
        "rules": dataclasses.asdict(rules),
    }
    split = {"seed": options.seed, "dev": options.dev, "test": options.test}
    if lists:
        split["lists"] = _digest(f"{recording.id}|{recording.split}" for recording in found.recordings)
    mel_cache = _claim(out, identity, split) or options.cache_mel
    report = _write_all(found, out, options.audio, rules, mel_cache)
    if not report.frames:
        raise UserError(
            f"{', '.join(options.root)}: found no usable recording among {len(found.recordings)}, expected at least one"
        )
    clips = _clips(found.recordings, report.frames, out, options)
    write_manifest(out, clips)
    counts = {name: sum(clip.split == name for clip in clips) for name in SPLITS}
    hours = sum(clip.frames for clip in clips) / options.audio.sample_rate / 3600
    counts |= {"speakers": len({clip.speaker for clip in clips}), "left_out": len(report.left_out)}
    results = {"counts": counts, "hours": hours, "mel_cache": mel_cache, "complete": True}
    write_metadata(out, identity | split | results)
    _print_summary(out, found, report, counts, hours)
    return SOME_FAILED if report.left_out else DONE


def prepare_recording(
    recording: Recording, out: Path, audio: AudioConfig, rules: Rules, log_mel: LogMel | None
) -> tuple[int, list[str]]:
    """Check one recording, write it below `out` unless it is there, and its mel if log_mel is given -> frames, notes.

    Raises UserError naming the file, what was found and what was expected when the recording is to be left out.
    """
    info = read_info(recording.path)
    frames = resampled_length(info.frames, info.sample_rate, audio.sample_rate)
    shortest = max(rules.min_seconds, LogMel.shortest(audio) / audio.sample_rate)
    if frames < shortest * audio.sample_rate:
        seconds = info.frames / info.sample_rate
        raise UserError(f"{recording.path}: found {seconds:.3f} s, expected at least {shortest:.3f} s")
    target = out / wav_path(recording.id)
    written, notes = _whole_frames(target), []
    if written is None:
        notes = _write(recording.path, target, audio, rules)
    elif written != frames:
        raise UserError(f"{target}: found {written} samples of an earlier recording, expected {frames} (remove it)")
    mel = out / mel_path(recording.id)
    if log_mel is not None and (written is None or not mel.is_file()):
        _write_mel(target, mel, log_mel)
    return frames, notes


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="wavenet-prepare", description=__doc__)
    parser.add_argument(
        "--root", type=str, nargs="+", required=True, help="corpus folders, lists of files, or `bundled`"
    )
    parser.add_argument("--out", type=str, required=True, help="new folder, or one that an interrupted run left")
    parser.add_argument(
        "--dev", type=float, default=DEFAULT_SHARE, help="clips to develop on: a share, or a number from 1"
    )
    parser.add_argument(
        "--test", type=float, default=DEFAULT_SHARE, help="clips to test on: a share, or a number from 1"
    )
    parser.add_argument("--speaker", type=str, help="who speaks in all of them (default: as the layout says)")
    for name in SPLITS:
        what = f"which recordings are {name}: lists of ids or paths, in the place of the corpus's own"
        parser.add_argument(f"--{name}_list", type=str, nargs="+", help=what)
    parser.add_argument("--seed", type=int, default=0, help="of the split, where the corpus brings no lists of its own")
    parser.add_argument("--min_seconds", type=float, default=Rules.min_seconds, help="leave out shorter recordings")
    parser.add_argument(
        "--max_clipped",
        type=float,
        default=Rules.max_clipped,
        help="leave out more than this share of samples at full scale",
    )
    parser.add_argument("--cache-mel", action="store_true", help="write the mel of every clip beside it")
    parser.add_class_arguments(AudioConfig, "audio")
    return parser


def _scan_raw(roots: Sequence[Path], out: Path, lists: Mapping[str, Sequence[Path]]) -> Scan:
    for root in roots:
        if root.is_dir() and is_prepared(root):
            raise UserError(f"{root}: found a prepared corpus, expected recordings that are not prepared yet")
        if root.is_dir() and root.resolve() in (out.resolve(), *out.resolve().parents):
            raise UserError(f"{out}: found a folder inside the corpus, expected one outside of {root}")
    return scan(*roots, lists=lists)


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def _claim(out: Path, identity: dict[str, Any], split: dict[str, Any]) -> bool:
    """Make `out` ours, or raise UserError if it holds anything else; return whether it already keeps mels.

    The split may still change while the preparation is unfinished: the audio does not depend on it.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: found a file, expected a folder or a new name")
    if not out.exists() or not any(out.iterdir()):
        out.mkdir(parents=True, exist_ok=True)
        write_metadata(out, identity | {"complete": False})
        return False
    if not is_prepared(out):
        raise UserError(f"{out}: found a folder with other files, expected an empty or new one")
    metadata = read_metadata(out)
    fixed = identity | split if metadata.get("complete") else identity
    for key, value in fixed.items():
        if metadata.get(key) != value:
            raise UserError(
                f"{out}: found another corpus or other settings there ({key} {metadata.get(key)!r}), "
                f"expected {value!r} or a new folder"
            )
    return bool(metadata.get("mel_cache"))


def _write_all(found: Scan, out: Path, audio: AudioConfig, rules: Rules, mel_cache: bool) -> Report:
    report = Report()
    log_mel = LogMel(audio) if mel_cache else None
    for problem in found.problems:
        _leave_out(report, problem)
    for recording in tqdm(found.recordings, unit="file", disable=None):
        try:
            report.frames[recording.id], notes = prepare_recording(recording, out, audio, rules, log_mel)
        except UserError as error:
            _leave_out(report, str(error))
            continue
        for note in notes:
            kind = note.split(":")[0]
            report.notes[kind] += 1
            if kind != note:
                tqdm.write(f"kept: {recording.path}: {note}", file=sys.stderr)
    return report


def _leave_out(report: Report, problem: str) -> None:
    report.left_out.append(problem)
    tqdm.write(f"left out: {problem}", file=sys.stderr)


def _write(path: Path, target: Path, audio: AudioConfig, rules: Rules) -> list[str]:
    wav, info = read_audio(path, audio.sample_rate)
    peak, clipped = float(wav.abs().max()), info.full_scale / info.frames
    if peak < SILENCE_PEAK:
        raise UserError(f"{path}: found silence (peak {peak:.1e}), expected a peak of at least {SILENCE_PEAK:.0e}")
    if clipped > rules.max_clipped:
        raise UserError(f"{path}: found {clipped:.1%} of its samples clipped, expected at most {rules.max_clipped:.1%}")
    target.parent.mkdir(parents=True, exist_ok=True)
    over = write_audio(target, wav, audio.sample_rate)
    return info.notes + ([f"cut to full scale in writing: {over} samples"] if over else [])


def _whole_frames(target: Path) -> int | None:
    """Length of a file written before, or None when there is none that can be decoded to its end."""
    try:
        return read_audio(target)[1].frames if target.is_file() else None
    except UserError:
        return None


def _write_mel(wav_file: Path, target: Path, log_mel: LogMel) -> None:
    wav, _ = read_audio(wav_file)
    mel = log_mel(wav[None, : len(wav) - len(wav) % log_mel.audio.hop_length])[0]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            np.save(file, mel.numpy())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def _clips(recordings: Sequence[Recording], frames: dict[str, int], out: Path, options: Any) -> list[Clip]:
    usable = [recording for recording in recordings if recording.id in frames]
    rate = options.audio.sample_rate
    return [
        Clip(r.id, out / wav_path(r.id), frames[r.id], rate, r.speaker, r.text, r.split or "train")
        for r in assign_splits(usable, options.dev, options.test, options.seed)
    ]


def _print_summary(out: Path, found: Scan, report: Report, counts: dict[str, int], hours: float) -> None:
    print(f"{found.layout}, {len(found.recordings)} recordings, {counts['speakers']} speakers -> {out}")
    for note in found.notes:
        print(f"  {note}")
    for note, times in sorted(report.notes.items()):
        print(f"  {times} files: {note}")
    print(
        f"  {len(report.frames)} clips, {hours:.2f} h: "
        + ", ".join(f"{counts[name]} {name}" for name in SPLITS)
        + f"; {counts['left_out']} left out"
    )
