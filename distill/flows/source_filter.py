r"""Flow 0 of a source-filter student: harmonics and a minimum-phase noise filter as one exact autoregressive step.

    x_t = sum_k A_k(t) cos(2 pi k phi_t + theta_k(t))  +  sum_{j >= 1} h_j(t) z_{t-j}  +  h_0(t) z_t

phi is the integrated F0 (wavenet/excitation.py), A_k the amplitudes that the mel states (wavenet/envelope.py), theta_k
the envelope's minimum phase, h the impulse response of the noise's envelope, of minimum phase too (wavenet/source.py),
so that h_0 is positive. loc sees z_<t and the conditioning only, the scale h_0 the conditioning only: an
inverse-autoregressive step whose log_det is the sum of log h_0. Harmonics and filter are linear between frames. What is
learned are gains, by a small network at frame rate. Derivation: docs/theory.md.
"""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.config import SourceFilterConfig
from distill.flows.base import Flow
from wavenet.config import AudioConfig, require
from wavenet.pitch.contour import Pitch
from wavenet.source import Source
from wavenet.upsample import Conditioning, linear_kernel

_LOG_F0 = (math.log(150.0), 0.4)  # centre and width that bring log F0 near unit scale
_SAME = 0.01  # F0 that differs less is the mel's own
_FRAMES = 32  # filtered at once: their rows stay in the processor's cache
_FIRST_GAIN = 0.1  # of the network's last layer: corrections start near none


@dataclasses.dataclass(frozen=True)
class SourceConditioning(Conditioning):
    """Conditioning that also carries what flow 0 is made of.

    filters (B, taps, F + 2): minimum-phase responses, one replicated frame at either end. voice (B, T): the harmonics.
    """

    filters: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))
    voice: Tensor = dataclasses.field(default_factory=lambda: torch.empty(0))

    def window(self, first: int, last: int) -> SourceConditioning:
        """The frames first, ..., last - 1 alone, with their true neighbours."""
        plain, hop = super().window(first, last), self.kernel.shape[1]
        filters, voice = self.filters[:, :, first : last + 2], self.voice[:, first * hop : last * hop]
        return SourceConditioning(plain.frames, plain.kernel, plain.signals, None, filters, voice)


class SourceFilter(Flow):
    """z (B, T), SourceConditioning of the same T -> x (B, T), log_det (B,); `condition` makes the conditioning.

    noise_scale: standard deviation of the noise that drives it (pi / sqrt 3 for the standard logistic).
    context: frames to either side that decide a frame's conditioning.
    """

    places: Tensor
    kernel: Tensor
    first_breath: Tensor

    def __init__(
        self, config: SourceFilterConfig, audio: AudioConfig, pre_emphasis: float, gain: float, noise_scale: float
    ) -> None:
        super().__init__()
        self.config, self.audio = config, audio
        require(config.taps <= audio.n_fft, "source_filter.taps", config.taps, f"at most audio.n_fft = {audio.n_fft}")
        self.source = Source(audio, pre_emphasis, gain)
        # What is linear between frames adds one to the frames that the network and the updates of the envelope see.
        self.context = max(2, config.sharpening * self.source.envelope.blur_reach) + 1
        self.log_noise_level = math.log(self.source.envelope.noise * noise_scale)
        points = config.correction_points
        mel = torch.log1p(self.source.frequency / 700)
        self.register_buffer("places", mel / mel[-1] * (points - 1), persistent=False)
        self.register_buffer("kernel", linear_kernel(audio.hop_length), persistent=False)
        # Voiced speech is not all harmonics: breath takes a share that grows with frequency.
        low, high = (math.log(share / (1 - share)) for share in config.breath)
        first = torch.linspace(0, 1, points).square() * (high - low) + low
        self.register_buffer("first_breath", first, persistent=False)
        self.breath = nn.Parameter(first.clone())
        self.network = nn.Sequential(
            nn.Conv1d(audio.n_mels + 2, config.channels, 3, padding="same", padding_mode="replicate"),
            nn.LeakyReLU(0.2),
            nn.Conv1d(config.channels, config.channels, 3, padding="same", padding_mode="replicate"),
            nn.LeakyReLU(0.2),
            last := nn.Conv1d(config.channels, 3 * points, 1),
        )
        with torch.no_grad():
            last.weight.mul_(_FIRST_GAIN)
            assert last.bias is not None
            last.bias.zero_()

    @property
    def receptive_field(self) -> int:
        """x_t depends on at most this many noise samples before z_t."""
        return self.config.taps - 1

    @property
    def macs_per_sample(self) -> int:
        """Multiply-accumulates a sample of the filter and of a 100 Hz voice's harmonics, frame-rate work left out."""
        return 3 * self.config.taps + 6 * int(self.audio.sample_rate / 2 / 100)

    def condition(
        self,
        cond: Conditioning,
        mel: Tensor,
        standardised: Tensor,
        pitch: Pitch,
        cycles: Tensor,
        corrected: bool = True,
        own: Pitch | None = None,
    ) -> SourceConditioning:
        """Add flow 0's part, which depends on mel (B, M, F) and pitch (B, F) alone, to the networks' conditioning.

        standardised (B, M, F): the mel as networks see it. cycles (B, T): phase of the voice (excitation.phase).
        corrected false: the plain signal model, with nothing learned. own: the pitch that the mel itself has, where
        another one is to be heard: it takes the old harmonics out of the envelope.
        """
        own = pitch if own is None else own
        with torch.autocast(mel.device.type, enabled=False):  # levels and phases are part of the signal itself
            mel = self.source.envelope.sharpened(mel, own.voiced, self.config.sharpening)
            plain = log_noise = log_voice = self.source.log_magnitude(mel, own)  # (B, F, bins)
            breath = _at(self.breath if corrected else self.first_breath, self.places)
            if corrected:
                gains = [_at(part, self.places) for part in self._corrections(standardised, own)]
                log_noise, log_voice, breath = log_noise + gains[0], log_voice + gains[1], breath + gains[2]
            log_noise = log_noise - self.log_noise_level + pitch.voiced[..., None] * F.logsigmoid(breath)
            filters = self.source.response(log_noise, self.config.taps).transpose(1, 2)
            beside = self._beside(breath, pitch).log()
            refinement = self.source.refinement(mel, plain + beside, plain + F.logsigmoid(breath), pitch)
            if own is not pitch:  # the mel knows only of harmonics where its own are
                same = (pitch.f0 / own.f0 - 1).abs() < _SAME
                refinement = torch.where(same[..., None], refinement, torch.ones_like(refinement))
            voice = self.source.voice(log_voice + beside, pitch, cycles, refinement)
            return SourceConditioning(
                cond.frames,
                cond.kernel,
                self.source.signals(pitch, cycles, voice.detach()),
                None,
                F.pad(filters, (1, 1), mode="replicate"),
                voice,
            )

    def affine(self, noise: Tensor, cond: Conditioning | None) -> tuple[Tensor, Tensor]:
        """loc (B, T) and log_scale (B, T) of x_t given z_<t."""
        assert isinstance(cond, SourceConditioning)
        with torch.autocast(noise.device.type, enabled=False):
            filtered, scale = time_varying(noise, cond.filters, self.kernel)
            return cond.voice + filtered, scale.log()

    def forward(self, noise: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """In parallel over t."""
        loc, log_scale = self.affine(noise, cond)
        return noise * torch.exp(log_scale) + loc, log_scale.sum(1)

    @torch.no_grad()
    def inverse(self, signal: Tensor, cond: Conditioning | None = None) -> tuple[Tensor, Tensor]:
        """z_t = (x_t - loc_t) / h_0(t), one sample after the other; not differentiable."""
        assert isinstance(cond, SourceConditioning)
        from wavenet.fused.filters import invert  # numba takes half a second to import, and training does without

        noise, log_det = invert(signal - cond.voice, cond.filters, self.kernel)
        return noise, -log_det

    def _corrections(self, standardised: Tensor, pitch: Pitch) -> list[Tensor]:
        """(B, F, points) each: log gains of noise and of harmonics, and what is added to the breath's logit."""
        log_f0 = (pitch.f0.log() - _LOG_F0[0]) / _LOG_F0[1] * pitch.voiced
        features = torch.cat([standardised, log_f0[:, None], 2 * pitch.voiced[:, None] - 1], 1)
        return list(self.network(features).transpose(1, 2).chunk(3, 2))

    def _beside(self, logit: Tensor, pitch: Pitch) -> Tensor:
        """Share of the magnitude that harmonics take beside a share b = sigmoid(logit) of noise, (B, F, bins).

        Under the lobes of the lines powers add, sqrt(1 - b^2); between them there is noise alone, so that mean
        magnitudes add, 1 - b. A Hann window's lobe is 4 of its bins wide.
        """
        rest = F.logsigmoid(-logit)  # log(1 - b): the root's gradient stays finite where b rounds to 1
        lobe = (4 * self.audio.sample_rate / self.audio.win_length / pitch.f0).clamp(max=1.0)[..., None]
        return lobe * torch.exp(rest / 2) * (1 + torch.sigmoid(logit)).sqrt() + (1 - lobe) * torch.exp(rest)


def time_varying(signal: Tensor, filters: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """sum_{j >= 1} h_j(t) signal_{t-j} and h_0(t), (B, T) each, of signal (B, T).

    filters (B, taps, F + 2), linear between frames by kernel (3, hop), T = F hop.
    """
    with torch.autocast(signal.device.type, enabled=False):  # the products below are part of the signal itself
        reach = filters.shape[1] - 1
        past = F.pad(signal, (reach, -1)).unfold(1, reach, 1).unflatten(1, (-1, kernel.shape[1]))
        around = filters.unfold(2, 3, 1).permute(0, 2, 3, 1)  # (B, F, 3, taps)
        # Each frame as one product: the filters of three frames, backwards, by rows signal_{t-reach}, ...,
        # signal_{t-1}. In this order it and its gradient read the rows as they lie in memory, in half the time and in
        # a third.
        backwards = around[..., 1:].flip(3)
        parts = [taps @ rows.mT for rows, taps in zip(past.split(_FRAMES, 1), backwards.split(_FRAMES, 1), strict=True)]
        kernel = kernel.to(signal)
        filtered = (torch.cat(parts, 1) * kernel).sum(2).flatten(1)
        return filtered, (around[..., 0] @ kernel).flatten(1)


def _at(values: Tensor, places: Tensor) -> Tensor:
    """values (..., N) at fixed fractional places (bins,) -> (..., bins), linear."""
    low = places.floor().long().clamp(0, values.shape[-1] - 2)
    share = places - low
    return values[..., low] * (1 - share) + values[..., low + 1] * share
