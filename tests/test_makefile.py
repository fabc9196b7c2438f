"""`make weights` and `make gpu`: the commands that they run, in order, and that they stop at the first that fails."""

import os
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).resolve().parent.parent / "Makefile"
NAMES = ["teacher", "student", "student_textbook", "teacher_gaussian", "student_gaussian"]
STUB = """#!/bin/sh
printf '%s\\n' "$*" >> {log}
case "$*" in *"{failing}"*) exit 7;; esac
"""


@pytest.fixture
def make(tmp_path):
    """make under a python that writes its arguments down, and fails where they hold `failing`."""
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    log, python = tmp_path / "log", tmp_path / "venv" / "bin" / "python"

    def run(target, failing="no such words", *variables):
        log.unlink(missing_ok=True)
        python.write_text(STUB.format(log=f"'{log}'", failing=failing))
        python.chmod(0o755)
        (tmp_path / "venv" / ".installed").touch()
        found = subprocess.run(
            ["make", "-f", str(MAKEFILE), target, f"VENV={tmp_path / 'venv'}", *variables, "-o", "environment"],
            cwd=tmp_path,
            env=os.environ | {"MAKEFLAGS": ""},
            capture_output=True,
            text=True,
        )
        return found, log.read_text().splitlines() if log.exists() else []

    return run


@pytest.fixture
def weights(make):
    def run(failing="no such words", corpus="a corpus", *more):
        return make("weights", failing, f"CORPUS={corpus}", "WEIGHTS=my runs", *more)

    return run


def test_every_training_is_shipped_with_what_it_began_with(weights):
    found, calls = weights()
    assert found.returncode == 0, found.stderr
    trained = [call for call in calls if call.startswith(("scripts/train_teacher", "scripts/train_student"))]
    assert [call.split("--out my runs/")[1].strip() for call in trained] == NAMES
    shipped = [call for call in calls if call.startswith("scripts/ship.py")]
    assert [call.split("--name ")[1].split()[0] for call in shipped] == NAMES
    for call, training in zip(shipped, trained, strict=True):
        begun, teacher = (
            [part.split(" --")[0] for part in training.split(f"--{word} ")[1:]] for word in ("init", "teacher")
        )
        assert call.split("--init ")[1:] == [] if not begun else f"--init {begun[0]}.safetensors" in call
        assert [part.split(" --")[0] for part in call.split("--teacher ")[1:]] == teacher
        assert "--corpus my runs/data --licence CC0-1.0 --metrics my runs/evaluation0/metrics.json" in call
        assert " my runs/evaluation32/metrics.json --out" in call
    evaluated = [call for call in calls if call.startswith("scripts/evaluate.py")]
    assert [call.split("--projection ")[1].split(" --overwrite")[0] for call in evaluated] == [
        f"{steps} --out my runs/evaluation{steps}" for steps in (0, 32)
    ]


@pytest.mark.parametrize("failing", ["kathleen_textbook.yaml", "--name student ", "evaluate.py"])
def test_nothing_comes_after_what_failed(weights, failing):
    found, calls = weights(failing)
    assert found.returncode != 0
    assert failing in calls[-1] + " "
    assert len(calls) < len(weights()[1])


def test_a_corpus_is_asked_for(weights):
    found, calls = weights(corpus="")
    assert "make weights: found no CORPUS, expected CORPUS=DIR, a corpus folder" in found.stderr
    assert calls == []


def test_more_folders_and_lists_reach_the_preparation(weights):
    _, calls = weights("no such words", "one", "PREPARE=two --dev_list dev.txt")
    assert calls[0] == "scripts/prepare_data.py --root one two --dev_list dev.txt --out my runs/data"


def test_a_gpu_is_tested_before_it_is_timed(make):
    found, calls = make("gpu", "no such words", "GPU=my runs")
    assert found.returncode == 0, found.stderr
    assert [call.split(" --")[0] for call in calls] == [
        "-c import sys, torch; sys.exit(0 if torch.cuda.is_available() else 2)",
        "-m pytest tests/test_gpu.py",
        "-m pytest -m gpu",
        "scripts/benchmark.py",
        "scripts/benchmark.py",
    ]
    page = (MAKEFILE.parent / "docs" / "engines.md").read_text(encoding="utf-8")
    for call in calls[3:]:
        assert call.replace("my runs", "runs/gpu").replace(" --overwrite", "") in page
    assert len(make("gpu", "-m gpu")[1]) == 3


def test_make_gpu_without_one_is_one_line(make):
    found, calls = make("gpu", "import sys, torch")
    assert found.returncode == 2
    line, *rest = found.stderr.splitlines()
    assert line == "make gpu: found no CUDA GPU that torch can use, expected one"
    assert all(other.startswith("make") for other in rest)
    assert len(calls) == 1
