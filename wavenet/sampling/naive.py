"""The reference sampler: one whole forward pass of the receptive field for every sample."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution

from wavenet.upsample import Conditioning


class Windowed(Protocol):
    """What the reference sampler asks of a model."""

    def windows(self, mel: Tensor, speaker: Tensor | None = None) -> Iterator[tuple[int, Conditioning]]:
        """For each t, where its window begins and the conditioning of the window."""
        ...

    def conditional(self, wav: Tensor, cond: Conditioning) -> Distribution:
        """Teacher-forced distributions over a window."""
        ...


def sample_naive(
    model: Windowed, mel: Tensor, uniforms: Tensor, temperature: float = 1.0, speaker: Tensor | None = None
) -> Tensor:
    """mel (B, M, F), uniforms (B, T, n) -> wav (B, T), by the training-time forward pass alone.

    Shares no code with the ring buffers: it is what the other samplers are held against. Cost: T passes over the
    receptive field.
    """
    wav = torch.zeros_like(uniforms[..., 0])
    for t, (first, cond) in enumerate(model.windows(mel, speaker)):
        distribution = model.conditional(wav[:, first : first + cond.length], cond)
        # Every position gets the same noise; only position t is read.
        noise = uniforms[:, t : t + 1].expand(-1, cond.length, -1)
        wav[:, t] = distribution.transform(noise, temperature)[:, t - first]  # type: ignore[attr-defined]
    return wav
