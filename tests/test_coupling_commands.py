"""Coupling flows through the commands: training by likelihood and from a teacher, resuming, using, mistakes."""

import dataclasses
import json
import math
import shutil

import pytest
import torch
import yaml

from distill import models
from distill.benchmark import main as benchmark
from distill.coupling.likelihood import held_out
from distill.coupling.model import CouplingFlow
from distill.coupling.train import main as train
from distill.dequantization import UniformDequantizer
from distill.evaluate import main as evaluate
from distill.results import evaluation
from distill.ship import main as ship
from distill.synthesize import main as synthesize
from distill.train import main as distil
from wavenet import checkpoint
from wavenet.audio import read_audio
from wavenet.data import corpus_folder, load_clip, open_corpus
from wavenet.train import main as teach
from wavenet.weights import read_card

AUDIO = {"sample_rate": 8000, "n_fft": 256, "win_length": 256, "hop_length": 64, "n_mels": 20, "f_max": 4000.0}
SIZES = {"cycles": 1, "layers": 2, "residual_channels": 8, "gate_channels": 16, "skip_channels": 8}
UPSAMPLE = {"channels": 8}
FLOW = {
    "squeeze": 8,
    "couplings": 3,
    "early_every": 1,
    "early_channels": 2,
    "stack": SIZES | {"kernel_size": 3},
    "upsample": UPSAMPLE,
}
TRAIN = {
    "batch_size": 2,
    "crop_length": 1024,
    "schedule": "constant",
    "log_every": 1,
    "validate_every": 100,
    "checkpoint_every": 2,
    "sample_seconds": 0.02,
}
OBJECTIVE = {"weights": {"kl": 1.0, "stft": 1.0}, "stft_sizes": [128, 64], "kl_estimator": "log_ratio"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus of five bundled clips, recipes, a teacher of three steps and a flow of four."""
    place = tmp_path_factory.mktemp("coupling")
    bundled = corpus_folder("bundled")
    (place / "corpus" / "wavs").mkdir(parents=True)
    clips = sorted((bundled / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:5]
    for clip in clips:
        shutil.copy(clip, place / "corpus" / "wavs")
    shutil.copy(bundled / "metadata.csv", place / "corpus")
    for split, part in (("train", clips[:3]), ("dev", clips[3:4]), ("test", clips[4:])):
        (place / "corpus" / f"{split}.txt").write_text("".join(f"{clip.stem}\n" for clip in part))
    shared = {"data": {"root": str(place / "corpus")}, "train": TRAIN}
    recipes = {
        "teacher": {"model": {"audio": AUDIO, "stack": SIZES, "upsample": UPSAMPLE}},
        "flow": {"model": FLOW | {"audio": AUDIO}},
        "pupil": {"kind": "flow", "model": FLOW, "objective": OBJECTIVE},
    }
    for name, recipe in recipes.items():
        (place / f"{name}.yaml").write_text(yaml.safe_dump(recipe | shared))
    assert teach(["--config", str(place / "teacher.yaml"), "--out", str(place / "teacher"), "--train.steps", "3"]) == 0
    assert train(arguments(place, "flow", "run", 4)) == 0
    return place


def arguments(place, recipe, run, steps, *extra):
    teacher = ["--teacher", str(place / "teacher"), "--force"] if recipe == "pupil" else []
    call = ["--config", str(place / f"{recipe}.yaml"), "--out", str(place / run), "--train.steps", str(steps)]
    return [*call, *teacher, *extra]


def assert_equal_runs(one, two):
    first, second = checkpoint.load(one), checkpoint.load(two)
    assert first.kind == second.kind == "flow"
    for ours, theirs in ((first.model_state, second.model_state), (first.ema_state, second.ema_state)):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def lines(run) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_training_by_likelihood_resumes_bit_exact(place):
    for steps in (2, 4):
        assert train(arguments(place, "flow", "parts", steps)) == 0
    assert_equal_runs(place / "run", place / "parts")


def test_noise_of_the_cells_is_learned_with_the_flow_and_resumes_bit_exact(place):
    more = ["--model.bits", "6", "--model.dequantization", "variational", "--model.dequantizer.layers", "2"]
    for run, steps in (("filled", 6), ("filled parts", 3), ("filled parts", 6)):
        assert train(arguments(place, "flow", run, steps, *more)) == 0
    assert_equal_runs(place / "filled", place / "filled parts")
    model = models.load(place / "filled")
    corpus = open_corpus(str(place / "corpus"), model.config.audio)
    learned = held_out(model, corpus.dev).nll
    assert float(model.dequantizer.stack.output.weight.abs().max()) > 0
    model.dequantizer = UniformDequantizer(model.dequantizer.step)
    assert held_out(model, corpus.dev).nll != learned


@pytest.mark.parametrize("order", [0, 8])
def test_training_learns_and_states_the_likelihood_of_held_out_clips(place, order):
    run = f"learning {order}"
    more = ["--model.linear_prediction", str(order), "--train.lr", "0.005", "--train.warmup_steps", "0"]
    assert train(arguments(place, "flow", run, 30, *more)) == 0
    found = lines(place / run)
    model = models.load(place / run)
    assert isinstance(model, CouplingFlow)
    assert 20 < model.config.gain < 200
    corpus = open_corpus(str(place / "corpus"), model.config.audio)
    # Without prediction, below white noise of the recordings' level, which a fresh flow is; with it, further than that.
    fresh = CouplingFlow(dataclasses.replace(model.config, linear_prediction=0))
    assert held_out(model, corpus.dev).nll < held_out(fresh, corpus.dev).nll - (1.0 if order else 0.1)
    stated = {name.removeprefix("validation/"): value for name, value in found[-1].items()}
    assert stated["bits"] == pytest.approx(stated["nll"] / math.log(2))
    assert stated["nll"] - stated["nll_density"] == pytest.approx(math.log((2**16 - 1) / 2))
    assert stated["nll"] == pytest.approx(held_out(model, corpus.dev).nll, rel=1e-5)
    # And by the plain density of the recording, of which the bound is a mean over its cells.
    wav = load_clip(corpus.dev[0], model.config.audio)[None]
    plain = -float(model.log_prob(wav, model.log_mel(wav))) / wav.shape[1]
    assert stated["nll_density"] == pytest.approx(plain, abs=0.1)


def test_a_flow_is_distilled_by_the_same_command_and_resumes_bit_exact(place):
    for run, steps in (("pupil", 4), ("pupil in parts", 2), ("pupil in parts", 4)):
        assert distil(arguments(place, "pupil", run, steps)) == 0
    assert_equal_runs(place / "pupil", place / "pupil in parts")
    pupil, teacher = models.load(place / "pupil"), models.load(place / "teacher")
    assert pupil.config.audio == teacher.config.audio
    assert pupil.config.gain == teacher.config.gain
    assert torch.equal(pupil.upsample.mean, teacher.upsample.mean)
    logged = lines(place / "pupil")
    assert {"loss/kl", "loss/stft", "kl/kl", "kl/entropy", "kl/cross_entropy"} <= logged[0].keys()
    for line in logged[:4]:
        assert line["kl/kl"] == pytest.approx(line["kl/cross_entropy"] - line["kl/entropy"], abs=1e-4)
        assert line["loss"] == pytest.approx(line["loss/kl"] + line["loss/stft"], abs=1e-4)


def test_a_flow_goes_on_from_trained_weights(place, capsys):
    assert train(arguments(place, "flow", "again", 1, "--init", str(place / "run"), "--train.lr", "1e-12")) == 0
    assert "weights: those of" in capsys.readouterr().err
    ours, theirs = models.load(place / "again").state_dict(), models.load(place / "run").state_dict()
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-6) for name in ours)


def test_synthesis_evaluation_and_benchmark_take_it(place, tmp_path, capsys):
    (clip,) = open_corpus(str(place / "corpus"), models.load(place / "run").config.audio).test
    out = tmp_path / "out"
    assert synthesize([str(place / "run"), str(clip.path), "--out", str(out), "--temperature", "0.7"]) == 0
    made, _ = read_audio(out / f"{clip.path.stem}.wav")
    assert len(made) % 64 == 0
    assert float(made.std()) > 1e-4
    capsys.readouterr()
    for extra, message in (
        (["--method", "fused"], "--method: found 'fused', expected none: this model samples in one pass"),
        (["--engine", "tiled"], "--engine: found 'tiled', expected"),
        (["--transpose", "2"], "--transpose: found 2.0, expected none"),
    ):
        assert synthesize([str(place / "run"), str(clip.path), "--out", str(tmp_path / "no"), *extra]) == 2
        assert message in capsys.readouterr().err
    checked = ["--data", str(place / "corpus"), "--metrics", "fast", "--clips", "1", "--out", str(tmp_path / "seen")]
    assert evaluate([str(place / "run"), *checked]) == 0
    found = json.loads((tmp_path / "seen" / "metrics.json").read_text())["systems"]
    nll = held_out(models.load(place / "run"), [clip]).nll
    assert found["run"]["likelihood"]["nll"] == pytest.approx(nll, rel=1e-5)
    # Noise in the cells: wherever the figure is stated, as a bound.
    stated = json.loads((tmp_path / "seen" / "metrics.json").read_text())
    assert f"≥ {-found['run']['likelihood']['nll_density']:.3f}" in evaluation(stated)
    assert f"<td>≤ {nll:.4f}</td>" in (tmp_path / "seen" / "report.html").read_text()
    assert f"at most {nll:.4f} nats" in capsys.readouterr().out
    assert found["run"]["mean"]["mel_distance"] > 0
    file = str(tmp_path / "speed.json")
    call = [str(place / "run"), "--quick", "--seconds", "0.05", "--repeats", "1", "--out", file]
    assert benchmark(call) == 0
    (row,) = json.loads((tmp_path / "speed.json").read_text())["rows"]
    assert (row["net"], row["method"]) == ("run", "parallel")
    assert row["samples_per_second"] > 0


def test_a_flow_ships_with_its_teacher_where_it_had_one(place, tmp_path):
    """As one file whose density is the run's; the card names the command that trained it."""
    assert distil(arguments(place, "pupil", "shipped-pupil", 1)) == 0
    for run, extra, trained in (
        ("run", [], "distill-train-flow"),
        ("shipped-pupil", ["--teacher", str(place / "teacher")], "distill-train"),
    ):
        out = tmp_path / f"{run}.safetensors"
        whole = ["--name", "flow", "--corpus", str(place / "corpus"), "--licence", "MIT", "--out", str(out)]
        assert ship([str(place / run), *whole, *extra]) == 0
        card = read_card(out)
        assert card.commands[0].split()[0] == trained
        assert card.teacher == ("teacher" if extra else None)
        mel, wav = torch.randn(1, 20, 4), 0.1 * torch.randn(1, 256)
        with torch.no_grad():
            assert torch.equal(models.load(out).log_prob(wav, mel), models.load(place / run).log_prob(wav, mel))


@pytest.mark.parametrize(
    ("recipe", "extra", "message"),
    [
        ("flow", ["--model.squeeze", "7"], "squeeze: found 7, expected 2 or more, and a divisor of audio.hop_length"),
        ("flow", ["--model.colour", "1"], "colour"),
        ("flow", ["--train.crop_length", "1000"], "train.crop_length: found 1000"),
        ("flow", ["--init", "student"], "a student, expected a flow"),
        ("pupil", ["--objective.kl_estimator", "conditional"], "objective.kl_estimator: found 'conditional', expected"),
        ("pupil", ["--model.audio.sample_rate", "22050"], "model.audio.sample_rate: found 22050, expected the teacher"),
        ("pupil", ["--model.squeeze", "7"], "squeeze: found 7"),
        ("pupil", ["--objective.weights", '{"regulariser": 1.0}'], "terms that this pair has"),
        ("pupil", ["--pitch", "somewhere"], "--pitch: found somewhere, expected none"),
        ("pupil", ["--kind", "couplings"], "couplings"),
        ("pupil", ["--kind", "student"], "model"),
    ],
)
def test_mistakes_are_one_line_and_status_2(place, recipe, extra, message, capsys):
    main = distil if recipe == "pupil" else train
    assert main(arguments(place, recipe, "never", 1, *extra)) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in line
    assert not (place / "never" / "checkpoint.pt").exists()


def test_an_unreadable_recipe_is_named_before_its_kind_is_asked(place, capsys):
    (place / "broken.yaml").write_text("kind: [flow\n")
    for extra in (["--config", str(place / "broken.yaml")], ["--config", "nowhere.yaml"], ["--kind"]):
        assert distil([*extra, "--teacher", "teacher", "--out", str(place / "never")]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1
