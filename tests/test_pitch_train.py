"""wavenet-train-pitch: labels made once and in line with the mel, training that resumes, errors measured and kept."""

import json
import shutil

import numpy as np
import pytest
import soundfile
import torch
import yaml

from distill import models
from wavenet import checkpoint
from wavenet.config import AudioConfig
from wavenet.data import CropDataset, corpus_folder, load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.features import LogMel
from wavenet.pitch import labels as labelling
from wavenet.pitch.contour import filled
from wavenet.pitch.labels import LABELS, Labels, PitchedCrops, label
from wavenet.pitch.load import with_pitch
from wavenet.pitch.net import PitchNet
from wavenet.pitch.resolution import resolved
from wavenet.pitch.tracker import track
from wavenet.pitch.train import main

AUDIO = AudioConfig(8000, 256, 256, 64, 20, 0.0, 4000.0)
MODEL = {
    "audio": {"sample_rate": 8000, "n_fft": 256, "win_length": 256, "hop_length": 64, "n_mels": 20, "f_max": 4000.0},
    "channels": 8,
    "layers": 2,
    "bins": 32,
}
TRAIN = {"batch_size": 2, "crop_length": 2048, "schedule": "constant", "log_every": 2, "checkpoint_every": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A corpus of four bundled clips, a recipe, and a run of four steps."""
    place = tmp_path_factory.mktemp("pitch")
    (place / "corpus" / "wavs").mkdir(parents=True)
    clips = sorted((corpus_folder("bundled") / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:4]
    for clip in clips:
        shutil.copy(clip, place / "corpus" / "wavs")
    (place / "corpus" / "metadata.csv").write_text("".join(f"{clip.stem}|text|text\n" for clip in clips))
    for split, part in (("train", clips[:2]), ("dev", clips[2:3]), ("test", clips[3:])):
        (place / "corpus" / f"{split}.txt").write_text("".join(f"{clip.stem}\n" for clip in part))
    recipe = {"model": MODEL, "train": TRAIN, "data": {"root": str(place / "corpus")}}
    (place / "pitch.yaml").write_text(yaml.safe_dump(recipe))
    assert main(call(place, "whole", 4)) == 0
    return place


def call(place, run, steps, *extra):
    return ["--config", str(place / "pitch.yaml"), "--out", str(place / run), "--train.steps", str(steps), *extra]


@pytest.fixture
def glide(tmp_path):
    """One clip, 100 to 300 Hz in 4 s, exponential in time: log F0 tells the place in the clip."""
    time = np.arange(32000) / 8000
    wav = 0.1 * np.sign(np.sin(2 * np.pi * np.cumsum(100 * 3 ** (time / 4)) / 8000))
    (tmp_path / "tones").mkdir()
    soundfile.write(tmp_path / "tones" / "glide.wav", wav, 8000)
    return open_corpus(str(tmp_path / "tones"), AUDIO)


def test_pitch_of_a_crop_is_that_of_its_own_frames(glide, tmp_path):
    """The labels against the glide's formula at each crop's place: a shift of one frame would be 0.8 %."""
    crops = CropDataset(glide.train, AUDIO, 1024, 3, seed=5)
    pitched = PitchedCrops(crops, label(glide.train, AUDIO, tmp_path / "labels.npz"))
    deviations = []
    for step in range(6):
        batch = pitched[step]
        assert batch.pitch.f0.shape == (3, 16) == batch.pitch.voiced.shape
        assert torch.equal(batch.mel, crops[step].mel)
        for (_, start), f0, voiced in zip(crops.choose(step), *batch.pitch, strict=True):
            middle = (start + 64 * torch.arange(16) + 32) / 8000
            assert voiced.mean() > 0.9
            deviations.append(f0 / (100 * 3 ** (middle / 4)) - 1)
    deviation = torch.cat(deviations)
    assert abs(float(deviation.median())) < 0.002
    assert float(deviation.abs().quantile(0.9)) < 0.004


def test_crops_with_pitch_are_a_function_of_seed_and_step(place, tmp_path):
    clips = open_corpus(str(place / "corpus"), AUDIO).train
    labels = label(clips, AUDIO, tmp_path / "labels.npz")
    one, two = (PitchedCrops(CropDataset(clips, AUDIO, 1024, 4, seed=1), labels) for _ in range(2))
    first = [one[step].pitch.f0 for step in (0, 1, 2)]
    again = [two[step].pitch.f0 for step in (2, 1, 0)][::-1]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], first[1])


def test_labels_are_the_trackers_and_are_made_once(place, tmp_path, monkeypatch):
    clips = open_corpus(str(place / "corpus"), AUDIO).train
    cache = tmp_path / "labels.npz"
    made = label(clips, AUDIO, cache)
    expected = track(load_clip(clips[0], AUDIO), 8000, 64)
    np.testing.assert_allclose(made.track(clips[0]).f0, expected.f0, rtol=1e-6)
    assert (made.track(clips[0]).voiced == expected.voiced).all()

    def refuse(*_):
        raise AssertionError("tracked again")

    with monkeypatch.context() as patch:
        patch.setattr(labelling.tracker, "track", refuse)
        again = label(clips, AUDIO, cache)
        np.testing.assert_array_equal(again.track(clips[1]).f0, made.track(clips[1]).f0)
        other = AudioConfig(8000, 256, 256, 32, 20, 0.0, 4000.0)
        with pytest.raises(AssertionError, match="tracked again"):
            label(clips, other, cache)


def test_an_interruption_keeps_what_is_done(place, tmp_path, monkeypatch):
    corpus = open_corpus(str(place / "corpus"), AUDIO)
    clips, cache, tracked = [*corpus.train, *corpus.dev], tmp_path / "labels.npz", []

    def counted(wav, *rest):
        if len(tracked) == 2:
            raise KeyboardInterrupt
        tracked.append(len(wav))
        return track(wav, *rest)

    monkeypatch.setattr(labelling.tracker, "track", counted)
    with pytest.raises(KeyboardInterrupt):
        label(clips, AUDIO, cache)
    tracked[:] = [0]  # one more is allowed: the third
    assert len(label(clips, AUDIO, cache).track(clips[2]).f0)
    assert len(tracked) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["labels.npz"]


def test_models_follow_the_voice_and_the_network_the_tracker(place, tmp_path):
    """Crops of models carry pitch resolved over the whole clip, not the crop; the network's carry what was tracked."""
    clips = open_corpus(str(place / "corpus"), AUDIO).train
    crops, run = CropDataset(clips, AUDIO, 1024, 3, seed=5), tmp_path / "run"
    theirs = with_pitch(crops, run, 0)
    labels = label(clips, AUDIO, run / LABELS)
    ours, moved = PitchedCrops(crops, labels), 0.0
    for step in range(4):
        for row, (number, start) in enumerate(crops.choose(step)):
            wav = load_clip(clips[number], AUDIO)
            found = track(wav, AUDIO.sample_rate, AUDIO.hop_length)
            plain = filled(found)
            mel = LogMel(AUDIO)(wav[None, : len(found.f0) * AUDIO.hop_length])
            here = slice(start // AUDIO.hop_length, start // AUDIO.hop_length + 1024 // AUDIO.hop_length)
            torch.testing.assert_close(ours[step].pitch.f0[row], plain.f0[0, here])
            torch.testing.assert_close(theirs[step].pitch.f0[row], resolved(plain, mel, AUDIO).f0[0, here])
            assert torch.equal(theirs[step].pitch.voiced[row], ours[step].pitch.voiced[row])
        moved = max(moved, float((theirs[step].pitch.f0 / ours[step].pitch.f0 - 1).abs().max()))
    assert moved > 0.01


@pytest.mark.slow
def test_a_pool_of_processes_gives_the_same_labels(place, tmp_path):
    clips = open_corpus(str(place / "corpus"), AUDIO).train
    alone, pooled = label(clips, AUDIO, tmp_path / "a.npz"), label(clips, AUDIO, tmp_path / "b.npz", workers=2)
    for clip in clips:
        np.testing.assert_array_equal(alone.track(clip).f0, pooled.track(clip).f0)
        assert torch.equal(alone.pitch(clip, resolve=True).f0, pooled.pitch(clip, resolve=True).f0)


def test_labels_that_do_not_fit_are_refused(glide, tmp_path):
    crops, cache = CropDataset(glide.train, AUDIO, 1024, 3, seed=5), tmp_path / "labels.npz"
    with pytest.raises(UserError, match="found no pitch label"):
        PitchedCrops(crops, Labels({}))
    with pytest.raises(UserError, match="found a pitch label of 499 frames, expected 500"):
        PitchedCrops(crops, Labels({glide.train[0].id: np.full((2, 499), 100, np.float32)}))
    cache.write_bytes(b"PK\x03\x04 not much more")
    with pytest.raises(UserError, match=r"labels\.npz: found a damaged file"):
        label(glide.train, AUDIO, cache)


@pytest.mark.parametrize("speeds", [None, "[0.6, 1.2]"])
def test_a_run_resumes_bit_exact_on_the_same_command(place, speeds):
    extra, whole = (["--data.speeds", speeds], "varied") if speeds else ([], "whole")
    if speeds:
        assert main(call(place, whole, 4, *extra)) == 0
    assert main(call(place, f"{whole}_parts", 2, *extra)) == 0
    assert main(call(place, f"{whole}_parts", 4, *extra)) == 0
    whole, parts = (checkpoint.load(place / run) for run in (whole, f"{whole}_parts"))
    assert whole.model_state.keys() == parts.model_state.keys()
    assert all(torch.equal(value, parts.model_state[name]) for name, value in whole.model_state.items())
    assert all(torch.equal(value, parts.ema_state[name]) for name, value in whole.ema_state.items())


def test_speeds_change_what_is_learnt_and_none_is_the_default(place):
    assert main(call(place, "null", 4, "--data.speeds", "null")) == 0
    assert main(call(place, "other", 4, "--data.speeds", "[0.6, 1.2]")) == 0
    whole, null, other = (checkpoint.load(place / run).model_state for run in ("whole", "null", "other"))
    name = "network.0.weight"
    assert torch.equal(whole[name], null[name])
    assert not torch.equal(whole[name], other[name])


def test_a_run_is_complete(place):
    net = models.load(place / "whole")
    assert isinstance(net, PitchNet)
    assert -12 < float(net.mean.mean()) < -4
    found = net.predict(torch.randn(1, 20, 7))
    assert set(found.voiced.unique().tolist()) <= {0.0, 1.0}
    logged = [json.loads(line) for line in (place / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert {"loss", "pitch/mean_cents"} <= logged[0].keys()
    assert "validation/voicing_error" in logged[-1]


def test_errors_are_measured_printed_and_kept(place, capsys):
    before = json.loads((place / "whole" / "pitch.json").read_text())
    assert before.keys() == {"corpus/dev"}
    state = (place / "whole" / "checkpoint.pt").read_bytes()
    assert main(call(place, "whole", 4, "--evaluate", "--splits", "test", "train")) == 0
    out = capsys.readouterr().out
    assert "corpus/test: F0" in out
    assert "voicing error" in out
    after = json.loads((place / "whole" / "pitch.json").read_text())
    assert after.keys() == {"corpus/dev", "corpus/test", "corpus/train"}
    assert after["corpus/dev"] == before["corpus/dev"]
    assert after["corpus/train"]["clips"] == 2
    assert (place / "whole" / "checkpoint.pt").read_bytes() == state


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--out", "nowhere", "--evaluate"], "nowhere"),
        (["--splits", "dve"], "dve"),
        (["--model.kernel_size", "4"], "pitch.kernel_size: found 4, expected an odd number"),
        (["--train.crop_length", "1000"], "train.crop_length: found 1000, expected a multiple of"),
        (["--data.speeds", "[1.2, 0.6]"], "data.speeds: found [1.2, 0.6], expected null, or two numbers"),
        (["--data.speeds", "[0.6, 1.2]"], "found a run with data.speeds = None, expected [0.6, 1.2]"),
        (["--model.channels", "9"], "found a run with model.channels = 8, expected 9"),
    ],
)
def test_mistakes_are_one_line_and_status_2(place, extra, message, capsys):
    assert main([*call(place, "whole", 4), *extra]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert message in lines[-1]


def test_a_run_of_another_kind_is_not_evaluated(place, tmp_path, capsys):
    checkpoint.save(tmp_path / "checkpoint.pt", kind="teacher", config={}, model_state={})
    assert main(["--out", str(tmp_path), "--evaluate"]) == 2
    assert "found a teacher, expected a pitch network" in capsys.readouterr().err
