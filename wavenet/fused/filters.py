"""The inverse of a time-varying filter of minimum phase, one sample after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavenet.fused.compilation import kept, ready, sources


def invert(signal: Tensor, filters: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """z with sum_j h_j(t) z_{t-j} = signal_t, and sum_t log h_0(t), of signal (B, T).

    filters (B, taps, F + 2): responses at frame rate, kernel (3, hop): weights of the previous, own and next frame for
    each sample of a frame. -> z (B, T), sums (B,).
    """
    batch, length = signal.shape
    reach = filters.shape[1] - 1
    dtype = np.float64 if signal.dtype == torch.float64 else np.float32
    backwards = np.ascontiguousarray(filters.detach().cpu().transpose(1, 2).flip(2).numpy(), dtype)
    values = np.ascontiguousarray(signal.detach().cpu().numpy(), dtype)
    weights = np.ascontiguousarray(kernel.detach().cpu().T.numpy(), dtype)
    noise, sums = np.zeros((batch, reach + length), dtype), np.zeros(batch)
    arguments = values, backwards, weights, noise, sums
    ready(_inverted, *arguments)
    _inverted(*arguments)
    found = torch.from_numpy(np.ascontiguousarray(noise[:, reach:])).to(signal.device)
    return found, torch.from_numpy(sums).to(signal)


def _compile() -> Any:
    version = sources()

    def inverted(values, backwards, weights, noise, sums):
        version  # noqa: B018  compiled code on disk is found by it
        hop, reach = weights.shape[0], backwards.shape[2] - 1
        for n in range(values.shape[0]):
            for t in range(values.shape[1]):
                frame, phase = t // hop, t % hop
                a, b, c = weights[phase]
                before, own, after = backwards[n, frame], backwards[n, frame + 1], backwards[n, frame + 2]
                past, total = noise[n, t : t + reach], a * 0
                for j in range(reach):
                    total += (a * before[j] + b * own[j] + c * after[j]) * past[j]
                gain = a * before[reach] + b * own[reach] + c * after[reach]
                noise[n, reach + t] = (values[n, t] - total) / gain
                sums[n] += np.log(gain)

    return kept(inverted)


_inverted = _compile()
