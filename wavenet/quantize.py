"""Quantisation of wav in [-1, 1]: the only place that knows how wide a bin is."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wavenet.config import require


class Grid:
    """2^bits equidistant levels from -1 to 1, both included: step = 2 / (levels - 1)."""

    def __init__(self, bits: int) -> None:
        require(1 <= bits <= 24, "bits", bits, "1 to 24")
        self.bits, self.levels = bits, 2**bits
        self.step = 2 / (self.levels - 1)
        self.half_step = self.step / 2

    def index(self, wav: Tensor) -> Tensor:
        """Nearest level of each sample, int64 in [0, levels); beyond [-1, 1] the edge levels."""
        # float64: in float32 a recording near full scale would fall on its neighbour's level.
        return torch.round((wav.double().clamp(-1, 1) + 1) / self.step).long()

    def value(self, index: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Level -> sample in [-1, 1]."""
        return (index.double() * self.step - 1).to(dtype)

    def quantize(self, wav: Tensor) -> Tensor:
        """Round to the nearest level, in the precision of `wav`."""
        return self.value(self.index(wav), wav.dtype)


class MuLaw:
    """2^bits classes of equal width on the mu-law scale (ITU-T G.711), mu = levels - 1.

    f(x) = sign(x) log(1 + mu |x|) / log(1 + mu) maps [-1, 1] onto itself; class i covers f in [-1 + 2 i / levels,
    -1 + 2 (i + 1) / levels), the last one 1 as well, and stands for the sample at the middle of that cell of the scale.
    """

    def __init__(self, bits: int) -> None:
        require(1 <= bits <= 16, "bits", bits, "1 to 16")
        self.bits, self.levels = bits, 2**bits
        self._log = math.log1p(self.levels - 1)
        # Division by a power of two is exact: the edges are the images of exact cells, and mirror each other.
        cells = torch.arange(self.levels + 1, dtype=torch.float64) * 2 / self.levels - 1
        self._edges = self.expand(cells)
        self._edges[0], self._edges[-1] = -1.0, 1.0

    def compress(self, wav: Tensor) -> Tensor:
        """f: amplitude -> mu-law scale, both in [-1, 1]."""
        return torch.sign(wav) * torch.log1p((self.levels - 1) * wav.abs()) / self._log

    def expand(self, companded: Tensor) -> Tensor:
        """The inverse of f."""
        return torch.sign(companded) * torch.expm1(companded.abs() * self._log) / (self.levels - 1)

    def encode(self, wav: Tensor) -> Tensor:
        """Class of each sample, int64 in [0, levels); beyond [-1, 1] the edge classes."""
        # By search among the edges: the rounded logarithm puts two edges in five into the class below theirs.
        inner = self._edges[1:-1].to(wav.device)
        return torch.bucketize(wav.double().contiguous(), inner, right=True)

    def decode(self, index: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Class -> the sample it stands for."""
        return self.expand((index.double() + 0.5) * 2 / self.levels - 1).to(dtype)

    def edges(self) -> Tensor:
        """(levels + 1,) float64: class i covers samples in [edges[i], edges[i + 1]), and encode(edges[i]) is i."""
        return self._edges.clone()

    def log_width(self) -> Tensor:
        """(levels,) float64: log of each class's width in units of wav."""
        return self.edges().diff().log()
