"""Pitch as the models use it: a fundamental frequency at every frame, also where nothing is voiced, and voicing.

And pitch as a user gives it: a file of F0 values, `read_contour`.
"""

from __future__ import annotations

from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from wavenet.config import AudioConfig
from wavenet.errors import UserError
from wavenet.pitch.tracker import F0Track

# Pitch of a recording without a voiced frame [Hz]: nothing of it is heard.
_NO_VOICE = 120.0
_LOWEST = 20.0  # F0 below it is no voice, rather its logarithm or a slip of units [Hz]


class Pitch(NamedTuple):
    """f0 (B, F) [Hz], positive everywhere; voiced (B, F) in [0, 1]. Frame i is the mel's: [i hop, (i + 1) hop)."""

    f0: Tensor
    voiced: Tensor

    def frames(self, first: int, last: int) -> Pitch:
        """The frames first, ..., last - 1."""
        return Pitch(self.f0[:, first:last], self.voiced[:, first:last])

    def transposed(self, semitones: float) -> Pitch:
        """Higher by `semitones`, f0 * 2^(semitones / 12)."""
        return Pitch(self.f0 * 2 ** (semitones / 12), self.voiced)


def filled(track: F0Track) -> Pitch:
    """A tracked contour as Pitch of one clip (1, F) float32: log f0 is interpolated through unvoiced stretches."""
    frames = np.arange(len(track.f0))
    f0 = np.full(len(frames), _NO_VOICE)
    if track.voiced.any():
        f0 = np.exp(np.interp(frames, frames[track.voiced], np.log(track.f0[track.voiced])))
    voiced = track.voiced.astype(np.float32)
    return Pitch(torch.from_numpy(f0.astype(np.float32))[None], torch.from_numpy(voiced)[None])


def bridged(log_f0: Tensor, voiced: Tensor) -> Tensor:
    """log_f0 (B, F), linear between the voiced frames around each unvoiced one, constant beyond the outermost."""
    frames = log_f0.shape[1]
    place = torch.arange(frames, device=log_f0.device).expand_as(log_f0)
    before = torch.where(voiced, place, -1).cummax(1).values
    after = torch.where(voiced, place, frames).flip(1).cummin(1).values.flip(1)
    before, after = torch.where(before < 0, after, before), torch.where(after == frames, before, after)
    before, after = before.clamp(0, frames - 1), after.clamp(0, frames - 1)  # nothing voiced: any value does
    weight = (place - before) / (after - before).clamp(min=1)
    return torch.lerp(log_f0.gather(1, before), log_f0.gather(1, after), weight.to(log_f0.dtype))


def read_contour(path: Path, frames: int, audio: AudioConfig) -> Pitch:
    """F0 from a file -> Pitch (1, F): .npy of (F,) or (N, 2), else text of one or two numbers a line.

    One column: Hz at each of the mel's frames, 0 where unvoiced. Two: time [s] and Hz, in any steps; a frame between
    two voiced values is voiced and takes its F0 linearly in log frequency. Raises UserError naming the file.
    """
    values = _read_numbers(path)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    expected = f"{frames} values in Hz, one a frame of the mel, or lines of time [s] and Hz"
    if values.ndim > 2 or values.size == 0 or (values.ndim == 2 and values.shape[1] != 2):
        raise UserError(f"{path}: found shape {values.shape}, expected {expected}")
    if not np.isfinite(values).all() or (values < 0).any():
        raise UserError(f"{path}: found negative or non-finite values, expected {expected}")
    if values.ndim == 2:
        values = _at_frames(path, values, frames, audio)
    elif len(values) != frames:
        raise UserError(f"{path}: found {len(values)} values, expected {expected}")
    if ((values > 0) & (values < _LOWEST)).any():
        raise UserError(
            f"{path}: found {values[values > 0].min():g} Hz, expected F0 of {_LOWEST:g} or more, 0 for none"
        )
    highest = audio.sample_rate / 2
    if (values >= highest).any():
        raise UserError(f"{path}: found {values.max():g} Hz, expected F0 below {highest:g}")
    return filled(F0Track(values, values > 0))


def _read_numbers(path: Path) -> npt.NDArray[np.float64]:
    if not path.is_file():
        raise UserError(f"{path}: found no such file, expected F0 values in Hz")
    try:
        if path.suffix.lower() == ".npy":
            # Mapped, so that a header that lies about its size is an error and not an allocation.
            stored = np.load(path, mmap_mode="r", allow_pickle=False)
            if not isinstance(stored, np.ndarray) or stored.dtype.kind not in "fiu":
                raise ValueError
            return np.asarray(stored, dtype=np.float64)
        lines = path.read_text(encoding="utf-8").replace(",", " ").splitlines()
        rows = [[float(value) for value in line.split()] for line in lines if line.strip()]
        return np.asarray(rows, dtype=np.float64)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (ValueError, EOFError, SyntaxError, TypeError, TokenError, UnicodeDecodeError):
        raise UserError(f"{path}: found something else, expected numbers: F0 in Hz, or time [s] and F0") from None


def _at_frames(path: Path, points: npt.NDArray[np.float64], frames: int, audio: AudioConfig) -> npt.NDArray[np.float64]:
    time, f0 = points.T
    if (np.diff(time) <= 0).any():
        raise UserError(f"{path}: found times that do not rise, expected each later than the one before")
    centres = (np.arange(frames) + 0.5) * audio.hop_length / audio.sample_rate
    after = np.searchsorted(time, centres).clip(0, len(time) - 1)
    before = (after - 1).clip(0)
    beside = (f0[before] > 0) & (f0[after] > 0) & (centres >= time[0]) & (centres <= time[-1])
    voiced = f0 > 0
    if not voiced.any():
        return np.zeros(frames)
    return np.where(beside, np.exp(np.interp(centres, time[voiced], np.log(f0[voiced]))), 0.0)
