"""wavenet-train takes every kind of model: by its recipe's `kind`, the training of the package that brings the kind."""

import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest
import torch

import distill.coupling.train
import distill.latent.train
import distill.wavevae.train
import wavenet.train
from wavenet import checkpoint, kinds

SMOKE = Path(__file__).resolve().parent.parent / "configs" / "smoke"
KINDS = {"flow": distill.coupling.train, "wavevae": distill.wavevae.train, "segmentvae": distill.latent.train}


def test_the_package_brings_the_kinds_that_have_a_training():
    assert {point.name for point in entry_points(group=kinds.GROUP)} == set(KINDS)
    for name, module in KINDS.items():
        assert name == module.KIND
        assert kinds.training_of(name) is module.main.__wrapped__


def test_a_flow_from_wavenet_train_is_that_of_its_own_command(tmp_path):
    recipe = ["--config", str(SMOKE / "demo_flow.yaml"), "--train.steps", "2"]
    assert wavenet.train.main([*recipe, "--out", str(tmp_path / "here")]) == 0
    assert distill.coupling.train.main([*recipe, "--out", str(tmp_path / "there")]) == 0
    here, there = (checkpoint.load(tmp_path / name / checkpoint.FILE_NAME) for name in ("here", "there"))
    assert here.kind == there.kind == "flow"
    assert here.step == 2
    assert here.config == there.config
    assert here.model_state.keys() == there.model_state.keys()
    assert all(torch.equal(here.model_state[key], there.model_state[key]) for key in here.model_state)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_the_recipe_or_the_command_line_says_which(kind, tmp_path, monkeypatch):
    reached = []
    for name, module in {None: wavenet.train, **KINDS}.items():
        body = "train_teacher" if name is None else {"segmentvae": "train_segments"}.get(name, f"train_{name}")
        monkeypatch.setattr(module, body, lambda *_, name=name: reached.append(name) or 0)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("train: {steps: 3}\n" + ("" if kind is None else f"kind: {kind}\n"))
    rest = ["--out", str(tmp_path / "run")]
    assert wavenet.train.main(["--config", str(recipe), *rest]) == 0
    recipe.write_text("train: {steps: 3}\n")
    assert wavenet.train.main(["--config", str(recipe), *rest, "--kind", kind or "teacher"]) == 0
    assert reached == [kind, kind]


def test_the_last_kind_that_is_stated_counts(tmp_path):
    for name, text in (("flow", "kind: flow\n"), ("silent", "train: {steps: 3}\n"), ("null", "kind:\n")):
        (tmp_path / f"{name}.yaml").write_text(text)
    (tmp_path / "date.yaml").write_text("kind: 2024-13-45\n")  # YAML takes it for a date, of a month 13
    flow, silent, null, date = (str(tmp_path / f"{name}.yaml") for name in ("flow", "silent", "null", "date"))
    for argv, kind in (
        (["--config", flow], "flow"),
        (["--config", flow, "--config", silent], "flow"),
        (["--config", silent, "--config", flow], "flow"),
        (["--config", flow, "--config", null], "flow"),
        (["--config", null], "otherwise"),
        (["--config={kind: flow}"], "flow"),
        (["--config", silent, "--kind=wavevae"], "wavevae"),
        (["--config", flow, "--kind", "wavevae"], "wavevae"),
        (["--config", date], "otherwise"),
        (["--config", "absent.yaml"], "otherwise"),
        (["--config"], "otherwise"),
        ([], "otherwise"),
    ):
        assert kinds.stated_kind(argv, "otherwise") == kind, argv


@pytest.mark.parametrize(
    ("main", "argv", "message"),
    [
        (
            wavenet.train,
            ["--kind", "flwo"],
            "wavenet-train: kind: found 'flwo', expected one of flow, segmentvae, tea",
        ),
        (wavenet.train, ["--kind", "flow", "--model.squeeze", "7"], "wavenet-train: squeeze: found 7, expected"),
        (wavenet.train, ["--kind", "flow", "--pitch", "x"], "pitch"),
        (distill.coupling.train, ["--kind", "wavevae"], "distill-train-flow: "),
    ],
)
def test_another_kind_is_one_line(main, argv, message, tmp_path, capsys):
    assert main.main([*argv, "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert not (tmp_path / "run").exists()


def test_without_the_packages_above_the_teacher_is_left(monkeypatch, capsys):
    """wavenet alone knows nobody: what is not installed is not offered."""
    monkeypatch.setattr(kinds, "entry_points", lambda group: [])
    assert wavenet.train.main(["--kind", "flow", "--out", "run"]) == 2
    said = "expected one of teacher, which this installation trains from recordings alone"
    assert capsys.readouterr().err == f"wavenet-train: kind: found 'flow', {said}\n"
    assert "distill" not in Path(sys.modules["wavenet.kinds"].__file__).read_text(encoding="utf-8")
