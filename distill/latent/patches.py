"""Recordings -> log-mel patches of equal length, batches of them, and patches joined to one mel again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from wavenet.config import AudioConfig, require
from wavenet.data import load_clip
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.manifest import Clip


class PatchBatch(NamedTuple):
    """patches (B, M, F) [nats]."""

    patches: Tensor


def cut(mel: Tensor, frames: int, step: int | None = None) -> Tensor:
    """mel (M, T) -> patches (n, M, frames), one every `step` frames (side by side by default); the rest is dropped."""
    return mel.unfold(1, frames, frames if step is None else step).transpose(0, 1).contiguous()


def load_patches(clips: Sequence[Clip], audio: AudioConfig, frames: int) -> Tensor:
    """All patches of whole clips, side by side: (n, M, frames) float32 [nats].

    Raises UserError where no clip is as long as a patch.
    """
    log_mel, found = LogMel(audio), []
    for clip in clips:
        mel = log_mel(load_clip(clip, audio)[None])[0]
        if mel.shape[1] >= frames:
            found.append(cut(mel, frames))
    if not found:
        raise UserError(f"model.frames: found {frames}, expected at most the longest of {len(clips)} clips")
    return torch.cat(found)


class PatchBatches(Dataset[PatchBatch]):
    """dataset[step] -> batch_size patches drawn with replacement: a pure function of (seed, step)."""

    def __init__(self, patches: Tensor, batch_size: int, seed: int) -> None:
        require(seed >= 0, "train.seed", seed, "0 or more")
        self.patches, self.batch_size, self.seed = patches, batch_size, seed

    def __getitem__(self, step: int) -> PatchBatch:
        places = np.random.default_rng([self.seed, step]).integers(len(self.patches), size=self.batch_size)
        return PatchBatch(self.patches[torch.from_numpy(places)])


def overlap_add(patches: Tensor, step: int) -> Tensor:
    r"""Patches (n, M, F) that begin every `step` <= F frames -> one mel (M, (n - 1) step + F).

    mel(f) = sum_i w(f - i step) patch_i(f - i step) / sum_i w(f - i step), w a triangle that is nowhere 0: in
    the domain of logarithms, so that levels cross over in decibels. Patches cut from one mel give that mel back.
    """
    count, bands, frames = patches.shape
    require(0 < step <= frames, "step", step, f"1 to {frames} frames, the length of a patch")
    ramp = torch.arange(1, frames + 1, dtype=patches.dtype, device=patches.device)
    window = torch.minimum(ramp, ramp.flip(0))
    total = patches.new_zeros(bands, (count - 1) * step + frames)
    weight = patches.new_zeros(total.shape[1])
    for place, patch in enumerate(patches):
        where = slice(place * step, place * step + frames)
        total[:, where] += window * patch
        weight[where] += window
    return total / weight
