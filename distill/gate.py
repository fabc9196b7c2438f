"""The gate before distillation: a teacher that has learnt less than linear prediction has nothing to teach."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from wavenet.config import AudioConfig
from wavenet.data import Clip, load_clip
from wavenet.emphasis import pre_emphasis
from wavenet.errors import UserError
from wavenet.prediction import whiten
from wavenet.teacher import Teacher

ORDER = 16
MARGIN = 0.3  # nats/sample: a few steps of training must not pass
_CLIPS = 64


def linear_prediction_baseline(train: Sequence[Clip], held_out: Sequence[Clip], audio: AudioConfig) -> float:
    """Held-out nll [nats/sample, density on the scale of wav] of one linear predictor of order 16.

    x_t ~ N(sum_k a_k x_{t-k}, sigma^2), a and sigma by least squares on at most 64 training clips: the best Gaussian
    autoregressive model that does not know the mel and does not change over time.
    """
    gram, target, power, count = torch.zeros(ORDER, ORDER).double(), torch.zeros(ORDER).double(), 0.0, 0
    for past, present in _pairs(_some(train), audio):
        gram += past.T @ past
        target += past.T @ present
        power, count = power + float(present.square().sum()), count + len(present)
    coefficients = torch.linalg.solve(gram + 1e-9 * gram.diagonal().mean() * torch.eye(ORDER).double(), target)
    variance = (power - 2 * float(coefficients @ target) + float(coefficients @ gram @ coefficients)) / count
    error, count = 0.0, 0
    for past, present in _pairs(held_out, audio):
        error, count = error + float((present - past @ coefficients).square().sum()), count + len(present)
    return 0.5 * math.log(2 * math.pi * variance) + error / count / (2 * variance)


@torch.no_grad()
def residual_baseline(teacher: Teacher, train: Sequence[Clip], held_out: Sequence[Clip]) -> float:
    """The same of what a teacher with linear prediction is given before it learns: its residual as white noise.

    e_t ~ N(0, sigma^2), sigma of at most 64 training clips.
    """
    variance = _residual(teacher, _some(train))[0]
    error, log_scale = _residual(teacher, held_out)
    return 0.5 * math.log(2 * math.pi * variance) + error / (2 * variance) - log_scale


def check_teacher(nll_density: float, baseline: float, name: str, force: bool) -> str:
    """One line for the log; raises UserError unless the teacher is MARGIN below the baseline, or forced."""
    found = f"{name}: held-out NLL {nll_density:.3f} nats/sample (density), linear prediction {baseline:.3f}"
    if nll_density < baseline - MARGIN:
        return found
    if force:
        return f"{found}: too weak a teacher, distilled all the same (--force)"
    raise UserError(f"{found}; expected a teacher at least {MARGIN} below: train it longer, or pass --force")


def _some(clips: Sequence[Clip]) -> Sequence[Clip]:
    return clips[:: max(1, -(-len(clips) // _CLIPS))]


def _residual(teacher: Teacher, clips: Sequence[Clip]) -> tuple[float, float]:
    """Means over all samples of e^2 and of log |de / dx|."""
    assert teacher.prediction is not None
    device, square, log_scale, count = next(teacher.parameters()).device, 0.0, 0.0, 0
    for clip in clips:
        wav = load_clip(clip, teacher.config.audio)[None].to(device)
        inner = pre_emphasis(wav, teacher.config.pre_emphasis, teacher.gain)
        rest, scale = whiten(inner, teacher.prediction(teacher.log_mel(wav)), teacher.prediction.kernel)
        square += float((inner * scale + rest).double().square().sum())
        log_scale += float((scale * teacher.gain).double().log().sum())
        count += wav.shape[1]
    return square / count, log_scale / count


def _pairs(clips: Sequence[Clip], audio: AudioConfig) -> Iterator[tuple[Tensor, Tensor]]:
    for clip in clips:
        wav = load_clip(clip, audio).double()
        yield wav[:-1].unfold(0, ORDER, 1), wav[ORDER:]
