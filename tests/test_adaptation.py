"""A new run from trained weights: it begins as they are, at its recordings' level; what does not fit is named."""

import dataclasses
import math

import pytest
import torch
import yaml

from distill import models
from distill.train import main as distil
from tests.conftest import random_mel, random_wav, small_student, small_teacher
from tests.test_train_commands import assert_equal_runs
from tests.test_train_prior import call, place, student  # noqa: F401
from wavenet import checkpoint, weights
from wavenet.adaptation import Initial, move
from wavenet.arguments import from_dict, to_dict
from wavenet.errors import UserError
from wavenet.run import read_metrics
from wavenet.train import main as teach

STILL = ("--train.lr", "1e-12", "--train.warmup_steps", "0")


@pytest.fixture(scope="module")
def made(place):  # noqa: F811
    """Runs of two steps, and a student that was trained for three."""
    assert distil(student(place, "student", 3)) == 0
    return place


def again(made, run, steps, *extra, init="student", teacher="teacher"):
    return student(made, run, steps, "--init", str(made / init), *extra, teacher=teacher, pitch=None)


def retaught(made, run, steps, *extra, init="teacher"):
    return call(made, "teacher", run, steps, "--init", str(made / init), *extra)


def assert_equal_weights(one, two):
    first, second = (checkpoint.weights(checkpoint.load(path)) for path in (one, two))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6, msg=name)


@pytest.mark.parametrize("kind", ["student", "teacher"])
def test_a_run_begins_with_the_weights_at_step_0(made, capsys, kind):
    command = distil(again(made, "still", 1, *STILL)) if kind == "student" else teach(retaught(made, "kept", 1, *STILL))
    assert command == 0
    assert f"weights: those of {made / kind} at step {3 if kind == 'student' else 2}, to begin with, recordings " in (
        capsys.readouterr().err
    )
    run = made / ("still" if kind == "student" else "kept")
    assert_equal_weights(run, made / kind)
    stored = checkpoint.load(run)
    assert stored.step == 1
    assert stored.optimizer_state["state"][0]["step"] == 1
    assert read_metrics(run)[0]["step"] == 1


def test_a_source_teacher_brings_its_pitch_network(made):
    assert teach(retaught(made, "resourced", 1, "--model.source", "true", *STILL, init="sourced")) == 0
    assert_equal_weights(made / "resourced", made / "sourced")


def test_a_teacher_may_begin_with_those_of_another_law(made, capsys):
    kind = ["--model.distribution.kind", "gaussian"]
    assert teach(call(made, "teacher", "never taught", 1, *STILL, *kind)) == 0
    fresh = checkpoint.weights(checkpoint.load(made / "never taught"))  # of the same seed
    capsys.readouterr()
    assert teach(retaught(made, "normal", 1, *STILL, *kind)) == 0
    said = capsys.readouterr().err
    assert "dB from those of its training, for distribution.kind = gaussian, with a new last layer" in said
    old, new = (checkpoint.weights(checkpoint.load(made / run)) for run in ("teacher", "normal"))
    assert old.keys() == new.keys()
    for name in old:
        if name.startswith("stack.output."):
            assert new[name].shape[0] == 2
            torch.testing.assert_close(new[name], fresh[name], rtol=0, atol=1e-6, msg=name)
        else:
            torch.testing.assert_close(new[name], old[name], rtol=0, atol=1e-6, msg=name)
    assert teach(retaught(made, "deeper", 1, *STILL, "--model.distribution.log_scale_floor", "-8")) == 0
    assert "for distribution.log_scale_floor = -8.0\n" in capsys.readouterr().err
    assert_equal_weights(made / "deeper", made / "teacher")


def test_a_student_with_a_prior_may_begin_with_those_of_other_noise(made, capsys):
    """Both noises leave flow 0 at one level: what it makes of silence and of noise is equally loud on the average."""
    assert distil(again(made, "normally", 1, *STILL, "--model.noise", "normal")) == 0
    assert "for noise = normal\n" in capsys.readouterr().err
    assert_equal_weights(made / "normally", made / "student")
    mel = torch.full((8, 20, 40), -2.0)
    loud = [
        model.sample(mel, generator=torch.Generator().manual_seed(1)).square().mean().log()
        for model in (models.load(made / "student"), models.load(made / "normally"))
    ]
    assert abs(loud[0] - loud[1]) < 0.1


def test_a_student_with_a_prior_may_begin_with_those_of_another_sharpening(made, capsys):
    assert distil(again(made, "sharply", 1, *STILL, "--model.source_filter.sharpening", "1")) == 0
    assert "for source_filter.sharpening = 1\n" in capsys.readouterr().err
    assert_equal_weights(made / "sharply", made / "student")


@pytest.mark.parametrize(
    ("train", "arguments", "change"),
    [
        (distil, again, []),
        (distil, again, ["--model.noise", "normal"]),
        (teach, retaught, ["--model.distribution.kind", "gaussian"]),
    ],
    ids=["student", "other noise", "other law"],
)
def test_such_a_run_resumes_bit_exact(made, train, arguments, change):
    whole, parts = (f"{name} {train.__module__} {''.join(change)}".replace("--", "") for name in ("whole", "parts"))
    for run, steps in ((whole, 4), (parts, 2), (parts, 4)):
        assert train(arguments(made, run, steps, *change)) == 0
    assert_equal_runs(made / whole, made / parts)


def stored(tmp_path, model, kind="teacher", tensors=None):
    """The model, or other weights with its configuration, as a file, to begin with."""
    from tests.test_weights import card_of

    tensors = model.state_dict() if tensors is None else tensors
    card = dataclasses.replace(card_of(model, kind), digest=weights.digest(tensors))
    weights.write(tmp_path / "before.safetensors", card, tensors)
    return Initial(str(tmp_path / "before.safetensors"), kind, tmp_path / "run")


def test_another_number_of_components_is_another_law(tmp_path):
    before, after = small_teacher("mol"), small_teacher("mol")
    config = dataclasses.replace(
        after.config, distribution=dataclasses.replace(after.config.distribution, components=5)
    )
    after = type(after)(config).double()
    own = {name: value.clone() for name, value in after.state_dict().items()}
    assert "for distribution.components = 5, with a new last layer" in stored(tmp_path, before).into(after)
    for name, value in after.state_dict().items():
        last = name.startswith("stack.output.")
        torch.testing.assert_close(value, own[name] if last else before.state_dict()[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("kind", ["mol", "gaussian"], ids=["the same law", "another law"])
def test_damaged_weights_are_refused_with_every_law(tmp_path, kind):
    """A last layer that is not of the configuration beside it is no last layer of another law."""
    before = small_teacher("mol")
    cut = {
        name: value[:3].clone() if name.startswith("stack.output.") else value
        for name, value in before.state_dict().items()
    }
    with pytest.raises(UserError, match=r"found weights of other sizes: shape \(3, .*of stack\.output"):
        stored(tmp_path, before, tensors=cut).into(small_teacher(kind))


def test_speakers_keep_what_was_learned_of_their_names(tmp_path):
    """In any order; one who is new to the weights begins as without them, and is named."""
    before = small_teacher(speakers=3, names=["anna", "bert", "cleo"])
    after = small_teacher(speakers=3, names=["bert", "dora"])
    own = after.upsample.embedding.weight.detach().clone()
    assert stored(tmp_path, before).into(after).endswith(", speakers new to them: dora")
    rows = before.upsample.embedding.weight
    torch.testing.assert_close(after.upsample.embedding.weight, torch.stack([rows[1], own[1], own[2]]), rtol=0, atol=0)


def test_files_and_shipped_names_serve_as_init_and_teacher(made, tmp_path, monkeypatch):
    from tests.test_weights import card_of

    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    for kind in ("student", "teacher"):
        model = models.load(made / kind)
        weights.write(tmp_path / f"my_{kind}.safetensors", card_of(model, kind), model.state_dict())
    monkeypatch.chdir(made)
    recipe = ["--config", "student.yaml", "--force", "--train.steps", "1", *STILL]
    named = [*recipe, "--teacher", "my_teacher", "--init", "my_student", "--out", "named"]
    assert distil(named) == 0
    filed = [*recipe, "--teacher", "teacher", "--init", str(tmp_path / "my_student.safetensors"), "--out", "filed"]
    assert distil(filed) == 0
    assert_equal_runs(made / "named", made / "filed")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"init": "teacher"}, "teacher, a teacher, expected a student"),
        ({"extra": ["--model.upsample.channels", "9"]}, "with upsample.channels = 8, expected 9, as the recipe says"),
        (
            {"extra": ["--model.noise", "normal", "--model.prior", "none"]},
            "with noise = logistic, expected normal",
        ),
        ({"extra": ["--model.prior", "none"]}, "with prior = source_filter, expected none"),
        ({"extra": ["--pitch", "pitch"]}, "--pitch: found pitch, expected none with --init"),
        ({"init": "absent"}, "absent: found no such file, expected a run folder, a checkpoint file, or the name"),
    ],
)
def test_what_does_not_fit_a_student_is_one_line(made, capsys, arguments, message):
    assert distil(again(made, "refused", 2, *arguments.get("extra", []), init=arguments.get("init", "student"))) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert not (made / "refused" / "checkpoint.pt").exists()


def test_what_does_not_fit_a_teacher_is_one_line(made, capsys):
    for extra, message in (
        (["--model.stack.layers", "2", "--model.pre_emphasis", "0.8"], "with pre_emphasis = 0.9, expected 0.8; stack."),
        (["--model.distribution.kind", "gaussian", "--model.pre_emphasis", "0.8"], "with pre_emphasis = 0.9, expected"),
        (["--model.source", "true"], "a teacher without a pitch network, expected one"),
        (["--pitch", str(made / "pitch")], "expected none with --init"),
    ):
        assert teach(retaught(made, "refused", 2, *extra)) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert teach(retaught(made, "kept", 2, init="kept")) == 2
    assert "kept, which is --out too, expected other weights" in capsys.readouterr().err
    assert teach(retaught(made, "refused", 2, init="student")) == 2
    assert "a student, expected a teacher" in capsys.readouterr().err


def test_a_run_is_not_resumed_under_other_weights(made, capsys):
    assert teach(retaught(made, "begun", 1)) == 0
    assert teach(call(made, "teacher", "begun", 2)) == 2
    assert "found a run with init = " in capsys.readouterr().err
    assert teach(call(made, "teacher", "other", 1)) == 0
    assert teach(retaught(made, "begun", 2, init="other")) == 2
    assert "found a run with init = " in capsys.readouterr().err
    recorded = yaml.safe_load((made / "begun" / "config.yaml").read_text())
    assert recorded["init"] == checkpoint.fingerprint(models.load(made / "teacher"))


def at_gain(model, gain):
    """The model with the same weights and another gain."""
    other = type(model)(from_dict(type(model.config), to_dict(model.config) | {"gain": gain})).double().eval()
    other.load_state_dict(model.state_dict())
    return other


def test_speech_that_is_only_louder_looks_the_same():
    """Gain / c and statistics + log c: a student's audio is c times as loud, a teacher's density that of c x."""
    factor, mel = 3.0, random_mel() - 3
    model = small_student(prior="source_filter")
    louder = at_gain(model, model.config.gain / factor)
    move(louder, math.log(factor))
    noise = model.noise(mel, generator=torch.Generator().manual_seed(0))
    loud, soft = louder(noise, mel + math.log(factor)).wav, model(noise, mel).wav
    torch.testing.assert_close(loud, factor * soft, rtol=1e-5, atol=1e-6)
    teacher, wav = small_teacher("gaussian"), random_wav() / 10
    moved = at_gain(teacher, teacher.config.gain / factor)
    move(moved, math.log(factor))
    before, after = teacher(wav, mel), moved(factor * wav, mel + math.log(factor))
    torch.testing.assert_close(after.mean, factor * before.mean)
    # The floor of the scales is absolute, and soft.
    torch.testing.assert_close(after.stddev, factor * before.stddev, rtol=1e-3, atol=0)
