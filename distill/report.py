"""The page to look at and listen to: sounds, spectrograms, metrics, training curves and speed, one static file.

Works from file:// without a network: pictures under pictures/, sounds where distill.evaluate wrote them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from distill import page
from wavenet.audio import read_audio
from wavenet.errors import UserError
from wavenet.run import METRICS, read_metrics
from wavenet.spectrogram import decibels

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves = dict[str, dict[str, list[tuple[float, float]]]]

RECORDING = "recording"
PICTURES = "pictures"
_RANGE_DB = 80.0
# Text and grid, then the series: the same hues, darker on white and lighter on black.
_SCHEMES = {
    "light": ("#454b54", "#d9dde3", ("#2563c9", "#d2521f", "#12876f", "#8a49c4", "#b0831a", "#c2326d")),
    "dark": ("#b9c0ca", "#343a44", ("#6ea3ff", "#ff8d5c", "#4cc9ac", "#c08df2", "#e0b64f", "#f279ab")),
}
_NEUTRAL = "#818a96"  # legible on both
_SCALARS = {"nll": "NLL [nats/sample]", "kl/kl": "KL [nats/sample]"}  # what a run's curves show, if logged
_LOG_RATIO = 30.0  # a curve of positive values that spans more is drawn on a log axis


def write_report(
    out: Path,
    *,
    title: str,
    metrics: dict[str, Any],
    curves: Curves,
    benchmark: dict[str, Any] | None,
    notes: Sequence[str],
    texts: dict[str, str],
    name: str = "index.html",
) -> Path:
    """Write out/NAME and its pictures; return its path.

    metrics: what distill.evaluate.evaluate returned, its sounds lying under out/. curves: panel -> series -> (step,
    value). benchmark: the JSON of distill.benchmark. notes: sentences for the top. texts: what is said in a clip.
    Raises UserError when matplotlib is missing or a sound is.
    """
    require_matplotlib()
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    spectrograms = draw_spectrograms(out, metrics)
    sections = [
        page.metrics_table(metrics, RECORDING),
        page.likelihood_table(metrics),
        page.listening(metrics, texts, sound_path, spectrograms),
        page.pictures("Training", "curves", [_curve(out, i, panel, curves[panel]) for i, panel in enumerate(curves)]),
    ]
    if benchmark and benchmark.get("rows"):
        bars = list(_schemes(out, "benchmark", "Samples per second", lambda *a: _bars(benchmark["rows"], *a)))
        sections.append(page.speed(benchmark, bars[0]))
    document = page.document(title, page.lead(metrics, RECORDING), notes, sections)
    path = out / name
    path.write_text(document, encoding="utf-8")
    return path


def training_curves(runs: Mapping[str, Path]) -> Curves:
    """Panels of the runs' likelihood and divergence, in training and held out, from RUN/metrics.jsonl if there."""
    curves: Curves = {}
    for name, run in runs.items():
        folder = run if run.is_dir() else run.parent
        rows = read_metrics(folder) if (folder / METRICS).is_file() else []
        for scalar, panel in _SCALARS.items():
            for key, series in ((scalar, name), (f"validation/{scalar}", f"{name}, held out")):
                points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
                if points:
                    curves.setdefault(panel, {})[series] = points
    return curves


def sound_path(system: str, clip: str) -> str:
    """Where a system's version of a clip lies, relative to the output folder."""
    return f"audio/{file_name(system)}/{file_name(clip)}.wav"


def file_name(name: str) -> str:
    """A name as a file name that needs no quoting: other characters become hyphens."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-") or "unnamed"


def draw_spectrograms(out: Path, metrics: dict[str, Any]) -> dict[tuple[str, str], str]:
    """A picture a sound, (system, clip) -> path relative to out, all on one 80 dB range below the loudest recording."""
    rate = metrics["sample_rate"]
    n_fft = max(64, 2 ** round(np.log2(0.032 * rate)))
    hop = max(1, n_fft // 8)

    def level(system: str, clip: str) -> np.ndarray:
        wav, _ = read_audio(out / sound_path(system, clip))
        return decibels(wav, n_fft, hop).numpy()

    loudest = RECORDING if RECORDING in metrics["systems"] else next(iter(metrics["systems"]))
    top = max(float(level(loudest, clip).max()) for clip in metrics["clips"])
    found = {}
    for system in metrics["systems"]:
        for clip in metrics["clips"]:
            relative = f"{PICTURES}/{file_name(system)}--{file_name(clip)}.png"
            _spectrogram(level(system, clip), top, rate, hop).savefig(out / relative, dpi=140, transparent=True)
            found[system, clip] = relative
    return found


def _spectrogram(level: np.ndarray, top: float, rate: int, hop: int) -> Figure:
    figure, axes = _figure(4.2, 2.0, _NEUTRAL)
    extent = (0.0, level.shape[1] * hop / rate, 0.0, rate / 2000)
    axes.imshow(
        level, origin="lower", aspect="auto", extent=extent, vmin=top - _RANGE_DB, vmax=top, cmap="magma", resample=True
    )
    axes.set_xlabel("s", labelpad=1)
    axes.set_ylabel("kHz", labelpad=2)
    return figure


def _curve(out: Path, place: int, panel: str, series: dict[str, list[tuple[float, float]]]) -> page.Picture:
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
            axes.plot(steps, y, label=name, color=colours[i % len(colours)], linewidth=1.6, marker=marker, markersize=3)
        axes.set_xlabel("step")
        axes.grid(color=grid, linewidth=0.6)
        axes.set_axisbelow(True)
        if len(series) > 1:
            axes.legend(frameon=False, labelcolor=text, fontsize=8)
        return figure

    return next(_schemes(out, f"curve-{place}", panel, draw))


def _bars(rows: list[dict[str, Any]], text: str, grid: str, colours: tuple[str, ...]) -> Figure:
    """Samples a second, a bar a row, log axis; the colour is the device."""
    shown = [row for row in rows if row.get("samples_per_second")]
    devices = sorted({row["device"] for row in shown})
    figure, axes = _figure(7.2, 0.7 + 0.34 * len(shown), text)
    values = [row["samples_per_second"] for row in shown]
    shades = [colours[devices.index(row["device"]) % len(colours)] for row in shown]
    axes.barh(range(len(shown)), values, color=shades, height=0.66)
    axes.set_yticks(range(len(shown)), [page.row_name(row) for row in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    if values:
        axes.set_xlim(min(values) / 3, max(values) * 4)
    for place, value in enumerate(values):
        axes.text(value * 1.15, place, page.short(value), va="center", color=text, fontsize=8)
    axes.set_xlabel("samples per second (log)")
    axes.grid(axis="x", color=grid, linewidth=0.6)
    axes.set_axisbelow(True)
    return figure


def _schemes(out: Path, stem: str, caption: str, draw: Any) -> Iterator[page.Picture]:
    """Draw once for a light and once for a dark page."""
    paths = {}
    for scheme, colours in _SCHEMES.items():
        paths[scheme] = f"{PICTURES}/{stem}-{scheme}.png"
        draw(*colours).savefig(out / paths[scheme], dpi=160, transparent=True)
    yield page.Picture(paths["light"], paths["dark"], caption)


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


def require_matplotlib() -> None:
    """Raise UserError where the page's drawings could not be made."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(
            "matplotlib: found no such package, expected it for the page (pip install matplotlib)"
        ) from None
