"""What may watch a run: it is fed with the scalars, judges after each validation, and may end the run."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn


@dataclasses.dataclass
class Verdict:
    """scalars to log under their own names, warnings to print, and, where the run must end, why."""

    scalars: dict[str, float] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    stop: str | None = None


class Monitor(Protocol):
    """every: steps between two measurements of each term's gradient; 0 for none. Nothing it does touches a weight."""

    every: int

    def observe(self, scalars: Mapping[str, float]) -> None:
        """The scalars of one training step."""

    def judge(self, step: int, scalars: Mapping[str, float]) -> Verdict:
        """The scalars of a validation after `step` steps."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must hold: plain dicts, lists and numbers."""

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""


def gradient_norms(terms: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]) -> dict[str, Tensor]:
    """{"health/grad/<term>": || d loss/<term> / d parameters ||} of every weighted term, a scalar each.

    One backward pass a term, through a graph that is kept for the step's own; no .grad is touched. A term that does
    not depend on the parameters has norm 0.
    """
    wanted = [parameter for parameter in parameters if parameter.requires_grad]
    norms = {}
    for name, term in terms.items():
        if not name.startswith("loss/"):
            continue
        norm = torch.zeros_like(term)
        if term.requires_grad:
            gradients = torch.autograd.grad(term, wanted, retain_graph=True, allow_unused=True)
            norm = torch.stack([one.norm() for one in gradients if one is not None]).norm()
        norms[f"health/grad/{name.removeprefix('loss/')}"] = norm.detach()
    return norms
