"""The two training commands: resume on the same command, warm start, gate, and every mistake in one line, status 2."""

import shutil

import pytest
import torch
import yaml

from distill import models
from distill.train import main as distil
from wavenet import checkpoint
from wavenet.audio import read_audio, write_audio
from wavenet.data import corpus_folder
from wavenet.train import main as teach

MODEL = {
    "audio": {"sample_rate": 8000, "n_fft": 256, "win_length": 256, "hop_length": 64, "n_mels": 20, "f_max": 4000.0},
    "stack": {"cycles": 1, "layers": 3, "residual_channels": 8, "gate_channels": 16, "skip_channels": 8},
    "upsample": {"channels": 8},
}
STUDENT = {"flows": [MODEL["stack"]], "upsample": {"channels": 8}}
TRAIN = {
    "batch_size": 2,
    "crop_length": 1024,
    "schedule": "constant",
    "log_every": 2,
    "validate_every": 100,
    "checkpoint_every": 2,
    "sample_seconds": 0.02,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus of six bundled clips, recipes, and one teacher of four steps."""
    place = tmp_path_factory.mktemp("training")
    bundled = corpus_folder("bundled")
    (place / "corpus" / "wavs").mkdir(parents=True)
    names = sorted(path.stem for path in (bundled / "wavs").iterdir())[:6]
    for name in names:
        shutil.copy(bundled / "wavs" / f"{name}.flac", place / "corpus" / "wavs")
    (place / "corpus" / "metadata.csv").write_text("".join(f"{name}|text|text\n" for name in names))
    for split, part in (("train", names[:4]), ("dev", names[4:5]), ("test", names[5:])):
        (place / "corpus" / f"{split}.txt").write_text("\n".join(part) + "\n")
    recipe = {"model": MODEL, "train": TRAIN, "data": {"root": str(place / "corpus")}}
    (place / "teacher.yaml").write_text(yaml.safe_dump(recipe))
    recipe = recipe | {"model": STUDENT, "objective": {"stft_sizes": [128, 64], "draws": 2}}
    (place / "student.yaml").write_text(yaml.safe_dump(recipe))
    assert teach(teacher_arguments(place, "teacher", 4)) == 0
    return place


def teacher_arguments(place, run, steps, *extra):
    return ["--config", str(place / "teacher.yaml"), "--out", str(place / run), "--train.steps", str(steps), *extra]


def student_arguments(place, run, steps, *extra, teacher="teacher"):
    recipe = ["--config", str(place / "student.yaml"), "--teacher", str(place / teacher), "--force"]
    return [*recipe, "--out", str(place / run), "--train.steps", str(steps), *extra]


def weights(run):
    stored = checkpoint.load(run)
    return stored.model_state | {f"ema.{name}": value for name, value in (stored.ema_state or {}).items()}


def assert_equal_runs(one, two):
    first, second = weights(one), weights(two)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_teacher_resumes_bit_exact_on_the_same_command(place):
    assert teach(teacher_arguments(place, "parts", 2)) == 0
    assert teach(teacher_arguments(place, "parts", 4)) == 0
    assert_equal_runs(place / "teacher", place / "parts")


def test_student_resumes_bit_exact_on_the_same_command(place):
    assert distil(student_arguments(place, "whole student", 4)) == 0
    assert distil(student_arguments(place, "student in parts", 2)) == 0
    assert distil(student_arguments(place, "student in parts", 4)) == 0
    assert_equal_runs(place / "whole student", place / "student in parts")


def test_level_and_mel_statistics_are_measured_and_travel(place):
    teacher = models.load(place / "teacher")
    assert 20 < teacher.config.gain < 200  # a quiet speaker: rms of the emphasised speech near 0.02
    assert -12 < float(teacher.upsample.mean.mean()) < -4
    recorded = yaml.safe_load((place / "teacher" / "config.yaml").read_text())
    assert recorded["model"]["gain"] == teacher.config.gain
    distil(student_arguments(place, "levelled", 1))
    student = models.load(place / "levelled")
    assert student.config.gain == teacher.config.gain
    assert student.config.audio == teacher.config.audio
    assert torch.equal(student.upsample.mean, teacher.upsample.mean)


def test_warm_start_begins_with_the_teachers_frame_network(place, capsys):
    """With a learning rate of next to nothing the student's frame network stays the teacher's; its own stays random."""
    distil(student_arguments(place, "warm", 1, "--train.lr", "1e-12"))
    assert "the teacher's, to begin with" in capsys.readouterr().err
    distil(
        student_arguments(place, "cold", 1, "--train.lr", "1e-12", "--model.warm_start", "false", "--train.seed", "1")
    )
    teacher, warm, cold = (models.load(place / run).upsample.network[0].weight for run in ("teacher", "warm", "cold"))
    torch.testing.assert_close(warm, teacher)
    assert float((cold - teacher).abs().max()) > 0.01


def failure(main, arguments, capsys) -> str:
    capsys.readouterr()
    assert main(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert "Traceback" not in "\n".join(lines)
    return lines[-1]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--train.learning_rate", "1"], "train.learning_rate"),
        (["--train.lr", "fast"], "fast"),
        (["--data.root", "/nowhere"], "/nowhere"),
        (
            ["--train.crop_length", "1000"],
            "train.crop_length: found 1000, expected a multiple of audio.hop_length = 64",
        ),
        (
            ["--model.distribution", '{"kind": "mulaw", "bits": 8}'],
            "pre_emphasis: found 0.9, expected 0 with distribution.kind mulaw",
        ),
        (["--config", "missing.yaml"], "missing.yaml"),
        (["--train.device", "abacus"], "device: found 'abacus'"),
    ],
)
def test_teacher_mistakes(place, capsys, extra, message):
    line = failure(teach, teacher_arguments(place, "never", 1, *extra), capsys)
    assert line.startswith("wavenet-train: ")
    assert message in line
    assert not (place / "never" / "checkpoint.pt").exists()


def test_unknown_key_in_a_recipe_is_named(place, capsys):
    recipe = yaml.safe_load((place / "teacher.yaml").read_text())
    recipe["train"]["lerning_rate"] = 1.0
    (place / "misspelt.yaml").write_text(yaml.safe_dump(recipe))
    line = failure(teach, ["--config", str(place / "misspelt.yaml"), "--out", str(place / "never")], capsys)
    assert "lerning_rate" in line


def test_student_mistakes(place, capsys):
    cases = [
        (
            ["--model.audio", '{"sample_rate": 22050}'],
            "model.audio.sample_rate: found 22050, expected the teacher's 8000",
        ),
        (["--model.audio.n_mels", "80"], "expected the teacher's"),
        (["--model.speakers", "4"], "model.speakers: found 4, expected the teacher's 0"),
        (["--objective.weights", '{"kl": 1.0, "sfft": 2.0}'], "objective.weights: found 'sfft'"),
        (["--model.pre_emphasis", "0.5"], "model.pre_emphasis: found 0.5, expected the teacher's 0.9"),
        (["--objective.weights", '{"regulariser": 2.0}'], "terms that this pair has"),
    ]
    for extra, message in cases:
        assert message in failure(distil, student_arguments(place, "never student", 1, *extra), capsys)
        shutil.rmtree(place / "never student", ignore_errors=True)


def test_windows_longer_than_a_crop_or_every_dev_clip_are_named(place, capsys):
    line = failure(distil, student_arguments(place, "never", 1, "--objective.stft_sizes", "[4096]"), capsys)
    assert "objective.stft_sizes: found 4096, expected at most" in line
    corpus = place / "short dev"
    shutil.copytree(place / "corpus", corpus)
    name = (corpus / "dev.txt").read_text().strip()
    wav, info = read_audio(corpus / "wavs" / f"{name}.flac")
    (corpus / "wavs" / f"{name}.flac").unlink()
    write_audio(corpus / "wavs" / f"{name}.flac", wav[:1200], info.sample_rate)
    line = failure(
        distil,
        student_arguments(place, "never", 1, "--data.root", str(corpus), "--objective.stft_sizes", "[512]"),
        capsys,
    )
    assert "dev clips: found 1, none longer than objective.stft_sizes 512 needs" in line


def test_what_is_no_teacher_is_refused(place, capsys):
    distil(student_arguments(place, "pupil", 1))
    line = failure(distil, student_arguments(place, "never", 1, teacher="pupil"), capsys)
    assert "found a student, expected a teacher" in line
    line = failure(distil, student_arguments(place, "never", 1, teacher="corpus"), capsys)
    assert "found a folder without checkpoint.pt" in line


def test_weak_teacher_is_refused_without_force(place, capsys):
    arguments = [argument for argument in student_arguments(place, "gated", 1) if argument != "--force"]
    line = failure(distil, arguments, capsys)
    assert "linear prediction" in line
    assert "--force" in line
    assert not (place / "gated").exists()


def test_mulaw_teacher_cannot_be_distilled(place, capsys):
    mulaw = ["--model.distribution", '{"kind": "mulaw", "bits": 6}', "--model.pre_emphasis", "0"]
    assert teach(teacher_arguments(place, "classes", 1, *mulaw)) == 0
    line = failure(distil, student_arguments(place, "never", 1, teacher="classes"), capsys)
    assert "found a mulaw teacher, expected mol or gaussian" in line


def test_another_teacher_does_not_continue_a_students_run(place, capsys):
    distil(student_arguments(place, "faithful", 1))
    teach(teacher_arguments(place, "other teacher", 3))
    line = failure(distil, student_arguments(place, "faithful", 2, teacher="other teacher"), capsys)
    assert "found a run with teacher = " in line
