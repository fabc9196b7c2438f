"""A teacher with linear prediction as samplers see it: a plain teacher of its prediction residual.

The residual's law is continuous and knows no pre-emphasis, so that a sampler which computes the network itself draws
the whole residual first; the recursions of prediction and pre-emphasis make speech of it afterwards.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from torch import Tensor

from wavenet.emphasis import de_emphasis
from wavenet.fused.availability import expect_compiler
from wavenet.prediction import LinearPrediction
from wavenet.sampling.drivable import Drivable


class Predicting(Drivable, Protocol):
    """A teacher, seen from here."""

    prediction: LinearPrediction | None


class Residual:
    """`Drivable` for e of wavenet.prediction instead of x."""

    def __init__(self, teacher: Predicting) -> None:
        self.stack, self.gain, self.conditioning = teacher.stack, 1.0, teacher.conditioning
        self.config = dataclasses.replace(teacher.config, pre_emphasis=0.0, linear_prediction=0)
        self.head = teacher.head.continuous()


def sample_by_residual(
    sampler: Callable[..., Tensor],
    teacher: Predicting,
    mel: Tensor,
    uniforms: Tensor,
    temperature: float = 1.0,
    speaker: Tensor | None = None,
    **settings: object,
) -> Tensor:
    """mel (B, M, F), uniforms (B, T, n) -> wav (B, T), with `sampler` making the residual.

    Raises UserError where numba does not compile.
    """
    expect_compiler("linear prediction by this method", "cached")
    from wavenet.fused.lattice import colour  # numba takes half a second to import

    assert teacher.prediction is not None
    residual = sampler(Residual(teacher), mel, uniforms, temperature, speaker, **settings)
    inner = colour(residual, teacher.prediction(mel), teacher.prediction.kernel)
    return de_emphasis(inner, teacher.config.pre_emphasis, teacher.gain)
