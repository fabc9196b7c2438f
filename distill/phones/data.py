"""Crops of recordings with the phone that is spoken at every frame."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from distill.phones.alignment import Segment, frame_phones
from wavenet.config import AudioConfig
from wavenet.data import CropDataset, clip_length
from wavenet.manifest import Clip


class PhoneBatch(NamedTuple):
    """wav (B, T) float32 in [-1, 1], phones (B, F) int64: the place in PHONES at every frame, T = F hop_length."""

    wav: Tensor
    phones: Tensor


class PhoneCrops(Dataset[PhoneBatch]):
    """The crops of a CropDataset over aligned clips, labelled: as it, a pure function of (seed, step)."""

    def __init__(self, crops: CropDataset, alignments: Mapping[str, Sequence[Segment]]) -> None:
        self.crops = crops
        self.labels = [clip_phones(clip, alignments, crops.audio) for clip in crops.clips]

    def __getitem__(self, step: int) -> PhoneBatch:
        hop, frames = self.crops.audio.hop_length, self.crops.crop_length // self.crops.audio.hop_length
        chosen = [(place, start // hop) for place, start in self.crops.choose(step)]
        phones = torch.stack([self.labels[place][first : first + frames] for place, first in chosen])
        return PhoneBatch(self.crops[step].wav, phones)


def clip_phones(clip: Clip, alignments: Mapping[str, Sequence[Segment]], audio: AudioConfig) -> Tensor:
    """The labels of a whole aligned clip as `load_clip` reads it, (F,) int64."""
    return frame_phones(alignments[clip.id], clip_length(clip, audio) // audio.hop_length, audio)
