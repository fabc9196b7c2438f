"""The page to look at and listen to: sounds, spectrograms, metrics, training curves and speed, one static file.

Works from file:// without a network: pictures under pictures/, sounds where distill.evaluate wrote them and, for the
players, under sounds/.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from distill import charts, listening, page
from distill.listening import Spectrogram
from wavenet.audio import read_audio
from wavenet.errors import UserError
from wavenet.run import METRICS, read_metrics

Curves = dict[str, dict[str, list[tuple[float, float]]]]

RECORDING = "recording"
PICTURES = "pictures"
_SCALARS = {"nll": "NLL [nats/sample]", "kl/kl": "KL [nats/sample]"}  # what a run's curves show, if logged


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
    clips = listening.write_sounds(out, metrics, sound_path, RECORDING)
    colours = charts.colour_scale()
    sections = [
        page.metrics_table(metrics, RECORDING),
        page.likelihood_table(metrics),
        listening.players(metrics, texts, clips, sound_path, spectrograms, colours, charts.RANGE_DB),
        listening.blind_test(metrics),
        page.pictures("Training", "curves", [_curve(out, i, panel, curves[panel]) for i, panel in enumerate(curves)]),
    ]
    if benchmark and benchmark.get("rows"):
        sections.append(page.speed(benchmark, _speeds(out, benchmark["rows"])))
    scripts = listening.scripts(title, metrics, clips)
    document = page.document(title, page.lead(metrics, RECORDING), notes, sections, scripts)
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


def draw_spectrograms(out: Path, metrics: dict[str, Any]) -> dict[tuple[str, str], Spectrogram]:
    """A picture a sound, (system, clip) -> where it lies, all on one 80 dB range below the loudest recording."""
    rate = metrics["sample_rate"]
    loudest = RECORDING if RECORDING in metrics["systems"] else next(iter(metrics["systems"]))
    top = max(float(charts.level(_read(out, loudest, clip), rate).max()) for clip in metrics["clips"])
    found = {}
    for system in metrics["systems"]:
        for clip in metrics["clips"]:
            wav = _read(out, system, clip)
            relative = f"{PICTURES}/{file_name(system)}--{file_name(clip)}.png"
            charts.draw_spectrogram(out / relative, charts.level(wav, rate), top)
            found[system, clip] = Spectrogram(relative, len(wav) / rate, rate / 2000)
    return found


def _read(out: Path, system: str, clip: str) -> Tensor:
    return read_audio(out / sound_path(system, clip))[0]


def _curve(out: Path, place: int, panel: str, series: dict[str, list[tuple[float, float]]]) -> page.Picture:
    paths = charts.draw_curves(out / PICTURES / f"curve-{place}", series)
    ends = [f"{name} ends at {page.short(points[-1][1])}" for name, points in series.items() if points]
    return _picture(paths, panel, f"{panel} over training steps. {', '.join(ends)}")


def _speeds(out: Path, rows: list[dict[str, Any]]) -> page.Picture:
    shown = [row for row in rows if row.get("samples_per_second")]
    names, values = [page.row_name(row) for row in shown], [page.short(row["samples_per_second"]) for row in shown]
    paths = charts.draw_speeds(out / PICTURES / "benchmark", shown, names, values)
    return _picture(paths, "Samples per second", "Bars of samples per second; the numbers are in the table below")


def _picture(paths: dict[str, Path], caption: str, described: str) -> page.Picture:
    light, dark = (f"{PICTURES}/{paths[scheme].name}" for scheme in ("light", "dark"))
    return page.Picture(light, dark, caption, described)


def require_matplotlib() -> None:
    """Raise UserError where the page's drawings could not be made."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise UserError(
            "matplotlib: found no such package, expected it for the page (pip install matplotlib)"
        ) from None
