"""What a flow is held against: one Gaussian and a mixture of them, full covariances, by scikit-learn's EM."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_COMPONENTS = (2, 4, 8, 16, 32)
_ROWS_A_COMPONENT = 50  # fewer have no covariance to speak of
_REGULARISERS = (1e-6, 1e-3, 1e-2)  # added to the variances of standardised data
_MANY_ROWS = 5000  # with so many the smallest regulariser is always best


class Baseline:
    """A fitted Gaussian mixture: log_prob (B, m) float64 -> (B,) nats; components: how many."""

    def __init__(self, train: Tensor, components: int, regulariser: float, seed: int = 0) -> None:
        from sklearn.mixture import GaussianMixture

        self.components = components
        self.shift, self.scale = train.double().mean(0), train.double().std(0)
        self.mixture = GaussianMixture(components, reg_covar=regulariser, random_state=seed)
        self.mixture.fit(self._standardised(train))

    def log_prob(self, vectors: Tensor) -> Tensor:
        """x (B, m) -> (B,), float64."""
        found = np.asarray(self.mixture.score_samples(self._standardised(vectors)))
        return torch.from_numpy(found) - self.scale.log().sum()

    def _standardised(self, vectors: Tensor) -> np.ndarray:
        return ((vectors.double() - self.shift) / self.scale).numpy()


def fit_baselines(train: Tensor, validation: Tensor) -> dict[str, Baseline]:
    """{"Gaussian", "mixture"}: components and regulariser are those with the best mean log_prob of `validation`."""
    most = max(2, len(train) // _ROWS_A_COMPONENT)
    several = [count for count in _COMPONENTS if count <= most]
    return {"Gaussian": _best([1], train, validation), "mixture": _best(several, train, validation)}


def _best(components: Sequence[int], train: Tensor, validation: Tensor) -> Baseline:
    regularisers = _REGULARISERS[: 1 if len(train) > _MANY_ROWS else None]
    fitted = [Baseline(train, count, added) for count in components for added in regularisers]
    return max(fitted, key=lambda one: float(one.log_prob(validation).mean()))
