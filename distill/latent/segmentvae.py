r"""`segmentvae`: a variational autoencoder of log-mel patches.

    p(x | z) = N(decoder(z), sigma^2),     q(z | x) Gaussian or with an inverse autoregressive flow,     p(z) by choice

Kingma and Welling 2014, arXiv 1312.6114. x is the patch standardised per band; likelihoods are of the log-mel itself,
the standardisation's log determinant included, in nats per patch.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from distill.latent.masked import MaskedStep
from distill.latent.posteriors import Flowing, Gaussian, Posterior
from distill.latent.priors import Aggregate, MixtureParameters, Prior, StandardNormal
from wavenet.config import AudioConfig, require
from wavenet.features import LogMel
from wavenet.standardised import MelInput

_LOG_2_PI = math.log(2 * math.pi)
_FIRST_LOG_NOISE = -0.5
_LOG_SCALE_RANGE = (-7.0, 2.0)  # of a posterior; the ELBO has no use for less or more
_ROWS = 4096  # patches that are encoded at a time


@dataclasses.dataclass(frozen=True)
class SegmentConfig:
    """A VAE of patches of `frames` mel frames.

    dimensions: d of z. layers of `channels` units in encoder and decoder; 0: both linear. posterior: gaussian, or iaf
    with iaf_steps masked steps of iaf_channels units. prior: normal, a mixture of `components` Gaussians, or vamp with
    as many pseudo-inputs (Gaussian posteriors only). noise: one sigma for all of a patch, or one for each band.
    """

    audio: AudioConfig = dataclasses.field(default_factory=AudioConfig)
    frames: int = 26
    dimensions: int = 10
    layers: int = 1
    channels: int = 192
    posterior: Literal["gaussian", "iaf"] = "gaussian"
    iaf_steps: int = 2
    iaf_channels: int = 32
    prior: Literal["normal", "mixture", "vamp"] = "normal"
    components: int = 64
    noise: Literal["global", "band"] = "global"

    def __post_init__(self) -> None:
        for name in ("frames", "dimensions", "channels", "iaf_steps", "iaf_channels", "components"):
            require(getattr(self, name) > 0, f"model.{name}", getattr(self, name), "a positive integer")
        require(self.layers >= 0, "model.layers", self.layers, "0 or more")
        fits = self.prior != "vamp" or self.posterior == "gaussian"
        require(fits, "model.posterior", self.posterior, "gaussian: a VampPrior states every posterior's density")


class Elbo(NamedTuple):
    """reconstruction E[log p(x | z)] and kl, both (B,) in nats per patch; posterior of the batch."""

    reconstruction: Tensor
    kl: Tensor
    posterior: Posterior


class SegmentVAE(MelInput):
    """patch (B, M, F) [nats] -> posterior; z (..., d) -> patch. Begin with set_statistics of the corpus."""

    def __init__(self, config: SegmentConfig) -> None:
        super().__init__(config.audio.n_mels)
        self.config = config
        self.log_mel = LogMel(config.audio)
        width, d = config.audio.n_mels * config.frames, config.dimensions
        hidden = [config.channels] * config.layers
        self.encoder = _network([width, *hidden])
        self.heads = nn.Linear(hidden[-1] if hidden else width, 2 * d)
        self.decoder = nn.Sequential(*_network([d, *hidden]), nn.Linear(hidden[-1] if hidden else d, width))
        self.log_noise = nn.Parameter(torch.full((config.audio.n_mels if config.noise == "band" else 1,), -0.5))
        with torch.no_grad():
            self.heads.bias.zero_()
            self.log_noise.fill_(_FIRST_LOG_NOISE)
        if config.posterior == "iaf":
            context = self.heads.in_features
            self.steps = nn.ModuleList(MaskedStep(d, context, config.iaf_channels) for _ in range(config.iaf_steps))
        if config.prior == "mixture":
            self.mixture = MixtureParameters(config.components, d)
        if config.prior == "vamp":
            self.pseudo_inputs = nn.Parameter(torch.randn(config.components, config.audio.n_mels, config.frames))

    def set_pseudo_inputs(self, patches: Tensor) -> None:
        """Begin the VampPrior at patches (K, M, F) [nats] of the corpus."""
        with torch.no_grad():
            self.pseudo_inputs.copy_(self.standardised(patches))

    def posterior(self, patches: Tensor) -> Posterior:
        """q(z | x) of patches (B, M, F) [nats]. Raises UserError for another shape."""
        frames = patches.shape[-1]
        require(frames == self.config.frames, "patches", tuple(patches.shape), f"{self.config.frames} frames")
        return self._encode(self.standardised(patches))

    @torch.no_grad()
    def posteriors(self, patches: Tensor) -> Posterior:
        """The same of many patches (n, M, F), some at a time, in float64: what sums over all of them want."""
        parts = [self.posterior(part) for part in patches.split(_ROWS)]
        bases = [part.base if isinstance(part, Flowing) else part for part in parts]
        base = Gaussian(*(torch.cat([getattr(one, name).double() for one in bases]) for name in ("loc", "scale")))
        contexts = [part.context.double() for part in parts if isinstance(part, Flowing)]
        if not contexts:
            return base
        steps = [MaskedStep(*_sizes(step)).double() for step in self.steps]
        for copy, step in zip(steps, self.steps, strict=True):
            copy.load_state_dict({name: value.double() for name, value in step.state_dict().items()})
        return Flowing(base, torch.cat(contexts), [step.requires_grad_(False) for step in steps])

    def prior(self) -> Prior:
        """p(z), with gradients to what of it is learned."""
        if self.config.prior == "mixture":
            mixture: Aggregate = self.mixture()
            return mixture
        if self.config.prior == "vamp":
            return Aggregate(self._encode(self.pseudo_inputs))
        return StandardNormal(self.config.dimensions, self.log_noise)

    def decode(self, z: Tensor) -> Tensor:
        """Mean of x given z: (..., d) -> patch (..., M, F) [nats]."""
        return self._standard_patch(z) * self.std[:, None] + self.mean[:, None]

    def log_likelihood(self, patches: Tensor, z: Tensor) -> Tensor:
        """log p(x | z) of the log-mel [nats per patch]: patches (B, M, F), z (..., B, d) -> (..., B)."""
        deviation = (self.standardised(patches) - self._standard_patch(z)) * (-self.log_noise[:, None]).exp()
        constant = self.log_noise.expand(self.n_mels) + self.std.log() + 0.5 * _LOG_2_PI
        return -0.5 * deviation.square().sum((-2, -1)) - self.config.frames * constant.sum()

    def elbo(self, patches: Tensor, draws: int = 1, generator: torch.Generator | None = None) -> Elbo:
        """The terms of the ELBO of patches (B, M, F), means of `draws`; the KL in closed form where it has one."""
        posterior, prior = self.posterior(patches), self.prior()
        z, log_q = posterior.draw(draws, generator)
        if isinstance(posterior, Gaussian) and isinstance(prior, StandardNormal):
            kl = posterior.kl_to_standard_normal().sum(1)
        else:
            kl = (log_q - prior.log_prob(z)).mean(0)
        return Elbo(self.log_likelihood(patches, z).mean(0), kl, posterior)

    def _encode(self, standardised: Tensor) -> Posterior:
        features = self.encoder(standardised.flatten(1))
        loc, log_scale = self.heads(features).chunk(2, 1)
        base = Gaussian(loc, log_scale.clamp(*_LOG_SCALE_RANGE).exp())
        return Flowing(base, features, list(self.steps)) if self.config.posterior == "iaf" else base  # type: ignore[arg-type]

    def _standard_patch(self, z: Tensor) -> Tensor:
        patch: Tensor = self.decoder(z).unflatten(-1, (self.n_mels, self.config.frames))
        return patch


def active_units(posterior: Posterior, threshold: float = 0.01) -> int:
    """Dimensions whose posterior mean varies over the patches by more than `threshold` (Burda et al. 2016, 1509.00519).

    Of an IAF posterior, where its base's mean goes.
    """
    return int((posterior.centre().var(0) > threshold).sum())


def _network(widths: list[int]) -> nn.Sequential:
    pairs = itertools.pairwise(widths)
    return nn.Sequential(*(layer for pair in pairs for layer in (nn.Linear(*pair), nn.SiLU())))


def _sizes(step: nn.Module) -> tuple[int, int, int]:
    assert isinstance(step, MaskedStep)
    return step.inner.in_features, step.context.in_features, step.inner.out_features
