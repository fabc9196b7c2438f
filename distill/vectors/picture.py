"""The picture of a fit: data, samples, the data sent back to noise, and that noise's quantiles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_POINTS = 2000
_INK, _DATA, _MODEL, _NOISE = "#454b54", "#2563c9", "#d2521f", "#12876f"
_MONTAGE = 8  # pictures a side


def draw(
    path: Path, data: Tensor, samples: Tensor, noise: Tensor, shown: tuple[int, int], image: tuple[int, int] | None
) -> None:
    """Write a PNG: data (N, m), samples (N, m), noise (N, m), the data's own. Raises ImportError without matplotlib.

    Of data and samples the two first coordinates are drawn, of more than two their projection on the data's two first
    principal components, or, with `image` (height, width), the vectors as pictures; of the noise the two coordinates
    `shown`, over the circles that hold 39%, 86% and 99% of a standard normal; its quantiles against the normal's, a
    line for each coordinate.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.3), layout="constrained")
    FigureCanvasAgg(figure)
    left, middle, base, quantiles = figure.subplots(1, 4)
    if image is not None:
        shades = float(data.min()), float(data.max())
        _montage(left, data, image, "held-out data", shades)
        _montage(middle, samples, image, "samples", shades)
    else:
        flat, drawn, names = _plane(data, samples)
        limits = [(float(low), float(high)) for low, high in zip(*_limits(flat), strict=True)]
        for axes, points, colour, title in (
            (left, flat, _DATA, "held-out data"),
            (middle, drawn, _MODEL, "samples"),
        ):
            _scatter(axes, points, colour, title, limits, names)
    _scatter(
        base,
        noise[:, list(shown)],
        _NOISE,
        "data sent back to noise",
        [(-4.0, 4.0)] * 2,
        (f"z{shown[0] + 1}", f"z{shown[1] + 1}"),
    )
    base.set_aspect("equal")
    angle = np.linspace(0, 2 * np.pi, 100)
    for radius in (1, 2, 3):
        base.plot(radius * np.cos(angle), radius * np.sin(angle), color=_INK, linewidth=0.8)
    _quantiles(quantiles, noise)
    figure.savefig(path, dpi=110)


def _plane(data: Tensor, samples: Tensor) -> tuple[Tensor, Tensor, tuple[str, str]]:
    if data.shape[1] == 2:
        return data, samples, ("x1", "x2")
    mean, deviation = data.mean(0), data.std(0).clamp(min=1e-12)
    _, _, directions = torch.linalg.svd((data - mean) / deviation, full_matrices=False)
    flat, drawn = (((rows - mean) / deviation) @ directions[:2].T for rows in (data, samples))
    return flat, drawn, ("first component", "second component")


def _limits(points: Tensor) -> tuple[Tensor, Tensor]:
    low, high = points.amin(0), points.amax(0)
    margin = 0.1 * (high - low)
    return low - margin, high + margin


def _scatter(
    axes: Axes, points: Tensor, colour: str, title: str, limits: list[tuple[float, float]], names: tuple[str, str]
) -> None:
    few = points[:_POINTS]
    size = 3 if len(few) > _POINTS // 2 else 10
    axes.scatter(few[:, 0].numpy(), few[:, 1].numpy(), s=size, color=colour, alpha=0.5, linewidths=0)
    axes.set_xlim(*limits[0])
    axes.set_ylim(*limits[1])
    axes.set_xlabel(names[0])
    axes.set_ylabel(names[1])
    axes.set_title(title, fontsize=10)


def _montage(axes: Axes, vectors: Tensor, image: tuple[int, int], title: str, shades: tuple[float, float]) -> None:
    height, width = image
    tiles = vectors[: _MONTAGE**2].reshape(_MONTAGE, _MONTAGE, height, width)
    whole = torch.nn.functional.pad(tiles, (0, 1, 0, 1)).permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    axes.imshow(whole.numpy(), cmap="gray_r", vmin=shades[0], vmax=shades[1])
    axes.set_axis_off()
    axes.set_title(title, fontsize=10)


def _quantiles(axes: Axes, noise: Tensor) -> None:
    rows = noise.shape[0]
    shares = (torch.arange(rows, dtype=torch.float64) + 0.5) / rows
    expected = torch.special.ndtri(shares).numpy()
    for column in noise.double().unbind(1):
        axes.plot(expected, column.sort().values.numpy(), color=_NOISE, linewidth=0.8, alpha=0.6)
    axes.plot([-4, 4], [-4, 4], color=_INK, linewidth=0.8, linestyle="--")
    axes.set_xlim(-4, 4)
    axes.set_ylim(-4, 4)
    axes.set_aspect("equal")
    axes.set_xlabel("quantile of N(0, 1)")
    axes.set_ylabel("quantile of z")
    axes.set_title("every coordinate's quantiles", fontsize=10)
