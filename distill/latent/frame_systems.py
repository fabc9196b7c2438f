"""Densities of single mel frames under one interface: log density or bound, draws, and the networks at work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from distill import models
from distill.flows.base import log_prob
from distill.flows.made import MADE
from distill.flows.whitening import Whitening
from distill.latent.ppca import PPCA
from distill.latent.segmentvae import SegmentVAE
from distill.vectors.model import VectorModel
from wavenet.distributions.gaussian import Gaussian

POSTERIORS = {"gaussian": "VAE", "iaf": "VAE, IAF posterior"}


class System(NamedTuple):
    """A row: what it learns from, log density or bound (N, M) -> (N,), draws (count, M), all in float32.

    networks: groups that work one after the other; those of a group are one stack, of which a pass is one through each.
    """

    title: str
    signal: str
    density: str
    log_density: Callable[[Tensor, torch.Generator], Tensor]
    sample: Callable[[int, torch.Generator], Tensor]
    networks: Sequence[Sequence[nn.Module]] = ()


def systems_of(frames: Tensor, dimensions: int, out: Path) -> list[System]:
    """Every row: in closed form from training frames (N, M), and from the runs of `out`."""
    found = [gaussian(frames), ppca(frames, dimensions)]
    for name, signal in (("maf", "likelihood"), ("iaf", "KL to the MAF")):
        found.append(flow(name.upper(), signal, models.load(out / name)))
    for posterior, title in POSTERIORS.items():
        found.append(autoencoder(f"{title}, {dimensions} dimensions", models.load(out / f"vae-{posterior}")))
    return found


def gaussian(frames: Tensor) -> System:
    """Mean and full covariance of the frames."""
    rows = frames.double()
    model = Whitening(rows.mean(0).float(), torch.linalg.cholesky(torch.cov(rows.T)).float())
    zero = torch.zeros(())

    def sample(count: int, generator: torch.Generator) -> Tensor:
        drawn: Tensor = model(torch.randn(count, frames.shape[1], generator=generator))[0]
        return drawn

    return System(
        "Gaussian, full covariance",
        "likelihood, closed form",
        "exact",
        lambda x, _: log_prob(model, Gaussian(zero, zero), x, None),
        sample,
    )


def ppca(frames: Tensor, dimensions: int) -> System:
    """Probabilistic PCA of standardised frames, as the VAEs' are: its noise has one size for all bands, as theirs."""
    rows = frames.double()
    mean, std = rows.mean(0), rows.std(0)
    fitted = PPCA.fit((rows - mean) / std, dimensions)
    model = PPCA(fitted.mean.float(), fitted.weight.float(), fitted.variance.float())
    mean, std = mean.float(), std.float()
    return System(
        f"probabilistic PCA, {dimensions} dimensions",
        "likelihood, closed form",
        "exact",
        lambda x, _: model.log_prob((x - mean) / std) - std.log().sum(),
        lambda count, generator: model.sample(count, generator) * std + mean,
    )


def flow(title: str, signal: str, model: VectorModel) -> System:
    """A MAF or an IAF."""
    nets = [module for module in model.modules() if isinstance(module, MADE)]
    return System(title, signal, "exact", lambda x, _: model.log_prob(x), model.sample, [nets])


def autoencoder(title: str, model: SegmentVAE) -> System:
    """A VAE of patches that are one frame long."""
    steps: list[nn.Module] = list(model.steps) if model.config.posterior == "iaf" else []
    groups: list[list[nn.Module]] = [[model.encoder], steps, [model.decoder]]
    return System(
        title,
        "bound",
        "lower bound",
        lambda x, generator: bound(model, x, generator),
        lambda count, generator: draw(model, count, generator),
        [group for group in groups if group],
    )


def bound(vae: SegmentVAE, frames: Tensor, generator: torch.Generator) -> Tensor:
    """ELBO (N,) [nats] of frames (N, M), by one draw of z for each."""
    found = vae.elbo(frames[:, :, None], 1, generator)
    return found.reconstruction - found.kl


def draw(vae: SegmentVAE, count: int, generator: torch.Generator) -> Tensor:
    """Draws of x (count, M), the decoder's noise included."""
    mean = vae.decode(vae.prior().sample(count, generator))[..., 0]
    return mean + torch.randn(mean.shape, generator=generator) * vae.log_noise.exp() * vae.std
