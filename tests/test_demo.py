"""The demo in miniature: every stage through the real commands, the page, the figures, README filled from them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from distill import results
from distill.demo import Demo, check_gates
from distill.demo import main as demo
from wavenet.audio import read_audio, write_audio
from wavenet.data import corpus_folder
from wavenet.errors import UserError
from wavenet.run import read_metrics

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
    for system in ("recording", "teacher", "student", "student-kl-only", "griffin-lim", "mel-shaped noise"):
        assert system in page
    links = [link for link in re.findall(r'(?:src|srcset)="([^"]+)"', page) if not link.startswith("data:")]
    assert len([link for link in links if link.endswith(".wav")]) == 2 * 6
    assert all((run / link).is_file() for link in links)


def test_figures_hold_what_the_page_and_readme_are_made_of(run):
    figures = json.loads((run / "demo.json").read_text())
    assert set(figures) == {"gates", "metrics", "benchmark", "teacher"}
    assert {row["method"] for row in figures["benchmark"]["rows"]} == {"naive", "cached", "parallel"}
    assert {ratio["over"].split()[-1] for ratio in figures["benchmark"]["ratios"]} >= {"naive", "cached"}
    history = read_metrics(run / "student")
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
    readme.write_text(f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n")
    arguments = [str(run), "--readme", str(readme), "--docs", str(tmp_path / "docs")]
    assert results.main(arguments) == 0
    once = readme.read_text()
    assert results.main(arguments) == 0
    assert readme.read_text() == once
    assert once.startswith(f"before\n{results.BEGIN}\n")
    assert once.endswith(f"{results.END}\nafter\n")
    assert "old" not in once
    mean = json.loads((run / "demo.json").read_text())["metrics"]["student"]["mean"]["mel_distance"]
    assert re.search(rf"^\| student \| {mean:.3f} \|", once, re.MULTILINE)
    assert (tmp_path / "docs" / results.PICTURE).stat().st_size > 10_000


def test_missing_markers_run_and_recipes_are_named(run, tmp_path, capsys):
    (tmp_path / "README.md").write_text("no markers")
    with pytest.raises(UserError, match="found no markers"):
        results.fill(tmp_path / "README.md", "text")
    assert results.main([str(tmp_path)]) == 2
    assert "expected the figures of a finished demo" in capsys.readouterr().err
    assert demo(["--recipes", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "demo_teacher.yaml: found no such recipe" in capsys.readouterr().err


def systems(mel, alone, pitch):
    student = {"mean": {"mel_distance": mel, "f0_within_3_percent": pitch}}
    return {"systems": {"student": student, "student-kl-only": {"mean": {"mel_distance": alone}}}}


def gates(divergence, mel, alone, pitch):
    history = [{"step": step, "kl/kl": value} for step, value in enumerate(divergence)]
    return [gate["passed"] for gate in check_gates(history, systems(mel, alone, pitch))]


def test_gates_tell_good_from_bad():
    assert gates([4.0, 1.0], 0.5, 0.7, 0.4) == [True] * 4
    assert gates([4.0, 2.5], 0.6, 0.55, 0.1) == [False] * 4
    assert gates([4.0, 1.0], 0.5, 0.7, None) == [True, True, True, False]


def test_a_required_gate_that_is_missed_is_told_by_the_exit_status():
    gate = check_gates([{"kl/kl": 4.0}, {"kl/kl": 3.0}], systems(0.5, 0.7, 0.4))
    assert [g["required"] for g in gate] == [True, True, True, False]
    assert gate[0]["line"].startswith("NOT reached: KL falls by half")


@pytest.mark.parametrize(
    ("codes", "expected"), [((0, 0), 0), ((0, -9), 1), ((-9, 0), 1), ((2, 0), 2), ((130, 130), 130)]
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
