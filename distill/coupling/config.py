"""Settings of the coupling flow."""

from __future__ import annotations

import dataclasses
from typing import Literal

from wavenet.config import AudioConfig, StackConfig, UpsampleConfig, require


@dataclasses.dataclass(frozen=True)
class FlowConfig:
    """A RealNVP on audio squeezed by `squeeze`: so many neighbouring samples are the channels of one step in time.

    couplings: steps of coupling and mixing (invertible 1x1, or a reversal of the channels). After every early_every of
    them, from the signal on, early_channels channels are noise already and take no further part; 0 channels: one scale.
    stack: the centred network of each coupling, in squeezed time. linear_prediction: order of the predictor read off
    the mel (wavenet/prediction.py), whose residual the couplings model; 0: none. bits: of the recordings, whose cells
    likelihoods are of. dequantization: what noise fills the cells in training and in held-out likelihoods, uniform or
    that of a flow of its own, whose network is `dequantizer`. gain: 1 / rms of the pre-emphasised speech; null measures
    it on the training clips.
    """

    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    squeeze: int = 8
    couplings: int = 8
    early_every: int = 4
    early_channels: int = 2
    mixing: Literal["invertible", "permutation"] = "invertible"
    stack: StackConfig = dataclasses.field(default_factory=lambda: StackConfig(1, 7, 3))
    upsample: UpsampleConfig = dataclasses.field(default_factory=UpsampleConfig)
    noise: Literal["logistic", "normal"] = "normal"
    linear_prediction: int = 0
    pre_emphasis: float = 0.9
    gain: float | None = None
    log_scale_range: tuple[float, float] = (-7.0, 5.0)
    bits: int = 16
    dequantization: Literal["uniform", "variational"] = "uniform"
    dequantizer: StackConfig = dataclasses.field(default_factory=lambda: StackConfig(1, 5, 2, 32, 64, 32))
    speakers: int = 0
    speaker_names: list[str] = dataclasses.field(default_factory=list)
    speaker_channels: int = 16

    def __post_init__(self) -> None:
        hop, size = self.audio.hop_length, self.squeeze
        require(size > 1 and hop % size == 0, "squeeze", size, f"2 or more, and a divisor of audio.hop_length = {hop}")
        for name in ("couplings", "early_every", "speaker_channels"):
            require(getattr(self, name) > 0, name, getattr(self, name), "a positive integer")
        leave = self.early_channels * ((self.couplings - 1) // self.early_every)
        fits = self.early_channels >= 0 and size - leave >= 2
        expected = f"0 or more, so that of squeeze = {size} channels 2 are left for every coupling"
        require(fits, "early_channels", self.early_channels, expected)
        odd = self.stack.kernel_size % 2 == 1
        require(odd, "stack.kernel_size", self.stack.kernel_size, "an odd number: a coupling looks both ways")
        order, most = self.linear_prediction, self.audio.n_fft // 2
        require(0 <= order <= most, "linear_prediction", order, f"0 (none) to audio.n_fft / 2 = {most}")
        require(0 <= self.pre_emphasis < 1, "pre_emphasis", self.pre_emphasis, "0 <= pre_emphasis < 1")
        require(self.gain is None or self.gain > 0, "gain", self.gain, "a positive number or null")
        low, high = self.log_scale_range
        require(low < 0 < high, "log_scale_range", list(self.log_scale_range), "[low, high] with low < 0 < high")
        require(2 <= self.bits <= 24, "bits", self.bits, "2 to 24")
        require(self.speakers >= 0, "speakers", self.speakers, "0 (one speaker) or the number of speakers")

    def channels(self, place: int) -> int:
        """How many channels the coupling at `place`, 0 nearest the signal, still moves or sees."""
        return self.squeeze - self.early_channels * (place // self.early_every)
