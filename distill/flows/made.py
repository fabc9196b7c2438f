r"""MADE: a network whose i-th outputs depend on the coordinates before i alone, in any order, by masks on its weights.

Germain et al. 2015, arXiv 1502.03509. Coordinate i stands at place p(i) of an order. Every hidden unit has a degree d
and sees, through whatever layers, inputs of place <= d only; outputs of coordinate i see hidden units of degree < p(i):

    mask(unit <- unit below) = 1[d >= d_below],   mask(output i <- unit) = 1[p(i) > d].

Paper -> code: m(k) -> degree, counted from 0; units of degree -1 see the features alone. Where every unit has the one
degree k - 1, the last coordinates see all of the first k and these see none: the mask of an affine coupling (RealNVP).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavenet.config import require


class MaskedLinear(nn.Linear):
    """A linear layer with the weights where mask (out, in) is 0 left out: (..., in) -> (..., out)."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__(mask.shape[1], mask.shape[0])
        self.register_buffer("mask", mask.to(self.weight.dtype), persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        return F.linear(input, self.weight * self.mask, self.bias)


class MADE(nn.Module):
    """x (B, m), features (B, C) or none -> (B, outputs, m); outputs of coordinate i see those before it in `order`.

    order: the coordinates, first to last (a permutation of 0, ..., m - 1; none: as they stand). features: C, what every
    output sees besides. hidden: width of each hidden layer; degrees go round in turn, so that every output depends on
    all the coordinates before it; or these degrees, from -1 to m - 2. Raises UserError where order is no permutation,
    or a layer is too narrow for its degrees.
    """

    def __init__(
        self,
        size: int,
        hidden: Sequence[int],
        outputs: int = 2,
        order: Sequence[int] | None = None,
        features: int = 0,
        degrees: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        require(size > 0, "size", size, "a positive integer")
        self.size, self.outputs, self.features = size, outputs, features
        self.order = list(range(size)) if order is None else list(order)
        require(sorted(self.order) == list(range(size)), "order", self.order, f"a permutation of 0 to {size - 1}")
        places = torch.tensor(self.order).argsort()
        usual = range(-1 if features or size == 1 else 0, size - 1)
        around = torch.tensor(list(usual if degrees is None else degrees))
        within = len(around) > 0 and int(around.min()) >= -1 and int(around.max()) <= max(size - 2, -1)
        require(within, "degrees", degrees, f"numbers from -1 to {size - 2}")
        layers, below = [], torch.cat([places, torch.full((features,), -1)])
        for width in hidden:
            require(width >= len(around), "hidden", width, f"at least {len(around)}, so that no coordinate is lost")
            own = around[torch.arange(width) % len(around)]
            layers += [MaskedLinear(own[:, None] >= below), nn.SiLU()]
            below = own
        self.last = MaskedLinear(places.repeat(outputs)[:, None] > below)
        self.layers = nn.Sequential(*layers)

    def forward(self, vector: Tensor, features: Tensor | None = None) -> Tensor:
        """x (B, m), features (B, C) -> (B, outputs, m)."""
        if self.features:
            assert features is not None, "this network was built with features"
            vector = torch.cat([vector, features], 1)
        result: Tensor = self.last(self.layers(vector)).unflatten(1, (self.outputs, self.size))
        return result
