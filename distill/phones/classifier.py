"""Raw audio -> phone at every frame, by strided convolutions: the eyes of the perceptual loss."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.phones.alignment import PHONES
from wavenet.config import AudioConfig, require
from wavenet.emphasis import pre_emphasis

_NOISE_FLOOR = 1e-3  # power that counts as silence inside the network, where speech has unit power


@dataclasses.dataclass(frozen=True)
class PhoneConfig:
    """Strided layers from samples down to mel frames, then `context_layers` dilated ones at frame rate.

    channels, strides and kernel_sizes have one entry a strided layer; the product of the strides is hop_length, and
    kernel - stride is even, so that an output is centred on its own samples. Dilations are 1, 2, 3, ... dropout acts
    after each context layer. gain: 1 / rms of the pre-emphasised speech; null measures it on the training clips.
    level_jitter [nats] and snr_range [dB] vary level and noise in training, so that features do not hinge on them.
    """

    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    channels: list[int] = dataclasses.field(default_factory=lambda: [48, 64, 96, 128])
    strides: list[int] = dataclasses.field(default_factory=lambda: [4, 4, 4, 4])
    kernel_sizes: list[int] = dataclasses.field(default_factory=lambda: [64, 8, 8, 8])
    context_layers: int = 3
    context_kernel_size: int = 3
    dropout: float = 0.4
    pre_emphasis: float = 0.9
    gain: float | None = None
    level_jitter: float = 0.4
    snr_range: tuple[float, float] = (15.0, 55.0)

    def __post_init__(self) -> None:
        for name in ("channels", "strides", "kernel_sizes"):
            values = getattr(self, name)
            require(bool(values) and all(value > 0 for value in values), name, values, "positive integers")
            require(len(values) == len(self.strides), name, values, f"{len(self.strides)} entries, as strides has")
        hop, product = self.audio.hop_length, math.prod(self.strides)
        require(product == hop, "strides", self.strides, f"a product of audio.hop_length = {hop}")
        centred = all(k >= s and (k - s) % 2 == 0 for k, s in zip(self.kernel_sizes, self.strides, strict=True))
        require(centred, "kernel_sizes", self.kernel_sizes, "each at least its stride, and by an even number more")
        require(self.context_layers >= 0, "context_layers", self.context_layers, "0 or more")
        odd = self.context_kernel_size > 0 and self.context_kernel_size % 2 == 1
        require(odd, "context_kernel_size", self.context_kernel_size, "an odd number")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 <= dropout < 1")
        require(0 <= self.pre_emphasis < 1, "pre_emphasis", self.pre_emphasis, "0 <= pre_emphasis < 1")
        require(self.gain is None or self.gain > 0, "gain", self.gain, "a positive number or null")
        require(self.level_jitter >= 0, "level_jitter", self.level_jitter, "0 or more")
        require(self.snr_range[0] <= self.snr_range[1], "snr_range", list(self.snr_range), "[low, high] in dB")


class PhoneScores(NamedTuple):
    """logits (B, P, F) over the classes of PHONES, and the features (B, C, T / stride) of every layer in order."""

    logits: Tensor
    features: list[Tensor]


class PhoneClassifier(nn.Module):
    """wav (B, T) in [-1, 1] -> PhoneScores; frame i of the logits stands for samples [i hop, (i + 1) hop).

    Plain audio comes in; pre-emphasis and a fixed gain bring it to about unit rms, so level is neither normalised
    away nor decisive. Every layer is a convolution, normalised over its channels at each moment, and leaky rectified:
    twice differentiable almost everywhere, and no layer mixes moments beyond its kernel. Edges are padded with zeros.
    """

    def __init__(self, config: PhoneConfig) -> None:
        super().__init__()
        self.config = config
        self.strided = nn.ModuleList()
        inputs = 1
        for channels, stride, kernel in zip(config.channels, config.strides, config.kernel_sizes, strict=True):
            self.strided.append(_Layer(inputs, channels, kernel, stride))
            inputs = channels
        self.context = nn.ModuleList(
            _Layer(inputs, inputs, config.context_kernel_size, dilation=1 + place)
            for place in range(config.context_layers)
        )
        self.dropout = nn.Dropout1d(config.dropout)
        self.output = nn.Conv1d(inputs, len(PHONES), 1)

    @property
    def gain(self) -> float:
        """What emphasised audio is multiplied with; a configuration without one counts as 1."""
        return 1.0 if self.config.gain is None else self.config.gain

    def forward(self, wav: Tensor) -> PhoneScores:
        """(B, T), T at least a hop; samples beyond the last whole frame are left out."""
        length = wav.shape[-1] - wav.shape[-1] % self.config.audio.hop_length
        hidden = pre_emphasis(wav[:, :length], self.config.pre_emphasis, self.gain)[:, None]
        features = []
        for layer in self.strided:
            hidden = layer(hidden)
            features.append(hidden)
        for layer in self.context:
            features.append(layer(hidden))
            hidden = hidden + self.dropout(features[-1])
        return PhoneScores(self.output(hidden), features)

    @property
    def receptive_field(self) -> int:
        """Samples that one frame of the logits depends on (one more before them through the pre-emphasis)."""
        field, rate = 1, self.config.audio.hop_length
        for place in range(self.config.context_layers):
            field += (self.config.context_kernel_size - 1) * (1 + place)
        field = (field - 1) * rate + 1
        for stride, kernel in zip(reversed(self.config.strides), reversed(self.config.kernel_sizes), strict=True):
            rate //= stride
            field += (kernel - 1) * rate
        return field + (1 if self.config.pre_emphasis else 0)

    @property
    def macs_per_sample(self) -> int:
        """Multiplications and additions for a sample of audio, rounded: everything, frame-rate layers included."""
        total, rate = 0.0, 1.0
        for layer in [*self.strided, *self.context, self]:
            convolution = layer.output if layer is self else layer.convolution
            rate /= convolution.stride[0]
            total += rate * convolution.weight.numel()
        return round(total)


class _Layer(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        padding = (dilation * (kernel_size - 1) + 1 - stride) // 2
        self.convolution = nn.Conv1d(inputs, outputs, kernel_size, stride, padding, dilation)
        self.scale = nn.Parameter(torch.ones(outputs, 1))
        self.offset = nn.Parameter(torch.zeros(outputs, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.convolution(hidden)
        hidden = hidden - hidden.mean(1, keepdim=True)
        power = hidden.square().mean(1, keepdim=True) + _NOISE_FLOOR
        return F.leaky_relu(hidden * power.rsqrt() * self.scale + self.offset, 0.1)
