"""Evaluation: what is written is what was made, equal seeds give equal files, and mistakes are named."""

import json
import math

import pytest
import torch

import distill.evaluate
import distill.systems
from distill.clips import NamedClip, choose_clips
from distill.evaluate import evaluate, main
from distill.intelligibility import Heard
from distill.metrics import METRICS, measure
from distill.report import RECORDING, training_curves
from distill.results import evaluation
from distill.systems import GRIFFIN_LIM, NOISE, as_system, from_recording, load_systems, parts
from tests.conftest import AUDIO as SMALL
from tests.conftest import random_mel, small_student, small_teacher
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.audio import read_audio, write_audio
from wavenet.config import AudioConfig
from wavenet.data import load_clip, open_corpus
from wavenet.errors import UserError
from wavenet.likelihood import held_out
from wavenet.pitch.contour import Pitch, filled
from wavenet.pitch.resolution import resolved
from wavenet.pitch.tracker import track

AUDIO = AudioConfig(sample_rate=8000, n_fft=256, win_length=256, hop_length=64, n_mels=20, f_max=4000.0)


def buzz(pitch, frames=60):
    """A hum that swells and fades, with a little noise."""
    time = torch.arange(frames * 64) / 8000
    wav = sum(torch.cos(2 * math.pi * k * pitch * time + k * k) for k in range(1, 8))
    wav = wav * torch.sin(math.pi * time / time[-1])
    return 0.02 * wav + 1e-4 * torch.randn(len(wav), generator=torch.Generator().manual_seed(int(pitch)))


CLIPS = [NamedClip("low hum", buzz(90)), NamedClip("mid", buzz(140)), NamedClip("high", buzz(210))]


def half(mel, generator):
    """A system that knows the first clip and halves it: its numbers can be computed by hand."""
    return 0.5 * CLIPS[0].wav[None]


def hiss_any(mel, generator, *speaker):
    return hiss(mel, generator)


def hiss(mel, generator):
    return 0.1 * torch.randn(1, mel.shape[2] * 64, generator=generator)


def test_rows_files_and_numbers(tmp_path):
    found = evaluate(CLIPS[:1], {"half": half}, AUDIO, tmp_path)
    assert list(found["systems"]) == [RECORDING, "half", GRIFFIN_LIM, NOISE]
    assert json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8")) == found
    expected = measure(half(None, None)[0], CLIPS[0].wav, AUDIO)
    row = found["systems"]["half"]["clips"]["low hum"]
    assert list(row) == found["metrics"] == list(expected)
    assert row == {name: None if math.isnan(value) else value for name, value in expected.items()}
    # A gain of 1/2 costs log 2, less where a band lies at the floor of the analysis.
    assert 0.6 < found["systems"]["half"]["mean"]["mel_distance"] <= math.log(2) + 1e-6
    assert found["systems"][RECORDING]["mean"]["mel_distance"] == 0
    written, info = read_audio(tmp_path / "audio" / "half" / "low-hum.wav")
    assert info.sample_rate == 8000
    torch.testing.assert_close(written, 0.5 * CLIPS[0].wav, atol=1 / 32768, rtol=0)
    assert (tmp_path / "audio" / "mel-shaped-noise" / "low-hum.wav").is_file()


def test_interval_is_students(tmp_path):
    found = evaluate(CLIPS, {}, AUDIO, tmp_path)["systems"][GRIFFIN_LIM]
    values = torch.tensor([row["mel_distance"] for row in found["clips"].values()], dtype=torch.float64)
    assert found["mean"]["mel_distance"] == pytest.approx(float(values.mean()))
    expected = 4.302653 * float(values.std()) / math.sqrt(3)  # t of two degrees of freedom, 97.5%
    assert found["ci95"]["mel_distance"] == pytest.approx(expected, rel=1e-5)


def test_undefined_is_null(tmp_path):
    noise = NamedClip("noise", 0.1 * torch.randn(64 * 60, generator=torch.Generator().manual_seed(0)))
    found = evaluate([noise], {"hiss": hiss}, AUDIO, tmp_path)["systems"]["hiss"]
    assert found["mean"]["f0_within_3_percent"] is None
    assert found["mean"]["noise_floor"] is None
    assert found["ci95"]["mel_distance"] is None
    assert found["mean"]["dnsmos_ovrl"] is None  # slow: not measured, but the column exists
    assert "NaN" not in (tmp_path / "metrics.json").read_text(encoding="utf-8")


def test_informed_systems_see_the_recording_and_baselines_can_be_chosen(tmp_path):
    def echo(wav, mel, generator, speaker=None):
        assert mel.shape == (1, 20, wav.shape[1] // 64)
        return wav * (1.0 if speaker is None else 0.5)

    clips = [CLIPS[0], CLIPS[1]._replace(speaker=torch.tensor([3]))]
    systems = evaluate(clips, {}, AUDIO, tmp_path, informed={"echo": echo}, baselines={"hiss": hiss_any})["systems"]
    assert list(systems) == [RECORDING, "echo", "hiss"]
    assert systems["echo"]["clips"]["low hum"] == systems[RECORDING]["clips"]["low hum"]
    assert systems["echo"]["clips"]["mid"]["band_error"] == pytest.approx(6.0206, abs=1e-3)
    with pytest.raises(UserError, match="system: found the name 'hiss' twice"):
        evaluate(clips, {"hiss": hiss_any}, AUDIO, tmp_path, informed={"hiss": echo}, baselines={})


class Deaf:
    """A recogniser that drops the last word of the recording, and hears one word less of anything quieter."""

    def score(self, wav, sample_rate, text):
        spoken = text.lower().split()
        missed = 1 if float(wav.abs().max()) > 0.05 else 2
        return Heard(" ".join(spoken[:-missed]), missed, len(spoken)) if spoken else None


def test_word_errors_are_pooled_and_compared_with_the_recording(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(distill.evaluate, "Recogniser", Deaf)
    monkeypatch.setattr(
        distill.evaluate, "choose", lambda which, audio, texts: (["mel_distance", "wer", "wer_gap"], [])
    )
    wav = buzz(100)
    clips = [NamedClip("a", wav, None, "One two three four five six"), NamedClip("b", wav, None, "One two")]
    clips.append(NamedClip("c", wav))
    found = evaluate(clips, {"half": lambda mel, g: 0.3 * wav[None]}, AUDIO, tmp_path, baselines={}, metrics="all")
    recording, half = (found["systems"][name] for name in (RECORDING, "half"))
    assert recording["mean"]["wer"] == 2 / 8
    assert half["mean"]["wer"] == 4 / 8
    assert half["mean"]["wer_gap"] == 2 / 8  # pooled: the mean of the clips' gaps is 1 / 3
    assert half["clips"]["a"]["wer_gap"] == pytest.approx(1 / 6)
    assert half["clips"]["c"]["wer"] is None
    assert half["heard"]["b"] == {"text": "", "errors": 2, "words": 2}
    assert "mcd" not in half["clips"]["a"]
    assert found["notes"] == ["WER leaves out 1 clips without a text, or with numerals: c"]
    assert "evaluate: WER leaves out 1 clips" in capsys.readouterr().err


def test_seeds_belong_to_clips(tmp_path):
    """A clip sounds the same whichever clips are beside it, all systems get the same noise, other seeds differ."""

    def sound(folder, system, clip):
        return (tmp_path / folder / "audio" / system / f"{clip}.wav").read_bytes()

    evaluate(CLIPS, {"a": hiss, "b": hiss}, AUDIO, tmp_path / "all", seed=1)
    evaluate(CLIPS[2:], {"a": hiss}, AUDIO, tmp_path / "one", seed=1)
    evaluate(CLIPS[2:], {"a": hiss}, AUDIO, tmp_path / "other", seed=2)
    assert sound("all", "a", "high") == sound("all", "b", "high") == sound("one", "a", "high")
    assert sound("all", "a", "high") != sound("all", "a", "mid")
    assert sound("all", "a", "high") != sound("other", "a", "high")


def test_clipping_is_said(tmp_path, capsys):
    evaluate(CLIPS[:1], {"loud": lambda mel, g: 1.5 * torch.ones(1, mel.shape[2] * 64)}, AUDIO, tmp_path)
    assert "loud/low-hum.wav: 3840 of 3840 samples beyond full scale were clipped" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("clips", "systems", "message"),
    [
        ([], {}, "clips: found none"),
        ([CLIPS[0], CLIPS[0]], {}, "clip: found the name 'low hum' twice"),
        (CLIPS, {RECORDING: half}, "system: found the name 'recording' twice"),
        ([NamedClip("a b", CLIPS[0].wav), NamedClip("a-b", CLIPS[0].wav)], {}, "clip: found the name 'a-b' twice"),
        (CLIPS[:1], {"short": lambda mel, g: torch.zeros(1, 640)}, "found 640 samples"),
        (CLIPS[:1], {"bad": lambda mel, g: torch.full((1, 3840), math.nan)}, "bad/low-hum.wav: found NaN"),
    ],
)
def test_mistakes_are_named(tmp_path, clips, systems, message):
    with pytest.raises(UserError, match=message):
        evaluate(clips, systems, AUDIO, tmp_path)


def test_models_become_systems():
    mel = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0)).double()
    for model in (small_teacher("mol"), small_student()):
        found = as_system(model, temperature=0.7)(mel, torch.Generator().manual_seed(3))
        wanted = model.sample(mel, temperature=0.7, generator=torch.Generator().manual_seed(3))
        assert torch.equal(found, wanted)
    many = small_student(speakers=3)
    sounds = [as_system(many)(mel, torch.Generator().manual_seed(3), torch.tensor([i])) for i in (0, 2)]
    assert not torch.allclose(*sounds)


class Tone(torch.nn.Module):
    """A stand-in for a trained model: a configuration, and sounds of the right length."""

    speakers = 0

    def __init__(self, audio):
        super().__init__()
        self.config = type("Config", (), {"audio": audio, "speakers": self.speakers})()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def sample(self, mel, temperature, generator, speaker=None):
        return temperature * hiss(mel, generator)


@pytest.fixture
def shelf(monkeypatch):
    """Models by path, in place of checkpoints on disk."""
    other = AudioConfig(sample_rate=16000, n_fft=256, win_length=256, hop_length=64, n_mels=20)
    models = {"runs/a": AUDIO, "runs/b": AUDIO, "old/a": AUDIO, "runs/c": other}
    monkeypatch.setattr(distill.systems.models, "load", lambda path, device: Tone(models[str(path)]))


def test_systems_are_named_by_their_folders(shelf):
    assert list(load_systems(["runs/a", "runs/b"], "cpu")) == ["a", "b"]
    assert list(load_systems(["runs/a", "old/a"], "cpu")) == ["runs-a", "old-a"]
    with pytest.raises(UserError, match="runs/a: found a second system called"):
        load_systems(["runs/a", "runs/a"], "cpu")
    with pytest.raises(UserError, match=r"runs/c: .*expected the audio settings of runs/a"):
        load_systems(["runs/a", "runs/c"], "cpu")


def test_a_folder_of_recordings_is_held_out(tmp_path):
    for name in ("b", "a", "c"):
        write_audio(tmp_path / f"{name}.wav", buzz(100), 8000)
    (tmp_path / "notes.txt").write_text("x", encoding="utf-8")
    clips, problems = choose_clips(str(tmp_path), None, 2, AUDIO)
    assert [clip.id for clip in clips] == ["a", "b"]
    assert problems == []
    assert len(load_clip(clips[0], AUDIO)) == 3840


def test_dev_stands_in_for_test(tmp_path):
    (tmp_path / "wavs").mkdir()
    for name in "abcd":
        write_audio(tmp_path / "wavs" / f"{name}.wav", buzz(100), 8000)
    (tmp_path / "metadata.csv").write_text("\n".join(f"{n}|x|x" for n in "abcd"), encoding="utf-8")
    (tmp_path / "train.txt").write_text("a\nb\n", encoding="utf-8")
    (tmp_path / "dev.txt").write_text("c\nd\n", encoding="utf-8")
    assert {clip.id for clip in choose_clips(str(tmp_path), None, 9, AUDIO)[0]} == {"c", "d"}
    with pytest.raises(UserError, match="found no test clips"):
        choose_clips(str(tmp_path), "test", 9, AUDIO)


def test_command(shelf, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = ["runs/a", "runs/b", "--data", "bundled", "--split", "dev", "--clips", "1", "--out", str(tmp_path)]
    arguments += ["--metrics", "fast"]
    assert main(arguments) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["clips"] == ["kathleen_b0429"]
    assert set(metrics["systems"]) == {RECORDING, "a", "b", GRIFFIN_LIM, NOISE}
    assert set(metrics["systems"]["a"]["mean"]) == set(METRICS)
    assert set(metrics["systems"]["a"]["clips"]["kathleen_b0429"]) == set(metrics["metrics"])
    assert (tmp_path / "report.html").is_file()
    assert "mel_distance" in capsys.readouterr().out
    assert main([*arguments, "--seed", "-1"]) == 2
    assert main(["runs/a", "runs/c", *arguments[2:], "--overwrite"]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first == "distill-evaluate: --seed: found -1, expected 0 or more"
    assert second.startswith("distill-evaluate: runs/c: found AudioConfig(")


def test_checkpoints_from_disk(tmp_path):
    """A teacher and a student of three speakers, saved and evaluated by path; the likelihood is the teacher's own."""
    pytest.importorskip("matplotlib")
    names = ["data", "x", "y"]  # clips of this layout are of one speaker, called as the folder
    teacher, student = small_teacher("gaussian", speakers=3, names=names), small_student(speakers=3, names=names)
    teacher, student = teacher.float(), student.float()
    for kind, model in (("teacher", teacher), ("student", student)):
        state = {"ema_state": None, "optimizer_state": None, "step": 1, "extra": {}}
        (tmp_path / kind).mkdir()
        checkpoint.save(
            tmp_path / kind / checkpoint.FILE_NAME,
            kind=kind,
            config=to_dict(model.config),
            model_state=model.state_dict(),
            **state,
        )
    generator = torch.Generator().manual_seed(0)
    for place, name in enumerate("abc"):
        path = tmp_path / "data" / "wavs" / f"{name}_1.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        write_audio(path, 0.1 * torch.randn(1600 + 16 * place, generator=generator), 8000)
    (tmp_path / "data" / "metadata.csv").write_text("a_1|One.|One.\nb_1|Two.|Two.\nc_1|Three.|Three.\n")
    for split, name in (("train", "a"), ("dev", "b"), ("test", "c")):
        (tmp_path / "data" / f"{split}.txt").write_text(f"wavs/{name}_1.wav\n")
    out = tmp_path / "out"
    paths = [str(tmp_path / "teacher"), str(tmp_path / "student" / checkpoint.FILE_NAME)]
    assert main([*paths, "--data", str(tmp_path / "data"), "--out", str(out), "--metrics", "fast"]) == 0
    systems = json.loads((out / "metrics.json").read_text(encoding="utf-8"))["systems"]
    assert list(systems) == [RECORDING, "teacher", "student", GRIFFIN_LIM, NOISE]
    corpus = open_corpus(str(tmp_path / "data"), teacher.config.audio)
    wanted = held_out(teacher, corpus.test)
    assert systems["teacher"]["likelihood"]["nll"] == pytest.approx(wanted.nll, rel=1e-5)
    assert systems["teacher"]["likelihood"]["bits"] == pytest.approx(wanted.nll / math.log(2), rel=1e-5)
    assert "likelihood" not in systems["student"]
    assert "Three." in (out / "report.html").read_text(encoding="utf-8")
    bare = [
        "--data",
        str(tmp_path / "data"),
        "--out",
        str(tmp_path / "bare"),
        "--metrics",
        "fast",
        "--systems",
        "models",
    ]
    assert main([*paths, *bare]) == 0
    alone = json.loads((tmp_path / "bare" / "metrics.json").read_text(encoding="utf-8"))["systems"]
    assert list(alone) == [RECORDING, "teacher", "student"]
    assert alone["student"]["clips"] == systems["student"]["clips"]
    assert "speakers" not in json.loads((out / "metrics.json").read_text(encoding="utf-8"))


def test_every_system_but_the_recording_is_projected(tmp_path):
    told = {"told": lambda wav, mel, generator: 0.3 * wav}
    plain, projected = (
        evaluate(CLIPS[:1], {"hiss": hiss}, AUDIO, tmp_path / str(steps), informed=told, projection=steps)
        for steps in (0, 8)
    )
    assert (plain["projection"], projected["projection"]) == (0, 8)
    assert projected["systems"][RECORDING] == plain["systems"][RECORDING]
    for name in ("hiss", "told", GRIFFIN_LIM, NOISE):
        before, after = (found["systems"][name]["mean"]["mel_distance"] for found in (plain, projected))
        assert after < 0.8 * before
    assert "brought to its mel in 8 steps" in evaluation(projected)
    assert "brought" not in evaluation(plain)


def test_bad_recordings_are_named_and_the_rest_is_evaluated(shelf, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    folder = tmp_path / "mixed"
    folder.mkdir()
    write_audio(folder / "good.wav", buzz(100), 8000)
    write_audio(folder / "short.wav", buzz(100)[:64], 8000)
    (folder / "broken.wav").write_bytes(b"RIFF")
    arguments = ["runs/a", "--data", str(folder), "--metrics", "fast", "--out", str(tmp_path / "out")]
    assert main(arguments) == 1
    error = capsys.readouterr().err
    assert f"distill-evaluate: {folder / 'broken.wav'}: found" in error
    assert f"distill-evaluate: {folder / 'short.wav'}: found 64 samples, expected at least" in error
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["clips"] == ["good"]
    (folder / "good.wav").unlink()
    assert main([*arguments[:-1], str(tmp_path / "none")]) == 2
    assert "found no usable recording among 2" in capsys.readouterr().err


def test_a_log_that_a_kill_cut_short_is_read(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 10, "nll": 3.0}\n{"step": 20, "nl')
    assert training_curves({"run": tmp_path}) != {}


def test_another_evaluation_is_kept_unless_told_to_replace_it(shelf, tmp_path, capsys):
    (tmp_path / "metrics.json").write_text("dear")
    arguments = ["runs/a", "--data", "bundled", "--out", str(tmp_path)]
    assert main(arguments) == 2
    assert "found another evaluation, expected a new folder (--overwrite replaces it)" in capsys.readouterr().err
    assert (tmp_path / "metrics.json").read_text() == "dear"


def test_a_source_filter_student_is_shown_with_its_parts(monkeypatch):
    student, mel = small_student(prior="source_filter").float(), random_mel(1, 8).float() - 6
    wav = 0.1 * torch.randn(1, 8 * SMALL.hop_length, generator=torch.Generator().manual_seed(0))
    rising = Pitch(torch.linspace(400.0, 700.0, 8)[None], torch.ones(1, 8))
    monkeypatch.setattr(student.pitch, "predict", lambda mel: rising)
    shown = parts("s", student)
    assert list(shown) == ["s, flow 0 untrained", "s, flow 0 with one F0"]

    def noise() -> torch.Generator:
        return torch.Generator().manual_seed(1)

    alone = student.sample(mel, generator=noise(), signal_model=True)
    assert torch.equal(shown["s, flow 0 untrained"](mel, noise()), alone)
    assert not torch.equal(shown["s, flow 0 with one F0"](mel, noise()), alone)
    middle = Pitch(torch.full((1, 8), float(rising.f0.median())), rising.voiced)
    level = student.sample(mel, generator=noise(), pitch=middle, signal_model=True)
    assert torch.equal(shown["s, flow 0 with one F0"](mel, noise()), level)
    (informed,) = from_recording("s", student).values()
    found = resolved(filled(track(wav[0], SMALL.sample_rate, SMALL.hop_length)), mel, SMALL)
    assert torch.equal(informed(wav, mel, noise()), student.sample(mel, generator=noise(), pitch=found))
    assert parts("s", small_student()) == from_recording("s", small_student()) == {}
