"""Sequential sampling with ring buffers: each sample costs one step of the network instead of one pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor
from torch.distributions import Distribution


class Steppable(Protocol):
    """What the cached sampler asks of a model."""

    def stepper(self, mel: Tensor, speaker: Tensor | None = None) -> Callable[[Tensor], Distribution]:
        """x_{t-1} (B, 1) -> distribution of x_t, batch shape (B, 1)."""
        ...


def sample_cached(
    model: Steppable, mel: Tensor, uniforms: Tensor, temperature: float = 1.0, speaker: Tensor | None = None
) -> Tensor:
    """mel (B, M, F), uniforms (B, T, n) -> wav (B, T) (Fast WaveNet, Le Paine et al. 2016, arXiv 1611.09482)."""
    step = model.stepper(mel, speaker)
    sample, samples = torch.zeros_like(uniforms[:, :1, 0]), []
    for noise in uniforms.split(1, 1):
        sample = step(sample).transform(noise, temperature)  # type: ignore[attr-defined]
        samples.append(sample)
    return torch.cat(samples, 1)
