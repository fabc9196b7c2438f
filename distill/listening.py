"""What is listened to on the page: level-matched players and the blind test. HTML here, behaviour in distill/web.

Names come from outside and are escaped; the scripts get them as JSON.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from distill.matching import RULE, matching_gains
from wavenet.audio import read_audio

SOUNDS = "sounds"
SCRIPTS = ("sounds.js", "clips.js", "trials.js", "blind.js")

_TRIALS, _MOST_TRIALS = 16, 200


class Spectrogram(NamedTuple):
    """A picture without axes, path relative to the page, and what they are: seconds and kHz at its far ends."""

    path: str
    seconds: float
    kilohertz: float


def web(name: str) -> str:
    """A style or script of distill/web."""
    return resources.files("distill").joinpath("web", name).read_text(encoding="utf-8")


def write_sounds(
    out: Path, metrics: dict[str, Any], sound_path: Callable[[str, str], str], reference: str
) -> list[dict[str, Any]]:
    """Write out/sounds/N.js, every version of clip N as it lies on disk, and return what the page must know of each.

    A list of {"name", "script", "gains_db": [one a system]}. Why scripts, and not the files: distill/web/sounds.js.
    """
    (out / SOUNDS).mkdir(parents=True, exist_ok=True)
    systems, rate = list(metrics["systems"]), metrics["sample_rate"]
    place = systems.index(reference) if reference in systems else 0
    clips = []
    for number, clip in enumerate(metrics["clips"]):
        paths = [out / sound_path(system, clip) for system in systems]
        gains = matching_gains([read_audio(path)[0] for path in paths], rate, place)
        encoded = [base64.b64encode(path.read_bytes()).decode("ascii") for path in paths]
        script = f"{SOUNDS}/{number}.js"
        (out / script).write_text(f"listening.receive({number}, {json.dumps(encoded)});\n", encoding="utf-8")
        clips.append({"name": clip, "script": script, "gains_db": [round(gain, 3) for gain in gains]})
    return clips


def scripts(title: str, metrics: dict[str, Any], clips: Sequence[dict[str, Any]]) -> str:
    """The page's data and its scripts, for the end of the body."""
    data = {"title": title, "systems": list(metrics["systems"]), "rule": RULE, "clips": list(clips)}
    # The one sequence that would end the element; in JSON the escape means the same.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    parts = [f'<script type="application/json" id="listening-data">{text}</script>']
    return "\n".join([*parts, *(f"<script>\n{web(name)}</script>" for name in SCRIPTS)])


def players(
    metrics: dict[str, Any],
    texts: dict[str, str],
    clips: Sequence[dict[str, Any]],
    sound_path: Callable[[str, str], str],
    spectrograms: dict[tuple[str, str], Spectrogram],
    colours: Sequence[str],
    range_db: float,
) -> str:
    """A transport for every clip, and a card a system: button, level, spectrogram on one scale."""
    legend = (
        f'<p class="legend soft"><span>spectrograms, one scale for all: &minus;{range_db:g} dB</span>'
        f'<i style="background: linear-gradient(to right, {", ".join(colours)})"></i>'
        "<span>0 dB, the strongest component of the recordings</span></p>"
    )
    parts = [
        '<section id="listen" aria-labelledby="listen-heading">\n<h2 id="listen-heading">Listen</h2>',
        '<div class="controls"><label><input type="checkbox" id="match-levels" checked> match levels</label>'
        '<label><input type="checkbox" id="loop"> loop</label></div>',
        '<p class="soft">Versions of a clip run together: a button or a digit switches at the same position. '
        "<kbd>space</kbd> play, <kbd>1</kbd> to <kbd>9</kbd> system, <kbd>←</kbd> <kbd>→</kbd> one second, "
        "<kbd>home</kbd> start, <kbd>M</kbd> matching, <kbd>L</kbd> loop; a click into a spectrogram plays from there. "
        f"Matching: {escape(RULE)}. Each card says by how much; the files stay as synthesised.</p>",
        '<p class="problem" id="sound-problem" role="alert"></p>',
        "<noscript><p>Without JavaScript: plain players, levels as synthesised, no blind test.</p></noscript>",
        legend,
    ]
    for number, clip in enumerate(clips):
        parts.append(_clip(number, clip, metrics, texts.get(clip["name"], ""), sound_path, spectrograms))
    return "\n".join([*parts, "</section>"])


def blind_test(metrics: dict[str, Any]) -> str:
    """The panel of the ABX and preference tests; empty where there are no two systems."""
    systems = list(metrics["systems"])
    if len(systems) < 2:
        return ""
    # What a listener asks first: can the first system, which comes after the recording, be told from it?
    first, second = (_options(systems, chosen) for chosen in (0, 1))
    clips = _options(metrics["clips"], None)
    return f"""<section id="blind-test" aria-labelledby="blind-heading">
<h2 id="blind-heading">Blind test</h2>
<p class="soft">Can two systems be told apart? A and B are the two in random order, X is one of them, drawn anew in
every trial; levels are matched. Or, without X: which one is preferred? Nothing says which is which before the end.</p>
<div class="panel">
<form id="blind-setup">
<fieldset><legend>question</legend>
<label><input type="radio" name="mode" value="abx" checked> ABX: which of A and B is X?</label>
<label><input type="radio" name="mode" value="preference"> preference: A or B?</label></fieldset>
<div class="fields">
<label><span>first system</span>
<select name="first">{first}<option value="any">any pair, drawn</option></select></label>
<label><span>second system</span><select name="second">{second}</select></label>
<label><span>clip</span><select name="clip"><option value="any">any, drawn</option>{clips}</select></label>
<label><span>trials</span>
<input type="number" name="trials" min="1" max="{_MOST_TRIALS}" value="{_TRIALS}" required></label>
<label><span>seed (shown afterwards)</span>
<input type="number" name="seed" min="0" max="4294967295" placeholder="drawn at random"></label>
</div>
<p class="soft" id="blind-needed"></p>
<p class="problem" id="blind-problem" role="alert"></p>
<button type="submit" class="main">Start</button>
</form>
<div id="blind-trial" hidden tabindex="-1">
<p class="score" id="blind-progress" aria-live="polite"></p>
{_transport("the trial")}
<div class="large"><button type="button" id="blind-a"><kbd>A</kbd> play A</button>
<button type="button" id="blind-b"><kbd>B</kbd> play B</button>
<button type="button" id="blind-x"><kbd>X</kbd> play X</button></div>
<p id="blind-question"></p>
<div class="large answers"><button type="button" id="blind-is-a"><kbd>1</kbd> <span></span></button>
<button type="button" id="blind-is-b"><kbd>2</kbd> <span></span></button></div>
<p class="soft">Keys: <kbd>A</kbd> <kbd>B</kbd> <kbd>X</kbd> switch at the same position, <kbd>1</kbd> and <kbd>2</kbd>
answer once all were heard, <kbd>space</kbd> pauses, <kbd>home</kbd> starts again.</p>
<button type="button" id="blind-stop">End the test here</button>
</div>
<div id="blind-result" hidden tabindex="-1">
<h3>Result</h3>
<p class="score" id="blind-score"></p>
<p class="soft" id="blind-meaning"></p>
{_result_table("pairs", "Result for each pair of systems")}
<p class="controls saving"><button type="button" id="blind-json">Save votes (JSON)</button>
<button type="button" id="blind-csv">Save votes (CSV)</button></p>
<details><summary>Votes</summary>{_result_table("votes", "Every vote")}</details>
</div>
</div>
</section>"""


def _clip(
    number: int,
    clip: dict[str, Any],
    metrics: dict[str, Any],
    text: str,
    sound_path: Callable[[str, str], str],
    spectrograms: dict[tuple[str, str], Spectrogram],
) -> str:
    cards = []
    name = clip["name"]
    for place, (system, values) in enumerate(metrics["systems"].items()):
        distance = values["clips"][name].get("mel_distance")
        shown = f'<span class="soft">mel {distance:.3f} nats</span>' if distance else ""
        key = f"<kbd>{place + 1}</kbd> " if place < 9 else ""
        url = quote(sound_path(system, name))
        label = escape(f"{system}, {name}")
        gain = f"{clip['gains_db'][place]:+.1f}".replace("-", "\N{MINUS SIGN}")
        cards.append(
            f'<article class="card"><header><h4><button type="button" class="system" aria-pressed="false" '
            f'aria-label="Play {label}">{key}{escape(system)}</button></h4>{shown}</header>'
            f"{_plot(spectrograms[system, name], label)}"
            f'<p class="facts"><span class="gain">matched by {gain} dB</span>'
            f'<a href="{url}" aria-label="Sound file of {label}">file as synthesised</a></p>'
            f'<noscript><audio controls preload="none" src="{url}" aria-label="{label}"></audio></noscript></article>'
        )
    seconds = max(spectrograms[system, name].seconds for system in metrics["systems"])
    said = f'<p class="text">{escape(text)}</p>' if text else ""
    return (
        f'<section class="clip" aria-labelledby="clip-{number}"><h3 id="clip-{number}">{escape(name)}</h3>\n{said}'
        f'{_transport(escape(name), seconds)}\n<div class="cards">\n' + "\n".join(cards) + "\n</div></section>"
    )


def _transport(label: str, seconds: float = 0.0) -> str:
    return (
        f'<div class="transport"><button type="button" aria-label="Play or pause {label}">Play</button>'
        f'<input type="range" min="0" max="{seconds or 1:.3f}" step="any" value="0" aria-label="Position in {label}">'
        f"<output>0.00 / {seconds:.2f} s</output></div>"
    )


def _plot(picture: Spectrogram, label: str) -> str:
    """A spectrogram with its axes as text: legible at any width, in any scheme."""
    seconds = _ticks(picture.seconds, 5)
    kilohertz = _ticks(picture.kilohertz, 4)
    across = "".join(f'<span class="x" style="left:{100 * t / picture.seconds:.2f}%">{t:g}</span>' for t in seconds)
    up = "".join(f'<span class="y" style="bottom:{100 * f / picture.kilohertz:.2f}%">{f:g}</span>' for f in kilohertz)
    return (
        f'<div class="plot"><div class="field"><img loading="lazy" alt="Spectrogram: {label}, '
        f'{picture.seconds:.1f} s, 0 to {picture.kilohertz:g} kHz" src="{quote(picture.path)}">'
        f'<i class="cursor" hidden></i><span aria-hidden="true">{across}{up}'
        '<span class="unit-y">kHz</span><span class="unit-x">seconds</span></span></div></div>'
    )


def _ticks(end: float, most: int) -> list[float]:
    """At most `most` + 1 round numbers from 0 to `end`."""
    for step in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0):
        if end / step <= most:
            return [i * step for i in range(int(end / step + 1e-9) + 1)]
    return [0.0, end]


def _options(names: Sequence[str], chosen: int | None) -> str:
    return "".join(
        f'<option value="{place}"{" selected" if place == chosen else ""}>{escape(name)}</option>'
        for place, name in enumerate(names)
    )


def _result_table(name: str, caption: str) -> str:
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table id="blind-{name}">'
        f'<caption class="unseen">{caption}</caption><thead></thead><tbody></tbody></table></div>'
    )
