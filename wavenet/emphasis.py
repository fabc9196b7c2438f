"""Pre-emphasis and level as an exact linear step: y_t = g (x_t - a x_{t-1}), x_{-1} = 0, and its inverse.

The map is unit triangular times g, so its log determinant is T log g and a density moves through it exactly. It
flattens the spectrum of speech, so that a network sees the formants above 1.5 kHz, and brings any level to unit rms.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wavenet.layers import shift_right

_BLOCK = 64
_NOTHING = 1e-40  # of a block, handed on to the next but one: no precision sees it beside the rest


def pre_emphasis(wav: Tensor, coefficient: float, gain: float = 1.0) -> Tensor:
    """x (B, T) -> y (B, T), y_t = gain (x_t - coefficient x_{t-1})."""
    return gain * (wav - coefficient * shift_right(wav))


def de_emphasis(emphasised: Tensor, coefficient: float, gain: float = 1.0) -> Tensor:
    """y (B, T) -> x (B, T), x_t = y_t / gain + coefficient x_{t-1}: the exact inverse, without a loop over t.

    Blocks of 64 samples are one triangular product; what each block hands to the next is the same recursion with
    coefficient^64 on a signal 64 times shorter, until that is nothing. How often depends on the coefficient alone, so
    that the operations are the same for every length.
    """
    if coefficient == 0.0:
        return emphasised / gain
    with torch.autocast(emphasised.device.type, enabled=False):  # the products below are part of the signal itself
        return _recursion(emphasised / gain, coefficient)


def _recursion(signal: Tensor, coefficient: float) -> Tensor:
    length = signal.shape[-1]
    time = torch.arange(_BLOCK, device=signal.device)
    delay = time[:, None] - time[None, :]
    # In float64: 0.9^63 and the like are exact enough there, and then rounded once.
    decay = (float(coefficient) ** delay.clamp(min=0).double() * (delay >= 0)).to(signal.dtype)
    blocks = F.pad(signal, (0, -length % _BLOCK)).unflatten(-1, (-1, _BLOCK)) @ decay.T
    last, between = blocks[..., -1], float(coefficient) ** _BLOCK
    carried = shift_right(_recursion(last, between) if between > _NOTHING else last)
    blocks = blocks + carried[..., None] * (float(coefficient) ** (time + 1).double()).to(signal.dtype)
    return blocks.flatten(-2)[..., :length]
