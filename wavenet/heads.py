"""From network outputs to the distribution of x_t: one head for each kind of output distribution.

A head reads parameters (B, P, T) in units of emphasised speech of unit rms, u_t = g (x_t - a x_{t-1}), and returns the
distribution of x_t itself: given the past, x_t = u_t / g + a x_{t-1} is a shift and a scaling, so loc = loc_u / g +
a x_{t-1} and log_scale = log_scale_u - log g, exactly. The floor under the scales is applied
here and nowhere else.
"""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor
from torch.distributions import Distribution

from wavenet.config import DistributionConfig, require
from wavenet.distributions.categorical import MuLawCategorical
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import DiscretizedMixtureLogistic
from wavenet.layers import soft_floor
from wavenet.quantize import Grid, MuLaw


class MixtureHead:
    """Discretised mixture of K logistics on 2^bits levels (PixelCNN++, Salimans et al. 2017, arXiv 1701.05517)."""

    noise_channels = DiscretizedMixtureLogistic.noise_channels

    def __init__(self, config: DistributionConfig) -> None:
        self.components, self.floor = config.components, config.log_scale_floor
        self.grid: Grid | None = Grid(config.bits)  # of the draws
        self.channels = 3 * config.components

    def continuous(self) -> MixtureHead:
        """The same for samplers whose draws are not rounded."""
        head = copy.copy(self)
        head.grid = None
        return head

    def initial_bias(self) -> Tensor:
        """Equal weights, locations spread over one rms, scales of half an rms."""
        k = self.components
        spread = torch.linspace(-1.0, 1.0, k) if k > 1 else torch.zeros(1)
        return torch.cat([torch.zeros(k), spread, torch.full((k,), -1.0)])

    def __call__(self, params: Tensor, shift: Tensor, gain: float) -> Distribution:
        """params (B, 3K, T), shift a x_{t-1} (B, T) -> distribution of x_t, batch shape (B, T)."""
        assert self.grid is not None, "of draws that are not rounded there is no law here"
        logits, loc, raw = params.transpose(1, 2).chunk(3, -1)
        log_scale = soft_floor(raw - math.log(gain), self.floor)
        return DiscretizedMixtureLogistic(logits, loc / gain + shift[..., None], log_scale, self.grid)


class GaussianHead:
    """Normal density (ClariNet, Ping et al. 2018, arXiv 1807.07281)."""

    noise_channels = Gaussian.noise_channels
    channels = 2

    def __init__(self, config: DistributionConfig) -> None:
        self.floor = config.log_scale_floor

    def continuous(self) -> GaussianHead:
        """The same: no draw of it is rounded."""
        return self

    def initial_bias(self) -> Tensor:
        """Centred, with the scale of the signal."""
        return torch.zeros(2)

    def __call__(self, params: Tensor, shift: Tensor, gain: float) -> Distribution:
        """params (B, 2, T), shift a x_{t-1} (B, T) -> distribution of x_t, batch shape (B, T)."""
        loc, raw = params.unbind(1)
        return Gaussian(loc / gain + shift, soft_floor(raw - math.log(gain), self.floor))


class MuLawHead:
    """2^bits classes on the mu-law scale (WaveNet, van den Oord et al. 2016, arXiv 1609.03499)."""

    noise_channels = MuLawCategorical.noise_channels

    def __init__(self, config: DistributionConfig) -> None:
        self.mulaw = MuLaw(config.bits)
        self.channels = self.mulaw.levels

    def continuous(self) -> MuLawHead:
        """Raises TypeError: classes have no continuous law."""
        raise TypeError("mu-law classes have no continuous law")

    def initial_bias(self) -> Tensor:
        """Uniform over the classes, hence loudness-weighted in amplitude."""
        return torch.zeros(self.channels)

    def __call__(self, params: Tensor, shift: Tensor, gain: float) -> Distribution:
        """params (B, Q, T) -> distribution of x_t, batch shape (B, T). Classes do not shift: no pre-emphasis."""
        return MuLawCategorical(params.transpose(1, 2), self.mulaw)


def make_head(config: DistributionConfig, pre_emphasis: float) -> MixtureHead | GaussianHead | MuLawHead:
    """The head named by the configuration."""
    require(
        config.kind != "mulaw" or pre_emphasis == 0.0,
        "pre_emphasis",
        pre_emphasis,
        "0 with distribution.kind mulaw, whose classes are fixed",
    )
    head = {"mol": MixtureHead, "gaussian": GaussianHead, "mulaw": MuLawHead}[config.kind](config)
    assert isinstance(head, MixtureHead | GaussianHead | MuLawHead)
    return head
