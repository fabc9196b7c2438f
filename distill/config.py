"""The settings of a student and of its signal model."""

from __future__ import annotations

import dataclasses
from typing import Literal

from wavenet.arguments import LATER
from wavenet.config import AudioConfig, PitchConfig, StackConfig, UpsampleConfig, require


@dataclasses.dataclass(frozen=True)
class SourceFilterConfig:
    """Flow 0 of a source-filter student. taps: length of the noise filter [samples].

    correction_points: frequencies, evenly spaced in mel, at which the frame-rate network of `channels` corrects levels.
    breath: share of noise in a voiced frame's magnitude at 0 Hz and at half the sample rate, before training.
    sharpening: updates that undo the analysis window's length in the levels of voiced frames, 0 for none.
    """

    taps: int = 256
    channels: int = 64
    correction_points: int = 48
    breath: tuple[float, float] = (0.1, 0.6)
    sharpening: int = dataclasses.field(default=0, metadata=LATER)

    def __post_init__(self) -> None:
        require(self.taps > 1, "source_filter.taps", self.taps, "2 or more")
        require(self.channels > 0, "source_filter.channels", self.channels, "a positive integer")
        require(self.correction_points > 1, "source_filter.correction_points", self.correction_points, "2 or more")
        inside = all(0 < share < 1 for share in self.breath)
        require(inside, "source_filter.breath", list(self.breath), "two shares between 0 and 1")
        updates = "0 (none) or a number of updates, at most 100"
        require(0 <= self.sharpening <= 100, "source_filter.sharpening", self.sharpening, updates)


@dataclasses.dataclass(frozen=True)
class StudentConfig:
    """A chain of inverse-autoregressive flows, one stack each, and what comes before them.

    prior: none (the textbook's student: the flows shape white noise) or source_filter (flow 0 is a signal model of
    speech, the others start near the identity; pitch is the network that tells it F0 from the mel). log_scale_range
    bounds the log scale of each flow. initial_log_scale: total log scale of the flows at the start, in nats, on the
    scale of speech of unit rms; 0 under a source_filter. linear_prediction: order of the predictor read off the mel,
    whose residual the flows make; 0: none. warm_start: begin with the teacher's frame-rate network.
    """

    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    flows: list[StackConfig] = dataclasses.field(
        default_factory=lambda: [StackConfig(cycles=c, residual_channels=64) for c in (1, 1, 1, 3)]
    )
    upsample: UpsampleConfig = dataclasses.field(default_factory=UpsampleConfig)
    noise: Literal["logistic", "normal"] = "logistic"
    prior: Literal["none", "source_filter"] = "none"
    source_filter: SourceFilterConfig = dataclasses.field(default_factory=SourceFilterConfig)
    pitch: PitchConfig = dataclasses.field(default_factory=PitchConfig)
    pre_emphasis: float = 0.9
    gain: float | None = None
    linear_prediction: int = 0
    initial_log_scale: float = -0.6
    log_scale_range: tuple[float, float] = (-7.0, 5.0)
    warm_start: bool = True
    speakers: int = 0
    speaker_names: list[str] = dataclasses.field(default_factory=list)
    speaker_channels: int = 16

    def __post_init__(self) -> None:
        require(len(self.flows) > 0, "flows", len(self.flows), "at least one flow")
        require(0 <= self.pre_emphasis < 1, "pre_emphasis", self.pre_emphasis, "0 <= pre_emphasis < 1")
        require(self.gain is None or self.gain > 0, "gain", self.gain, "a positive number or null")
        low, high = self.log_scale_range
        require(low < high, "log_scale_range", list(self.log_scale_range), "[low, high] with low < high")
        order = self.linear_prediction
        require(order >= 0, "linear_prediction", order, "0 (none) or an order")
        alone = order == 0 or self.prior == "none"
        require(alone, "linear_prediction", order, "0 beside a source_filter, which shapes its noise itself")
