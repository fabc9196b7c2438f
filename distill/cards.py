"""Cards of shipped weights, for a terminal and for a page: nothing in them is typed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distill import models
from distill.history import log_table
from distill.metrics import METRICS
from distill.projection import STEPS
from wavenet.splits import SPLITS
from wavenet.weights import USUAL, Card, read_card

SECTION = "weights"  # of docs/weights.md
OWN, PROJECTED = "evaluation", "projected"  # what a card's figures are of: the model's samples, or those at their mel
_HEADINGS = ("name", "kind", "rate [Hz]", "parameters", "MB", "corpus", "licence", "steps", "figures")
_KEY_FIGURES = ("pesq", "stoi", "mel_distance")
_ADVICE = (
    "* the usual one. What a model makes of a recording is then brought to the recording's mel "
    f"(--projection {STEPS}; 0: the sample as it is, of which the figures are)"
)
_VALIDATION = {  # heading and unit of what a training measures on held-out clips
    "nll": ("NLL", "nats/sample"),
    "bits": ("NLL", "bits/sample"),
    "nll_density": ("NLL as a density", "nats/sample"),
    "elbo/elbo": ("ELBO", "nats/sample"),
    "elbo/kl": ("KL of the posterior", "nats/sample"),
    "kl/kl": ("KL to the teacher", "nats/sample"),
    "kl/cross_entropy": ("cross entropy", "nats/sample"),
    "kl/entropy": ("entropy", "nats/sample"),
}


def listing(paths: Mapping[str, Path]) -> str:
    """A line of text for each file of weights, columns aligned, and which to take; says so where there is none.

    Raises UserError for a file that `models.load` refuses.
    """
    if not paths:
        return "no weights are shipped with this installation"
    rows = [_HEADINGS, *(_marked(name, *_row(path)) for name, path in paths.items())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(_HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([*lines, *([_ADVICE] if USUAL in paths else [])])


def _marked(file: str, name: str, *cells: str) -> tuple[str, ...]:
    return (f"{name} *" if file == USUAL else name, *cells)


def tables(paths: Mapping[str, Path]) -> str:
    """The same table in Markdown, then of each: data and licence, training, figures."""
    if not paths:
        return "None are shipped."
    header = ["| " + " | ".join(_HEADINGS) + " |", "|---|---|---:|---:|---:|---|---|---:|---|"]
    overview = "\n".join([*header, *("| " + " | ".join(_row(path)) + " |" for path in paths.values())])
    return "\n\n".join([overview, *(_details(read_card(path)) for path in paths.values())])


def key_figures(card: Card) -> str:
    """The figures that a line has room for: of the evaluation, else of the last validation."""
    evaluation, validation = card.metrics.get(OWN, {}), card.metrics.get("validation", {})
    found = [_evaluated(name, evaluation[name]) for name in _KEY_FIGURES if name in evaluation]
    if not found:
        found = [_validated(name, validation[name]) for name in ("nll", "kl/kl", "elbo/elbo") if name in validation]
    return ", ".join(found) or "none"


def _row(path: Path) -> tuple[str, ...]:
    card, model = read_card(path), models.load(path)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    megabytes = f"{path.stat().st_size / 1e6:.2f}"
    rate, corpus = str(model.config.audio.sample_rate), f"{card.corpus['name']}, {card.corpus['hours']:.2f} h"
    return (
        card.name,
        card.kind,
        rate,
        str(parameters),
        megabytes,
        corpus,
        card.licence,
        str(card.steps),
        key_figures(card),
    )


def _details(card: Card) -> str:
    corpus, splits = card.corpus, card.corpus["splits"]
    clips = ", ".join(f"{splits[name]} {name}" for name in SPLITS if name in splits)
    of = "" if card.teacher is None else f", of the teacher `{card.teacher}`"
    lines = [
        f"### {card.name}",
        f"- A {card.kind}{of}: {card.steps} steps; weights `{card.digest}`, written by version {card.project}.",
        f"- Corpus: {corpus['name']}, {corpus['hours']:.2f} hours to train on; clips: {clips}; "
        f"licence {corpus['licence']}. Licence of the weights: {card.licence}.",
    ]
    commands = "\n".join(card.commands)
    table = _figures(card)
    parts = [lines[0], "\n".join(lines[1:]), f"```text\n{commands}\n```", *([table] if table else [])]
    log = card.metrics.get("log", [])
    return "\n\n".join([*parts, *(["On held-out clips, as it was trained:", log_table(log)] if log else [])])


def _figures(card: Card) -> str:
    """A line a measure; a column more where the samples were measured at their mel too. "" where nothing was."""
    own, projected = dict(_known(card, OWN, METRICS)), dict(_known(card, PROJECTED, METRICS))
    rows = [
        (_heading(name), own.get(name), projected.get(name)) for name in METRICS if name in own or name in projected
    ]
    rows += [(_validation_heading(name), value, None) for name, value in _known(card, "validation", _VALIDATION)]
    count = card.metrics.get(OWN, card.metrics.get(PROJECTED, {})).get("clips")
    title = "held out" if count is None else f"held out, means over {count} test clips"
    columns = ["own samples", f"projected, {card.metrics[PROJECTED]['steps']} steps"] if projected else [""]
    above = "".join(f" {column} |" if column else " |" for column in columns)
    lines = [f"| {title} |{above}", "|---|" + "---:|" * len(columns)]
    for heading, *values in rows:
        cells = ["-" if value is None else _number(value) for value in values[: len(columns)]]
        lines.append("| " + " | ".join([heading, *cells]) + " |")
    return "\n".join(lines) if rows else ""


def _known(card: Card, part: str, known: Mapping[str, Any]) -> list[tuple[str, float]]:
    values = card.metrics.get(part, {})
    return [(name, values[name]) for name in known if values.get(name) is not None]


def _heading(name: str) -> str:
    metric = METRICS[name]
    return f"{metric.heading} [{metric.unit}]" if metric.unit else metric.heading


def _validation_heading(name: str) -> str:
    heading, unit = _VALIDATION[name]
    return f"{heading} [{unit}], in training"


def _evaluated(name: str, value: float) -> str:
    metric = METRICS[name]
    unit = "" if metric.unit in ("", "MOS") else f" {metric.unit}"
    return f"{metric.heading} {_number(value)}{unit}"


def _validated(name: str, value: float) -> str:
    heading, unit = _VALIDATION[name]
    return f"{heading} {_number(value)} {unit}"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"
