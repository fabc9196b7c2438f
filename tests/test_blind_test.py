"""The page in a real browser, from file://: what is heard is what the page says, and the blind test is blind."""

import csv
import io
import json
import math

import pytest
import torch

from distill.evaluate import NamedClip, evaluate
from distill.report import write_report
from tests.browser import CHROMIUM, Browser
from wavenet.config import AudioConfig

pytest.importorskip("matplotlib")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

AUDIO = AudioConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, f_max=4000.0)
LENGTH = 64 * 250
# A system is known by its pitch, whatever its name and level.
PITCH = {"recording": 300.0, "low, loud": 700.0, 'high "quiet" <b>': 1900.0}
AMPLITUDE = {"recording": 0.2, "low, loud": 0.7, 'high "quiet" <b>': 0.04}
LOUD, QUIET = list(PITCH)[1:]
# Everything that reaches the loudspeaker also reaches a meter: zero crossings and level of the last 85 ms.
EAR = """
{ const connect = AudioNode.prototype.connect; let meter = null; window.started = []; window.saved = [];
  AudioNode.prototype.connect = function (to, ...rest) {
    if (to instanceof AudioDestinationNode) {
      meter = meter || new AnalyserNode(this.context, { fftSize: 4096 });
      connect.call(this, meter); }
    return connect.call(this, to, ...rest); };
  const start = AudioBufferSourceNode.prototype.start;
  AudioBufferSourceNode.prototype.start = function (...at) { window.started.push(at); return start.apply(this, at); };
  const url = URL.createObjectURL;
  URL.createObjectURL = (blob) => { window.saved.push(blob.text()); return url(blob); };
  window.hear = async () => {
    // Two tenths of a second of sound, however slow the machine is.
    const since = meter.context.currentTime;
    while (meter.context.currentTime < since + 0.2) await new Promise((done) => setTimeout(done, 10));
    const x = new Float32Array(4096); meter.getFloatTimeDomainData(x);
    let crossings = 0, power = 0;
    for (let i = 1; i < x.length; i++) { crossings += x[i - 1] < 0 !== x[i] < 0; power += x[i] * x[i] / x.length; }
    return [crossings / 2 / x.length * meter.context.sampleRate, Math.sqrt(power)]; }; }
"""


def tone(name: str) -> torch.Tensor:
    time = torch.arange(LENGTH) / AUDIO.sample_rate
    return AMPLITUDE[name] * torch.sin(2 * math.pi * PITCH[name] * time)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    running = Browser(tmp_path_factory.mktemp("profile"))
    yield running
    running.close()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    clips = [NamedClip(name, tone("recording")) for name in ("one", "two")]
    systems = {name: (lambda mel, g, name=name: tone(name)[None]) for name in (LOUD, QUIET)}
    metrics = evaluate(clips, systems, AUDIO, out)
    return write_report(out, title="Tones", metrics=metrics, curves={}, benchmark=None, notes=[], texts={})


@pytest.fixture
def page(browser, written):
    browser.open(written, EAR)
    yield browser
    assert browser.complaints() == []


def heard(page) -> tuple[str, float]:
    """Which system sounds now, and its level [dB]; "" for silence."""
    pitch, rms = page.run("hear()")
    if rms < 1e-4:
        return "", -math.inf
    name = min(PITCH, key=lambda system: abs(PITCH[system] - pitch))
    assert abs(PITCH[name] - pitch) < 60, pitch
    return name, 20 * math.log10(rms)


def begin(page, **fields):
    page.run(f"for (const [k, v] of Object.entries({json.dumps(fields)})) document.forms[0].elements[k].value = v")
    page.click("#blind-setup button")
    page.wait("!document.getElementById('blind-a').disabled")


def saved(page, kind: str) -> str:
    page.click(f"#blind-{kind}")
    return page.run("saved.at(-1)")


def mulberry32(seed: int):
    """The generator once more, from its definition."""

    def multiply(a: int, b: int) -> int:
        return a * b & 0xFFFFFFFF

    while True:
        seed = (seed + 0x6D2B79F5) & 0xFFFFFFFF
        mixed = multiply(seed ^ (seed >> 15), seed | 1)
        mixed ^= (mixed + multiply(mixed ^ (mixed >> 7), mixed | 61)) & 0xFFFFFFFF
        yield (mixed ^ (mixed >> 14)) / 2**32


def test_switching_keeps_the_position_and_the_level(page):
    page.click(".clip .card:nth-child(2) .system")
    page.wait("started.length === 5")
    assert page.run("new Set(started.map(String)).size") == 1  # the same sample of all five, at the same time
    name, loud = heard(page)
    assert name == LOUD
    page.key("3")
    name, quiet = heard(page)
    assert name == QUIET
    page.key("1")
    name, recording = heard(page)
    assert name == "recording"
    assert loud == pytest.approx(recording, abs=0.2)
    assert quiet == pytest.approx(recording, abs=0.2)
    assert page.run("started.length") == 5
    page.key("m")
    assert heard(page)[1] == pytest.approx(20 * math.log10(0.2 / math.sqrt(2)), abs=0.2)
    page.key("3")
    assert heard(page)[1] == pytest.approx(20 * math.log10(0.04 / math.sqrt(2)), abs=0.2)
    page.key(" ")
    assert heard(page)[0] == ""
    stands = page.run("Number(document.querySelector('.transport input').value)")
    assert 0.2 < stands < 2.0
    page.key("ArrowLeft")
    page.key(" ")
    page.wait("started.length === 10")
    assert page.run("started.at(-1)[1]") == pytest.approx(max(0.0, stands - 1), abs=0.05)


def test_another_clip_silences_the_first_and_the_end_rewinds(page):
    page.click(".clip .card:nth-child(2) .system")
    page.wait("started.length === 5")
    page.click("#listen .clip:last-child .card:nth-child(3) .system")
    page.wait("started.length === 10")
    assert heard(page)[0] == QUIET
    page.wait("document.querySelector('.clip:last-child .transport button').textContent === 'Play'")
    assert page.run("document.querySelector('.clip:last-child .transport input').value") == "0"


def test_abx_is_blind_and_counts(page):
    """Answers by ear alone: the page knows nothing that a listener could read, and all answers are right."""
    begin(page, first=1, second=2, clip="any", trials=5, seed=7)
    order = []
    for trial in range(5):
        page.wait(f"document.getElementById('blind-progress').textContent === 'Trial {trial + 1} of 5'")
        page.wait("!document.getElementById('blind-x').disabled")
        page.key("1")  # too early: nothing was heard
        assert page.run("document.getElementById('blind-progress').textContent") == f"Trial {trial + 1} of 5"
        sounds = {}
        for key in "abx":
            page.key(key)
            sounds[key] = heard(page)
        assert {sounds["a"][0], sounds["b"][0]} == {LOUD, QUIET}
        assert sounds["a"][1] == pytest.approx(sounds["b"][1], abs=0.2)
        shown = page.run("document.body.innerText + document.getElementById('blind-trial').outerHTML")
        assert "loud" not in shown
        assert "quiet" not in shown
        assert "correct" not in shown
        assert page.run("document.querySelectorAll('audio, script[src]').length") == 0
        truth = "a" if sounds["x"][0] == sounds["a"][0] else "b"
        order.append((sounds["a"][0], truth))
        page.click(f"#blind-is-{truth}")
    page.wait("!document.getElementById('blind-result').hidden")
    assert page.run("document.getElementById('blind-score').textContent") == "5 of 5 correct, p = 0.0313"
    assert "Seed 7." in page.run("document.getElementById('blind-meaning').textContent")
    votes = json.loads(saved(page, "json"))
    assert [(vote["a"], vote["x"]) for vote in votes["votes"]] == order
    assert votes["result"]["p_value"] == 2**-5
    draw = mulberry32(7)
    for vote in votes["votes"]:
        _, clip, swap, x = (next(draw) for _ in range(4))
        assert vote["clip"] == ("one" if clip < 0.5 else "two")
        assert (vote["a"], vote["b"]) == ((LOUD, QUIET) if swap < 0.5 else (QUIET, LOUD))
        assert vote["x"] == ("a" if x < 0.5 else "b")
        assert vote["correct"] is True
        assert vote["response_ms"] > 500
        difference = vote["gain_a_db"] - vote["gain_b_db"]
        assert difference == pytest.approx(20 * math.log10(AMPLITUDE[vote["b"]] / AMPLITUDE[vote["a"]]), abs=0.05)
    rows = list(csv.DictReader(io.StringIO(saved(page, "csv"))))
    assert [(row["a"], row["x"], row["answer"]) for row in rows] == [(a, x, x) for a, x in order]


def test_preference_counts_votes_and_may_end_early(page):
    page.run("document.querySelector('[value=preference]').click()")
    begin(page, first=0, second=2, clip=1, trials=9, seed="")
    for trial in range(3):
        page.wait(f"document.getElementById('blind-progress').textContent === 'Trial {trial + 1} of 9'")
        page.wait("!document.getElementById('blind-a').disabled")
        page.key("a")
        first = heard(page)[0]
        page.key("b")
        page.key("1" if first == "recording" else "2")
    page.click("#blind-stop")
    page.wait("!document.getElementById('blind-result').hidden")
    votes = json.loads(saved(page, "json"))
    assert [vote["preferred"] for vote in votes["votes"]] == ["recording"] * 3
    assert votes["votes"][0]["x"] is None
    (pair,) = votes["result"]["pairs"]
    assert pair["p"] == 0.25
    assert "Ended after 3 of 9 trials" in page.run("document.getElementById('blind-meaning').textContent")
    assert page.run("document.body.classList.contains('blind')") is False


def test_p_values_are_exact(page):
    cases = [(c, n) for n in (1, 2, 5, 16, 40, 200) for c in range(0, n + 1, max(1, n // 10))]
    found = page.run(f"{json.dumps(cases)}.map(([c, n]) => trials.oneSided(c, n))")
    for (c, n), p in zip(cases, found, strict=True):
        assert p == pytest.approx(sum(math.comb(n, k) for k in range(c, n + 1)) / 2**n, rel=1e-12)
    assert page.run("[trials.needed(16), trials.needed(4), trials.twoSided(8, 16)]") == [12, None, 1]
    assert page.run("trials.twoSided(1, 8)") == pytest.approx(2 * 9 / 256)


def test_draws_are_independent_of_each_other(page):
    """X, order, pair and clip over many seeds: each fair, no two of them correlated."""
    rows = page.run(
        "Array.from({length: 400}, (_, seed) => trials.plan({mode: 'abx', pairs: [[0, 1], [2, 3]], clips: [0, 1],"
        "count: 10, seed})).flat().map((t) => [+(t.x === 'a'), +(t.a % 2), +(t.a > 1), t.clip])"
    )
    draws = torch.tensor(rows, dtype=torch.float64)
    limit = 4 / math.sqrt(len(draws))
    assert (draws.mean(dim=0) - 0.5).abs().max() < limit / 2
    assert (torch.corrcoef(draws.T) - torch.eye(4)).abs().max() < limit
    # The answer before says nothing of the next, within a seed and from seed to seed.
    x = draws[:, 0].reshape(400, 10)
    assert abs(torch.corrcoef(torch.stack([x[:, 1:].flatten(), x[:, :-1].flatten()]))[0, 1]) < limit
    assert abs(torch.corrcoef(torch.stack([x[1:].flatten(), x[:-1].flatten()]))[0, 1]) < limit


def test_lost_sounds_are_told(browser, written, tmp_path):
    alone = tmp_path / "alone.html"
    alone.write_text(written.read_text(encoding="utf-8"), encoding="utf-8")
    browser.open(alone)
    browser.click(".clip .card:nth-child(2) .system")
    browser.wait("document.getElementById('sound-problem').textContent.includes('sounds/0.js')")
