r"""Draws in as few operations as can be: for a device on which an operation on a handful of numbers costs a launch.

The same numbers as wavenet.distributions, regrouped. With floor f and y = raw - log gain, the scale is

    exp(f + softplus(y - f)) = e^f + e^y,

so that a draw is loc + (temperature * deviate) e^f + (temperature * deviate) e^y, of which only e^y waits for the
network.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavenet.heads import GaussianHead, MixtureHead, MuLawHead


class Draw:
    """Outputs to a sample: `prepare` makes noise (B, T, m) of deviates (B, T, n), a call makes a sample with it."""

    def prepare(self, deviates: Tensor) -> Tensor:
        """What of a draw does not wait for the network."""
        return deviates

    def __call__(self, outputs: Tensor, noise: Tensor, previous: Tensor, sample: Tensor) -> None:
        """outputs (B, O), noise (B, m), previous (B,) = x_{t-1} -> sample (B,) = x_t, written in place."""
        raise TypeError(f"{type(self).__name__} does not define a draw")


class _Scaled(Draw):
    """Location and scale: the noise's last two columns are temperature * deviate, plain and times e^floor."""

    def __init__(self, floor: float, gain: float, coefficient: float, temperature: float) -> None:
        self.floor, self.gain, self.coefficient, self.temperature = math.exp(floor), gain, coefficient, temperature

    def prepare(self, deviates: Tensor) -> Tensor:
        """(B, T, n) -> (B, T, n + 1)."""
        scaled = self.temperature * deviates[..., -1:]
        return torch.cat([deviates[..., :-1], scaled / self.gain, scaled * self.floor], -1)

    def moved(self, loc: Tensor, raw: Tensor, noise: Tensor, previous: Tensor) -> Tensor:
        """loc, raw (B,) in the network's units -> (B,) in those of wav."""
        shift = torch.add(noise[:, -1], previous, alpha=self.coefficient)
        return torch.addcmul(shift.add_(loc, alpha=1 / self.gain), noise[:, -2], torch.exp(raw))


class MixtureDraw(_Scaled):
    """Discretised mixture of K logistics: outputs (B, 3K), noise: choice, then as `_Scaled`."""

    def __init__(self, head: MixtureHead, gain: float, coefficient: float, temperature: float, like: Tensor) -> None:
        super().__init__(head.floor, gain, coefficient, temperature)
        self.components, self.step = head.components, 0.0 if head.grid is None else head.grid.step
        if self.step == 0.0:
            return
        # float64: in float32 a sample near full scale would fall on its level's neighbour.
        self.middle = like.new_full((len(like),), 1 / self.step, dtype=torch.float64)
        self.lowest = like.new_full((len(like),), -1.0, dtype=torch.float64)

    def __call__(self, outputs: Tensor, noise: Tensor, previous: Tensor, sample: Tensor) -> None:
        """The component, its logistic, the nearest level, where there are levels."""
        count = self.components
        component = _chosen(outputs[:, :count], noise[:, :1])
        pair = outputs[:, count:].unflatten(1, (2, count)).gather(2, component[:, None].expand(-1, 2, -1))
        value = self.moved(pair[:, 0, 0], pair[:, 1, 0], noise, previous)
        if self.step == 0.0:
            sample.copy_(value)
            return
        value.clamp_(-1, 1)
        level = torch.add(self.middle, value, alpha=1 / self.step).round_()
        torch.add(self.lowest, level, alpha=self.step, out=sample)


class GaussianDraw(_Scaled):
    """Normal density: outputs (B, 2)."""

    def __call__(self, outputs: Tensor, noise: Tensor, previous: Tensor, sample: Tensor) -> None:
        """A normal deviate, moved and scaled."""
        sample.copy_(self.moved(outputs[:, 0], outputs[:, 1], noise, previous))


class ClassDraw(Draw):
    """mu-law classes: outputs (B, Q), noise: choice."""

    def __init__(self, head: MuLawHead, temperature: float, like: Tensor) -> None:
        self.temperature = temperature
        self.levels = head.mulaw.decode(torch.arange(head.mulaw.levels), like.dtype).to(like.device)

    def __call__(self, outputs: Tensor, noise: Tensor, previous: Tensor, sample: Tensor) -> None:
        """A class, and the sample it stands for; at temperature 0 the likeliest."""
        if self.temperature == 0:
            index = outputs.argmax(1)
        else:
            index = _chosen(outputs / self.temperature, noise)[:, 0]
        sample.copy_(self.levels.index_select(0, index))


def make_draw(
    head: MixtureHead | GaussianHead | MuLawHead, gain: float, coefficient: float, temperature: float, like: Tensor
) -> Draw:
    """The draw of a head. like: a tensor of B rows, of the precision and on the device of the network."""
    if isinstance(head, MixtureHead):
        return MixtureDraw(head, gain, coefficient, temperature, like)
    if isinstance(head, GaussianHead):
        return GaussianDraw(head.floor, gain, coefficient, temperature)
    return ClassDraw(head, temperature, like)


def _chosen(logits: Tensor, uniform: Tensor) -> Tensor:
    """Index (B, 1) drawn from softmax(logits (B, K)) by inverse CDF of uniform (B, 1)."""
    edges = logits.softmax(1).cumsum(1)
    return (uniform * edges[:, -1:] >= edges[:, :-1]).sum(1, keepdim=True)
