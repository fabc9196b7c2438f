"""The way back through a normalised lattice: speech of its prediction residual, one sample after the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavenet.fused.compilation import kept, ready, sources


def colour(residual: Tensor, lattice: Tensor, kernel: Tensor) -> Tensor:
    """u (B, T) with whiten(u, lattice, kernel) = e (wavenet/prediction.py) of residual e (B, T).

    lattice (B, 1 + order, F + 2): log level and log area ratios, kernel (3, hop): weights of the previous, own and next
    frame for each sample of a frame.
    """
    dtype = np.float64 if residual.dtype == torch.float64 else np.float32
    values = np.ascontiguousarray(residual.detach().cpu().numpy(), dtype)
    frames = np.ascontiguousarray(lattice.detach().cpu().transpose(1, 2).numpy(), dtype)
    weights = np.ascontiguousarray(kernel.detach().cpu().T.numpy(), dtype)
    signal = np.empty_like(values)
    arguments = values, frames, weights, signal
    ready(_coloured, *arguments)
    _coloured(*arguments)
    return torch.from_numpy(signal).to(residual.device)


def _compile() -> Any:
    version = sources()

    def coloured(values, frames, weights, signal):
        version  # noqa: B018  compiled code on disk is found by it
        hop, order = weights.shape[0], frames.shape[2] - 1
        backward = np.empty(order + 1, values.dtype)  # b_0 ... b_p of the last sample, b_p unread
        for n in range(values.shape[0]):
            backward[:] = 0
            for t in range(values.shape[1]):
                frame, phase = t // hop, t % hop
                a, b, c = weights[phase]
                before, own, after = frames[n, frame], frames[n, frame + 1], frames[n, frame + 2]
                forward = values[n, t]
                for m in range(order, 0, -1):
                    ratio = a * before[m] + b * own[m] + c * after[m]
                    decay = np.exp(-abs(ratio))
                    share = 1 / (1 + decay * decay)
                    cosine = 2 * decay * share  # 1 / cosh, which 1 - tanh^2 would lose near 1
                    sine = (1 - decay * decay) * share
                    if ratio < 0:
                        sine = -sine
                    past = backward[m - 1]
                    backward[m] = sine * forward + cosine * past
                    forward = cosine * forward - sine * past
                backward[0] = forward
                signal[n, t] = forward * np.exp(a * before[0] + b * own[0] + c * after[0])

    return kept(coloured)


_coloured = _compile()
