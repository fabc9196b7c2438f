"""Level and mel statistics of a corpus: what a model's input scaling is set from."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wavenet.config import AudioConfig
from wavenet.data import Clip, load_clip
from wavenet.emphasis import pre_emphasis
from wavenet.errors import UserError
from wavenet.features import LogMel

_CLIPS = 64


def corpus_statistics(clips: Sequence[Clip], audio: AudioConfig, coefficient: float) -> tuple[float, Tensor, Tensor]:
    """gain = 1 / rms of the pre-emphasised speech, and mean (M,) and std (M,) of each mel band [nats].

    Measured on at most 64 clips spread evenly over the list. Raises UserError when all of them are silent.
    """
    log_mel, power, count, mels = LogMel(audio), 0.0, 0, []
    for clip in clips[:: max(1, -(-len(clips) // _CLIPS))]:
        wav = load_clip(clip, audio)[None]
        emphasised = pre_emphasis(wav, coefficient)
        power, count = power + float(emphasised.double().square().sum()), count + wav.shape[1]
        mels.append(log_mel(wav)[0])
    if power == 0.0:
        raise UserError(f"training clips: found {len(clips)} clips of silence, expected speech")
    mel = torch.cat(mels, 1)
    return (count / power) ** 0.5, mel.mean(1), mel.std(1).clamp(min=1e-3)
