"""distill-train-segments, distill-latent-table, distill-imagine: end to end on a few clips, resuming, mistakes."""

import json
import shutil
import zlib

import pytest
import torch
import yaml

import distill.latent.table as table_module
from distill import models
from distill.inputs import read_mel
from distill.latent.imagine import main as imagine
from distill.latent.patches import cut, overlap_add
from distill.latent.segmentvae import SegmentVAE
from distill.latent.table import VARIANTS
from distill.latent.table import main as table
from distill.latent.train import main as train
from distill.synthesize import main as synthesize
from tests.conftest import AUDIO, small_student, small_teacher
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.audio import read_audio
from wavenet.data import corpus_folder

MODEL = {"frames": 20, "dimensions": 2, "channels": 8, "components": 4, "iaf_channels": 6}
TRAIN = {"batch_size": 32, "crop_length": 320, "schedule": "constant", "lr": 0.01, "warmup_steps": 1, "ema_decay": 0.5}
TRAIN |= {"log_every": 2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus of four bundled clips, a recipe on tiny mels, and a run of 40 steps; a student on the same mels."""
    place = tmp_path_factory.mktemp("segments")
    (place / "corpus" / "wavs").mkdir(parents=True)
    clips = sorted((corpus_folder("bundled") / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:4]
    for clip in clips:
        shutil.copy(clip, place / "corpus" / "wavs")
    (place / "corpus" / "metadata.csv").write_text("".join(f"{clip.stem}|text|text\n" for clip in clips))
    for split, part in (("train", clips[:2]), ("dev", clips[2:3]), ("test", clips[3:])):
        (place / "corpus" / f"{split}.txt").write_text("".join(f"{clip.stem}\n" for clip in part))
    recipe = {"model": {"audio": to_dict(AUDIO)} | MODEL, "train": TRAIN, "data": {"root": str(place / "corpus")}}
    (place / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert train(call(place, "run", 40)) == 0
    student = small_student().float()
    for name, model in (("student", student), ("teacher", small_teacher().float())):
        (place / name).mkdir()
        state = model.state_dict()
        checkpoint.save(place / name / "checkpoint.pt", kind=name, config=to_dict(model.config), model_state=state)
    return place


def call(place, run, steps, *extra):
    return ["--config", str(place / "recipe.yaml"), "--out", str(place / run), "--train.steps", str(steps), *extra]


def test_a_run_is_complete_and_learns(place):
    model = models.load(place / "run")
    assert isinstance(model, SegmentVAE)
    logged = [json.loads(line) for line in (place / "run" / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "elbo/elbo", "elbo/kl", "elbo/noise"} <= logged[0].keys()
    assert logged[0]["elbo/elbo"] < [line for line in logged if "loss" in line][-1]["elbo/elbo"]
    last = logged[-1]
    split = last["validation/kl/dimension_0"] + last["validation/kl/dimension_1"]
    assert last["validation/kl"] == pytest.approx(split, rel=1e-5)
    assert last["validation/elbo"] == pytest.approx(120 * last["validation/elbo_per_value"])


@pytest.mark.parametrize("prior", ["normal", "vamp"])
def test_a_run_resumes_bit_exact_on_the_same_command(place, prior):
    for run, steps in (("whole", 4), ("parts", 2), ("parts", 4)):
        assert train(call(place, f"{run}-{prior}", steps, "--model.prior", prior)) == 0
    whole, parts = (checkpoint.load(place / f"{run}-{prior}") for run in ("whole", "parts"))
    assert all(torch.equal(value, parts.model_state[name]) for name, value in whole.model_state.items())
    assert all(torch.equal(value, parts.ema_state[name]) for name, value in whole.ema_state.items())


def test_table_is_measured_written_and_resumed(place, monkeypatch):
    page = place / "page.md"
    page.write_text("before\n<!-- latent:begin -->\n<!-- latent:end -->\nafter\n")
    arguments = call(place, "table", 3, "--dimensions", "2", "3", "--flow_patches", "16", "--page", str(page))
    assert table(arguments) == 0
    figures = json.loads((place / "table" / "latent.json").read_text())
    names = ["ppca", "normal", "aggregated", "mixture", "vamp", "iaf"]
    assert [row["name"] for row in figures["rows"]] == names * 2
    for row in figures["rows"]:
        assert abs(row["remainder"]["value"]) < 4 * row["remainder"]["error"], row
        assert 0 <= row["mutual_information"]["value"] <= torch.tensor(float(row["n"])).log()
        assert row["n"] == (16 if row["name"] == "iaf" else figures["n"])
        if row["name"] == "ppca":
            assert row["elbo"]["value"] == pytest.approx(row["log_likelihood"], abs=4 * row["elbo"]["error"])
        if row["name"] == "aggregated":
            assert row["marginal_kl"]["value"] == 0
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("after\n")
    assert text.count("\n| 2 | ") == text.count("\n| 3 | ") == 6
    assert (place / "latent.png").stat().st_size > 10_000

    def refuse(*_):
        raise AssertionError("measured again")

    monkeypatch.setattr(table_module.Table, "_held_out", refuse)
    assert table(arguments) == 0
    assert page.read_text() == text
    assert set(VARIANTS) == {"normal", "mixture", "vamp", "iaf"}


def test_noise_becomes_sound_that_the_seed_decides(place, tmp_path, capsys):
    arguments = [str(place / "run"), "--student", str(place / "student"), "--count", "2", "--seconds", "0.2"]
    for out, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert imagine([*arguments, "--out", str(tmp_path / out), "--seed", seed]) == 0
    sounds = {out: [read_audio(tmp_path / out / f"noise-{i}.wav")[0] for i in (1, 2)] for out in "abc"}
    assert all(torch.equal(a, b) for a, b in zip(sounds["a"], sounds["b"], strict=True))
    assert not torch.equal(sounds["a"][0], sounds["c"][0])
    assert not torch.equal(sounds["a"][0], sounds["a"][1])
    assert len(sounds["a"][0]) == pytest.approx(0.2 * 8000, abs=16 * 10)
    assert float(sounds["a"][0].std()) > 1e-4


def test_between_two_clips_the_ends_are_the_clips_own(place, tmp_path):
    clips = sorted((place / "corpus" / "wavs").iterdir())[:2]
    arguments = [str(place / "run"), "--student", str(place / "student"), "--out", str(tmp_path), "--stops", "3"]
    assert imagine([*arguments, "--between", str(clips[0]), str(clips[1])]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"between-{a}.wav" for a in ("0.00", "0.50", "1.00")]
    made = {path.stem: read_audio(path)[0] for path in tmp_path.iterdir()}
    assert len({len(wav) for wav in made.values()}) == 1
    vae, student = models.load(place / "run"), models.load(place / "student")
    mels = [read_mel(clip, vae)[0][0] for clip in clips]
    length = min(mel.shape[1] for mel in mels)
    for name, mel in zip(("between-0.00", "between-1.00"), mels, strict=True):
        own = overlap_add(vae.decode(vae.posterior(cut(mel[:, :length], 20, 10)).centre()), 10)
        generator = torch.Generator().manual_seed(zlib.crc32(f"0 {name}".encode()))
        expected = student.sample(own[None], generator=generator)[0].clamp(-1, 1)
        torch.testing.assert_close(made[name], expected, rtol=0, atol=1 / 32768)
    assert float((made["between-0.50"] - made["between-0.00"]).abs().max()) > 1e-3


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (
            ["--train.crop_length", "336"],
            "train.crop_length: found 336, expected model.frames * audio.hop_length = 320",
        ),
        (["--model.prior", "vamp", "--model.posterior", "iaf"], "expected gaussian: a VampPrior"),
        (
            ["--model.frames", "100000", "--train.crop_length", "1600000"],
            "model.frames: found 100000, expected at most",
        ),
        (["--model.channels", "9"], "found a run with model.channels = 8, expected 9"),
        (["--data.root", "nowhere"], "nowhere"),
    ],
)
def test_mistakes_in_training_are_one_line_and_status_2(place, extra, message, capsys):
    assert train([*call(place, "run", 40), *extra]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--dimensions", "2", "2"], "--dimensions: found [2, 2], expected different numbers"),
        (["--dimensions", "0"], "--dimensions: found [0], expected positive numbers below a patch's 120"),
        (["--dimensions", "120"], "--dimensions: found [120], expected positive numbers below a patch's 120"),
        (["--draws", "1"], "--draws: found 1, expected at least 2"),
        (["--page", "nowhere.md"], "nowhere.md: found no markers"),
    ],
)
def test_mistakes_in_a_table_are_one_line_and_status_2(place, extra, message, capsys):
    assert table([*call(place, "mistaken", 6), *extra]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (place / "mistaken").exists()


@pytest.mark.parametrize(
    ("run", "student", "extra", "message"),
    [
        ("student", "student", [], "found a Student, expected a VAE of segments"),
        ("run", "teacher", [], "found a Teacher in"),
        ("run", "student", ["--stops", "1"], "--stops: found 1, expected at least 2"),
        ("run", "student", ["--seconds", "0"], "--seconds: found 0.0"),
        ("run", "student", ["--between", "nowhere.wav", "nowhere.wav"], "nowhere.wav"),
    ],
)
def test_mistakes_in_sound_are_one_line_and_status_2(place, tmp_path, run, student, extra, message, capsys):
    arguments = [str(place / run), "--student", str(place / student), "--out", str(tmp_path / "out"), *extra]
    assert imagine(arguments) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_vae_of_segments_is_no_vocoder(place, tmp_path, capsys):
    assert synthesize([str(place / "run"), "mel.npy", "--out", str(tmp_path)]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert lines == [
        f"distill-synthesize: {place / 'run'}: found a model of kind 'segmentvae', "
        "expected one of teacher, student, flow, wavevae"
    ]
