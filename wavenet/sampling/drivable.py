"""What the samplers that compute a teacher's network themselves ask of it."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from wavenet.heads import GaussianHead, MixtureHead, MuLawHead
from wavenet.stack import Stack
from wavenet.upsample import Conditioning


class Drivable(Protocol):
    """A teacher, seen from there."""

    stack: Stack
    head: MixtureHead | GaussianHead | MuLawHead
    gain: float
    config: Any

    def conditioning(self, mel: Tensor, speaker: Tensor | None = None) -> Conditioning:
        """What the network is driven by."""
        ...
