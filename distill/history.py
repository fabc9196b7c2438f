"""The course of a training in a few lines: what was measured on held-out clips, validation by validation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from wavenet.run import METRICS, read_metrics
from wavenet.weights import Card

# Of a validation: heading and unit. What a run did not measure is left out.
LOGGED = {
    "validation/nll": ("NLL", "nats/sample"),
    "validation/nll_density": ("NLL as a density", "nats/sample"),
    "validation/kl/kl": ("KL to the teacher", "nats/sample"),
    "validation/kl/cross_entropy": ("cross entropy", "nats/sample"),
    "validation/kl/entropy": ("entropy", "nats/sample"),
    "validation/loss/stft": ("STFT term, weighted", ""),
    "validation/mel/nats": ("mel term", "nats"),
    "validation/elbo/elbo": ("ELBO", "nats/sample"),
    "validation/elbo/kl": ("KL of the posterior", "nats/sample"),
    "validation/prior/mel/nats": ("mel term of prior samples", "nats"),
    "health/voiced_autocorrelation": ("voiced autocorrelation", ""),
    "health/noise_floor": ("noise floor", "dBFS"),
}
_NLL, _DENSITY = "validation/nll", "validation/nll_density"
_DIGITS = 4


def history(run: Path) -> list[dict[str, float]]:
    """{"step", name of LOGGED: value} of every validation of a run folder, in order; [] where none is recorded."""
    if not (run / METRICS).is_file():
        return []
    judged = [line for line in read_metrics(run) if any(name.startswith("validation/") for name in line)]
    return [_row(line) for line in judged]


def after(begun: Card, rows: list[dict[str, float]]) -> list[dict[str, float]]:
    """The log of weights, then rows of the run that continued them, their steps counted on."""
    return [*begun.metrics.get("log", []), *(row | {"step": row["step"] + begun.steps} for row in rows)]


def log_table(rows: list[dict[str, Any]]) -> str:
    """The log in Markdown, a column for each name that any row has; "" for no rows."""
    if not rows:
        return ""
    names = [name for name in LOGGED if any(row.get(name) is not None for row in rows)]
    if any(row.get(_NLL) is not None and row[_NLL] == row.get(_DENSITY) for row in rows):
        names.remove(_NLL)  # of a law with a density the two are one; beside masses of cells they cannot stand
    headings = [f"{heading} [{unit}]" if unit else heading for heading, unit in (LOGGED[name] for name in names)]
    lines = ["| step | " + " | ".join(headings) + " |", "|---:|" + "---:|" * len(names)]
    for row in rows:
        cells = ["-" if row.get(name) is None else f"{row[name]:.3f}" for name in names]
        lines.append(f"| {row['step']:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _row(line: dict[str, Any]) -> dict[str, float]:
    found = {name: round(line[name], _DIGITS) for name in LOGGED if line.get(name) is not None}
    return {"step": line["step"]} | found
