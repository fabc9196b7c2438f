"""The ablation on a Markdown page: table, answer, sounds. No number is typed by hand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from distill.markers import fill
from distill.metrics import METRICS
from distill.report import sound_path

SECTION = "ablation"
SOUNDS = "audio"  # beside the page
_COLUMNS = ("mel_distance", "stft_distance", "f0_within_3_percent", "voicing_error", "voiced_autocorrelation", "stoi")


def write_page(figures: dict[str, Any], run: Path, page: Path) -> None:
    """Fill `page` between its markers and put the sounds of the first clip beside it."""
    folder = page.parent / SOUNDS
    folder.mkdir(parents=True, exist_ok=True)
    clip, seed = figures["clips"][0], figures["seeds"][0]
    sounds = {}
    for name in figures["systems"]:
        stem = name.replace(",", "").replace(" + ", "-").replace(" ", "-")
        shutil.copyfile(run / f"evaluation-{seed}" / sound_path(name, clip), folder / f"ablation-{stem}.wav")
        sounds[name] = f"[listen]({SOUNDS}/ablation-{stem}.wav)"
    fill(page, "\n\n".join([_what(figures), _table(figures, sounds), *_answers(figures)]), SECTION)


def _what(figures: dict[str, Any]) -> str:
    seeds = ", ".join(map(str, figures["seeds"]))
    return (
        f"Students of {figures['steps']} steps each, seeds {seeds}, on {len(figures['clips'])} test clips of "
        f"`{figures['data']}` with predicted F0; mean over clips and seeds, in brackets the largest minus the smallest "
        f"of the seeds. The sound is `{figures['clips'][0]}`, seed {figures['seeds'][0]}."
    )


def _table(figures: dict[str, Any], sounds: dict[str, str]) -> str:
    columns = [name for name in _COLUMNS if figures["systems"]["recording"]["mean"].get(name) is not None]
    titles = [
        f"{METRICS[name].heading} [{METRICS[name].unit}]" if METRICS[name].unit else METRICS[name].heading
        for name in columns
    ]
    lines = ["| system | " + " | ".join(titles) + " | sound |", "|---|" + "---:|" * len(columns) + "---|"]
    for name, system in figures["systems"].items():
        cells = [_cell(system["mean"][column], system["spread"][column]) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {sounds[name]} |")
    return "\n".join(lines)


def _answers(figures: dict[str, Any]) -> list[str]:
    """Does KL add anything to the sound beyond STFT, and under which teacher? A sentence for each teacher."""
    lines = []
    for teacher, answer in figures["answers"].items():
        better, worse, open_ = [], [], []
        for name in _COLUMNS:
            difference, width = answer.get(name, {}).get("difference"), answer.get(name, {}).get("ci95")
            if difference is None or width is None:
                continue
            near = " ≈" if METRICS[name].better == "nearest" else ""
            text = f"{METRICS[name].heading}{near} {difference:+.3f} ± {width:.3f}"
            if abs(difference) <= width or not answer[name].get("agree", True):
                open_.append(text)
            elif (difference < 0) == (METRICS[name].better != "higher"):
                better.append(text)
            else:
                worse.append(text)
        parts = [
            f"{word}: {', '.join(found)}"
            for word, found in (
                ("better", better),
                ("worse", worse),
                ("no difference that clips and seeds agree on", open_),
            )
            if found
        ]
        lines.append(
            f"**KL added to STFT, {teacher}** (difference, 95% interval over clips; ≈: of the distance from the "
            "recording's value). " + "; ".join(parts) + "."
        )
    return lines


def _cell(value: float | None, spread: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if not spread else f"{value:.3f} ({spread:.3f})"
