"""The ablation: variants differ in what their name says, differences are paired, the page holds the figures."""

import json
import math
from pathlib import Path

import pytest

from distill import ablation, ablation_page
from distill.ablation import QUESTIONS, VARIANTS, Ablation, main
from distill.report import sound_path
from distill.train import StudentRecipe
from wavenet.arguments import from_dict
from wavenet.audio import write_audio

ROOT = Path(__file__).resolve().parent.parent
CLIPS = ["a", "b", "c"]
TONE = "voiced_autocorrelation"


def evaluation(**values):
    """One seed's systems: {name: mel distance of each clip}."""
    return {
        name: {
            "clips": {clip: {"mel_distance": value} for clip, value in zip(CLIPS, found, strict=True)},
            "mean": {"mel_distance": sum(found) / len(found)},
        }
        for name, found in values.items()
    }


def test_the_difference_is_paired_by_clip_after_averaging_seeds():
    seeds = [evaluation(x=[1.0, 2.0, 3.0], y=[1.5, 2.6, 3.4]), evaluation(x=[1.0, 2.0, 3.0], y=[1.3, 2.4, 3.4])]
    answer = ablation._paired(seeds, "x", "y")["mel_distance"]
    differences = [-0.4, -0.5, -0.4]
    mean = sum(differences) / 3
    deviation = math.sqrt(sum((d - mean) ** 2 for d in differences) / 2)
    assert answer["difference"] == pytest.approx(mean)
    assert answer["ci95"] == pytest.approx(4.302653 * deviation / math.sqrt(3), rel=1e-5)


def test_where_the_recording_is_the_aim_the_difference_is_of_the_distance_from_it():
    def tones(**values):
        return {
            name: {"clips": dict(zip(CLIPS, ({TONE: v} for v in found), strict=True)), "mean": {TONE: 0.0}}
            for name, found in values.items()
        }

    seeds = [tones(recording=[0.8, 0.8, 0.8], x=[0.9, 0.95, 0.91], y=[0.75, 0.82, 0.79])] * 2
    assert ablation._paired(seeds, "x", "y")[TONE]["difference"] == pytest.approx((0.05 + 0.13 + 0.10) / 3)


def test_means_over_seeds_and_their_spread():
    found = ablation._over_seeds([evaluation(x=[1.0, 1.0, 1.0])["x"], evaluation(x=[2.0, 2.0, 2.0])["x"]])
    assert found == {"mean": {"mel_distance": 1.5}, "spread": {"mel_distance": 1.0}, "seeds": 2}


def test_variants_are_complete_and_the_questions_are_about_them():
    plain = VARIANTS["source-filter, KL + STFT"]
    assert {name for pair in QUESTIONS.values() for name in pair} <= set(VARIANTS)
    for name, variant in VARIANTS.items():
        assert (ROOT / "configs" / variant.recipe).is_file()
        if name.startswith("source-filter"):
            assert (variant.recipe, variant.teacher) == (plain.recipe, plain.teacher)
        # A weight means the same wherever it stands.
        shared = set(variant.weights) & set(plain.weights)
        assert all(variant.weights[term] == plain.weights[term] for term in shared)
    folders = {Ablation(Path("out"), ROOT, "bundled").run(0, name) for name in VARIANTS}
    assert len(folders) == len(VARIANTS)
    assert from_dict(StudentRecipe, {}).prior == "none"


def test_the_page_is_filled_with_table_answer_and_sounds(tmp_path):
    metrics = dict.fromkeys(ablation_page._COLUMNS) | {"mel_distance": 0.2, "voiced_autocorrelation": 0.8}
    spread = dict.fromkeys(metrics) | {"mel_distance": 0.05}
    names = ["recording", "source-filter, KL + STFT"]
    answer = {
        "mel_distance": {"difference": -0.1, "ci95": 0.02},
        "voiced_autocorrelation": {"difference": 0.01, "ci95": 0.2},
    }
    figures = {
        "seeds": [3, 4],
        "steps": 7,
        "data": "bundled",
        "clips": ["one"],
        "systems": {name: {"mean": metrics, "spread": spread, "seeds": 2} for name in names},
        "answers": {"plain teacher": answer},
    }
    for name in names:
        path = tmp_path / "evaluation-3" / sound_path(name, "one")
        path.parent.mkdir(parents=True)
        import torch

        write_audio(path, torch.zeros(100), 8000)
    page = tmp_path / "docs" / "results.md"
    page.parent.mkdir()
    page.write_text("before\n<!-- ablation:begin -->\nold\n<!-- ablation:end -->\nafter\n")
    ablation_page.write_page(figures, tmp_path, page)
    text = page.read_text()
    assert "old" not in text
    assert "0.200 (0.050)" in text
    assert "better: mel distance -0.100 ± 0.020" in text
    assert "no difference that clips and seeds agree on: voiced autocorrelation ≈ +0.010 ± 0.200" in text
    assert "STOI" not in text, "what was not measured has no column"
    for link in ("audio/ablation-recording.wav", "audio/ablation-source-filter-KL-STFT.wav"):
        assert link in text
        assert (page.parent / link).is_file()


@pytest.mark.parametrize(
    ("extra", "message"),
    [(["--seeds", "1", "1"], "--seeds"), (["--steps", "0"], "--steps"), (["--jobs", "0"], "--jobs")],
)
def test_mistakes_are_one_line(extra, message, capsys):
    assert main(["--out", "nowhere", *extra]) == 2
    error = capsys.readouterr().err.strip()
    assert message in error
    assert len(error.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_whole_ablation_in_miniature(tmp_path):
    page = tmp_path / "results.md"
    page.write_text("<!-- ablation:begin -->\n<!-- ablation:end -->\n")
    arguments = ["--recipes", str(ROOT / "configs" / "smoke"), "--out", str(tmp_path / "run"), "--page", str(page)]
    assert main([*arguments, "--steps", "2", "--teacher_steps", "2", "--seeds", "5"]) == 0
    figures = json.loads((tmp_path / "run" / "ablation.json").read_text())
    assert set(VARIANTS) < set(figures["systems"])
    assert all(name in page.read_text() for name in VARIANTS)
