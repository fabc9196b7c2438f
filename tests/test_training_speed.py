"""Where a step's time goes: shares add up to 1, land on the part that takes the time, and two checkouts take turns."""

import json
import time
from pathlib import Path

import pytest
import torch

from distill import objective
from distill.speed.recipe_task import RecipeTask
from distill.training_speed import comparison_table, main, profile_distillation, profile_teacher, shares_table
from wavenet.errors import USER_MISTAKE

SMOKE = Path(__file__).resolve().parent.parent / "configs" / "smoke"
TEACHER, STUDENT = str(SMOKE / "demo_teacher.yaml"), str(SMOKE / "demo_student.yaml")


def test_shares_of_a_teacher_add_up_to_one():
    found = profile_teacher(TEACHER, steps=2, warmup=1)
    assert sum(found["shares"].values()) == pytest.approx(1.0, abs=1e-9)
    expected = {"data", "network", "likelihood", "backward", "gradient norm", "optimiser", "average", "rest"}
    assert set(found["shares"]) == expected
    assert all(share > 0 for share in found["shares"].values())
    assert found["samples_per_second"] > 0
    assert found["kind"] == "teacher"
    seconds = found["steps"] * found["batch_size"] * found["crop_length"] / found["samples_per_second"]
    assert found["step_ms"] == pytest.approx(1e3 * seconds / found["steps"])


def test_time_spent_in_a_term_shows_in_its_share(monkeypatch):
    plain = profile_distillation(STUDENT, TEACHER, steps=2, warmup=1)
    terms = objective.mel_distance

    def slow(*arguments):
        end = time.process_time() + 0.3
        while time.process_time() < end:
            pass
        return terms(*arguments)

    monkeypatch.setattr(objective, "mel_distance", slow)
    found = profile_distillation(STUDENT, TEACHER, steps=2, warmup=1)
    for result in (plain, found):
        assert sum(result["shares"].values()) == pytest.approx(1.0, abs=1e-9)
        assert {"data", "student", "teacher", "kl", "stft", "mel", "backward", "optimiser"} <= set(result["shares"])
    assert found["shares"]["mel"] > 0.5 > plain["shares"]["mel"]
    assert found["samples_per_cpu_second"] < plain["samples_per_cpu_second"]
    table = shares_table([profile_teacher(TEACHER, steps=1, warmup=1), found])
    assert f"| mel |  | {found['shares']['mel']:.1%} |" in table


@pytest.mark.parametrize(
    ("recipe", "teacher", "kind", "own"),
    [
        ("demo_flow.yaml", None, "flow", {"network"}),
        ("demo_coupling_student.yaml", TEACHER, "student", {"student", "teacher", "kl", "stft"}),
        ("demo_wavevae.yaml", None, "wavevae", {"elbo", "prior", "stft"}),
    ],
)
def test_every_vocoders_training_is_measured(recipe, teacher, kind, own):
    path, length = str(SMOKE / recipe), {"steps": 2, "warmup": 1}
    found = profile_distillation(path, teacher, **length) if teacher else profile_teacher(path, **length)
    assert found["kind"] == kind
    assert own | {"data", "backward", "optimiser"} <= {part for part, share in found["shares"].items() if share > 0}
    assert sum(found["shares"].values()) == pytest.approx(1.0, abs=1e-9)


def test_profiling_does_not_change_what_is_trained(tmp_path):
    """The task is a recipe's own: same seed, same weights, whoever builds it."""
    one, other = (RecipeTask(TEACHER).build(tmp_path)[0].model.state_dict() for _ in range(2))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_two_checkouts_in_turns(tmp_path, capfd):
    out = tmp_path / "speed.json"
    ours = str(SMOKE.parent.parent)
    page = tmp_path / "page.md"
    page.write_text("above\n<!-- training-speed:begin -->\nold\n<!-- training-speed:end -->\nbelow\n")
    turns = ["--steps", "1", "--rounds", "2"]
    assert main([TEACHER, "--before", ours, "--bf16", *turns, "--out", str(out), "--page", str(page)]) == 0
    result = json.loads(out.read_text())
    before, after, cast = result["rows"]
    assert [row["name"] for row in result["rows"]] == ["before", "after", "after, bf16"]
    assert cast["samples_per_second"] > 0
    assert before["ratio"] == 1.0
    assert 0.1 < after["ratio"] < 10
    assert before["min"] <= before["samples_per_cpu_second"] <= before["max"]
    assert f"| {after['ratio']:.2f} |" in comparison_table(result["rows"])
    assert json.loads(capfd.readouterr().out.splitlines()[-1]) == result
    text = page.read_text()
    assert text.startswith("above\n<!-- training-speed:begin -->\n| | demo_teacher |\n")
    assert comparison_table(result["rows"]) in text
    assert f"Machine: cpu {result['machine']['cpu']}, " in text
    assert "old" not in text


@pytest.mark.parametrize(
    "arguments",
    [
        [STUDENT],
        [TEACHER, "--before", "nowhere"],
        [TEACHER, "--steps", "0"],
        [TEACHER, "--out", "a.txt"],
        [TEACHER, "--page", "nowhere.md"],
        [str(SMOKE / "pitch.yaml")],
    ],
)
def test_mistakes_are_one_line(arguments, tmp_path, capfd):
    assert main(["--out", str(tmp_path / "a.json"), "--steps", "1", "--rounds", "1", *arguments]) == USER_MISTAKE
    assert len(capfd.readouterr().err.strip().splitlines()[-1]) < 300
