"""Pitch of whole clips, tracked and resolved, computed once and kept, and the crops that carry it."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import multiprocessing
import os
import signal
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset
from tqdm import tqdm

from wavenet import features
from wavenet.config import AudioConfig
from wavenet.data import Batch, CropDataset, load_clip
from wavenet.errors import UserError
from wavenet.manifest import Clip, fingerprint
from wavenet.pitch import contour, resolution, tracker
from wavenet.pitch.contour import Pitch, filled

LABELS = "labels.npz"  # in a run folder
_SAVE_EVERY = 1000  # clips
_AT_ONCE = 8  # clips handed to a process
_QUIET_INTERVAL = 30.0  # seconds between lines of a bar whose output goes to a file

_Floats = npt.NDArray[np.float32]


class Labels:
    """Contours of clips, by clip id: (2, F) float32 [Hz], as tracked and as resolved, 0 where unvoiced."""

    def __init__(self, contours: Mapping[str, _Floats]) -> None:
        self._contours = contours

    def track(self, clip: Clip) -> tracker.F0Track:
        """The contour as tracked. Raises UserError for a clip that was not labelled."""
        return self._track(clip, 0)

    def pitch(self, clip: Clip, resolve: bool = False) -> Pitch:
        """The whole clip's pitch (1, F), as `filled` gives it; as tracked, or as the voice moves (`resolved`)."""
        return filled(self._track(clip, 1 if resolve else 0))

    def _track(self, clip: Clip, row: int) -> tracker.F0Track:
        if clip.id not in self._contours:
            raise UserError(f"{clip.path}: found no pitch label, expected one of {len(self._contours)} labelled clips")
        f0 = self._contours[clip.id][row].astype(np.float64)
        return tracker.F0Track(f0, f0 > 0)


class PitchedCrops(Dataset[Batch]):
    """The batches of `crops`, each with the pitch (B, F) of exactly its frames; as pure in (seed, step) as those are.

    resolve: the pitch is the voice's, and not the tracker's mean of it. Raises UserError when a clip has no label, or
    one of another number of frames.
    """

    def __init__(self, crops: CropDataset, labels: Labels, resolve: bool = False) -> None:
        self.crops, self.labels, self.resolve = crops, labels, resolve
        for clip, length in zip(crops.clips, crops.lengths, strict=True):
            found, expected = len(labels.track(clip).f0), length // crops.audio.hop_length
            if found != expected:
                raise UserError(f"{clip.path}: found a pitch label of {found} frames, expected {expected}")

    def __getitem__(self, step: int) -> Batch:
        hop = self.crops.audio.hop_length
        frames = self.crops.crop_length // hop
        parts = [
            self.labels.pitch(self.crops.clips[place], self.resolve).frames(start // hop, start // hop + frames)
            for place, start in self.crops.choose(step)
        ]
        pitch = Pitch(*(torch.cat(values) for values in zip(*parts, strict=True)))
        return self.crops[step]._replace(pitch=pitch)


def label(clips: Sequence[Clip], audio: AudioConfig, cache: Path, workers: int = 0) -> Labels:
    """Track every clip that `cache` (an .npz) does not hold yet, with a bar, and add it there.

    workers: processes that track; 0: this one. What an interruption finds done is kept. A label belongs to the clip's
    id, length and rate, to the analysis, and to the code that makes it: it is made again where one of them differs.
    Raises UserError for a recording that cannot be read.
    """
    settings = _settings(audio)
    stored = _read(cache, settings)
    missing = [clip for clip in clips if _key(clip) not in stored]
    if missing:
        try:
            for done, (clip, f0) in enumerate(_tracked(missing, audio, workers), 1):
                stored[_key(clip)] = f0
                if done % _SAVE_EVERY == 0:
                    _write(cache, settings, stored)
        finally:
            _write(cache, settings, stored)
    return Labels({clip.id: stored[_key(clip)] for clip in clips})


def _tracked(clips: Sequence[Clip], audio: AudioConfig, workers: int) -> Iterator[tuple[Clip, _Floats]]:
    """Each clip with its contour, in order."""
    work = functools.partial(_contour, audio=audio)
    interval = 0.2 if sys.stderr.isatty() else _QUIET_INTERVAL
    with contextlib.ExitStack() as stack:
        contours: Iterator[_Floats] = map(work, clips)
        if workers:
            # Not forked: torch's threads do not survive that.
            pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _leave_ctrl_c_to_the_parent)
            stack.callback(pool.shutdown, cancel_futures=True)
            contours = pool.map(work, clips, chunksize=_AT_ONCE)
        bar = stack.enter_context(
            tqdm(total=len(clips), desc="pitch labels", unit="clip", mininterval=interval, dynamic_ncols=True)
        )
        for clip, f0 in zip(clips, contours, strict=True):
            yield clip, f0
            bar.update()


def _contour(clip: Clip, audio: AudioConfig) -> _Floats:
    wav = load_clip(clip, audio)
    found = tracker.track(wav, audio.sample_rate, audio.hop_length)
    whole = wav[None, : len(found.f0) * audio.hop_length]
    voice = resolution.resolved(filled(found), features.LogMel(audio)(whole), audio).f0[0].numpy()
    return np.stack([found.f0, np.where(found.voiced, voice, 0.0)]).astype(np.float32)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _key(clip: Clip) -> str:
    return f"{clip.id}|{clip.frames}|{clip.sample_rate}"


def _settings(audio: AudioConfig) -> str:
    """What a contour depends on beside the recording."""
    code = b"".join(Path(str(module.__file__)).read_bytes() for module in (tracker, contour, resolution, features))
    return f"{fingerprint(audio)} {hashlib.sha256(code).hexdigest()[:16]}"


def _read(cache: Path, settings: str) -> dict[str, _Floats]:
    """Contours by key, none where there is no such file or it was made under other settings."""
    if not cache.is_file():
        return {}
    try:
        with np.load(cache, allow_pickle=False) as found:
            if str(found["settings"]) != settings:
                return {}
            parts = np.split(found["f0"], np.cumsum(found["frames"])[:-1], axis=1)
            return dict(zip(found["keys"].tolist(), parts, strict=True))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise UserError(f"{cache}: found a damaged file, expected pitch labels (remove it: it is made again)") from None


def _write(cache: Path, settings: str, contours: Mapping[str, _Floats]) -> None:
    """Whole or not at all."""
    if not contours:
        return
    temporary = cache.with_name(f".{cache.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez(
            file,
            settings=np.array(settings),
            keys=np.array(list(contours)),
            frames=np.array([f0.shape[1] for f0 in contours.values()]),
            f0=np.concatenate(list(contours.values()), axis=1),
        )
    os.replace(temporary, cache)
