"""The part of a draw that does not depend on the network, made for a whole signal at once."""

from __future__ import annotations

import torch
from torch import Tensor

from wavenet.distributions.base import open_interval
from wavenet.heads import GaussianHead, MixtureHead, MuLawHead


def deviates(head: MixtureHead | GaussianHead | MuLawHead, uniforms: Tensor) -> Tensor:
    """uniforms (B, T, n) -> (B, T, n): a mixture's choice and logistic deviate, a normal deviate, a class's choice."""
    inside = open_interval(uniforms)
    if isinstance(head, MixtureHead):
        return torch.stack([inside[..., 0], torch.logit(inside[..., 1])], -1)
    return torch.special.ndtri(inside) if isinstance(head, GaussianHead) else inside
