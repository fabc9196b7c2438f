r"""The best path through a lattice, in parallel over time.

A path's score is sum_i s_i(a_i) + sum_i c_i(a_i, a_{i+1}). Steps are matrices over (max, +), whose product is
associative: all prefixes and all suffixes come by doubling, in log2 F products (Hillis and Steele 1986), and the best
path through state a of frame i scores alpha_i(a) + beta_i(a). Its maximum over a is on the best path: no walk back.
"""

from __future__ import annotations

import torch
from torch import Tensor


def best_path(scores: Tensor, changes: Tensor) -> Tensor:
    """States (B, F) of the best path: scores (B, F, S), changes (B, F - 1, S, S) from a state (rows) to the next.

    Both finite. Where several paths are equally good, a frame takes the first state that one of them passes.
    """
    scores, changes = scores.double(), changes.double()
    forward = scores[:, :1].clone(), changes + scores[:, 1:, None]
    backward = scores[:, -1:].clone(), changes.transpose(2, 3).flip(1) + scores[:, :-1, None].flip(1)
    alpha, beta = (_scan(first, steps) for first, steps in (forward, backward))
    return (alpha + beta.flip(1) - scores).argmax(2)


def _scan(first: Tensor, steps: Tensor) -> Tensor:
    """(B, F, S): the best score of a path from first (B, 1, S) to every state, along steps (B, F - 1, S, S)."""
    reach = 1
    while reach < steps.shape[1]:
        joined = (steps[:, :-reach, :, :, None] + steps[:, reach:, None]).amax(3)
        steps = torch.cat([steps[:, :reach], joined], 1)
        reach *= 2
    return torch.cat([first, (first[..., None] + steps).amax(2)], 1)
