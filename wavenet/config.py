"""Typed configuration: every number of a recipe that is not a constant of nature.

A recipe is one YAML file, read by wavenet.arguments. Units: lengths in samples, frequencies in Hz, learning rates per
step, likelihoods in nats.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from wavenet.errors import UserError

MOST_BINS = 8192  # of an analysis: 85 ms at 96 kHz. What is computed from a file's settings alone is bounded so
MOST_LAYERS = {"layers": 24, "cycles": 256}  # of a stack; dilations double with every layer
MOST_CONVOLUTIONS = 256  # of a frame-rate network


@dataclasses.dataclass(frozen=True)
class AudioConfig:
    """Sample rate and mel analysis. The defaults are HiFi-GAN's at 22.05 kHz, so that its acoustic models fit."""

    sample_rate: int = 22050
    n_fft: int = 1024
    win_length: int = 1024
    hop_length: int = 256
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float = 8000.0
    log_clamp: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("sample_rate", "n_fft", "win_length", "hop_length", "n_mels"):
            require(getattr(self, name) > 0, f"audio.{name}", getattr(self, name), "a positive integer")
        require(self.n_fft <= MOST_BINS, "audio.n_fft", self.n_fft, f"at most {MOST_BINS}")
        require(self.n_mels <= self.n_fft, "audio.n_mels", self.n_mels, f"at most n_fft = {self.n_fft}")
        require(self.win_length <= self.n_fft, "audio.win_length", self.win_length, f"at most n_fft = {self.n_fft}")
        require(
            self.hop_length <= self.n_fft and (self.n_fft - self.hop_length) % 2 == 0,
            "audio.hop_length",
            self.hop_length,
            f"at most n_fft = {self.n_fft} and n_fft - hop_length even, so that frame i is centred on its own samples",
        )
        require(
            0 <= self.f_min < self.f_max <= self.sample_rate / 2,
            "audio.f_max",
            self.f_max,
            f"f_min = {self.f_min} < f_max <= {self.sample_rate / 2}",
        )
        require(self.log_clamp > 0, "audio.log_clamp", self.log_clamp, "a positive number")


@dataclasses.dataclass(frozen=True)
class StackConfig:
    """Dilated gated convolutions: `cycles` times dilations 1, 2, ..., 2^(layers-1). gate_channels: both halves."""

    cycles: int = 2
    layers: int = 10
    kernel_size: int = 2
    residual_channels: int = 64
    gate_channels: int = 128
    skip_channels: int = 64

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, most = getattr(self, field.name), MOST_LAYERS.get(field.name)
            require(value > 0, f"stack.{field.name}", value, "a positive integer")
            require(most is None or value <= most, f"stack.{field.name}", value, f"at most {most}")
        require(
            self.gate_channels % 2 == 0, "stack.gate_channels", self.gate_channels, "an even number (tanh, sigmoid)"
        )

    @property
    def dilations(self) -> list[int]:
        """Dilation of every layer, first to last."""
        return [2**i for _ in range(self.cycles) for i in range(self.layers)]


@dataclasses.dataclass(frozen=True)
class UpsampleConfig:
    """Frame-rate network before the interpolation to sample rate: `layers` convolutions of `channels`."""

    channels: int = 80
    layers: int = 2
    kernel_size: int = 3

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            require(value > 0, f"upsample.{field.name}", value, "a positive integer")
        require(self.layers <= MOST_CONVOLUTIONS, "upsample.layers", self.layers, f"at most {MOST_CONVOLUTIONS}")
        require(self.kernel_size % 2 == 1, "upsample.kernel_size", self.kernel_size, "an odd number")


@dataclasses.dataclass(frozen=True)
class DistributionConfig:
    """Output distribution of x_t: mol (discretised mixture of logistics), gaussian, or mulaw (2^bits classes).

    log_scale_floor is in nats, on the scale of wav in [-1, 1]; it is the only floor there is (training, sampling, KL).
    """

    kind: Literal["mol", "gaussian", "mulaw"] = "mol"
    components: int = 10
    bits: int = 16
    log_scale_floor: float = -9.0

    def __post_init__(self) -> None:
        require(self.components > 0, "distribution.components", self.components, "a positive integer")
        low, high = (2, 12) if self.kind == "mulaw" else (2, 24)
        require(low <= self.bits <= high, "distribution.bits", self.bits, f"{low} to {high} for {self.kind}")


@dataclasses.dataclass(frozen=True)
class PitchConfig:
    """Network that reads F0 and voicing off the mel, at frame rate: `layers` convolutions of `channels`.

    bins: classes of F0, evenly spaced in log frequency. mel_jitter, level_jitter: what is added to a mel in training,
    standard deviation over its values [of the standardised mel], and over clips, one number for all bands [nats].
    """

    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    channels: int = 96
    layers: int = 4
    kernel_size: int = 3
    bins: int = 128
    mel_jitter: float = 0.05
    level_jitter: float = 1.0

    def __post_init__(self) -> None:
        for name in ("channels", "layers", "kernel_size"):
            require(getattr(self, name) > 0, f"pitch.{name}", getattr(self, name), "a positive integer")
        require(self.layers <= MOST_CONVOLUTIONS, "pitch.layers", self.layers, f"at most {MOST_CONVOLUTIONS}")
        require(self.kernel_size % 2 == 1, "pitch.kernel_size", self.kernel_size, "an odd number")
        require(self.bins > 2, "pitch.bins", self.bins, "3 or more")
        for name in ("mel_jitter", "level_jitter"):
            require(getattr(self, name) >= 0, f"pitch.{name}", getattr(self, name), "0 or more")


@dataclasses.dataclass(frozen=True)
class TeacherConfig:
    """An autoregressive WaveNet. gain: 1 / rms of the pre-emphasised speech; null measures it on the training clips.

    source: the network also takes the voice's source (harmonics at F0) as conditioning; pitch then predicts F0.
    linear_prediction: order of the predictor read off the mel, past which the network models what is left; 0: none.
    log_scale_floor then counts in units of that residual.
    """

    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    stack: StackConfig = dataclasses.field(default_factory=StackConfig)
    upsample: UpsampleConfig = dataclasses.field(default_factory=UpsampleConfig)
    distribution: DistributionConfig = dataclasses.field(default_factory=DistributionConfig)
    pre_emphasis: float = 0.9
    gain: float | None = None
    linear_prediction: int = 0
    source: bool = False
    pitch: PitchConfig = dataclasses.field(default_factory=PitchConfig)
    speakers: int = 0
    speaker_names: list[str] = dataclasses.field(default_factory=list)
    speaker_channels: int = 16

    def __post_init__(self) -> None:
        require(0 <= self.pre_emphasis < 1, "pre_emphasis", self.pre_emphasis, "0 <= pre_emphasis < 1")
        require(self.gain is None or self.gain > 0, "gain", self.gain, "a positive number or null")
        order, most = self.linear_prediction, self.audio.n_fft // 2
        require(0 <= order <= most, "linear_prediction", order, f"0 (none) to audio.n_fft / 2 = {most}")
        require(self.speakers >= 0, "speakers", self.speakers, "0 (one speaker) or the number of speakers")
        require(self.speaker_channels > 0, "speaker_channels", self.speaker_channels, "a positive integer")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the recordings are. root: a corpus folder, a prepared folder, or `bundled` (speech inside the package)."""

    root: str = "bundled"
    workers: int = 0
    validation_clips: int = 8

    def __post_init__(self) -> None:
        require(bool(self.root.strip()), "data.root", self.root, "a corpus folder, or bundled")
        require(self.workers >= 0, "data.workers", self.workers, "0 or more")
        require(self.validation_clips > 0, "data.validation_clips", self.validation_clips, "at least 1")


@dataclasses.dataclass(frozen=True)
class PitchDataConfig(DataConfig):
    """Recordings that a pitch network learns from. speeds: slowest and fastest that half of its crops are played at."""

    speeds: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.speeds is not None:
            slowest, fastest = self.speeds
            in_order = 0.2 <= slowest <= fastest <= 5
            require(in_order, "data.speeds", list(self.speeds), "null, or two numbers 0.2 <= slowest <= fastest <= 5")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The one training loop. Schedules count steps: warm-up, flat share, then the named decay to final_ratio.

    autocast: auto is bf16 where the machine has instructions for it (wavenet.device.in_bf16), else none.
    """

    steps: int = 1_000_000
    batch_size: int = 8
    crop_length: int = 8192
    optimizer: Literal["adam", "adamw"] = "adam"
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 0.0
    schedule: Literal["constant", "cosine", "linear", "halving"] = "cosine"
    warmup_steps: int = 50
    flat: float = 0.0
    final_ratio: float = 0.05
    halve_every: int = 200_000
    clip_norm: float = 1.0
    ema_decay: float = 0.999
    autocast: Literal["none", "bf16", "auto"] = "none"
    seed: int = 0
    device: str = "cpu"
    threads: int = 0
    log_every: int = 10
    validate_every: int = 1000
    checkpoint_every: int = 1000
    bad_steps: int = 20
    sample_seconds: float = 1.0

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch_size",
            "crop_length",
            "log_every",
            "validate_every",
            "checkpoint_every",
            "bad_steps",
        ):
            require(getattr(self, name) > 0, f"train.{name}", getattr(self, name), "a positive integer")
        for name in ("warmup_steps", "threads"):
            require(getattr(self, name) >= 0, f"train.{name}", getattr(self, name), "0 or more")
        require(self.halve_every > 0, "train.halve_every", self.halve_every, "a positive integer")
        require(0 <= self.weight_decay < 1, "train.weight_decay", self.weight_decay, "0 <= weight_decay < 1")
        require(all(0 <= beta < 1 for beta in self.betas), "train.betas", list(self.betas), "two numbers 0 <= beta < 1")
        require(0 < self.lr < float("inf"), "train.lr", self.lr, "a positive number")
        require(0 <= self.ema_decay < 1, "train.ema_decay", self.ema_decay, "0 (no averaging) <= ema_decay < 1")
        require(0 <= self.flat < 1, "train.flat", self.flat, "a share of the steps, 0 <= flat < 1")
        require(0 <= self.final_ratio <= 1, "train.final_ratio", self.final_ratio, "0 <= final_ratio <= 1")
        require(self.sample_seconds > 0, "train.sample_seconds", self.sample_seconds, "a positive number of seconds")
        require(self.clip_norm > 0, "train.clip_norm", self.clip_norm, "a positive number")


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise UserError naming a setting, what was found and what was expected, unless `condition` holds."""
    if not condition:
        raise UserError(f"{name}: found {value!r}, expected {expected}")
