"""Training a source-filter student and a teacher with a source by the commands: what they need, keep and refuse."""

import shutil

import pytest
import torch
import yaml

from distill import models
from distill.train import main as distil
from tests.test_train_commands import MODEL, STUDENT, TRAIN, assert_equal_runs
from wavenet.data import Batch, corpus_folder
from wavenet.errors import UserError
from wavenet.likelihood import random_offset
from wavenet.pitch.contour import Pitch
from wavenet.pitch.train import main as train_pitch
from wavenet.run import read_metrics
from wavenet.train import main as teach

PRIOR = {"prior": "source_filter", "source_filter": {"taps": 16, "channels": 8, "correction_points": 6}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus of five bundled clips, recipes, a pitch network and two teachers of two steps."""
    place = tmp_path_factory.mktemp("prior")
    bundled = sorted((corpus_folder("bundled") / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:5]
    (place / "corpus" / "wavs").mkdir(parents=True)
    for clip in bundled:
        shutil.copy(clip, place / "corpus" / "wavs")
    names = [clip.stem for clip in bundled]
    (place / "corpus" / "metadata.csv").write_text("".join(f"{name}|text|text\n" for name in names))
    for split, part in (("train", names[:3]), ("dev", names[3:4]), ("test", names[4:])):
        (place / "corpus" / f"{split}.txt").write_text("\n".join(part) + "\n")
    data = {"train": TRAIN, "data": {"root": str(place / "corpus")}}
    pitch = {"audio": MODEL["audio"], "channels": 8, "layers": 2, "bins": 16}
    objective = {"stft_sizes": [128, 64], "draws": 2}
    recipes = {
        "pitch": data | {"model": pitch},
        "teacher": data | {"model": MODEL},
        "student": data | {"model": STUDENT | PRIOR, "objective": objective},
    }
    for name, recipe in recipes.items():
        (place / f"{name}.yaml").write_text(yaml.safe_dump(recipe))
    assert train_pitch(call(place, "pitch", "pitch", 2)) == 0
    assert teach(call(place, "teacher", "teacher", 2)) == 0
    assert teach(call(place, "teacher", "sourced", 2, "--model.source", "true", "--pitch", str(place / "pitch"))) == 0
    return place


def call(place, recipe, run, steps, *extra):
    return ["--config", str(place / f"{recipe}.yaml"), "--out", str(place / run), "--train.steps", str(steps), *extra]


def student(place, run, steps, *extra, teacher="teacher", pitch="pitch"):
    net = [] if pitch is None else ["--pitch", str(place / pitch)]
    return [*call(place, "student", run, steps, "--teacher", str(place / teacher), "--force"), *net, *extra]


def test_student_resumes_bit_exact_and_keeps_the_pitch_network_as_it_was(place):
    assert distil(student(place, "whole", 4)) == 0
    assert distil(student(place, "parts", 2)) == 0
    assert distil(student(place, "parts", 4)) == 0
    assert_equal_runs(place / "whole", place / "parts")
    trained, net = models.load(place / "whole"), models.load(place / "pitch")
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in trained.pitch.state_dict().items())
    mel = torch.randn(1, 20, 12)
    assert torch.isfinite(trained.sample(mel, generator=torch.Generator().manual_seed(0))).all()


def test_a_source_teacher_lends_its_pitch_network(place):
    assert distil(student(place, "lent", 2, teacher="sourced", pitch=None)) == 0
    lent, teacher = models.load(place / "lent"), models.load(place / "sourced")
    assert all(torch.equal(a, b) for a, b in zip(lent.pitch.parameters(), teacher.pitch.parameters(), strict=True))
    textbook = student(place, "plain", 2, "--model.prior", "none", teacher="sourced", pitch=None)
    assert distil(textbook) == 0
    assert models.load(place / "plain").pitch is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pitch": None}, "--pitch: found none"),
        ({"pitch": "teacher"}, "found a teacher, expected a run of wavenet-train-pitch"),
        ({"extra": ["--model.prior", "none"]}, "expected none for a student without a prior"),
        ({"extra": ["--phones", "absent"]}, "--phones: found absent, expected none without the term perceptual"),
    ],
)
def test_what_a_student_needs_is_said_in_one_line(place, capsys, change, message):
    extra = change.pop("extra", [])
    assert distil(student(place, "refused", 2, *extra, **change)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert message in error[-1]
    assert not (place / "refused" / "checkpoint.pt").exists()


def test_what_a_teacher_needs_is_said_in_one_line(place, capsys):
    assert teach(call(place, "teacher", "refused", 2, "--model.source", "true")) == 2
    assert "--pitch: found none" in capsys.readouterr().err
    assert teach(call(place, "teacher", "refused", 2, "--pitch", str(place / "pitch"))) == 2
    assert "expected none for a teacher without model.source" in capsys.readouterr().err


def test_pitch_of_another_analysis_is_refused(place, capsys):
    recipe = yaml.safe_load((place / "pitch.yaml").read_text())
    recipe["model"]["audio"] = MODEL["audio"] | {"n_mels": 16}
    (place / "other.yaml").write_text(yaml.safe_dump(recipe))
    assert train_pitch(call(place, "other", "other", 2)) == 0
    assert distil(student(place, "refused", 2, pitch="other")) == 2
    assert "n_mels=16" in capsys.readouterr().err.strip().splitlines()[-1]


def test_a_foreign_folder_is_refused_before_anything_is_tracked(place, capsys, monkeypatch):
    monkeypatch.setattr("wavenet.pitch.labels.tracker.track", lambda *_: pytest.fail("tracked"))
    (place / "mine").mkdir()
    (place / "mine" / "thesis.tex").write_text("years of work")
    sourced = ["--model.source", "true", "--pitch", str(place / "pitch")]
    assert distil(student(place, "mine", 2)) == 2
    assert teach(call(place, "teacher", "mine", 2, *sourced)) == 2
    assert capsys.readouterr().err.count("mine: found a folder with other files, expected a new or empty one") == 2
    assert [path.name for path in (place / "mine").iterdir()] == ["thesis.tex"]


def test_going_on_says_that_the_schedule_is_stretched(place, capsys):
    assert distil(student(place, "longer", 2, "--train.schedule", "cosine")) == 0
    capsys.readouterr()
    assert distil(student(place, "longer", 3, "--train.schedule", "cosine")) == 0
    assert "train.steps 2 -> 3: the cosine schedule is stretched" in capsys.readouterr().err


def test_a_mistake_before_the_first_step_can_be_mended(place, capsys, monkeypatch):
    """The folder is claimed before pitch is tracked; where that fails, the next attempt may have other settings."""
    with monkeypatch.context() as patched:

        def unreadable(*arguments):
            raise UserError("clip.wav: found a damaged file")

        patched.setattr("wavenet.pitch.load.label", unreadable)
        assert distil(student(place, "mended", 2)) == 2
    assert capsys.readouterr().err.strip().endswith("clip.wav: found a damaged file")
    assert distil(student(place, "mended", 2, "--train.batch_size", "1")) == 0


def test_the_phase_at_the_start_of_a_crop_is_drawn_from_the_steps_generator():
    wav, pitch = torch.zeros(3, 8), Pitch(torch.ones(3, 2), torch.ones(3, 2))
    first, again, other = (
        random_offset(Batch(wav, wav, None, pitch), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert first.shape == (3,)
    assert random_offset(Batch(wav, wav, None), torch.Generator()) is None


def test_the_health_of_a_run_is_logged_and_judged(place, capsys):
    """Signs and gradients of each term in the log; thresholds that nobody can meet stop the run, saved, by name."""
    health = ["--health.every", "1", "--health.after", "0", "--health.persist", "1"]
    ill = [*health, "--health.on_collapse", "stop", "--health.gradient_ratio", "1.0001"]
    assert distil(student(place, "ill", 4, *ill)) == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "stopped and saved at step 4" in error
    assert (place / "ill" / "checkpoint.pt").is_file()
    assert distil(student(place, "well", 2, *health)) == 0
    logged = {name for line in read_metrics(place / "well") for name in line}
    assert {"health/grad/kl", "health/grad/stft"} <= logged
    assert any(name.startswith("health/band/") for name in logged)
