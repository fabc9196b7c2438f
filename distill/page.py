"""The page's HTML but for what is listened to: strings in, strings out. Every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from distill.listening import web
from distill.metrics import METRICS
from distill.ranking import Ranking, rank

_DIGITS = {"f0_rmse_cents": 1}
_ARROWS = {"lower": "↓", "higher": "↑", "nearest": "≈"}
_BETTER = {
    "lower": "lower is better",
    "higher": "higher is better",
    "nearest": "the nearer to the recording's the better",
}


class Picture(NamedTuple):
    """One drawing for a light and for a dark page, paths relative to the page, and what it shows in words."""

    light: str
    dark: str
    caption: str
    described: str


def document(title: str, lead_text: str, notes: Sequence[str], sections: Sequence[str], scripts: str) -> str:
    """The whole page. lead_text, sections and scripts are HTML already; title and notes are plain text."""
    items = "".join(f"<li{_mark(note)}>{escape(note)}</li>" for note in notes)
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{lead_text}</p>']
    parts += [f'<ul class="notes">{items}</ul>'] if notes else []
    body = "\n".join([*parts, *(section for section in sections if section)])
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>\n{web('page.css')}</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n{scripts}\n</body>\n</html>\n"
    )


def lead(metrics: dict[str, Any], recording: str) -> str:
    """One paragraph: what is on the page."""
    clips, systems = len(metrics["clips"]), [name for name in metrics["systems"] if name != recording]
    what = f"{clips} held-out recording{'s' if clips != 1 else ''} at {metrics['sample_rate'] / 1000:g} kHz"
    listed = ", ".join(escape(name) for name in systems)
    return (
        f"{what}, each turned into a log-mel spectrogram and back into sound by {len(systems)} systems: {listed}. "
        "Listen first; the figures say where to listen more closely."
    )


def metrics_table(metrics: dict[str, Any], recording: str) -> str:
    """Mean and 95% interval of every metric, a system a row; what leads a column beyond doubt is marked.

    The columns are those of METRICS that the metrics hold, then what they hold besides. A number that is not there is a
    dash; a column without any is named below instead.
    """
    systems = metrics["systems"]
    known = [[name for name, mean in values["mean"].items() if mean is not None] for values in systems.values()]
    held = {name for names in known for name in names}
    named = dict.fromkeys([*METRICS, *(name for values in systems.values() for name in values["mean"])])
    columns = [name for name in named if name in held]
    missing = ", ".join(
        escape(METRICS[name].heading if name in METRICS else name) for name in named if name not in held
    )
    ranks = {name: rank(metrics, name, recording) for name in columns}
    rows = []
    for system, values in systems.items():
        cells = "".join(_cell(values, name, system, ranks[name]) for name in columns)
        kind = ' class="reference"' if system == recording else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(system)}</th>{cells}</tr>')
    head = "".join(map(_column, columns))
    meanings = "".join(
        f"<dt>{escape(METRICS[name].heading)}</dt><dd>{escape(METRICS[name].meaning)}</dd>"
        for name in columns
        if name in METRICS
    )
    explained = (
        "Mean over clips ± half the width of its 95% interval. The recording measured against itself is the limit of "
        "each column. Green: the best mean, where the clips tell it apart from another system; pale: not told apart "
        "from the best (the 95% interval of the difference, paired by clip, holds 0). ≈: the nearer to the recording's "
        "own the better. Nothing green: no difference shown."
    )
    if any(ranking.unfit for ranking in ranks.values()):
        explained += " Italics: too few frames at the right pitch for this error to be compared."
    if missing:
        explained += f" Not measured: {missing}."
    details = f"<details><summary>What the columns say</summary><dl>{meanings}</dl></details>"
    heading = "Closeness to the recording"
    table = _table(heading, f'<th scope="col">system</th>{head}', "".join(rows))
    explanation = f'<h2>{heading}</h2>\n<p class="soft">{explained}</p>'
    return f"<section>\n{explanation}\n{table}\n{details}\n</section>"


def likelihood_table(metrics: dict[str, Any]) -> str:
    """Held-out likelihood of the systems that have one; empty where none has."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{_at_most(found)}{_number(found["nll"], "", 4)}</td>'
        f"<td>{_at_most(found)}{_number(found['bits'], '', 4)}</td><td>{found['samples']:,}</td></tr>"
        for name, system in metrics["systems"].items()
        if (found := system.get("likelihood"))
    )
    heading = "Held-out negative log-likelihood"
    table = _table(heading, _heads("model", "nats / sample ↓", "bits / sample ↓", "samples"), rows)
    return f"<section>\n<h2>{heading}</h2>\n{table}\n</section>" if rows else ""


def _at_most(likelihood: dict[str, Any]) -> str:
    return "≤ " if likelihood.get("bound") else ""


def pictures(heading: str, kind: str, drawings: Sequence[Picture]) -> str:
    """A section of drawings with their captions; empty without any."""
    if not drawings:
        return ""
    drawn = "\n".join(map(_drawing, drawings))
    return f'<section>\n<h2>{escape(heading)}</h2>\n<div class="{kind}">\n{drawn}\n</div>\n</section>'


def speed(benchmark: dict[str, Any], bars: Picture) -> str:
    """Bar chart, table of rows, ratios, and the machine that they were measured on."""
    head = _heads("system", "device", "threads", "batch", "samples / s", "x real time", "spread", "repeats")
    rows = []
    for row in benchmark["rows"]:
        spread = f"{short(row['min'])} to {short(row['max'])}" if row.get("min") and row.get("max") else "-"
        plain = [row.get("device"), row.get("threads"), row.get("batch"), short(row.get("samples_per_second"))]
        cells = [*plain, short(row.get("x_real_time")), spread, row.get("repeats")]
        shown = "".join(f"<td>{escape(str(cell)) if cell is not None else '-'}</td>" for cell in cells)
        name = escape(f"{row['net']}, {row['method']}")
        rows.append(f'<tr><th scope="row">{name}</th>{shown}</tr>')
    ratios = "".join(
        f"<li>{escape(str(r['of']))} is <strong>{escape(short(r['value']))} times</strong> as fast as "
        f"{escape(str(r['over']))} ({escape(str(r.get('net')))}, {escape(str(r.get('device')))})</li>"
        for r in benchmark.get("ratios", [])
    )
    machine = ", ".join(f"{key} {value}" for key, value in benchmark.get("machine", {}).items() if value is not None)
    return (
        '<section>\n<h2>Speed</h2>\n<p class="soft">x real time: seconds of audio made in a second; above 1 is faster '
        f'than listening. {escape(machine)}</p>\n<div class="bars">{_drawing(bars)}</div>\n'
        + _table("Speed", head, "".join(rows))
        + (f"\n<ul>{ratios}</ul>" if ratios else "")
        + "\n</section>"
    )


def row_name(row: dict[str, Any]) -> str:
    """A benchmark row in a few words."""
    batch = f", batch {row['batch']}" if row.get("batch", 1) != 1 else ""
    return f"{row['net']}, {row['method']} ({row['device']}{batch})"


def short(value: float | None) -> str:
    """Three significant digits, thousands set apart: 0.0123, 4.56, 78.9, 12,300."""
    if value is None:
        return "-"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:.3g}"


def _drawing(picture: Picture) -> str:
    return (
        f"<figure><figcaption>{escape(picture.caption)}</figcaption><picture>"
        f'<source media="(prefers-color-scheme: dark)" srcset="{_url(picture.dark)}">'
        f'<img loading="lazy" alt="{escape(picture.described)}" src="{_url(picture.light)}"></picture></figure>'
    )


def _column(name: str) -> str:
    """The head of a metric's column; of one that METRICS does not know, its name."""
    if name not in METRICS:
        return f'<th scope="col">{escape(name)}<small>&nbsp;</small></th>'
    metric = METRICS[name]
    better = _BETTER[metric.better]
    return (
        f'<th scope="col" title="{escape(metric.meaning)}">{escape(metric.heading)}&nbsp;<span title="{better}" '
        f'role="img" aria-label="{better}">{_ARROWS[metric.better]}</span>'
        f"<small>{escape(metric.unit) or '&nbsp;'}</small></th>"
    )


def _cell(values: dict[str, Any], name: str, system: str, ranking: Ranking) -> str:
    kind, said = "", ""
    if system == ranking.best:
        kind, said = "best", "best"
    elif system in ranking.near:
        kind, said = "near", "not told apart from the best"
    elif system in ranking.unfit:
        kind, said = "unfit", "not comparable"
    # Colour alone tells nothing to a screen reader.
    words = f'<span class="unseen"> {said}</span>' if said else ""
    number = f"{_number(values['mean'].get(name), name)}{_interval(values['ci95'].get(name), name)}"
    return f"<td{f' class={kind}' if kind else ''}>{number}{words}</td>"


def _heads(*names: str) -> str:
    return "".join(f'<th scope="col">{name}</th>' for name in names)


def _table(label: str, head: str, rows: str) -> str:
    """A table that scrolls sideways within the page, by keys too."""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table>'
        f'<caption class="unseen">{label}</caption><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'
    )


def _number(value: float | None, metric: str, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{_DIGITS.get(metric, digits)}f}"


def _interval(value: float | None, metric: str) -> str:
    return "" if value is None else f" <small>± {_number(value, metric)}</small>"


def _mark(note: str) -> str:
    return ' class="bad"' if note.startswith("NOT ") else ""


def _url(path: str) -> str:
    return quote(path)
