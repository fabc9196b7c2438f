"""Phone labels and the classifier: alignments against the sound itself, frames, caching, learning, what frames see."""

import builtins
import itertools
import json
import shutil
import sys

import numpy as np
import pytest
import torch

import distill.phones.train
from distill import models
from distill.phones.alignment import (
    PHONES,
    RATE,
    Aligner,
    Segment,
    Unalignable,
    align_corpus,
    frame_phones,
    plural_sound,
    words,
)
from distill.phones.classifier import PhoneClassifier, PhoneConfig
from distill.phones.data import PhoneCrops
from distill.phones.train import by_phone, phone_loss, summary
from tests.conftest import AUDIO, randomise
from wavenet.audio import read_audio
from wavenet.config import AudioConfig, TrainConfig
from wavenet.data import CropDataset, clip_length, corpus_folder, load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.statistics import corpus_statistics
from wavenet.trainer import Task, Validation, train

DEMO = AudioConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=40, f_max=4000.0)
CONFIG = PhoneConfig(AUDIO, [3, 5], [4, 4], [8, 6], context_layers=2, gain=3.0)


@pytest.fixture(scope="module")
def aligner():
    pytest.importorskip("pocketsphinx")
    return Aligner()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Four short clips with their texts; one text has a word that no dictionary has, one recording has no text."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "wavs").mkdir()
    clips = sorted((corpus_folder("bundled") / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:5]
    rows = (corpus_folder("bundled") / "metadata.csv").read_text(encoding="utf-8").splitlines()
    texts = {row.split("|")[0]: row.split("|")[-1] for row in rows}
    texts[clips[3].stem] += " Brzzkt"
    texts[clips[4].stem] = ""
    for clip in clips:
        shutil.copy(clip, folder / "wavs")
    for split, part in (("train", [clips[0], *clips[3:]]), ("dev", clips[1:2]), ("test", clips[2:3])):
        (folder / f"{split}.txt").write_text("".join(f"{clip.stem}\n" for clip in part))
    (folder / "metadata.csv").write_text("".join(f"{clip.stem}|{texts[clip.stem]}\n" for clip in clips))
    return folder


def phones(seed: int = 0) -> PhoneClassifier:
    torch.manual_seed(seed)
    model = randomise(PhoneClassifier(CONFIG).double(), seed)
    assert isinstance(model, PhoneClassifier)
    return model.eval()


def test_words_of_a_text():
    assert words("“Don\u2019t,” said naïve Ann; 'twas well-known!") == [
        "don't",
        "said",
        "naive",
        "ann",
        "twas",
        "well",
        "known",
    ]
    assert words(" -- ... ' ") == []
    assert [plural_sound(last) for last in ("S", "T", "N", "IY")] == ["IH Z", "S", "Z", "Z"]


def test_alignment_is_what_can_be_heard(aligner):
    """Vowels are loud, silence is not, and S hisses: measured on the sound between the ends of each phone."""
    clips = open_corpus("bundled", DEMO).train[:6]
    level: dict[str, list[float]] = {}
    high: dict[str, list[float]] = {}
    for clip in clips:
        wav, _ = read_audio(clip.path, RATE)
        for segment in aligner.align(wav, clip.text):
            sound = wav[segment.start * 160 : (segment.start + segment.frames) * 160].double()
            power = torch.fft.rfft(sound).abs().square()
            level.setdefault(segment.phone, []).append(float(sound.square().mean().log10()) * 10)
            high.setdefault(segment.phone, []).append(float(power[len(power) // 2 :].sum() / power.sum()))
    assert np.median(level["AE"]) > np.median(level["SIL"]) + 20
    assert np.median(high["S"]) > 5 * np.median(high["AE"])
    assert np.median(high["S"]) > 0.3 > 0.05 > np.median(high["IY"])


def test_alignment_covers_the_clip_in_the_order_of_the_text(aligner):
    clip = open_corpus("bundled", DEMO).train[0]
    wav, _ = read_audio(clip.path, RATE)
    segments = aligner.align(wav, clip.text)
    ends = [segment.start + segment.frames for segment in segments]
    assert [segment.start for segment in segments] == [0, *ends[:-1]]
    assert abs(ends[-1] - len(wav) / 160) <= 2
    spoken = " ".join(segment.phone for segment in segments if segment.phone != "SIL")
    assert spoken.startswith("IH N S T EH D HH IY JH OY N D HH ER")
    assert segments == Aligner().align(wav, clip.text), "an aligner that has worked before finds the same"


def test_silence_put_around_a_tight_clip_is_cut_again(aligner):
    """This one has no path without: its phones still cover it, no more and no less."""
    clip = next(clip for clip in open_corpus("bundled", DEMO).train if clip.id == "kathleen_b0504")
    wav, _ = read_audio(clip.path, RATE)
    segments = aligner.align(wav, clip.text)
    assert segments[0].start == 0
    assert all(a.start + a.frames == b.start for a, b in itertools.pairwise(segments))
    assert 0 <= len(wav) // 160 - (segments[-1].start + segments[-1].frames) <= 2


def test_words_that_are_not_in_the_dictionary(aligner):
    wav, _ = read_audio(open_corpus("bundled", DEMO).train[0].path, RATE)
    with pytest.raises(Unalignable, match="'brzzkt' is not in the dictionary"):
        aligner.align(wav, "Instead Brzzkt")
    with pytest.raises(Unalignable, match="no text"):
        aligner.align(wav, "...")
    with pytest.raises(Unalignable, match=r"do not fit"):
        aligner.align(wav[:3200], "instead he joined her and they ate like two hungry children")
    text = "Instead, he joined kerfoot's; and they ate like two hungry children."
    assert "K ER F UH T S" in " ".join(segment.phone for segment in aligner.align(wav, text))


def test_frames_take_the_phone_at_their_middle():
    """Written out: the frame's middle in ms against the middles of pocketsphinx's windows, 10 k + 12.8 ms."""
    segments = [Segment("SIL", 0, 3), Segment("AA", 3, 1), Segment("S", 4, 9)]
    audio = AudioConfig()
    found = frame_phones(segments, 14, audio)
    names = ["SIL"] * 3 + ["AA"] + ["S"] * 9
    for frame in range(14):
        middle = 1000 * (frame + 0.5) * audio.hop_length / audio.sample_rate
        nearest = min(range(13), key=lambda k: abs(10 * k + 12.8125 - middle))
        assert PHONES[found[frame]] == names[nearest], frame


def test_alignments_are_kept_and_go_on_where_they_stopped(corpus, tmp_path, monkeypatch, aligner):
    opened = open_corpus(str(corpus), DEMO)
    found, notes = align_corpus(opened, tmp_path)
    assert len(found) == 3
    assert "3 of 5 clips" in notes[0]
    assert "'brzzkt'" in notes[1]
    assert ": no text" in notes[1]
    (path,) = tmp_path.glob("*.jsonl")
    assert path.stem == opened.digest
    whole = path.read_text()
    lines = whole.splitlines(keepends=True)
    made = []
    monkeypatch.setattr(Aligner, "align", lambda self, wav, text: made.append(text) or [Segment("AA", 0, 9)])
    assert align_corpus(opened, tmp_path)[0] == found
    assert made == []
    path.write_text("".join(lines[:-1]) + lines[-1][:20])  # killed while it wrote
    again, _ = align_corpus(opened, tmp_path)
    assert len(made) == 1
    last = json.loads(lines[-1])["id"]
    assert {name: again[name] for name in found if name != last} == {n: found[n] for n in found if n != last}
    assert align_corpus(opened, tmp_path)[0] == again
    changed = open_corpus(str(corpus), DEMO)
    changed.dev = [type(clip)(**(vars(clip) | {"text": "other words"})) for clip in changed.dev]
    align_corpus(changed, tmp_path)
    assert made[1:] == ["other words"]


def test_mistakes_are_one_line(corpus, tmp_path, monkeypatch, capsys):
    opened = open_corpus(str(corpus), DEMO)
    for split in (opened.train, opened.dev, opened.test):
        split[:] = [type(clip)(**(vars(clip) | {"text": ""})) for clip in split]
    with pytest.raises(UserError, match="found no texts, expected the words of every recording"):
        align_corpus(opened, tmp_path)
    for split in (opened.train, opened.dev, opened.test):
        split[:] = [type(clip)(**(vars(clip) | {"text": "Zwölf Boxkämpfer"})) for clip in split]
    pytest.importorskip("pocketsphinx")
    with pytest.raises(UserError, match=r"'zwolf' is not in the dictionary.*expected English"):
        align_corpus(opened, tmp_path)
    really = builtins.__import__

    def without(name, *rest, **more):
        if name == "pocketsphinx":
            raise ImportError(name)
        return really(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "pocketsphinx", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    call = ["--data.root", str(corpus), "--out", str(tmp_path / "run"), "--alignments", str(tmp_path / "none")]
    assert distill.phones.train.main(call) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("distill-train-phones: phone labels: found no pocketsphinx")
    assert "[eval]" in error


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"strides": [4, 4, 3, 4]}, "strides: found .* expected a product of audio.hop_length = 256"),
        ({"kernel_sizes": [63, 8, 8, 8]}, "kernel_sizes: found .* by an even number more"),
        ({"kernel_sizes": [2, 8, 8, 8]}, "kernel_sizes"),
        ({"channels": [8, 8]}, "channels: found .* expected 4 entries"),
        ({"dropout": 1.0}, "dropout: found 1.0"),
        ({"snr_range": (30.0, 20.0)}, "snr_range"),
    ],
)
def test_senseless_settings_are_named(values, message):
    with pytest.raises(UserError, match=message):
        PhoneConfig(**values)


def test_frames_see_what_the_receptive_field_says_around_their_own_samples():
    model = phones()
    hop, frames = AUDIO.hop_length, 9
    wav = torch.randn(1, frames * hop, generator=torch.Generator().manual_seed(0)).double().requires_grad_()
    (gradient,) = torch.autograd.grad(model(wav).logits[0, :, 4].square().sum(), wav)
    seen = gradient[0].nonzero().flatten()
    assert int(seen[-1] - seen[0]) + 1 == model.receptive_field
    before, after = 4 * hop - 1 - int(seen[0]), int(seen[-1]) - (5 * hop - 1)
    assert before == after, "as far to the left, the sample of pre-emphasis aside, as to the right"
    assert model(wav).logits.shape == (1, len(PHONES), frames)
    assert torch.equal(model(wav[:, :-1]).logits, model(wav[:, :-hop]).logits), "a part of a frame is left out"


def test_features_are_those_that_the_logits_come_from():
    """Frozen features lose information nowhere: logits are a function of them, layer by layer at their own rates."""
    model = phones()
    wav = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).double()
    logits, found = model(wav)
    assert [feature.shape[2] for feature in found] == [16, 4, 4, 4]
    torch.testing.assert_close(model.output(found[1] + found[2] + found[3]), logits)


def test_level_and_noise_are_varied_and_labels_come_out_right():
    """The loss repeats with its generator, differs without; at no jitter and no noise it is the plain cross entropy."""
    model, batch = phones(), _batch()
    loss = [float(phone_loss(model, batch, torch.Generator().manual_seed(seed))["loss"].detach()) for seed in (0, 0, 1)]
    assert loss[0] == loss[1] != loss[2]
    still = PhoneClassifier(PhoneConfig(**(vars(CONFIG) | {"level_jitter": 0.0, "snr_range": (300.0, 300.0)})))
    still.double().load_state_dict(model.state_dict())
    log_prob = model(batch.wav).logits.log_softmax(1)
    expected = -sum(log_prob[b, batch.phones[b, f], f] for b in range(2) for f in range(4)) / 8
    found = phone_loss(still.eval(), batch, torch.Generator().manual_seed(0))
    assert float(found["loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    right = (log_prob.argmax(1) == batch.phones).double().mean()
    assert float(found["phones/accuracy"]) == pytest.approx(float(right))


def _batch():
    generator = torch.Generator().manual_seed(3)
    wav = 0.2 * torch.randn(2, 64, generator=generator).double()
    return distill.phones.data.PhoneBatch(wav, torch.randint(len(PHONES), (2, 4), generator=generator))


def test_crops_carry_the_labels_of_their_own_frames():
    clips = open_corpus("bundled", DEMO).train[:3]
    # One phone a frame, so that a label says which frame of which clip it is.
    alignments = {clip.id: [Segment(PHONES[k % len(PHONES)], k, 1) for k in range(900)] for clip in clips}
    crops = CropDataset(clips, DEMO, 4096, 3, seed=0)
    labelled = PhoneCrops(crops, alignments)
    batch = labelled[5]
    for place, (clip, start) in enumerate(crops.choose(5)):
        wav = load_clip(crops.clips[clip], DEMO)
        torch.testing.assert_close(batch.wav[place], wav[start : start + 4096])
        whole = frame_phones(alignments[crops.clips[clip].id], clip_length(crops.clips[clip], DEMO) // 64, DEMO)
        assert torch.equal(batch.phones[place], whole[start // 64 : start // 64 + 64])


def test_confusions_are_counted():
    counts = torch.zeros(len(PHONES), len(PHONES), dtype=torch.int64)
    counts[1, 1], counts[1, 2], counts[2, 2], counts[2, 1], counts[2, 3] = 6, 2, 5, 1, 2
    assert summary(counts) == {"frames": 16.0, "accuracy": 11 / 16, "majority_rate": 0.5}
    assert by_phone(counts) == {
        "AA": {"frames": 8, "recall": 0.75, "taken_for": {"AE": 0.25}},
        "AE": {"frames": 8, "recall": 0.625, "taken_for": {"AH": 0.25, "AA": 0.125}},
    }


def test_it_learns_what_can_be_heard(tmp_path):
    """Two sources, a low hum and a hiss, taking turns: told apart on fresh signals after 60 steps."""

    class Turns(torch.utils.data.Dataset):
        def __getitem__(self, step):
            generator = torch.Generator().manual_seed(step)
            phones = torch.randint(2, (4, 8), generator=generator).repeat_interleave(4, 1)
            time = torch.arange(32 * AUDIO.hop_length)
            hum, hiss = 0.3 * torch.sin(0.2 * time), 0.1 * torch.randn(4, len(time), generator=generator)
            wav = torch.where(phones.repeat_interleave(AUDIO.hop_length, 1) == 0, hum, hiss)
            return distill.phones.data.PhoneBatch(wav, phones)

    torch.manual_seed(0)
    model = PhoneClassifier(CONFIG)
    validate = lambda average: Validation({}, {}, 8000)  # noqa: E731
    config = TrainConfig(steps=60, batch_size=4, crop_length=512, lr=1e-2, warmup_steps=5, ema_decay=0.0)
    assert train(Task("phones", model, {}, phone_loss, validate), config, Turns(), 0, tmp_path) == 0
    batch = Turns()[10_000]
    with torch.no_grad():
        assert float((model.eval()(batch.wav).logits.argmax(1) == batch.phones).float().mean()) > 0.9


def test_command_trains_reports_and_resumes(corpus, tmp_path, capsys, aligner):
    run = tmp_path / "run"
    smoke = corpus_folder("bundled").parent.parent / "configs" / "smoke" / "demo_phones.yaml"
    call = ["--config", str(smoke), "--data.root", str(corpus), "--out", str(run)]
    call += ["--alignments", str(tmp_path / "alignments"), "--train.steps", "4"]
    assert distill.phones.train.main(call) == 0
    printed = capsys.readouterr().out
    report = json.loads((run / "phones.json").read_text())
    for split in ("dev", "test"):
        assert f"{split}: {report[split]['accuracy']:.1%} of {report[split]['frames']:.0f} frames right" in printed
        counts = torch.tensor(report[split]["confusion"])
        assert int(counts.sum()) == report[split]["frames"] > 100
        assert report[split]["majority_rate"] == int(counts.sum(1).max()) / int(counts.sum())
    model = models.load(run)
    assert isinstance(model, PhoneClassifier)
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.gain == pytest.approx(corpus_statistics(open_corpus(str(corpus), DEMO).train, DEMO, 0.9)[0], rel=1e-5)
    assert distill.phones.train.main([*call[:-1], "6"]) == 0
    assert json.loads((run / "phones.json").read_text())["step"] == 6
    assert distill.phones.train.main([*call, "--model.dropout", "0.1"]) == 2


@pytest.mark.slow
def test_demo_recipe_hears_phones(tmp_path, aligner):
    """The whole demo recipe: on unseen clips it is right three times as often as saying the commonest phone."""
    recipe = corpus_folder("bundled").parent.parent / "configs" / "demo_phones.yaml"
    call = ["--config", str(recipe), "--out", str(tmp_path / "run"), "--alignments", str(tmp_path / "alignments")]
    assert distill.phones.train.main(call) == 0
    report = json.loads((tmp_path / "run" / "phones.json").read_text())
    right, commonest = (
        sum(report[s][k] * report[s]["frames"] for s in ("dev", "test")) for k in ("accuracy", "majority_rate")
    )
    assert right > 3 * commonest
