"""The comparison on two pages: a table of figures, and a map of what each kind of system gives. No figure is typed."""

from __future__ import annotations

from typing import Any

from distill.metrics import METRICS

TABLE, MAP = "comparison", "map"  # sections of docs/results.md and of docs/theory.md
_SOUND = ("mel_distance", "f0_within_3_percent", "voiced_autocorrelation", "stoi", "dnsmos_ovrl")


def table_lines(figures: dict[str, Any]) -> list[str]:
    """A row a system: steps, cost, density, sound, speed; then what needs no training."""
    several = len(figures["seeds"]) > 1
    known = [name for name in _SOUND if any(row["sound"].get(name) is not None for row in figures["rows"])]
    titles = [f"{METRICS[name].heading} [{METRICS[name].unit}]".replace(" []", "") for name in known]
    header = ["system", "steps", "CPU s", "MACs a sample", "-log density [nats/sample]", *titles, "samples / CPU-s"]
    lines = [
        f"{figures['minutes']:g} minutes of processor time for each training on `{figures['data']}`, "
        f"{len(figures['clips'])} held-out clips{_seeds(figures)}; density: the lower the better, ≤ marks a bound.",
        "",
        "| " + " | ".join(header) + " |",
        "|---|" + "---:|" * (len(header) - 1),
    ]
    for row in figures["rows"]:
        speed = row["sampling_x"] * figures["sample_rate"]
        steps = f"{row['steps']:,.0f}" + (f" of {row['planned']:,.0f}" if row["steps"] < row["planned"] else "")
        cells = [_title(row), steps, f"{row['cpu_seconds']:,.0f}", f"{row['macs']:,.0f}", _density(row, several)]
        lines.append("| " + " | ".join([*cells, *_heard(row, known, several), f"{speed:,.0f}"]) + " |")
    for row in figures["others"]:
        lines.append("| " + " | ".join([row["title"], "", "", "", "", *_heard(row, known, several), ""]) + " |")
    return lines


def map_lines(figures: dict[str, Any]) -> list[str]:
    """A row a system: density and samples, in passes of the networks over T samples and in seconds, and its teacher."""
    several = len(figures["seeds"]) > 1
    titles = ["system", "learns from", "density", "passes", "s/s", "-log density [nats/sample]"]
    lines = [
        "| " + " | ".join([*titles, "samples: passes", "s/s", "mel distance [nats]"]) + " |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in figures["rows"]:
        kind = row["kind"]
        cells = [
            _title(row),
            row["signal"],
            kind["density"],
            kind["density_passes"],
            f"{row['density_x']:.2g}",
            _density(row, several),
            kind["sampling_passes"],
            f"{row['sampling_x']:.2g}",
            *_heard(row, ["mel_distance"], several),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _title(row: dict[str, Any]) -> str:
    """With what its training's monitor stopped: itself, or what it learned from."""
    own = [", stopped by its monitor"] if row["title"] in row["stopped"] else []
    others = [f", after {title} was stopped" for title in row["stopped"] if title != row["title"]]
    return "".join([row["title"], *own, *others])


def _seeds(figures: dict[str, Any]) -> str:
    seeds = figures["seeds"]
    if len(seeds) == 1:
        return ""
    return f", means over seeds {', '.join(map(str, seeds))}, in brackets the largest less the smallest"


def _density(row: dict[str, Any], several: bool = False) -> str:
    bound = "≤ " if row["kind"]["nats"] == "bound" else ""
    return f"{bound}{row['nats']:.2f}" + (f" ({row['spread']['nats']:.2f})" if several else "")


def _heard(row: dict[str, Any], names: list[str], several: bool) -> list[str]:
    """A cell for each metric, with its spread where there are several seeds and it has one."""
    cells = []
    for name in names:
        spread = row["spread"].get(name) if several else None
        cells.append(_cell(row["sound"].get(name)) + (f" ({spread:.3f})" if spread is not None else ""))
    return cells


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
