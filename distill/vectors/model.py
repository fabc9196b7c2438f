"""A density of vectors: normal noise through autoregressive flows with permutations between, in the data's units."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

import torch
from torch import Tensor, nn

from distill.dequantization import UniformDequantizer, VariationalDequantizer, bound
from distill.flows.base import Chain, Flow, log_prob
from distill.flows.mixture import VectorMixture
from distill.flows.permutation import Permutation
from distill.flows.vectors import VectorIAF, VectorMAF
from distill.flows.whitening import Whitening
from wavenet.config import require
from wavenet.distributions.gaussian import Gaussian
from wavenet.errors import UserError


@dataclasses.dataclass(frozen=True)
class VectorConfig:
    """size: entries m. direction maf: density in 1 pass of each network, samples in m; iaf: the other way.

    order: what stands between the flows, the coordinates reversed, or in a random order drawn from order_seed.
    whitening: the data's covariance or only its diagonal is taken out by the last, fixed step. step,
    dequantization: for vectors of levels, how far those are apart, and what noise fills the cells.
    components: of the mixtures that the conditionals of the first flow, next to the noise, are (MADE MoG); 0: none.
    """

    size: int = 2
    direction: Literal["maf", "iaf"] = "maf"
    flows: int = 5
    hidden: list[int] = dataclasses.field(default_factory=lambda: [64, 64])
    order: Literal["reverse", "random"] = "reverse"
    order_seed: int = 0
    whitening: Literal["full", "diagonal"] = "full"
    log_scale_range: tuple[float, float] = (-7.0, 5.0)
    step: float | None = None
    dequantization: Literal["uniform", "variational"] = "uniform"
    components: int = 0

    def __post_init__(self) -> None:
        for name in ("size", "flows"):
            require(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "a positive integer")
        require(self.components >= 0, "model.components", self.components, "0 or a positive integer")
        possible = self.components == 0 or self.direction == "maf"
        require(possible, "model.components", self.components, "0 with direction iaf")


class VectorModel(nn.Module):
    """p(x) of vectors (B, m). With a step, p is a density over the cells of levels and `bound` their likelihood's."""

    def __init__(self, config: VectorConfig) -> None:
        super().__init__()
        self.config, self.size = config, config.size
        size = self.size
        generator = torch.Generator().manual_seed(config.order_seed)
        steps: list[Flow] = []
        for place in range(config.flows):
            if place:
                random = torch.randperm(size, generator=generator).tolist()
                steps.append(Permutation(random if config.order == "random" else list(range(size))[::-1]))
            options: dict[str, Any] = {"log_scale_range": config.log_scale_range, "output_gain": 0.1}
            if config.components and place == 0:
                steps.append(VectorMixture(size, config.hidden, config.components, **options))
            else:
                kind = VectorMAF if config.direction == "maf" else VectorIAF
                steps.append(kind(size, config.hidden, **options))
        self.whitening = Whitening(torch.zeros(size), torch.eye(size))
        self.chain = Chain([*steps, self.whitening])
        self.dequantizer: UniformDequantizer | None = None
        if config.step is not None:
            self.dequantizer = UniformDequantizer(config.step)
            if config.dequantization == "variational":
                self.dequantizer = VariationalDequantizer(config.step, size, config.hidden)

    def whiten(self, rows: Tensor) -> None:
        """Take mean and covariance (or its diagonal) from data (N, m): of levels with uniform noise's variance.

        Raises UserError where the covariance is singular.
        """
        added = 0.0 if self.config.step is None else self.config.step**2 / 12
        covariance = torch.cov(rows.double().T).reshape(self.size, self.size) + added * torch.eye(self.size).double()
        if self.config.whitening == "diagonal":
            covariance = covariance.diagonal().diag()
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if bool(failed):
            raise UserError("data: found columns that are constant or follow from others, expected independent ones")
        self.whitening.shift.copy_(rows.double().mean(0))
        self.whitening.factor.copy_(factor)
        if isinstance(self.dequantizer, VariationalDequantizer):
            self.dequantizer.shift.copy_(rows.mean())
            self.dequantizer.scale.copy_(rows.std())

    def log_prob(self, vectors: Tensor) -> Tensor:
        """log p(x) in nats: (B, m) -> (B,)."""
        zero = vectors.new_zeros(())
        return log_prob(self.chain, Gaussian(zero, zero), vectors, None)

    def bound(self, levels: Tensor, draws: int = 1, generator: torch.Generator | None = None) -> Tensor:
        """Lower bound on log P(levels) in nats, Monte Carlo over `draws`: (B, m) -> (B,); log_prob where no step."""
        if self.dequantizer is None:
            return self.log_prob(levels)
        return bound(self.log_prob, self.dequantizer, levels, draws, generator)

    def noise(self, vectors: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Data back to noise (B, m), which is standard normal where the fit is perfect; levels are dequantised."""
        if self.dequantizer is not None:
            vectors, _ = self.dequantizer(vectors, generator)
        noise, _ = self.chain.inverse(vectors)
        return noise

    @torch.no_grad()
    def sample(self, rows: int, generator: torch.Generator | None = None) -> Tensor:
        """Draws (rows, m), continuous also where the data are levels."""
        like = self.whitening.shift
        noise = torch.randn(rows, self.size, generator=generator, dtype=like.dtype).to(like.device)
        vectors, _ = self.chain(noise)
        return vectors
