"""Bars on a logarithmic scale, as a PNG. matplotlib is an extra: whoever calls says so when it is missing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple


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
