"""The way back through a normalised lattice: speech of its prediction residual, one sample after the other.

And the transpose of that linear map, which is its gradient: the same rotations turned back, from the last sample on.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavenet.fused.compilation import helper, kept, ready, sources


def colour(residual: Tensor, lattice: Tensor, kernel: Tensor) -> Tensor:
    """u (B, T) with whiten(u, lattice, kernel) = e (wavenet/prediction.py) of residual e (B, T).

    lattice (B, 1 + order, F + 2): log level and log area ratios, kernel (3, hop): weights of the previous, own and next
    frame for each sample of a frame.
    """
    return _run(_coloured, residual, lattice, kernel)


def transposed(gradient: Tensor, lattice: Tensor, kernel: Tensor) -> Tensor:
    """C^T g (B, T) of g (B, T), where colour is the matrix C; arguments as in `colour`."""
    return _run(_transposed, gradient, lattice, kernel)


def _run(compiled: Any, given: Tensor, lattice: Tensor, kernel: Tensor) -> Tensor:
    dtype = np.float64 if given.dtype == torch.float64 else np.float32
    values = np.ascontiguousarray(given.detach().cpu().numpy(), dtype)
    frames = np.ascontiguousarray(lattice.detach().cpu().transpose(1, 2).numpy(), dtype)
    weights = np.ascontiguousarray(kernel.detach().cpu().T.numpy(), dtype)
    made = np.empty_like(values)
    arguments = values, frames, weights, made
    ready(compiled, *arguments)
    compiled(*arguments)
    return torch.from_numpy(made).to(given.device)


@helper
def _turned(ratio):
    """1 / cosh, which 1 - tanh^2 would lose near 1, and tanh of a log area ratio."""
    decay = np.exp(-abs(ratio))
    share = 1 / (1 + decay * decay)
    sine = (1 - decay * decay) * share
    return 2 * decay * share, -sine if ratio < 0 else sine


def _compile() -> tuple[Any, Any]:
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
                    cosine, sine = _turned(a * before[m] + b * own[m] + c * after[m])
                    past = backward[m - 1]
                    backward[m] = sine * forward + cosine * past
                    forward = cosine * forward - sine * past
                backward[0] = forward
                signal[n, t] = forward * np.exp(a * before[0] + b * own[0] + c * after[0])

    def transposed(values, frames, weights, made):
        version  # noqa: B018
        hop, order = weights.shape[0], frames.shape[2] - 1
        backward = np.empty(order + 1, values.dtype)  # gradients of b_0 ... b_p of the sample before
        for n in range(values.shape[0]):
            backward[:] = 0
            for t in range(values.shape[1] - 1, -1, -1):
                frame, phase = t // hop, t % hop
                a, b, c = weights[phase]
                before, own, after = frames[n, frame], frames[n, frame + 1], frames[n, frame + 2]
                forward = values[n, t] * np.exp(a * before[0] + b * own[0] + c * after[0]) + backward[0]
                for m in range(1, order + 1):
                    cosine, sine = _turned(a * before[m] + b * own[m] + c * after[m])
                    later = backward[m] if m < order else forward * 0
                    backward[m - 1] = cosine * later - sine * forward
                    forward = cosine * forward + sine * later
                made[n, t] = forward

    return kept(coloured), kept(transposed)


_coloured, _transposed = _compile()
