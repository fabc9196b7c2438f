"""Passes of networks, counted as they happen."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import nn


def passes_of(networks: Sequence[Sequence[nn.Module]], work: Callable[[], object]) -> int:
    """How often `work` goes through the networks, as it happens: the busiest of each group; 1 without any."""
    if not networks:
        return 1
    counts = {module: 0 for group in networks for module in group}

    def tick(module: nn.Module, *_: object) -> None:
        counts[module] += 1

    hooks = [module.register_forward_hook(tick) for module in counts]
    work()
    for hook in hooks:
        hook.remove()
    return sum(max(counts[module] for module in group) for group in networks)
