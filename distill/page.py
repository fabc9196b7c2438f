"""The page's HTML and style: strings in, strings out. Every text from outside is escaped here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any, NamedTuple
from urllib.parse import quote

from distill.metrics import METRICS

_DIGITS = {"f0_rmse_cents": 1}
_ARROWS = {"lower": "↓", "higher": "↑"}
_BETTER = {"lower": "lower is better", "higher": "higher is better"}

STYLE = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #ffffff; --text: #1b1f26; --soft: #5b6472; --line: #dfe3e8;
  --accent: #1f5fd0; --best: #e7f1e9; --best-text: #14602e; --warn: #a4480d; }
@media (prefers-color-scheme: dark) {
  :root { --page: #101318; --card: #181c23; --text: #e7eaef; --soft: #9aa4b2; --line: #2b313b; --accent: #7fb0ff;
    --best: #17331f; --best-text: #8fe0a8; --warn: #f0a066; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "DejaVu Sans", sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 40px 24px 72px; }
h1 { font-size: 2rem; line-height: 1.2; letter-spacing: -0.02em; margin: 0 0 10px; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 48px 0 12px; }
h3 { font-size: 1rem; margin: 28px 0 2px; }
p { margin: 0 0 10px; max-width: 78ch; }
.lead { font-size: 1.08rem; color: var(--soft); }
.soft, figcaption, dd { color: var(--soft); font-size: 0.9rem; }
.notes { margin: 16px 0 0; padding: 12px 18px 12px 34px; background: var(--card); border: 1px solid var(--line);
  border-left: 3px solid var(--accent); border-radius: 8px; }
.notes li.bad { color: var(--warn); font-weight: 600; }
.scroll { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 10px; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; font-variant-numeric: tabular-nums; }
th, td { padding: 9px 11px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--line); }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child, td.word { text-align: left; }
thead th { vertical-align: bottom; font-weight: 600; white-space: normal; line-height: 1.3; }
thead small, td small { display: block; color: var(--soft); font-weight: 400; font-size: 0.8rem; }
td small { display: inline; }
tbody th { font-weight: 600; position: sticky; left: 0; background: var(--card); }
tr.reference > * { color: var(--soft); }
td.best { background: var(--best); color: var(--best-text); font-weight: 600; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 14px; margin: 12px 2px 0; font-size: 0.9rem; }
dt { font-weight: 600; } dd { margin: 0; }
.text { font-style: italic; margin: 0 0 10px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 340px), 1fr)); gap: 14px; }
.card, figure { margin: 0; padding: 12px 14px; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; }
.card header { display: flex; justify-content: space-between; gap: 10px; align-items: baseline; font-weight: 600; }
.card header span { color: var(--soft); font-weight: 400; font-size: 0.82rem; white-space: nowrap; }
audio { width: 100%; height: 36px; margin: 8px 0 6px; display: block; }
img { display: block; width: 100%; height: auto; }
figure figcaption { color: var(--text); font-weight: 600; margin: 0 0 8px; }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 360px), 1fr)); gap: 14px; }
.curves figure { max-width: 640px; }
.bars { max-width: 900px; margin: 0 0 14px; }
@media (max-width: 600px) { main { padding: 24px 14px 48px; } h1 { font-size: 1.6rem; } dl { display: block; } }
""".strip()


class Picture(NamedTuple):
    """One drawing for a light and for a dark page, paths relative to the page."""

    light: str
    dark: str
    caption: str


def document(title: str, lead_text: str, notes: Sequence[str], sections: Sequence[str]) -> str:
    """The whole page. lead_text is HTML already; title and notes are plain text."""
    items = "".join(f"<li{_mark(note)}>{escape(note)}</li>" for note in notes)
    parts = [f"<h1>{escape(title)}</h1>", f'<p class="lead">{lead_text}</p>']
    parts += [f'<ul class="notes">{items}</ul>'] if notes else []
    body = "\n".join([*parts, *(section for section in sections if section)])
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>\n{STYLE}\n</style>\n</head>\n<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
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
    """Mean and 95% interval of every metric, a system a row; the best system of a column is marked."""
    systems = metrics["systems"]
    best = {name: _best(name, {s: v["mean"][name] for s, v in systems.items() if s != recording}) for name in METRICS}
    head = "".join(
        f'<th title="{escape(m.meaning)}">{escape(m.heading)}&nbsp;'
        f'<span title="{_BETTER[m.better]}" aria-label="{_BETTER[m.better]}">{_ARROWS[m.better]}</span>'
        f"<small>{escape(m.unit) or '&nbsp;'}</small></th>"
        for m in METRICS.values()
    )
    rows = []
    for system, values in systems.items():
        cells = "".join(
            f"<td{' class=best' if best[name] == system else ''}>{_number(values['mean'][name], name)}"
            f"{_interval(values['ci95'][name], name)}</td>"
            for name in METRICS
        )
        kind = ' class="reference"' if system == recording else ""
        rows.append(f'<tr{kind}><th scope="row">{escape(system)}</th>{cells}</tr>')
    meanings = "".join(f"<dt>{escape(m.heading)}</dt><dd>{escape(m.meaning)}</dd>" for m in METRICS.values())
    explained = (
        "mean over clips ± half the 95% interval; the recording measured against itself is the limit of each column"
    )
    return (
        f'<h2>Closeness to the recording</h2>\n<p class="soft">{explained}</p>\n<div class="scroll"><table><thead><tr>'
        f"<th>system</th>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>\n<dl>{meanings}</dl>"
    )


def likelihood_table(metrics: dict[str, Any]) -> str:
    """Held-out likelihood of the systems that have one; empty where none has."""
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{_number(found["nll"], "", 4)}</td>'
        f"<td>{_number(found['bits'], '', 4)}</td><td>{found['samples']:,}</td></tr>"
        for name, system in metrics["systems"].items()
        if (found := system.get("likelihood"))
    )
    head = "<tr><th>teacher</th><th>nats / sample ↓</th><th>bits / sample ↓</th><th>samples</th></tr>"
    table = f'<div class="scroll"><table><thead>{head}</thead><tbody>{rows}</tbody></table></div>'
    return f"<h2>Held-out negative log-likelihood</h2>\n{table}" if rows else ""


def listening(
    metrics: dict[str, Any],
    texts: dict[str, str],
    sound_path: Callable[[str, str], str],
    spectrograms: dict[tuple[str, str], str],
) -> str:
    """A card a system for every clip: name, player, spectrogram."""
    parts = ["<h2>Listen</h2>", '<p class="soft">spectrograms: one scale of 80 dB for all</p>']
    for clip in metrics["clips"]:
        text = f'<p class="text">{escape(texts[clip])}</p>' if texts.get(clip) else ""
        cards = []
        for system, values in metrics["systems"].items():
            distance = values["clips"][clip]["mel_distance"]
            shown = f"mel {_number(distance, 'mel_distance')} nats" if distance else ""
            label = escape(f"{system}, {clip}")
            cards.append(
                f'<article class="card"><header>{escape(system)}<span>{shown}</span></header>'
                f'<audio controls preload="none" src="{_url(sound_path(system, clip))}" aria-label="{label}"></audio>'
                f'<img loading="lazy" alt="Spectrogram: {label}" src="{_url(spectrograms[system, clip])}"></article>'
            )
        parts.append(f'<h3>{escape(clip)}</h3>\n{text}<div class="cards">\n' + "\n".join(cards) + "\n</div>")
    return "\n".join(parts)


def pictures(heading: str, kind: str, drawings: Sequence[Picture]) -> str:
    """A section of drawings with their captions; empty without any."""
    if not drawings:
        return ""
    return f'<h2>{escape(heading)}</h2>\n<div class="{kind}">\n' + "\n".join(map(_drawing, drawings)) + "\n</div>"


def speed(benchmark: dict[str, Any], bars: Picture) -> str:
    """Bar chart, table of rows, ratios, and the machine that they were measured on."""
    columns = ("device", "threads", "batch", "samples / s", "x real time", "spread", "repeats")
    head = "".join(f"<th>{name}</th>" for name in columns)
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
        f'<h2>Speed</h2>\n<p class="soft">x real time: seconds of audio made in a second; above 1 is faster than '
        f'listening. {escape(machine)}</p>\n<div class="bars">{_drawing(bars)}</div>\n'
        f'<div class="scroll"><table><thead><tr><th>system</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>\n" + (f"<ul>{ratios}</ul>" if ratios else "")
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
        f'<img alt="{escape(picture.caption)}" src="{_url(picture.light)}"></picture></figure>'
    )


def _best(metric: str, means: dict[str, float | None]) -> str | None:
    known = {system: value for system, value in means.items() if value is not None}
    if len(known) < 2:
        return None
    choose = min if METRICS[metric].better == "lower" else max
    return choose(known, key=lambda system: known[system])


def _number(value: float | None, metric: str, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{_DIGITS.get(metric, digits)}f}"


def _interval(value: float | None, metric: str) -> str:
    return "" if value is None else f" <small>± {_number(value, metric)}</small>"


def _mark(note: str) -> str:
    return ' class="bad"' if note.startswith("NOT ") else ""


def _url(path: str) -> str:
    return quote(path)
