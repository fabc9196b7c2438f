"""Training crops from recordings played at another speed: one speaker's voice at pitches that she never used."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wavenet.audio import resample
from wavenet.data import Batch
from wavenet.features import LogMel
from wavenet.pitch.contour import Pitch
from wavenet.pitch.labels import PitchedCrops
from wavenet.pitch.net import F_MAX, F_MIN

_SHARE = 0.5  # of the crops that are played at another speed
_EDGE = 256  # samples that the resampler sees beyond either end of a crop and its margins
_UNIT = 1000  # speeds are multiples of 1 / 1000: the resampler takes whole rates
_STREAM = 1  # sets the draws of speeds apart from those of crops


class Played(Dataset[Batch]):
    """The batches of `pitched`, half of the crops played at a speed between `slowest` and `fastest`.

    Speeds are even in log. At speed s, F0 is s times the label, formants move with it, and frame i lies s times as far
    from the crop's beginning; the mel is that of the resampled audio. As pure in (seed, step) as `pitched` is. A crop
    keeps its own speed where the clip is too short for another, or F0 would leave the network's range.
    """

    def __init__(self, pitched: PitchedCrops, slowest: float, fastest: float) -> None:
        self.pitched, self.slowest, self.fastest = pitched, slowest, fastest
        self._log_mel = LogMel(pitched.crops.audio)

    def __getitem__(self, step: int) -> Batch:
        batch = self.pitched[step]
        assert batch.pitch is not None
        for row, ((place, start), speed) in enumerate(
            zip(self.pitched.crops.choose(step), self.speeds(step), strict=True)
        ):
            if speed == 1 or (crop := self._crop(place, start, speed)) is None:
                continue
            wav, mel, pitch = crop
            batch.wav[row], batch.mel[row] = wav, mel
            batch.pitch.f0[row], batch.pitch.voiced[row] = pitch.f0[0], pitch.voiced[0]
        return batch

    def speeds(self, step: int) -> list[float]:
        """A speed for each crop of a step, 1 for its own."""
        rng = np.random.default_rng([self.pitched.crops.seed, step, _STREAM])
        size = self.pitched.crops.batch_size
        drawn = np.exp(rng.uniform(math.log(self.slowest), math.log(self.fastest), size))
        return np.where(rng.random(size) < _SHARE, np.round(drawn * _UNIT) / _UNIT, 1.0).tolist()

    def _crop(self, place: int, start: int, speed: float) -> tuple[Tensor, Tensor, Pitch] | None:
        """wav (T,), mel (M, F) and pitch (1, F) of a crop at `speed`, from about sample `start` of its clip on."""
        crops, hop = self.pitched.crops, self.pitched.crops.audio.hop_length
        spare = crops.lengths[place] - math.ceil(speed * crops.crop_length)
        if spare < 0:
            return None
        before = self._log_mel.margin + _EDGE
        first = min(start, spare) - round(speed * before)
        # Sample n of what is played is sample first + speed n of the clip.
        frames = np.arange(crops.crop_length // hop)
        pitch = self._pitch(place, (first + speed * (before + (frames + 0.5) * hop)) / hop - 0.5, speed)
        if ((pitch.voiced > 0) & ((pitch.f0 < F_MIN) | (pitch.f0 > F_MAX))).any():
            return None
        whole = crops.crop_length + 2 * before
        stretch = crops.stretch(place, first, first + math.ceil(speed * whole) + 1)
        played = resample(stretch, round(speed * _UNIT), _UNIT)[:whole]
        wav = played[before : before + crops.crop_length]
        return wav, self._log_mel.of_padded(played[None, _EDGE : whole - _EDGE])[0], pitch

    def _pitch(self, place: int, frames: np.ndarray, speed: float) -> Pitch:
        """The label (1, F) between its frames: F0 linear in log, times the speed; voicing of the nearest."""
        label = self.pitched.labels.pitch(self.pitched.crops.clips[place])
        f0, voiced = label.f0[0].double().numpy(), label.voiced[0]
        found = speed * np.exp(np.interp(frames, np.arange(len(f0)), np.log(f0)))
        nearest = np.clip(np.round(frames).astype(int), 0, len(f0) - 1)
        return Pitch(torch.from_numpy(found).to(label.f0.dtype)[None], voiced[torch.from_numpy(nearest)][None])
