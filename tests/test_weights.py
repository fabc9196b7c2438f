"""Shipped weights: a file is whole and true or refused in one line; a path, a file and a name load the same model."""

import dataclasses
import json
import pickle
import re
import shutil
import sys
from importlib import resources

import numpy as np
import pytest
import safetensors.torch
import soundfile
import torch

import wavenet
from distill import models
from distill.projection import STEPS
from distill.synthesize import main as synthesize
from distill.systems import load_systems
from tests.conftest import AUDIO, random_mel, random_wav, small_student, small_teacher
from wavenet import checkpoint, weights
from wavenet.arguments import to_dict
from wavenet.errors import UserError


def card_of(model, kind, name="voice"):
    return weights.Card(
        name=name,
        kind=kind,
        config=to_dict(model.config),
        features=weights.features(model.config.audio),
        corpus={"name": "toy", "licence": "CC0-1.0", "hours": 0.5, "splits": {"train": 3, "dev": 1, "test": 1}},
        licence="CC0-1.0",
        steps=7,
        metrics={},
        recipe={},
        commands=["distill-train"],
        teacher=None,
        project="0",
        digest=weights.digest(model.state_dict()),
    )


@pytest.fixture
def student():
    return small_student(prior="source_filter").float().requires_grad_(False)


@pytest.fixture
def work(tmp_path, monkeypatch, student):
    """An empty folder to work in, with one file of weights and a mel, and shipped weights of one name: `voice`."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "package").mkdir()
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "package")
    weights.write(tmp_path / "package" / "voice.safetensors", card_of(student, "student"), student.state_dict())
    shutil.copy("package/voice.safetensors", "mine.safetensors")
    np.save("mel.npy", random_mel(1, 3)[0].numpy() - 8)
    return tmp_path


def sampled(model):
    return model.sample(random_mel().float() - 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("named", ["mine.safetensors", "voice"])
def test_a_file_and_a_name_give_the_model_bit_for_bit(work, student, named):
    loaded = models.load(named)
    assert not loaded.training
    assert loaded.config == student.config
    assert torch.equal(sampled(loaded), sampled(student))
    assert checkpoint.load(named).step == 7


def test_commands_that_take_several_models_know_the_names_too(work):
    assert list(load_systems(["voice", "mine.safetensors"], "cpu")) == ["voice", "mine"]


def test_hyphens_of_a_name_count_as_underscores(work, student):
    shutil.copy("mine.safetensors", "package/my_voice.safetensors")
    for name in ("my-voice", "my_voice"):
        assert torch.equal(sampled(models.load(name)), sampled(student))
        assert list(load_systems([name, "mine.safetensors"], "cpu")) == ["my_voice", "mine"]
    (work / "my-voice").mkdir()
    with pytest.raises(UserError, match=r"my-voice: found a folder .*hides the shipped weights"):
        models.load("my-voice")


def test_a_teacher_travels_too(work):
    model = small_teacher("gaussian", speakers=2).float().requires_grad_(False)
    weights.write(work / "t.safetensors", card_of(model, "teacher"), model.state_dict())
    wav, mel, speaker = random_wav().float(), random_mel().float(), torch.tensor([0, 1])
    loaded = models.load("t.safetensors")
    assert torch.equal(loaded(wav, mel, speaker).log_prob(wav), model(wav, mel, speaker).log_prob(wav))


def test_what_exists_wins_over_a_name(work, student):
    other = small_student().float()
    (work / "voice").mkdir()
    with pytest.raises(UserError, match=r"voice: found a folder without checkpoint\.pt \(it hides the shipped weights"):
        models.load("voice")
    checkpoint.save(
        work / "voice" / "checkpoint.pt", kind="student", config=to_dict(other.config), model_state=other.state_dict()
    )
    assert models.load("voice").prior is None
    assert torch.equal(sampled(models.load("package/voice.safetensors")), sampled(student))


def test_equal_weights_give_equal_bytes(work, student):
    turned = dict(reversed(list(student.state_dict().items())))
    weights.write(work / "again.safetensors", card_of(student, "student"), turned)
    assert (work / "again.safetensors").read_bytes() == (work / "package" / "voice.safetensors").read_bytes()


def bad_files(work, model):
    """Every kind of bad file, by name, and words of its complaint."""
    whole, state = (work / "mine.safetensors").read_bytes(), model.state_dict()
    card = card_of(model, "student")
    config, first = card.config, next(name for name in state if name.endswith("weight"))

    def stored(name, card=card, state=state):
        weights.write(work / f"{name}.safetensors", dataclasses.replace(card, digest=weights.digest(state)), state)

    def headed(name, text):
        (work / f"{name}.safetensors").write_bytes(safetensors.torch.save(dict(state), text))

    for place, size in enumerate((0, 5, 300, len(whole) // 2, len(whole) - 1)):
        (work / f"cut{place}.safetensors").write_bytes(whole[:size])
    (work / "longer.safetensors").write_bytes(whole + b"more")
    (work / "pickled.safetensors").write_bytes(pickle.dumps(dict(state)))
    headed("foreign", {"format": "pt"})
    headed("bare", None)
    headed("garbled", {weights.KEY: "{not json"})
    headed("listed", {weights.KEY: "[]"})
    headed("newer", {weights.KEY: json.dumps(dataclasses.asdict(card) | {"version": 2})})
    headed("brief", {weights.KEY: json.dumps({"version": 1, "name": "voice"})})
    headed("mistyped", {weights.KEY: json.dumps(dataclasses.asdict(card) | {"version": 1, "steps": "many"})})
    flipped = bytearray(whole)
    flipped[-2] ^= 1
    (work / "flipped.safetensors").write_bytes(flipped)
    stored("kind", dataclasses.replace(card, kind="vocoder"))
    stored("missing", state={name: value for name, value in state.items() if name != first})
    stored("extra", state=dict(state) | {"more.weight": torch.zeros(2)})
    stored("shape", state=dict(state) | {first: state[first][:1]})
    stored("key", dataclasses.replace(card, config=config | {"depth": 3}))
    stored("silent", dataclasses.replace(card, config={name: config[name] for name in config if name != "audio"}))
    stored("flows", dataclasses.replace(card, config=config | {"flows": 3}))
    stored("upsample", dataclasses.replace(card, config=config | {"upsample": 3}))
    stored("odd", dataclasses.replace(card, config=config | {"audio": 3}))
    stored("hop", dataclasses.replace(card, config=config | {"audio": config["audio"] | {"hop_length": 8}}))

    def unchecked(name, state=state, **changes):
        """As another program would write it, with a digest that is right."""
        stated = dataclasses.asdict(card) | {"version": 1, "digest": weights.digest(state)} | changes
        headed_state = {key: value.contiguous() for key, value in state.items()}
        (work / f"{name}.safetensors").write_bytes(
            safetensors.torch.save(headed_state, {weights.KEY: json.dumps(stated)})
        )

    types = (torch.bfloat16, torch.float16, torch.int8, torch.float8_e5m2)
    for place, dtype in enumerate(types):
        unchecked(f"dtype{place}", dict(state) | {first: state[first].to(dtype)})
    unchecked("whole", dict(state) | {first: state[first].long()})
    for name, value in (("nan", torch.nan), ("infinite", -torch.inf)):
        unchecked(name, dict(state) | {first: torch.full_like(state[first], value)})
    unchecked("level", config=config | {"gain": None})
    unchecked("teacher", kind="teacher")
    unchecked("lacking", config={name: config[name] for name in config if name not in ("flows", "noise")})
    unchecked("part", config=config | {"source_filter": {}})
    unchecked("inner", config=config | {"flows": [flow | {"foo": 1} for flow in config["flows"]]})
    for name, value in (("words", "a"), ("nulls", None), ("digits", 10**400), ("nans", float("nan"))):
        unchecked(name, features=card.features | {"mel": [value] * 6})
    unchecked("deep", metrics=json.loads('{"a":' * 900 + "1" + "}" * 900))
    headed("bottomless", {weights.KEY: '{"a":' * 100_000})
    levels = [value + 0.01 for value in card.features["mel"]]
    stored("mels", dataclasses.replace(card, features=card.features | {"mel": levels}))
    stored("fewer", dataclasses.replace(card, features=card.features | {"mel": levels[1:]}))
    return {
        **{f"cut{place}": "found a truncated or foreign file" for place in range(5)},
        "longer": "found a truncated or foreign file",
        "pickled": "found a truncated or foreign file",
        "foreign": "found another program's .safetensors, expected a header with 'wavenet-distillation weights'",
        "bare": "found another program's .safetensors",
        "garbled": "found a damaged header, expected a card in JSON",
        "listed": "found a damaged header",
        "newer": "found weights of format version 2, expected 1",
        "brief": "found nothing for kind, expected a whole card",
        "mistyped": "found 'many' for steps, expected a whole card",
        "flipped": "damaged",
        "kind": "found a model of kind 'vocoder', expected one of teacher, student",
        "missing": f"found no tensor {first}, expected all of the configuration inside",
        "extra": "found a tensor more.weight, expected none but those of the configuration inside",
        "shape": f"of {first}, expected {tuple(state[first].shape)}",
        "key": "found a setting depth that is not known here, expected those of a student (written by a newer",
        **{
            f"dtype{place}": f"found {found} values in {first}, expected float32"
            for place, found in enumerate(("bfloat16", "float16", "int8", "float8_e5m2"))
        },
        "whole": f"found int64 values of {first}, expected float32",
        "nan": f"found NaN or infinite values in {first}, expected finite weights",
        "infinite": f"found NaN or infinite values in {first}, expected finite weights",
        "level": "found no gain, expected the level that was measured in training",
        "teacher": "found the settings of a student, expected those of a teacher, as its kind says",
        "lacking": "found no setting flows (and 1 more), expected every one of a student",
        "part": "found no setting source_filter.taps (and 3 more), expected every one of a student",
        "inner": "found a setting flows.0.foo (and 1 more) that is not known here",
        **dict.fromkeys(("words", "nulls", "digits", "nans"), "found a damaged mel fingerprint, expected 6 values"),
        "deep": "found a damaged header, expected a card in JSON",
        "bottomless": "found a damaged header, expected a card in JSON",
        "silent": "found None for audio, expected the audio settings of a model",
        "odd": "found 3 for audio",
        "flows": "flows",
        "upsample": "upsample: found 3, expected a section of settings",
        "hop": "that of its own configuration",
        "mels": "found a mel fingerprint 0.01 nats from the mels computed here, expected at most 0.001",
        "fewer": "found a damaged mel fingerprint, expected 6 values",
    }


def test_whatever_is_wrong_with_a_file_is_one_line_and_status_two(work, student, capsys):
    for name, words in bad_files(work, student).items():
        assert synthesize([f"{name}.safetensors", "mel.npy", "--out", "out"]) == 2, name
        error = capsys.readouterr().err
        assert words in error, name
        assert f"{name}.safetensors: " in error
        assert len(error.splitlines()) == 1, name
        assert not (work / "out").exists()


@pytest.mark.parametrize(
    ("section", "name", "value", "words"),
    [
        ("upsample", "channels", 60_000, "found a configuration of far more weights"),  # 43 GB
        ("upsample", "channels", 10**12, "found a configuration of far more weights"),
        ("upsample", "channels", 10**30, "found a configuration of far more weights"),
        ("pitch", "bins", 10**10, "found a configuration of far more weights"),
        ("upsample", "layers", 10**12, "upsample.layers: found 1000000000000, expected at most 256"),
        ("pitch", "layers", 10**12, "pitch.layers: found 1000000000000, expected at most 256"),
        ("audio", "n_fft", 10**10, "audio.n_fft: found 10000000000, expected at most 8192"),
        ("audio", "n_mels", 10**10, "audio.n_mels: found 10000000000, expected at most n_fft = 64"),
        ("flows", "layers", 10**9, "stack.layers: found 1000000000, expected at most 24"),
        ("flows", "cycles", 10**9, "stack.cycles: found 1000000000, expected at most 256"),
    ],
)
def test_settings_beyond_the_weights_take_no_memory(work, student, section, name, value, words):
    """Under a limit that one such tensor would pass by far, were it written: each is refused, and quickly."""
    card = card_of(student, "student")
    inside = card.config[section]
    changed = [one | {name: value} for one in inside] if section == "flows" else inside | {name: value}
    weights.write(
        work / "large.safetensors",
        dataclasses.replace(card, config=card.config | {section: changed}),
        student.state_dict(),
    )
    before = peak()
    with pytest.raises(UserError, match=re.escape(f"large.safetensors: {words}")):
        models.load("large.safetensors")
    assert peak() - before < 200e6


def peak():
    """The most memory [bytes] that the process has had."""
    resource = pytest.importorskip("resource")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def test_weights_are_known_by_their_content(work, student):
    for name in ("renamed.bin", "loud.SAFETENSORS", "none"):
        shutil.copy("mine.safetensors", name)
        assert torch.equal(sampled(models.load(name)), sampled(student))


def test_float64_and_float32_are_read_as_either(work, student):
    double = {name: value.double() for name, value in student.state_dict().items()}
    card = dataclasses.replace(card_of(student, "student"), digest=weights.digest(double))
    weights.write(work / "double.safetensors", card, double)
    assert torch.equal(sampled(models.load("double.safetensors")), sampled(student))


def test_a_run_older_than_a_setting_takes_its_default_and_a_card_only_of_later_ones(work, student):
    card = card_of(student, "student")
    brief = {name: value for name, value in card.config["source_filter"].items() if name != "sharpening"}
    weights.write(
        work / "older.safetensors",
        dataclasses.replace(card, config=card.config | {"source_filter": brief}),
        student.state_dict(),
    )
    assert torch.equal(sampled(models.load("older.safetensors")), sampled(student))
    config = {name: value for name, value in card.config.items() if name != "warm_start"}
    checkpoint.save(work / "older.pt", kind="student", config=config, model_state=student.state_dict())
    assert torch.equal(sampled(models.load("older.pt")), sampled(student))


def test_a_pickle_of_another_protocol_is_one_line(work, capfd, recwarn):
    torch.save({"a": 1}, "other.pt", pickle_protocol=4)
    with pytest.raises(UserError, match="expected a checkpoint of this project"):
        models.load("other.pt")
    assert not recwarn.list


def test_an_unknown_name_lists_what_is_shipped(work, capsys):
    assert synthesize(["vioce", "mel.npy", "--out", "out"]) == 2
    expected = "expected a run folder, a checkpoint file, or the name of shipped weights: voice\n"
    assert capsys.readouterr().err == f"distill-synthesize: vioce: found no such file, {expected}"


def test_weights_that_cannot_be_shipped_are_refused(work, student):
    state, card = student.state_dict(), card_of(student, "student")
    with pytest.raises(UserError, match=r"found 12\.8 MB, expected at most 12 MB"):
        weights.write(work / "large.safetensors", card, dict(state) | {"large": torch.zeros(3_200_000)})
    with pytest.raises(UserError, match="found NaN or infinite values in nan"):
        weights.write(work / "nan.safetensors", card, dict(state) | {"nan": torch.full((1,), torch.nan)})
    assert not list(work.glob("*large*")) + list(work.glob("*nan*"))


def test_the_list_says_what_is_there(work, monkeypatch, capsys):
    assert synthesize(["--list"]) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header.split()[:3] == ["name", "kind", "rate"]
    assert row.split()[:3] == ["voice", "student", str(AUDIO.sample_rate)]
    assert "toy, 0.50 h  CC0-1.0  7" in row
    monkeypatch.setattr(weights, "FOLDER", work / "nowhere")
    assert synthesize(["--list"]) == 0
    assert capsys.readouterr().out == "no weights are shipped with this installation\n"


def test_the_list_marks_the_usual_one_and_tells_of_the_projection(work, student, capsys):
    weights.write(
        work / "package" / "student.safetensors", card_of(student, "student", "student"), student.state_dict()
    )
    assert synthesize(["--list"]) == 0
    _, first, second, advice = capsys.readouterr().out.splitlines()
    assert first.split()[:3] == ["student", "*", "student"]
    assert second.split()[:2] == ["voice", "student"]
    assert advice.startswith("* the usual one. ")
    assert f"--projection {STEPS}" in advice


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["clip.wav", "--out", "o8"], "student clip.wav --out o8"),
        (["--out", "o8", "mel.npy", "other clip.flac"], "--out o8 student mel.npy 'other clip.flac'"),
        (["bundled", "--out", "o8"], "student bundled --out o8"),
    ],
)
def test_an_input_in_the_place_of_the_checkpoint_gives_the_line_to_type(work, capsys, words, line):
    assert synthesize(words) == 2
    name = next(word for word in words if word in ("clip.wav", "mel.npy", "bundled"))
    expected = f"found an input in the place of CHECKPOINT, expected a model before it: distill-synthesize {line}"
    assert capsys.readouterr().err == f"distill-synthesize: {name}: {expected}\n"


@pytest.mark.parametrize(("words", "message"), [([], "CHECKPOINT: found None"), (["voice"], "INPUT: found None")])
def test_what_a_command_lacks_is_named(work, capsys, words, message):
    assert synthesize([*words, "--out", "out"]) == 2
    assert message in capsys.readouterr().err


def test_the_package_brings_its_weights_and_their_licence():
    folder = resources.files(wavenet) / "shipped"
    names = {path.name for path in folder.iterdir()}
    assert {"student.safetensors", "teacher.safetensors", "LICENSE", "SOURCE.md"} <= names
    assert "CC0 1.0" in (folder / "LICENSE").read_text(encoding="utf-8")
    assert "rhasspy/dataset-voice-kathleen" in (folder / "SOURCE.md").read_text(encoding="utf-8")
    for path in weights.shipped().values():
        card, model = weights.read_card(path), models.load(path)
        assert path.stat().st_size <= weights.MOST_MB * 1e6
        assert path.name == f"{card.name}.safetensors"
        assert card.licence == card.corpus["licence"] == "CC0-1.0"
        assert card.digest == checkpoint.fingerprint(model)
        assert card.steps > 0
        assert "/tmp" not in json.dumps(dataclasses.asdict(card))


def test_one_line_speaks(tmp_path, monkeypatch, capsys):
    """A recording at another rate and a HiFi-GAN mel through the shipped student; a mel of other bands is refused."""
    monkeypatch.chdir(tmp_path)
    clip = sorted((resources.files(wavenet) / "bundled" / "wavs").iterdir(), key=lambda path: path.stat().st_size)[0]
    wav, rate = soundfile.read(str(clip), dtype="float32")
    soundfile.write("clip.wav", wav[: rate // 2], rate)
    model = models.load("student")
    audio = model.config.audio
    np.save("mel.npy", np.full((audio.n_mels, 20), -6.0, np.float32))
    np.save("bands.npy", np.zeros((audio.n_mels - 1, 20), np.float32))
    assert synthesize(["student", "clip.wav", "mel.npy", "bands.npy", "--out", "out"]) == 1
    error = capsys.readouterr().err
    assert f"resampled {rate} -> {audio.sample_rate} Hz" in error
    assert f"bands.npy: found shape ({audio.n_mels - 1}, 20), expected a float array of shape ({audio.n_mels}" in error
    spoken, rate = soundfile.read("out/clip.wav")
    assert rate == audio.sample_rate
    assert 0.1 < np.std(spoken) / np.std(wav) < 10
