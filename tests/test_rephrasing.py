"""What the parser says of a mistake in settings comes out as the thing, what was found, what was expected."""

import pytest

from distill.benchmark import main as benchmark
from distill.synthesize import main as synthesize
from distill.train import main as distil
from wavenet.train import main as train

RECIPE = "model:\n  stack: {cycles: 1}\ntrain:\n  steps: 3\n"


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def changed(old, new):
        (tmp_path / "recipe.yaml").write_text(RECIPE.replace(old, new))

    return changed


def said(capsys, main, *arguments):
    assert main(list(arguments)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.split(": ", 1)[1]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("steps", "stepz", "recipe.yaml: train.stepz: found a setting that is not known here, expected train.steps"),
        (
            "cycles",
            "cycle",
            "recipe.yaml: model.stack.cycle: found a setting that is not known here, expected model.stack.cycles",
        ),
        (
            "train:",
            "objective:",
            "recipe.yaml: objective: found a setting that is not known here, "
            "expected one of data, init, kind, model, out, pitch, train",
        ),
        ("3", "many", "recipe.yaml: train.steps: found many, expected an integer"),
    ],
)
def test_in_a_file(recipe, capsys, old, new, expected):
    recipe(old, new)
    assert said(capsys, train, "--config", "recipe.yaml", "--out", "run") == expected
    assert said(capsys, train, "--config=recipe.yaml", "--out", "run") == expected


def test_a_recipe_of_another_command(recipe, capsys):
    line = said(capsys, distil, "--config", "recipe.yaml", "--teacher", "x", "--out", "run")
    assert line.startswith(
        "recipe.yaml: model.stack: found a setting that is not known here, expected one of audio, flows, gain"
    )


@pytest.mark.parametrize(
    ("main", "arguments", "expected"),
    [
        (train, "--config none.yaml --out run", "--config: found no file none.yaml, expected one"),
        (train, "--config recipe.yaml --train.lr fast --out run", "--train.lr: found fast, expected a number"),
        (
            train,
            "--config recipe.yaml --train.lrr 3 --out run",
            "--train.lrr: found an option that is not known here, expected --train.lr",
        ),
        (
            synthesize,
            "student x.wav --out o --temprature=1",
            "--temprature: found an option that is not known here, expected --temperature",
        ),
        (synthesize, "student x.wav --out", "--out: found nothing, expected one value"),
        (synthesize, "student x.wav --out o --engine slow", "--engine: found 'slow', expected one of auto, "),
        (benchmark, "student --quick", "--out: found nothing, expected a value"),
    ],
)
def test_on_the_command_line(recipe, capsys, main, arguments, expected):
    assert said(capsys, main, *arguments.split()).startswith(expected)
