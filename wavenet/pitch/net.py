r"""mel -> F0 and voicing, at frame rate.

F0 is a class among K bins c_k, evenly spaced in log F0 over the tracker's range, and is read off as the mean of the
classes around the most probable one, k* = argmax_k p_k:

    log F0 = sum_{|k - k*| <= 4} p_k c_k / sum_{|k - k*| <= 4} p_k

so that an octave's doubt is decided and not averaged, and the error is a fraction of a bin (Kim et al. 2018,
arXiv 1802.06182, there from the waveform). A contour is decided as a whole: among the likeliest peaks of every frame,
the path that pays least for its doubts and its jumps.
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import PitchConfig
from wavenet.features import LogMel
from wavenet.pitch.contour import Pitch, bridged
from wavenet.pitch.path import best_path
from wavenet.pitch.resolution import resolved
from wavenet.pitch.tracker import F_MAX, F_MIN
from wavenet.standardised import MelInput

_AROUND = 4  # bins at either side of the most probable that decide the place of F0
_CANDIDATES = 3  # peaks of a frame that its contour may pass
_NO_PEAK = -30.0  # score of a candidate that is none: every jump is cheaper
_GLIDE = 15.0  # nats that a change of pitch costs, per unit of log ratio
_JUMP = 4.0  # nats, the most that it costs
_STEP = 0.010  # seconds for which a frame's log probability counts once


class PitchEstimate(NamedTuple):
    """log_f0 (B, F) [log Hz], voicing_logit (B, F): voiced where positive, f0_logits (B, K, F) of the classes."""

    log_f0: Tensor
    voicing_logit: Tensor
    f0_logits: Tensor


class PitchNet(MelInput):
    """mel (B, M, F) -> PitchEstimate. Frame i depends on the `reach` frames to either side of it.

    Mels are standardised per band with the statistics of the training corpus (`set_statistics`), which travel in the
    weights, as do the bins.
    """

    bins: Tensor

    def __init__(self, config: PitchConfig) -> None:
        super().__init__(config.audio.n_mels)
        self.config = config
        self.log_mel = LogMel(config.audio)
        sizes = [config.audio.n_mels] + [config.channels] * config.layers
        self.network = nn.Sequential(
            *(
                module
                for before, after in itertools.pairwise(sizes)
                for module in (
                    nn.Conv1d(before, after, config.kernel_size, padding="same", padding_mode="replicate"),
                    nn.LeakyReLU(0.1),
                )
            ),
            nn.Conv1d(config.channels, 1 + config.bins, 1),
        )
        self.register_buffer("bins", torch.linspace(math.log(F_MIN), math.log(F_MAX), config.bins))

    @property
    def reach(self) -> int:
        """Frames to either side that decide about a frame in `forward`; `predict` decides whole voiced stretches."""
        return self.config.layers * (self.config.kernel_size // 2)

    def forward(self, mel: Tensor) -> PitchEstimate:
        """Differentiable, but for the choice of the most probable class. UserError for a mel of another shape."""
        return self.estimate(self.standardised(mel))

    def estimate(self, standardised: Tensor) -> PitchEstimate:
        """PitchEstimate from a mel that is standardised already, (B, M, F)."""
        voicing_logit, f0_logits = self.network(standardised).split([1, self.config.bins], 1)
        return PitchEstimate(self._read(f0_logits), voicing_logit[:, 0], f0_logits)

    @torch.no_grad()
    def predict(self, mel: Tensor) -> Pitch:
        """The voice's F0 in the tracker's range, and voicing, 0 or 1, of whole clips' mel (B, M, F).

        What a tracker would find, `tracked`, with the mean over its window undone (wavenet/pitch/resolution.py).
        """
        return resolved(self.tracked(mel), mel, self.config.audio)

    @torch.no_grad()
    def tracked(self, mel: Tensor) -> Pitch:
        """What a tracker would find, F0 in its range, and voicing, 0 or 1, of mel (B, M, F).

        A frame is voiced where most of it and its two neighbours are: a flip of one frame is a click. F0 is the best
        path through each voiced stretch, and interpolated through what is not voiced, as in training labels.
        """
        estimate = self(mel)
        votes = F.pad((estimate.voicing_logit > 0).to(mel.dtype), (1, 1), mode="replicate").unfold(1, 3, 1).sum(2)
        voiced = votes >= 2
        log_f0 = self._contour(estimate.f0_logits, voiced)
        return Pitch(bridged(log_f0, voiced).exp().clamp(F_MIN, F_MAX), voiced.to(mel.dtype))

    def targets(self, f0: Tensor) -> Tensor:
        """Class probabilities (B, K, F) of f0 (B, F) [Hz]: a Gaussian over the bins, one bin wide, that sums to 1."""
        width = self.bins[1] - self.bins[0]
        distance = (f0.clamp(F_MIN, F_MAX).log()[:, None] - self.bins[:, None]) / width
        return torch.softmax(-0.5 * distance.square(), 1)

    def _read(self, f0_logits: Tensor) -> Tensor:
        return self._around(f0_logits, f0_logits.argmax(1, keepdim=True))[0][:, 0]

    def _around(self, f0_logits: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """log F0 (B, S, F) as the mean of the classes around `best` (B, S, F), and the log probability of those."""
        offsets = torch.arange(-_AROUND, _AROUND + 1, device=best.device)
        place = best[..., None] + offsets  # (B, S, F, 9)
        inside = place.clamp(0, self.config.bins - 1)
        near = torch.log_softmax(f0_logits, 1).gather(1, inside.movedim(3, 2).flatten(1, 2))
        near = near.unflatten(1, (-1, len(offsets))).movedim(2, 3).masked_fill(place != inside, -math.inf)
        return (torch.softmax(near, 3) * self.bins[inside]).sum(3), near.logsumexp(3)

    def _contour(self, f0_logits: Tensor, voiced: Tensor) -> Tensor:
        """log F0 (B, F): the best path through the peaks of the classes; stretches of voiced frames apart."""
        f0_logits = f0_logits.to(self.bins.dtype)  # in half precision neighbours are equal, and each would be a peak
        rest = F.max_pool1d(f0_logits.transpose(1, 2), 2 * _AROUND + 1, 1, _AROUND).transpose(1, 2)
        peaks = f0_logits.masked_fill(f0_logits < rest, -math.inf)
        height, best = peaks.topk(min(_CANDIDATES, self.config.bins), 1)
        log_f0, score = self._around(f0_logits, best)
        score = score * (self.config.audio.hop_length / self.config.audio.sample_rate / _STEP)
        score = torch.where(height.isfinite(), score, _NO_PEAK).clamp(min=_NO_PEAK)
        # What is unvoiced decides nothing, whatever its values are.
        score = torch.where(voiced[:, None], score, 0.0).transpose(1, 2)
        ways = log_f0.transpose(1, 2)
        change = (_GLIDE * (ways[:, :-1, :, None] - ways[:, 1:, None]).abs()).clamp(max=_JUMP)
        both = (voiced[:, :-1] & voiced[:, 1:])[..., None, None]
        states = best_path(score, -torch.where(both, change, 0.0))
        return log_f0.gather(1, states[:, None])[:, 0]
