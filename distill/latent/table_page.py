"""The table of ELBOs on a Markdown page. No number is typed by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from distill.markers import fill

_NAMES = {
    "ppca": "probabilistic PCA",
    "normal": "VAE, normal prior",
    "aggregated": "the same, aggregated posterior",
    "mixture": "VAE, mixture prior",
    "vamp": "VAE, VampPrior",
    "iaf": "VAE, IAF posterior",
}
_HEADINGS = [
    "d",
    "model",
    "ELBO",
    "a value",
    "average KL",
    "mutual information",
    "marginal KL",
    "gain",
    "held out",
    "gain held out",
    "active",
    "remainder",
]


def write_page(figures: dict[str, Any], page: Path, section: str) -> None:
    """Fill `page` between the section's markers: what was measured, the table, the picture."""
    parts = [_what(figures), table(figures)]
    if any(row["dimensions"] == 2 for row in figures["rows"]):
        parts.append(f"![The plane of two latent dimensions, its decoded patches, curves and terms]({section}.png)")
    fill(page, "\n\n".join(parts), section)


def table(figures: dict[str, Any]) -> str:
    """The rows in Markdown; gains are over the VAE with a normal prior of as many dimensions."""
    lines = ["| " + " | ".join(_HEADINGS) + " |", "|---:|---|" + "---:|" * (len(_HEADINGS) - 2)]
    plain = {row["dimensions"]: row for row in figures["rows"] if row["name"] == "normal"}
    for row in figures["rows"]:
        base, whole = plain[row["dimensions"]], row["n"] == figures["n"]
        cells = [str(row["dimensions"]), _NAMES[row["name"]], _value(row["elbo"])]
        cells += [f"{row['elbo']['value'] / figures['values']:.4f}", f"{row['average_kl']['value']:.2f}"]
        own = "" if whole else f" ({row['n']})"
        cells += [f"{row['mutual_information']['value']:.3f}{own}", f"{row['marginal_kl']['value']:.2f}{own}"]
        cells += [_gain(row["elbo"], base["elbo"]), f"{row['held_out']['value']:.1f}"]
        cells += [_gain(row["held_out"], base["held_out"]), str(row["active"]), _value(row["remainder"], 2)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _what(figures: dict[str, Any]) -> str:
    recipe, n = figures["recipe"], figures["n"]
    size = f"{recipe['frames']} frames ({figures['seconds']:.2f} s) and {recipe['audio']['n_mels']} bands"
    return (
        f"{n} training patches of {size}, {figures['held_out']} held-out ones; {figures['steps']} steps each. Nats per "
        f"patch, of the log-mel itself; ± is the standard error of {figures['draws']} draws of z for each patch. "
        f"log n = {math.log(n):.3f}. In brackets: the number of patches that a figure is over, where it is not all."
    )


def _value(estimate: dict[str, float], digits: int = 1) -> str:
    error = estimate["error"]
    return f"{estimate['value']:.{digits}f} ± {error:.2f}"


def _gain(one: dict[str, float], base: dict[str, float]) -> str:
    return f"{one['value'] - base['value']:+.2f}"
