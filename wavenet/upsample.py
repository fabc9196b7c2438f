"""Mel frames to conditioning at sample rate, and the one place where the interpolation between frames happens."""

from __future__ import annotations

import dataclasses
import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import UpsampleConfig
from wavenet.errors import UserError
from wavenet.standardised import MelInput


@dataclasses.dataclass(frozen=True)
class Conditioning:
    """Frame-rate features and the kernel that interpolates them.

    frames (B, C, F + 2): one replicated frame at either end. kernel (3, hop): the weights of the previous, own and next
    frame for each sample of a frame. Interpolation is linear along time and the same for all channels, so it commutes
    with any 1x1 projection without bias: networks project at frame rate, at 1/hop of the cost, and interpolate the
    result. signals (B, S, T), or None: what networks take at sample rate, such as a voice's source. whitening
    (B, 1 + order, F + 2), or None: the lattices of wavenet.prediction.
    """

    frames: Tensor
    kernel: Tensor
    signals: Tensor | None = None
    whitening: Tensor | None = None

    @property
    def length(self) -> int:
        """Number of samples T."""
        return (self.frames.shape[2] - 2) * self.kernel.shape[1]

    def window(self, first: int, last: int) -> Conditioning:
        """The frames first, ..., last - 1 alone, with their true neighbours."""
        hop = self.kernel.shape[1]
        signals = None if self.signals is None else self.signals[:, :, first * hop : last * hop]
        whitening = None if self.whitening is None else self.whitening[:, :, first : last + 2]
        return Conditioning(self.frames[:, :, first : last + 2], self.kernel, signals, whitening)

    def project(self, weight: Tensor) -> Conditioning:
        """Apply a 1x1 projection, weight (O, C), at frame rate."""
        return Conditioning(torch.matmul(weight, self.frames), self.kernel)

    def split(self, sizes: list[int]) -> list[Conditioning]:
        """Part the channels."""
        return [Conditioning(part, self.kernel) for part in self.frames.split(sizes, 1)]

    def at_samples(self) -> Tensor:
        """cond (B, C, T)."""
        return torch.matmul(self.frames.unfold(2, 3, 1), self.kernel).flatten(2)


def linear_kernel(hop_length: int) -> Tensor:
    """(3, hop): weights of the previous, own and next frame; linear between frame centres, (i + 1/2) hop."""
    place = (torch.arange(hop_length) + 0.5) / hop_length - 0.5
    return torch.stack([(-place).clamp(min=0), 1 - place.abs(), place.clamp(min=0)])


class Upsample(MelInput):
    """mel (B, M, F), speaker (B,) or None -> Conditioning of C channels.

    A small convolutional network at frame rate, then learned interpolation that starts as the linear one between frame
    centres, (i + 1/2) hop. The network sees `reach` frames to either side. Mels are standardised per band with the
    statistics of the training corpus (`set_statistics`), which travel in the weights.
    """

    def __init__(
        self, config: UpsampleConfig, n_mels: int, hop_length: int, speakers: int = 0, speaker_channels: int = 16
    ) -> None:
        super().__init__(n_mels)
        self.hop_length, self.speakers = hop_length, speakers
        self.channels = config.channels
        sizes = [n_mels] + [config.channels] * config.layers
        self.network = nn.Sequential(
            *(
                module
                for before, after in itertools.pairwise(sizes)
                for module in (
                    nn.Conv1d(before, after, config.kernel_size, padding="same", padding_mode="replicate"),
                    nn.LeakyReLU(0.2),
                )
            )
        )
        self.embedding = nn.Embedding(speakers, speaker_channels) if speakers else None
        self.voice = nn.Linear(speaker_channels, config.channels) if speakers else None
        self.kernel = nn.Parameter(linear_kernel(hop_length))

    def forward(self, mel: Tensor, speaker: Tensor | None = None) -> Conditioning:
        """Raises UserError when the mel or the speaker do not fit the model."""
        frames = self.network(self.standardised(mel))
        if self.embedding is not None and self.voice is not None:
            if speaker is None:
                raise UserError(f"speaker: found none, expected an index below {self.speakers} for each clip")
            if int(speaker.min()) < 0 or int(speaker.max()) >= self.speakers:
                raise UserError(f"speaker: found {speaker.tolist()}, expected 0 to {self.speakers - 1}")
            frames = frames + self.voice(self.embedding(speaker))[:, :, None]
        return Conditioning(F.pad(frames, (1, 1), mode="replicate"), self.kernel)
