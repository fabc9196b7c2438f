"""The picture beside the table: the plane of two latent dimensions, what it decodes to, curves and terms."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from distill import models
from distill.latent.posteriors import Posterior
from distill.latent.ppca import PPCA
from distill.latent.priors import Prior, StandardNormal
from distill.latent.segmentvae import SegmentVAE
from wavenet.run import read_metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PLANES = {"normal": "VAE, normal prior", "mixture": "VAE, mixture prior", "vamp": "VAE, VampPrior"}
_COLOURS = {"ppca": "#454b54", "normal": "#2563c9", "mixture": "#d2521f", "vamp": "#12876f", "iaf": "#8a49c4"}
_POINTS, _SIDE = 4000, 9


def draw(
    path: Path,
    runs: Mapping[tuple[int, str], Path],
    ppca: PPCA,
    standardised: Tensor,
    patches: Tensor,
    figures: dict[str, Any],
) -> None:
    """Write a PNG. runs: (d, variant) -> run folder; ppca of 2 dimensions of the standardised patches (n, M F).

    patches (n, M, F) [nats]. Raises ImportError without matplotlib; the file appears whole or not at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(14, 7.4), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 4)
    places = torch.linspace(0, len(patches) - 1, min(_POINTS, len(patches))).long()
    level = patches[places].mean((1, 2))
    planes: list[tuple[str, Posterior, Prior]] = [
        ("probabilistic PCA", ppca.independent_posterior(standardised[places]), StandardNormal(2, ppca.mean))
    ]
    for variant, title in _PLANES.items():
        model: SegmentVAE = models.load(runs[2, variant])
        planes.append((title, model.posteriors(patches[places]), model.prior()))
    for column, plane in enumerate(planes):
        axes = figure.add_subplot(grid[0, column])
        shown = _plane(axes, *plane, level)
    figure.colorbar(shown, ax=axes, label="mean log-mel of the patch [nats]")
    _decoded(figure.add_subplot(grid[1, 0]), models.load(runs[2, "normal"]))
    _curves(figure.add_subplot(grid[1, 1]), runs)
    _terms(figure.add_subplot(grid[1, 2:]), figures)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=80)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plane(axes: Axes, title: str, posterior: Posterior, prior: Prior, level: Tensor) -> Any:
    """Posterior means, coloured by level, over lines of equal prior density."""
    loc = posterior.centre()
    reach = float(loc.abs().quantile(0.999)) * 1.1
    axis = torch.linspace(-reach, reach, 161, dtype=loc.dtype)
    with torch.no_grad():
        density = prior.log_prob(torch.cartesian_prod(axis, axis)).reshape(161, 161).T
    steps = float(density.max()) - np.arange(8.0, 0.0, -1.0)
    axes.contour(axis.numpy(), axis.numpy(), density.numpy(), levels=steps, colors="#454b54", linewidths=0.5, alpha=0.7)
    shown = axes.scatter(
        loc[:, 0].numpy(), loc[:, 1].numpy(), c=level.numpy(), s=2, cmap="viridis", linewidths=0, rasterized=True
    )
    axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), aspect="equal")
    return shown


def _decoded(axes: Axes, model: SegmentVAE) -> None:
    """Mean patches at the quantiles of N(0, 1), z_1 to the right, z_2 upwards; each with low bands at its bottom."""
    quantiles = torch.special.ndtri((torch.arange(_SIDE) + 0.5) / _SIDE)
    z = torch.stack([torch.stack([first, second]) for second in quantiles.flip(0) for first in quantiles])
    patches = model.decode(z).flip(1)
    rows = [torch.cat(list(patches[row * _SIDE : (row + 1) * _SIDE]), 1) for row in range(_SIDE)]
    axes.imshow(torch.cat(rows).numpy(), aspect="auto", cmap="magma", interpolation="nearest")
    axes.set(title="mean patches, normal prior", xlabel="z_1", ylabel="z_2", xticks=[], yticks=[])


def _curves(axes: Axes, runs: Mapping[tuple[int, str], Path]) -> None:
    styles: Sequence[str] = (":", "--", "-", "-.")
    dimensions, lowest = sorted({d for d, _ in runs}), math.inf
    for (d, variant), run in runs.items():
        points = [(line["step"], line["validation/elbo"]) for line in read_metrics(run) if "validation/elbo" in line]
        steps, values = zip(*points, strict=True)
        lowest = min(lowest, values[min(1, len(values) - 1)])  # the first is far below
        style = styles[dimensions.index(d) % len(styles)]
        axes.plot(
            steps, values, style, color=_COLOURS[variant], label=variant if d == dimensions[0] else None, linewidth=1
        )
        if variant == "normal":
            axes.text(steps[-1], values[-1], f" {d}-D", fontsize=7, va="center")
    axes.set(title="ELBO of dev patches", xlabel="step", ylabel="nats per patch")
    axes.margins(x=0.1)
    axes.set_ylim(bottom=lowest)
    axes.legend(fontsize=7, loc="center right")


def _terms(axes: Axes, figures: dict[str, Any]) -> None:
    """Mutual information and marginal KL, one above the other: together the average KL."""
    rows = figures["rows"]
    places = np.arange(len(rows))
    information = [row["mutual_information"]["value"] for row in rows]
    marginal = [row["marginal_kl"]["value"] for row in rows]
    axes.bar(places, information, color="#2563c9", label="mutual information")
    axes.bar(places, marginal, bottom=information, color="#e0b64f", label="marginal KL")
    axes.axhline(math.log(figures["n"]), color="#b04030", linestyle="--", linewidth=1, label="log n")
    axes.set_xticks(
        places, [f"{row['dimensions']}-D {row['name']}" for row in rows], rotation=60, ha="right", fontsize=7
    )
    axes.set(title="what the average KL consists of", ylabel="nats per patch")
    axes.legend()
