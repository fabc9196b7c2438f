"""README's results, written from a demo run's own figures: no number is typed by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np

from distill.intervals import students
from distill.markers import fill
from distill.metrics import METRICS, Metric
from distill.report import sound_path
from distill.speed.tables import markdown_table
from wavenet.arguments import parse_arguments
from wavenet.audio import read_audio
from wavenet.errors import UserError, command
from wavenet.spectrogram import picture

SECTION = "results"  # of README.md
PICTURE = "demo.png"
_COLUMNS = {
    "mel_distance": ("mel distance [nats]", "{:.3f}"),
    "stft_distance": ("STFT distance", "{:.3f}"),
    "f0_within_3_percent": ("F0 within 3%", "{:.2f}"),
    "voicing_error": ("voicing error", "{:.2f}"),
    "voiced_autocorrelation": ("voiced autocorrelation", "{:.2f}"),
}
_BY_SPEAKER = (
    "mel_distance",
    "f0_rmse_cents",
    "f0_within_3_percent",
    "voicing_error",
    "band_error",
    "stoi",
    "pesq",
    "dnsmos_ovrl",
)


@command("fill-results")
def main(argv: Sequence[str] | None = None) -> int:
    """Write the results of a demo run into README.md and its spectrograms into docs/. Returns the exit status.

    With --section, RUN is the folder of an evaluation, and its table goes between the markers of that name.
    """
    parser = jsonargparse.ArgumentParser(prog="fill-results", description=main.__doc__)
    parser.add_argument("run", type=str, help="the demo's folder, e.g. runs/demo")
    parser.add_argument("--readme", type=str, default="README.md", help="the page to write the results into")
    parser.add_argument("--docs", type=str, default="docs", help="where its picture goes")
    parser.add_argument("--section", type=str, help="name of the markers for an evaluation's table and picture")
    arguments = parse_arguments(parser, argv)
    run = Path(arguments.run)
    if arguments.section:
        return _fill_section(run, Path(arguments.readme), Path(arguments.docs), arguments.section)
    found = run / "demo.json"
    if not found.is_file():
        raise UserError(f"{found}: found no such file, expected the figures of a finished demo (make demo)")
    figures = json.loads(found.read_text(encoding="utf-8"))
    fill(Path(arguments.readme), results(figures), SECTION)
    draw(run, figures, Path(arguments.docs) / PICTURE)
    return 0


def _fill_section(run: Path, page: Path, docs: Path, section: str) -> int:
    found = run / "metrics.json"
    if not found.is_file():
        raise UserError(f"{found}: found no such file, expected the figures of an evaluation (distill-evaluate)")
    metrics = json.loads(found.read_text(encoding="utf-8"))
    picture_path = docs / f"{section}.png"
    draw(run, metrics | {"metrics": metrics["systems"]}, picture_path)
    clip = metrics["clips"][0]
    caption = f"![Spectrograms of {clip} through every system]({picture_path.name})"
    fill(page, "\n\n".join([evaluation(metrics), *by_speaker(metrics), caption]), section)
    return 0


def evaluation(metrics: dict[str, Any]) -> str:
    """All that was measured of every system in Markdown: a system a column, the mean and half its 95% interval.

    What only some clips could tell, as those without a text tell no word errors, is named with their number.
    """
    systems = metrics["systems"]
    lines = ["| | " + " | ".join(systems) + " |", "|---|" + "---:|" * len(systems)]
    for name, metric in METRICS.items():
        values = [(system["mean"].get(name), system["ci95"].get(name)) for system in systems.values()]
        if any(value is not None for value, _ in values):
            lines.append(f"| {_title(metric)} | " + " | ".join(_with_interval(*pair) for pair in values) + " |")
    densities = [_density(system) for system in systems.values()]
    if any(value != "-" for value in densities):
        lines.append("| log density, held out [nats/sample] | " + " | ".join(densities) + " |")
    steps = metrics.get("projection", 0)
    projected = f"; what every system made was brought to its mel in {steps} steps" if steps else ""
    return f"{len(metrics['clips'])} clips{_fewer(metrics)}{projected}.\n\n" + "\n".join(lines)


def by_speaker(metrics: dict[str, Any]) -> list[str]:
    """A table of every speaker's means, a system a line; none where the clips are of one speaker."""
    speakers: dict[str, str] = metrics.get("speakers", {})
    names = [name for name in _BY_SPEAKER if name in metrics["metrics"]]
    headings = [
        f"{METRICS[name].heading} [{unit}]" if (unit := METRICS[name].unit) else METRICS[name].heading for name in names
    ]
    lines = ["| speaker | clips | system | " + " | ".join(headings) + " |", "|---|---:|---|" + "---:|" * len(names)]
    for speaker in sorted(set(speakers.values())):
        clips = [clip for clip in metrics["clips"] if speakers[clip] == speaker]
        for system, found in metrics["systems"].items():
            means = [students([found["clips"][clip].get(name) for clip in clips]).mean for name in names]
            cells = [_with_interval(mean, None) for mean in means]
            lines.append(f"| {speaker} | {len(clips)} | {system} | " + " | ".join(cells) + " |")
    return ["\n".join(lines)] if speakers else []


def _fewer(metrics: dict[str, Any]) -> str:
    """What was measured on fewer clips than all, the clips' number in front; "" where nothing was."""
    by_count: dict[int, list[str]] = {}
    for name, metric in METRICS.items():
        measured = [
            sum(clip.get(name) is not None for clip in system["clips"].values())
            for system in metrics["systems"].values()
        ]
        if 0 < max(measured, default=0) < len(metrics["clips"]):
            by_count.setdefault(max(measured), []).append(metric.heading)
    return "".join(f"; {count} of them for {', '.join(names)}" for count, names in by_count.items())


def _density(system: dict[str, Any]) -> str:
    """log p(x) per sample of a system that knows it, or its lower bound."""
    if found := system.get("likelihood"):
        sign = "≥ " if found.get("bound") else ""
        return _cell(None if found["nll_density"] is None else -found["nll_density"], sign + "{:.3f}")
    return _cell(system.get("elbo", {}).get("elbo/elbo"), "≥ {:.3f}")


def results(figures: dict[str, Any]) -> str:
    """The results section in Markdown."""
    header = "| system | " + " | ".join(title for title, _ in _COLUMNS.values()) + " |"
    rows = [header, "|---|" + "---|" * len(_COLUMNS)]
    for name, system in figures["metrics"].items():
        cells = [_cell(system["mean"].get(metric), form) for metric, (_, form) in _COLUMNS.items()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    score = figures["teacher"]
    teacher = (
        f"Teacher, held out, step {score['step']}: {score['validation/nll']:.3f} nats/sample "
        f"({score['validation/bits']:.3f} bits/sample of 16)."
    )
    gates = "\n".join(f"- {gate['line']}" for gate in figures["gates"])
    table, machine = markdown_table(figures["benchmark"]), figures["benchmark"]["machine"]
    where = ", ".join(f"{key} {machine[key]}" for key in ("cpu", "cores", "instructions", "python", "torch", "numpy"))
    return "\n\n".join(["\n".join(rows), teacher, gates, table, f"Machine: {where}."])


def draw(run: Path, figures: dict[str, Any], path: Path) -> None:
    """Spectrograms of one test clip through every system, one below the other, as a PNG."""
    from PIL import Image, ImageDraw

    strips = []
    for name, system in figures["metrics"].items():
        clip = next(iter(system["clips"]))
        wav, info = read_audio(run / sound_path(name, clip))
        image = Image.fromarray(picture(wav, info.sample_rate, height=160)).resize((1000, 160))
        ImageDraw.Draw(image).text((8, 6), name, fill="white", font_size=18)
        strips.append(np.asarray(image))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(strips)).quantize(128).save(path, optimize=True)


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _title(metric: Metric) -> str:
    return f"{metric.heading} [{metric.unit}]" if metric.unit else metric.heading


def _with_interval(value: float | None, width: float | None) -> str:
    if value is None:
        return "-"
    digits = 1 if abs(value) >= 10 else 3
    return f"{value:.{digits}f}" if not width else f"{value:.{digits}f} ± {width:.{digits}f}"
