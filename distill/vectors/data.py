"""Vectors to fit a density to, in three splits: draws of known densities, and tables that come with scikit-learn."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor
from torch.utils.data import Dataset

from distill.vectors.densities import DENSITIES, Density
from wavenet.errors import UserError

TABLES = ("cancer", "digits")
NAMES = (*DENSITIES, *TABLES)
_DRAWN = 20000, 2000, 10000  # for training, validation, test
_SPLIT_SEED = 0  # one split for everybody: figures of two runs compare


@dataclasses.dataclass(frozen=True)
class VectorData:
    """train, validation, test (N, m) float32. density: where the law is known; step: where entries are levels.

    image: height and width where a vector is a picture.
    """

    name: str
    train: Tensor
    validation: Tensor
    test: Tensor
    density: Density | None = None
    step: float | None = None
    image: tuple[int, int] | None = None

    @property
    def size(self) -> int:
        """Entries of a vector, m."""
        return self.train.shape[1]


def open_data(name: str) -> VectorData:
    """A data set by name. Raises UserError for a name that there is not.

    moons, eight-gaussians, banana: 20000, 2000 and 10000 draws. cancer: 569 rows of 30 measurements (Wisconsin breast
    cancer), each as the logarithm of itself plus a hundredth of its mean, for they are sizes, with long tails and a few
    zeros. digits: 1797 handwritten digits, 8 x 8 of the levels 0, 1, ..., 16. 70%, 10% and 20% of either, shuffled.
    """
    if name in DENSITIES:
        density = DENSITIES[name]()
        generator = torch.Generator().manual_seed(_SPLIT_SEED)
        train, validation, test = (density.sample(count, generator).float() for count in _DRAWN)
        return VectorData(name, train, validation, test, density)
    if name not in TABLES:
        raise UserError(f"data: found {name!r}, expected one of {', '.join(NAMES)}")
    from sklearn import datasets

    loaded = datasets.load_digits() if name == "digits" else datasets.load_breast_cancer()
    rows = torch.from_numpy(loaded.data).float()
    if name == "cancer":
        rows = (rows + rows.mean(0) / 100).log()
    rows = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(_SPLIT_SEED))]
    train, validation, test = rows.split(
        [len(rows) - len(rows) // 10 - len(rows) // 5, len(rows) // 10, len(rows) // 5]
    )
    if name == "digits":
        return VectorData(name, train, validation, test, step=1.0, image=(8, 8))
    return VectorData(name, train, validation, test)


class VectorBatches(Dataset[Tensor]):
    """Batches (batch_size, m) of the rows (N, m); the batch of a step is a function of (seed, step)."""

    def __init__(self, rows: Tensor, batch_size: int, seed: int) -> None:
        self.rows, self.batch_size, self.seed = rows, batch_size, seed

    def __getitem__(self, step: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        return self.rows[torch.randint(len(self.rows), (self.batch_size,), generator=generator)]
