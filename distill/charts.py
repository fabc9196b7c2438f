"""Drawings: speeds, training curves, spectrograms. matplotlib is an extra: whoever calls says so when it is missing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wavenet.spectrogram import decibels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RANGE_DB = 80.0

# Text and grid, then the series: the same hues, darker on white and lighter on black.
_SCHEMES = {
    "light": ("#454b54", "#d9dde3", ("#2563c9", "#d2521f", "#12876f", "#8a49c4", "#b0831a", "#c2326d")),
    "dark": ("#b9c0ca", "#343a44", ("#6ea3ff", "#ff8d5c", "#4cc9ac", "#c08df2", "#e0b64f", "#f279ab")),
}
_LOG_RATIO = 30.0  # a curve of positive values that spans more is drawn on a log axis
_COLOURS = "magma"  # equal steps of level look equal, also in grey and to the colour-blind
_COLUMNS, _ROWS = 900, 256  # of a spectrogram, at most: twice what a card shows

_Draw = Callable[[str, str, tuple[str, ...]], "Figure"]


class Bar(NamedTuple):
    """One bar: label, value, and the smallest and largest value found."""

    label: str
    value: float
    low: float
    high: float


def draw_bars(path: Path, bars: Sequence[Bar], title: str, unit: str, line: tuple[str, float] | None = None) -> None:
    """Write horizontal bars, the first on top, with their range and number; `line`: a named value drawn across.

    Values must be positive (the axis is logarithmic). Raises ImportError without matplotlib; the file appears whole or
    not at all.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1.2 + 0.5 * len(bars)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(bars))
    values = [bar.value for bar in bars]
    below, above = [bar.value - bar.low for bar in bars], [bar.high - bar.value for bar in bars]
    axes.barh(places, values, xerr=[below, above], height=0.6, color="#4878a8", ecolor="#333333", capsize=3)
    axes.set_xscale("log")
    for place, bar in enumerate(bars):
        axes.annotate(f"{bar.value:,.0f}", (bar.high, place), (6, 0), textcoords="offset points", va="center")
    lowest, highest = min(bar.low for bar in bars), max(bar.high for bar in bars)
    if line is not None:
        lowest, highest = min(lowest, line[1]), max(highest, line[1])
        axes.axvline(line[1], color="#b04030", linestyle="--", linewidth=1)
        above_bars = axes.get_xaxis_transform()
        axes.text(line[1], 1.0, line[0], transform=above_bars, color="#b04030", va="bottom", ha="center")
    axes.set_xlim(lowest / 3, highest * 4)
    axes.set_yticks(places, [bar.label for bar in bars])
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    axes.set_title(title, pad=18)
    axes.spines[["top", "right"]].set_visible(False)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png", dpi=120)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def level(wav: Tensor, sample_rate: int) -> Tensor:
    """Spectrogram of wav (T,) in dB (0 dB: a full-scale sine), (at most 256 bands, at most 900 frames), low first.

    Windows of 32 ms. Bins are joined by their mean power, so that a line keeps its level wherever it falls.
    """
    n_fft = max(64, 2 ** round(np.log2(0.032 * sample_rate)))
    hop = max(n_fft // 8, -(-len(wav) // _COLUMNS))
    found = decibels(wav, n_fft, hop)
    joined = n_fft // 2 // _ROWS
    if joined < 2:
        return found
    power = 10 ** (found[: joined * _ROWS] / 10)  # the bin at half the sample rate has no partner
    mean = power.reshape(_ROWS, joined, -1).mean(dim=1)
    return 10 * torch.log10(mean)


def draw_spectrogram(path: Path, levels: Tensor, top: float) -> None:
    """Write levels (bands, frames) [dB] as a PNG without axes, a pixel a value: `top` is light, 80 dB under it dark."""
    from matplotlib import colormaps
    from PIL import Image

    shade = ((levels - top) / RANGE_DB + 1).clamp(0, 1).mul(255).round().byte().flip(0).numpy()
    image = Image.fromarray(shade, mode="P")
    image.putpalette((colormaps[_COLOURS](np.arange(256))[:, :3] * 255).round().astype(np.uint8).tobytes())
    image.save(path, optimize=True)


def colour_scale(steps: int = 9) -> list[str]:
    """The colours of a spectrogram as #rrggbb, dark to light."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colour) for colour in colormaps[_COLOURS](np.linspace(0, 1, steps))]


def draw_curves(stem: Path, series: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Path]:
    """Write name -> (step, value) as stem-light.png and stem-dark.png, transparent; return scheme -> path.

    Positive values that span much get a logarithmic axis, others with outliers a symmetric logarithmic one.
    """

    def draw(text: str, grid: str, colours: tuple[str, ...]) -> Figure:
        figure, axes = _figure(4.4, 2.7, text)
        values = [value for points in series.values() for _, value in points if np.isfinite(value)]
        if values and min(values) > 0 and max(values) > _LOG_RATIO * min(values):
            axes.set_yscale("log")
        elif values and max(np.abs(values)) > _LOG_RATIO * max(1.0, float(np.median(np.abs(values)))):
            axes.set_yscale("symlog", linthresh=1.0)
        for i, (name, points) in enumerate(series.items()):
            steps, y = zip(*points, strict=True) if points else ((), ())
            marker = "o" if len(points) < 12 else None
            # Dashes as well as hues: the lines stay apart in grey.
            style = ("-", "--", "-.", ":")[i % 4]
            colour = colours[i % len(colours)]
            axes.plot(steps, y, label=name, color=colour, linestyle=style, linewidth=1.6, marker=marker, markersize=3)
        axes.set_xlabel("step")
        axes.grid(color=grid, linewidth=0.6)
        axes.set_axisbelow(True)
        if len(series) > 1:
            axes.legend(frameon=False, labelcolor=text, fontsize=8)
        return figure

    return _schemes(stem, draw)


def draw_speeds(
    stem: Path, rows: Sequence[dict[str, Any]], names: Sequence[str], shown: Sequence[str]
) -> dict[str, Path]:
    """Write samples a second as bars, log axis, coloured by device, for a light and a dark page, as `draw_curves`.

    names, shown: what stands left of a bar, and at its end.
    """
    devices = sorted({row["device"] for row in rows})
    values = [row["samples_per_second"] for row in rows]

    def draw(text: str, grid: str, colours: tuple[str, ...]) -> Figure:
        figure, axes = _figure(7.2, 0.7 + 0.34 * len(rows), text)
        shades = [colours[devices.index(row["device"]) % len(colours)] for row in rows]
        axes.barh(range(len(rows)), values, color=shades, height=0.66)
        axes.set_yticks(range(len(rows)), names)
        axes.invert_yaxis()
        axes.set_xscale("log")
        if values:
            axes.set_xlim(min(values) / 3, max(values) * 4)
        for place, value in enumerate(values):
            axes.text(value * 1.15, place, shown[place], va="center", color=text, fontsize=8)
        axes.set_xlabel("samples per second (log)")
        axes.grid(axis="x", color=grid, linewidth=0.6)
        axes.set_axisbelow(True)
        return figure

    return _schemes(stem, draw)


def _schemes(stem: Path, draw: _Draw) -> dict[str, Path]:
    """Draw once for a light and once for a dark page."""
    paths = {}
    for scheme, colours in _SCHEMES.items():
        paths[scheme] = stem.with_name(f"{stem.name}-{scheme}.png")
        draw(*colours).savefig(paths[scheme], dpi=160, transparent=True)
    return paths


def _figure(width: float, height: float, text: str) -> tuple[Figure, Axes]:
    """An empty figure [inches] on no background, without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.tick_params(colors=text, which="both", labelsize=8)
    axes.xaxis.label.set(color=text, fontsize=8)
    axes.yaxis.label.set(color=text, fontsize=8)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(text)
    return figure, axes
