"""The page: complete, escaped, and nothing in it reaches outside its folder."""

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch

from distill.evaluate import NamedClip, evaluate
from distill.matching import active_level
from distill.metrics import METRICS
from distill.page import short
from distill.report import file_name, sound_path, training_curves, write_report
from wavenet.audio import read_audio
from wavenet.config import AudioConfig

pytest.importorskip("matplotlib")

AUDIO = AudioConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, f_max=4000.0)
HOSTILE = "<script>alert('x')</script> & \"co\""
CURVES = {
    "falls by 100": {"a": [(i, 100.0 / (1 + i)) for i in range(100)], "empty": []},
    "crosses zero": {"a": [(i, 5.0 - i) for i in range(10)]},
    "explodes": {"a": [(0, -3.0), (1, 2.0), (2, -1e6), (3, float("nan"))]},
}
ROW = {"device": "cpu", "threads": 1, "batch": 1, "seconds_of_audio": 1.0, "repeats": 3}
BENCHMARK = {
    "machine": {"cpu": "<b>fast</b>", "gpu": None},
    "ceilings": {},
    "rows": [
        {**ROW, "net": "teacher", "method": "cached", "samples_per_second": 2412.0, "x_real_time": 0.3015}
        | {"min": 2400.0, "max": 2500.0, "peak_memory_mb": None},
        {**ROW, "net": "student", "method": "parallel", "samples_per_second": 151234.0, "x_real_time": 18.9}
        | {"min": None, "max": None, "peak_memory_mb": 12.0},
    ],
    "ratios": [{"of": "parallel", "over": "cached", "net": "student", "device": "cpu", "value": 62.7}],
}


class Elements(HTMLParser):
    """Every tag with its attributes, the text, and what was left open."""

    def __init__(self, source):
        super().__init__()
        self.tags, self.open, self.words, self.code = [], [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "link", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        (self.code if self.open and self.open[-1] in ("script", "style") else self.words).append(data)

    def named(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    out = tmp_path_factory.mktemp("page")
    noise = torch.randn(64 * 40, generator=torch.Generator().manual_seed(0))
    clips = [NamedClip(HOSTILE, 0.1 * noise), NamedClip("two", 0.1 * noise.flip(0))]
    systems = {HOSTILE: lambda mel, g: 0.1 * torch.randn(1, mel.shape[2] * 64, generator=g)}
    metrics = evaluate(clips, systems, AUDIO, out)
    metrics["systems"][HOSTILE]["likelihood"] = {"nll": -3.21, "nll_density": -3.2, "bits": -4.6311, "samples": 12345}
    texts = {HOSTILE: HOSTILE, "two": "Second."}
    page = write_report(
        out, title=HOSTILE, metrics=metrics, curves=CURVES, benchmark=BENCHMARK, notes=[HOSTILE], texts=texts
    )
    return page, metrics, Elements(page.read_text(encoding="utf-8"))


def test_well_formed_and_escaped(written):
    _, _, found = written
    assert found.open == []
    # The page's own, and none by way of a name.
    assert [tag.get("id") for tag in found.named("script")] == ["listening-data", None, None, None, None]
    assert not found.named("b")
    text = "".join(found.words)
    # Title twice, lead, note, table, likelihood, heading and text of the clip, its cards.
    assert text.count(HOSTILE) >= 8


def test_everything_lies_beside_the_page(written):
    page, metrics, found = written
    links = [tag.get("src") or tag.get("srcset") or tag.get("href") for _, tag in found.tags]
    links = [unquote(link) for link in links if link]
    for link in links:
        assert not Path(link).is_absolute()
        assert ":" not in link
        assert (page.parent / link).stat().st_size > 0, link
    source = page.read_text(encoding="utf-8")
    assert not re.search(r"url\(|https?:|@import|//[a-z]+\.[a-z]", "".join(found.code))
    assert "http" not in source
    data = json.loads(found.code[1])
    assert all((page.parent / clip["script"]).stat().st_size > 0 for clip in data["clips"])
    sounds = [tag["src"] for tag in found.named("audio")]
    wanted = [sound_path(system, clip) for clip in metrics["clips"] for system in metrics["systems"]]
    assert sounds == wanted
    assert all(tag["preload"] == "none" for tag in found.named("audio"))
    assert all(tag["alt"] for tag in found.named("img"))
    # A spectrogram a sound, three curves and the bars.
    assert len(found.named("img")) == len(wanted) + len(CURVES) + 1


def test_numbers_are_the_metrics(written):
    _, metrics, found = written
    text = "".join(found.words)
    for system in metrics["systems"].values():
        assert f"{system['mean']['mel_distance']:.3f} ± {system['ci95']['mel_distance']:.3f}" in text
        assert f"{system['mean']['band_error']:.3f} ± {system['ci95']['band_error']:.3f}" in text
    assert "-4.6311" in text
    assert "12,345" in text
    columns = [name for name in METRICS if any(s["mean"].get(name) is not None for s in metrics["systems"].values())]
    assert len(columns) >= 5
    assert all(METRICS[name].meaning in text for name in columns)
    assert "62.7 times as fast" in "".join(found.words)
    assert "151,000" in text
    assert "None" not in text
    assert "nan" not in text


def test_ids_are_unique_and_every_control_has_a_label(written):
    _, _, found = written
    ids = [tag["id"] for _, tag in found.tags if "id" in tag]
    assert len(ids) == len(set(ids))
    for name, tag in found.tags:
        for key in ("aria-labelledby", "for", "href"):
            if tag.get(key) and (key != "href" or tag[key].startswith("#")):
                assert tag[key].removeprefix("#") in ids, (name, tag)
        if name == "audio" or (name == "input" and tag["type"] == "range"):
            assert tag["aria-label"]
    wanted = set(re.findall(r'getElementById\("([\w-]+)"\)', "".join(found.code)))
    wanted |= {f"blind-{name}" for name in re.findall(r'part\("([\w-]+)"\)', "".join(found.code))}
    assert len(wanted) > 15
    assert wanted <= set(ids)


def test_scripts_hold_the_files_and_their_gains(written):
    page, metrics, found = written
    data = json.loads(found.code[1])
    assert data["systems"] == list(metrics["systems"])
    for clip in data["clips"]:
        call = (page.parent / clip["script"]).read_text(encoding="utf-8")
        encoded = json.loads(re.fullmatch(r"listening\.receive\(\d+, (.*)\);\n", call)[1])
        paths = [page.parent / sound_path(system, clip["name"]) for system in metrics["systems"]]
        assert [base64.b64decode(text) for text in encoded] == [path.read_bytes() for path in paths]
        levels = [active_level(read_audio(path)[0], 8000) for path in paths]
        matched = np.add(levels, clip["gains_db"])
        assert np.ptp(matched) < 0.01
        assert np.ptp(levels) > 0.1


def test_dashes_and_metrics_without_a_description(tmp_path):
    wav = 0.2 * torch.randn(64 * 40, generator=torch.Generator().manual_seed(0))
    metrics = evaluate([NamedClip("a", wav)], {"half": lambda mel, g: 0.5 * wav[None]}, AUDIO, tmp_path)
    for place, values in enumerate(metrics["systems"].values()):
        values["mean"] |= {"new": 0.125 if place else None, "never": None}
        values["ci95"] |= {"new": 0.5 if place else None, "never": None}
    arguments = {"title": "t", "curves": {}, "benchmark": None, "notes": [], "texts": {}}
    found = Elements(write_report(tmp_path, metrics=metrics, **arguments).read_text(encoding="utf-8"))
    text = " ".join(found.words)
    assert "0.125  ± 0.500" in text
    assert " - " in text
    assert re.search(r"Not measured: .*never\.", text)


def test_spectrograms_share_one_scale(tmp_path):
    """Silence is dark beside a loud recording: a picture scaled to its own clip would show its noise."""
    from matplotlib.image import imread

    wav = 0.2 * torch.randn(64 * 40, generator=torch.Generator().manual_seed(0))
    metrics = evaluate([NamedClip("a", wav)], {"whisper": lambda mel, g: 1e-3 * wav[None]}, AUDIO, tmp_path)
    write_report(tmp_path, title="t", metrics=metrics, curves={}, benchmark=None, notes=[], texts={}, name="r.html")
    loud, quiet = (imread(tmp_path / "pictures" / f"{name}--a.png")[..., :3] for name in ("recording", "whisper"))
    middle = (slice(10, 50), slice(20, 60))
    assert loud[middle].mean() > 0.5
    assert quiet[middle].mean() < 0.35
    assert not (tmp_path / "index.html").exists()


def test_curves_come_from_the_runs(tmp_path):
    (tmp_path / "teacher").mkdir()
    lines = ['{"step": 1, "nll": 9.0, "bits": 13.0}', '{"step": 2, "nll": null}', '{"step": 2, "validation/nll": 8.5}']
    (tmp_path / "teacher" / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    runs = {"teacher": tmp_path / "teacher", "file": tmp_path / "teacher" / "checkpoint.pt", "none": tmp_path / "none"}
    panel = {"teacher": [(1, 9.0)], "teacher, held out": [(2, 8.5)], "file": [(1, 9.0)], "file, held out": [(2, 8.5)]}
    assert training_curves(runs) == {"NLL [nats/sample]": panel}


@pytest.mark.parametrize(
    ("value", "shown"), [(0.012345, "0.0123"), (62.71, "62.7"), (151234.0, "151,000"), (999.6, "1,000"), (None, "-")]
)
def test_short_numbers(value, shown):
    assert short(value) == shown


def test_file_names():
    assert file_name("../../etc/passwd") == "etc-passwd"
    assert file_name("mel-shaped noise") == "mel-shaped-noise"
    assert file_name("...") == "unnamed"
    assert np.unique([sound_path(s, c) for s in ("a", "b") for c in ("c", "d")]).size == 4
