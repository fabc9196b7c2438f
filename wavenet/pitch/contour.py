"""Pitch as the models use it: a fundamental frequency at every frame, also where nothing is voiced, and voicing."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavenet.pitch.tracker import F0Track

# Pitch of a recording without a voiced frame [Hz]: nothing of it is heard.
_NO_VOICE = 120.0


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
