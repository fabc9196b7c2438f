"""distill-train-wavevae and what takes its runs: end to end on a few clips, resuming, mistakes in one line."""

import json
import math
import shutil

import pytest
import torch
import yaml

from distill import models
from distill.evaluate import main as evaluate
from distill.results import evaluation
from distill.speed.contestants import KNOWN, methods_of
from distill.synthesize import main as synthesize
from distill.wavevae.learning import held_out
from distill.wavevae.model import WaveVAE
from distill.wavevae.train import main as train
from tests.conftest import AUDIO
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.audio import read_audio
from wavenet.data import corpus_folder, open_corpus

STACK = {"cycles": 1, "layers": 3, "residual_channels": 8, "gate_channels": 16, "skip_channels": 8}
MODEL = {"audio": to_dict(AUDIO), "encoder": STACK, "flows": [STACK], "upsample": {"channels": 8}}
TRAIN = {"batch_size": 2, "crop_length": 512, "schedule": "constant", "warmup_steps": 1, "ema_decay": 0.5}
TRAIN |= {"log_every": 2, "validate_every": 4, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus of three bundled clips, a recipe, and a run of four steps."""
    place = tmp_path_factory.mktemp("wavevae")
    (place / "corpus" / "wavs").mkdir(parents=True)
    clips = sorted((corpus_folder("bundled") / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:3]
    for clip, split in zip(clips, ("train", "dev", "test"), strict=True):
        shutil.copy(clip, place / "corpus" / "wavs")
        (place / "corpus" / f"{split}.txt").write_text(f"{clip.stem}\n")
    (place / "corpus" / "metadata.csv").write_text("".join(f"{clip.stem}|text|text\n" for clip in clips))
    objective = {"stft_sizes": [128, 64], "annealing_steps": 3}
    recipe = {"model": MODEL, "objective": objective, "train": TRAIN, "data": {"root": str(place / "corpus")}}
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert train(arguments(place, "run", 4)) == 0
    return place


def arguments(place, run, steps, *extra):
    return ["--config", str(place / "recipe.yaml"), "--out", str(place / run), "--train.steps", str(steps), *extra]


def lines_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_resumes_bit_exact_with_the_annealing_where_it_was(place):
    assert train(arguments(place, "parts", 2)) == 0
    assert train(arguments(place, "parts", 4)) == 0
    whole, parts = checkpoint.load(place / "run"), checkpoint.load(place / "parts")
    for one, other in ((whole.model_state, parts.model_state), (whole.ema_state, parts.ema_state)):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
    weights = {line["step"]: line["elbo/kl_weight"] for line in lines_of(place / "parts") if "elbo/kl_weight" in line}
    assert weights == {line["step"]: line["elbo/kl_weight"] for line in lines_of(place / "run") if "loss" in line}
    assert 0 < weights[2] < 0.2 < weights[4]


def test_a_run_may_begin_with_the_weights_of_another(place, capsys):
    still = ["--train.lr", "1e-12", "--train.warmup_steps", "0"]
    assert train(arguments(place, "more", 1, *still, "--init", str(place / "run"))) == 0
    said = capsys.readouterr().err
    assert f"weights: those of {place / 'run'} at step 4, to begin with, recordings +0.0 dB" in said
    assert "KL at its full weight from step 0" in said
    first, weight = lines_of(place / "more")[0], lines_of(place / "run")[0]["elbo/kl_weight"]
    assert first["elbo/kl_weight"] == 1.0 > weight
    old, new = (checkpoint.weights(checkpoint.load(place / run)) for run in ("run", "more"))
    assert old.keys() == new.keys()
    assert all(torch.allclose(old[name], new[name], rtol=0, atol=1e-6) for name in old)
    assert checkpoint.load(place / "more").extra["record"]["init"] == checkpoint.fingerprint(models.load(place / "run"))
    for extra, message in (
        (["--init", str(place / "more")], "which is --out too"),
        (["--init", str(place / "run"), "--pitch", "pitch"], "--pitch: found pitch, expected none with --init"),
        (["--init", str(place / "run"), "--model.upsample.channels", "9"], "with upsample.channels = 8, expected 9"),
    ):
        out = "more" if "too" in message else "refused"
        assert train(arguments(place, out, 2, *extra)) == 2
        assert message in capsys.readouterr().err.strip().splitlines()[-1]


def test_log_has_the_bound_the_kl_of_steps_and_the_signs_of_health(place):
    trained, held = lines_of(place / "run")[-2:]
    assert trained["elbo/elbo"] == pytest.approx(trained["elbo/reconstruction"] - trained["elbo/kl"], abs=1e-4)
    assert trained["elbo/kl_10"] <= trained["elbo/kl_50"] <= trained["elbo/kl_90"]
    assert {"loss/elbo", "loss/reconstruction_stft", "loss/prior_stft", "loss/prior_mel"} <= trained.keys()
    assert {"validation/elbo/kl_50", "validation/elbo/active", "validation/prior/stft/128"} <= held.keys()
    assert {"health/band/0", "health/diagnosis/posterior_collapse"} <= held.keys()
    model = models.load(place / "run")
    found = held_out(model, open_corpus(str(place / "corpus"), AUDIO).dev)
    assert found["elbo/elbo"] == pytest.approx(held["validation/elbo/elbo"], abs=1e-4)


def test_collapse_is_said_by_the_command(place, capsys):
    """A posterior that begins at the prior, and whose KL counts hundredfold from the start, stays there."""
    forced = ["--model.posterior_scale", "1.0", "--objective.kl_weight", "100", "--objective.annealing_steps", "0"]
    forced += ["--objective.prior", "{}", "--objective.reconstruction", "{}", "--train.ema_decay", "0.0"]
    forced += ["--train.lr", "0.02", "--train.validate_every", "40", "--train.crop_length", "256"]
    judged = ["--health.after", "0", "--health.persist", "1", "--health.every", "0"]
    assert train(arguments(place, "collapsed", 80, *forced, *judged)) == 0
    said = capsys.readouterr().err
    assert "posterior collapse: KL of" in said
    assert "objective.annealing_steps" in said
    assert lines_of(place / "collapsed")[-1]["validation/elbo/kl"] < 0.05


def test_path_alone_gives_the_model_and_its_level(place):
    model = models.load(place / "run")
    assert isinstance(model, WaveVAE)
    assert 20 < model.config.gain < 400
    assert model.encoder.gain == model.gain
    assert torch.equal(model.upsample.mean, model.encoder.upsample.mean)
    assert -12 < float(model.upsample.mean.mean()) < 0


def test_synthesises_in_one_pass_the_same_for_a_seed(place, tmp_path):
    (clip,) = open_corpus(str(place / "corpus"), AUDIO).test
    made = []
    for seed in ("0", "0", "1"):
        out = tmp_path / f"{len(made)}"
        assert synthesize([str(place / "run"), str(clip.path), "--out", str(out), "--seed", seed]) == 0
        made.append(read_audio(out / f"{clip.path.stem}.wav")[0])
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert synthesize([str(place / "run"), str(clip.path), "--out", str(tmp_path / "t"), "--temperature", "0.5"]) == 0


def test_chunks_are_the_whole_signal_and_the_benchmark_has_its_passes(place):
    model = models.load_vocoder(place / "run")
    mel = model.log_mel(0.1 * torch.randn(1, 64 * AUDIO.hop_length, generator=torch.Generator().manual_seed(0)))
    whole = model.sample(mel, generator=torch.Generator().manual_seed(0))
    model.chunk_length = 8 * AUDIO.hop_length
    torch.testing.assert_close(model.sample(mel, generator=torch.Generator().manual_seed(0)), whole, rtol=0, atol=1e-5)
    assert methods_of(model, KNOWN)[0] == "parallel"
    assert "tiled" in methods_of(model, KNOWN)
    assert "naive" not in methods_of(model, KNOWN)


def test_is_evaluated_with_its_bound(place, tmp_path, capsys):
    call = [str(place / "run"), "--data", str(place / "corpus"), "--out", str(tmp_path / "out"), "--metrics", "fast"]
    assert evaluate(call) == 0
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    system = found["systems"]["run"]
    assert math.isfinite(system["mean"]["mel_distance"])
    exact = held_out(models.load(place / "run"), open_corpus(str(place / "corpus"), AUDIO).test)
    assert system["elbo"] == pytest.approx(exact)
    assert f"ELBO {exact['elbo/elbo']:.4f} nats per sample" in capsys.readouterr().out
    assert f"≥ {exact['elbo/elbo']:.3f}" in evaluation(found).splitlines()[-1]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--model.noise", "logistic"], "noise: found 'logistic', expected normal"),
        (["--model.prior", "source_filter"], "--pitch: found none, expected a run of wavenet-train-pitch"),
        (["--pitch", "somewhere"], "--pitch: found somewhere, expected none for a decoder without a source_filter"),
        (["--objective.stft_sizes", "[512]"], "objective.stft_sizes: found 512, expected at most 256"),
        (["--objective.prior", "{kl: 1.0}"], "objective.prior: found 'kl'"),
        (["--train.crop_length", "500"], "train.crop_length: found 500, expected a multiple of audio.hop_length = 16"),
        (["--colour", "blue"], "colour"),
    ],
)
def test_mistakes_are_named_in_one_line(place, capsys, extra, message):
    assert train(arguments(place, "mistake", 1, *extra)) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert message in error


def test_another_configuration_on_the_same_run_is_refused(place, capsys):
    assert train(arguments(place, "run", 5, "--objective.kl_weight", "0.5")) == 2
    assert "objective.kl_weight = 1.0, expected 0.5" in capsys.readouterr().err
