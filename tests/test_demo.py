"""The demo in miniature: every stage through the real commands, the page, the figures, README filled from them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distill import models, results
from distill.demo import Demo
from distill.demo import main as demo
from distill.gates import FLOW_0, GRIFFIN_LIM, KL_ONLY, RECORDING, SOURCE_FILTER, TEXTBOOK, check_gates
from wavenet import weights
from wavenet.audio import read_audio, write_audio
from wavenet.data import corpus_folder
from wavenet.errors import UserError
from wavenet.run import read_metrics

SYSTEMS = (RECORDING, "teacher", SOURCE_FILTER, TEXTBOOK, KL_ONLY, FLOW_0, GRIFFIN_LIM, "mel-shaped noise")
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The demo of a few steps on eight clips of half a second."""
    place = tmp_path_factory.mktemp("demo")
    (place / "corpus").mkdir()
    names = []
    for path in sorted((corpus_folder("bundled") / "wavs").iterdir())[:8]:
        wav, info = read_audio(path)
        write_audio(place / "corpus" / path.name, wav[10_000:22_000], info.sample_rate)
        names.append(path.stem)
    for split, part in (("train", names[:5]), ("dev", names[5:6]), ("test", names[6:])):
        (place / "corpus" / f"{split}.txt").write_text("\n".join(part) + "\n")
    arguments = ["--recipes", str(ROOT / "configs" / "smoke"), "--data", str(place / "corpus"), "--steps", "4", "4"]
    assert demo([*arguments, "--out", str(place / "run")]) == 0
    return place / "run"


def test_page_shows_every_system_and_every_file_it_names_is_there(run):
    page = (run / "index.html").read_text()
    for system in SYSTEMS:
        assert system in page
    links = [link for link in re.findall(r'(?:src|srcset)="([^"]+)"', page) if not link.startswith("data:")]
    assert len([link for link in links if link.endswith(".wav")]) == 2 * len(SYSTEMS)
    assert all((run / link).is_file() for link in links)


def test_the_shipped_student_speaks_before_any_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("distill.demo.train_pitch", lambda _: 130)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "student").mkdir()  # a folder of the user's does not matter
    assert Demo(tmp_path / "out", ROOT / "configs", "bundled", None).run() == 130
    (spoken,) = (tmp_path / "out" / "shipped").glob("*.wav")
    assert str(spoken) in capsys.readouterr().out.split("[1/6]")[0]
    wav, info = read_audio(spoken)
    assert info.sample_rate == models.load(weights.shipped()["student"]).config.audio.sample_rate
    assert 0.001 < float(wav.std()) < 0.5
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "nothing")
    assert Demo(tmp_path / "bare", ROOT / "configs", "bundled", None).run() == 130
    assert not (tmp_path / "bare").exists()
    assert capsys.readouterr().out.strip().startswith("[1/6]")


def test_figures_hold_what_the_page_and_readme_are_made_of(run):
    figures = json.loads((run / "demo.json").read_text())
    assert set(figures) == {"gates", "metrics", "benchmark", "teacher"}
    methods = {row["method"] for row in figures["benchmark"]["rows"]}
    assert methods == {"naive", "cached", "fused", "parallel", "tiled"}
    assert {ratio["over"].split()[-1] for ratio in figures["benchmark"]["ratios"]} >= {"naive", "cached"}
    history = read_metrics(run / TEXTBOOK)
    again = check_gates(history, {"systems": figures["metrics"]})
    assert figures["gates"] == json.loads(json.dumps(again))


@pytest.mark.slow
def test_second_run_resumes_and_trains_nothing(run, capsys):
    before = (run / "teacher" / "checkpoint.pt").read_bytes()
    arguments = ["--recipes", str(ROOT / "configs/smoke"), "--data", str(run.parent / "corpus"), "--steps", "4", "4"]
    assert demo([*arguments, "--out", str(run)]) == 0
    assert (run / "teacher" / "checkpoint.pt").read_bytes() == before
    assert "already at step 4 of 4" in capsys.readouterr().err


def test_readme_is_filled_between_its_markers(run, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results:begin -->\nold\n<!-- results:end -->\nafter\n")
    arguments = [str(run), "--readme", str(readme), "--docs", str(tmp_path / "docs")]
    assert results.main(arguments) == 0
    once = readme.read_text()
    assert results.main(arguments) == 0
    assert readme.read_text() == once
    assert once.startswith("before\n<!-- results:begin -->\n")
    assert once.endswith("<!-- results:end -->\nafter\n")
    assert "old" not in once
    mean = json.loads((run / "demo.json").read_text())["metrics"][SOURCE_FILTER]["mean"]["mel_distance"]
    assert re.search(rf"^\| {SOURCE_FILTER} \| {mean:.3f} \|", once, re.MULTILINE)
    assert (tmp_path / "docs" / results.PICTURE).stat().st_size > 10_000


def test_missing_markers_run_and_recipes_are_named(run, tmp_path, capsys):
    (tmp_path / "README.md").write_text("no markers")
    with pytest.raises(UserError, match="found no markers"):
        results.fill(tmp_path / "README.md", "text", "results")
    assert results.main([str(tmp_path)]) == 2
    assert "expected the figures of a finished demo" in capsys.readouterr().err
    assert demo(["--recipes", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "demo_pitch.yaml: found no such recipe" in capsys.readouterr().err


def systems(ours=0.25, right=0.9, hummed=0.8, theirs=0.4, alone=0.7, hoarse=0.4):
    def mean(mel, pitch, tone):
        return {"mean": {"mel_distance": mel, "f0_within_3_percent": pitch, "voiced_autocorrelation": tone}}

    return {
        "systems": {
            RECORDING: mean(0.0, 1.0, 0.85),
            SOURCE_FILTER: mean(ours, right, hummed),
            TEXTBOOK: mean(theirs, hoarse, 0.4),
            KL_ONLY: mean(alone, 0.0, 0.3),
            FLOW_0: mean(0.31, 0.9, 0.8),
            GRIFFIN_LIM: mean(0.1, 0.8, 0.7),
        }
    }


def passed(divergence, **figures):
    history = [{"step": step, "kl/kl": value} for step, value in enumerate(divergence)]
    return [gate["passed"] for gate in check_gates(history, systems(**figures))]


def test_gates_tell_good_from_bad():
    assert passed([4.0, 1.0]) == [True] * 7
    assert passed([4.0, 2.5], ours=0.31, right=0.6, hummed=0.7, theirs=0.6, alone=0.55, hoarse=0.1) == [False] * 7
    assert passed([4.0, 1.0], hummed=0.96)[2] is False, "buzz is no quality"
    assert passed([4.0, 1.0], right=None)[1] is False


def test_a_gate_that_is_missed_says_what_stands_beside_it():
    gates = check_gates([{"kl/kl": 4.0}, {"kl/kl": 3.0}], systems(ours=0.4))
    assert gates[0]["line"].startswith("NOT reached: source-filter: mel distance: 0.400")
    assert "flow 0 0.310, Griffin-Lim 0.100, textbook 0.400" in gates[0]["line"]


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 0, 0), 0), ((0, 0, -9), 1), ((-9, 0, 0), 1), ((0, 2, 0), 1), ((130, 130, 130), 130)]
)
def test_a_student_that_died_stops_the_demo(tmp_path, monkeypatch, codes, expected):
    children = iter(codes)

    def spawn(command, **options):
        code = next(children)
        kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
        return real([sys.executable, "-c", kill if code < 0 else f"raise SystemExit({code})"], **options)

    real = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", spawn)
    assert Demo(tmp_path, ROOT / "configs", "bundled", None)._distil() == expected


def test_an_evaluation_fills_its_section_with_every_measured_metric(run, tmp_path):
    figures = json.loads((run / "metrics.json").read_text())
    page = tmp_path / "results.md"
    page.write_text("before\n<!-- hour:begin -->\nold\n<!-- hour:end -->\nafter\n")
    arguments = [str(run), "--readme", str(page), "--docs", str(tmp_path), "--section", "hour"]
    assert results.main(arguments) == 0
    text = page.read_text()
    assert "old" not in text
    assert text.startswith("before\n<!-- hour:begin -->")
    value = figures["systems"][SOURCE_FILTER]["mean"]["mel_distance"]
    assert f"{value:.3f}" in text
    assert "DNSMOS" not in text, "what was not measured has no line"
    assert (tmp_path / "hour.png").stat().st_size > 10_000
    assert results.main([str(tmp_path), "--section", "hour"]) == 2


def test_an_evaluation_of_several_speakers_has_a_table_of_each():
    clips = {"a": {"stoi": 0.9, "pesq": 2.0}, "b": {"stoi": 0.8, "pesq": None}, "c": {"stoi": 0.7, "pesq": 3.0}}
    metrics = {"clips": list(clips), "metrics": ["stoi", "pesq"], "systems": {"x": {"clips": clips}}}
    assert results.by_speaker(metrics) == []
    (table,) = results.by_speaker(metrics | {"speakers": {"a": "eve", "b": "adam", "c": "eve"}})
    assert table.split("\n") == [
        "| speaker | clips | system | STOI | PESQ [MOS] |",
        "|---|---:|---|---:|---:|",
        "| adam | 1 | x | 0.800 | - |",
        "| eve | 2 | x | 0.800 | 2.500 |",
    ]


def test_an_evaluation_says_what_only_some_clips_could_tell():
    clips = {"a": {"stoi": 0.9, "wer": 0.5}, "b": {"stoi": 0.8, "wer": None}, "c": {"stoi": 0.7}}
    system = {"mean": {"stoi": 0.8, "wer": 0.5}, "ci95": {"stoi": 0.1, "wer": None}, "clips": clips}
    heard = {"mean": {"stoi": 1.0}, "ci95": {}, "clips": {name: {"stoi": 1.0} for name in clips}}
    lines = results.evaluation({"clips": list(clips), "systems": {"recording": heard, "x": system}}).split("\n")
    assert lines[0] == "3 clips; 1 of them for WER."
