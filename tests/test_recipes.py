"""Every recipe has a miniature under its name; all parse as written; every miniature runs from end to end."""

import re
from pathlib import Path

import pytest
import torch
import yaml

from distill import models
from distill.latent.segmentvae import SegmentVAE
from distill.phones.alignment import PHONES
from distill.phones.classifier import PhoneClassifier
from tests.miniatures import (
    ADAPTED,
    ANOTHER_LAW,
    CLASSIFIERS,
    CONFIGS,
    FILES,
    FLOWS,
    NAMES,
    PITCH,
    ROOT,
    SEGMENTS,
    SETTINGS,
    STUDENTS,
    TEACHERS,
    WAVEVAES,
    Miniatures,
    build,
    command,
    read,
    short_corpus,
)
from wavenet.arguments import from_dict, to_dict
from wavenet.config import TeacherConfig
from wavenet.data import load_clip, open_corpus
from wavenet.features import LogMel
from wavenet.pitch.net import PitchNet
from wavenet.run import flat


def arguments(name: str, *extra: str) -> list[str]:
    found = ["--config", str(CONFIGS / name), "--out", "run", *extra]
    return [*found, "--teacher", "teacher"] if Path(name).name in STUDENTS else found


def parsed(name: str, monkeypatch, *extra: str) -> dict:
    """What the real command makes of a recipe: its main, stopped before the work begins."""
    caught = {}
    module, body, sections = command(name)

    def instead(*values):
        caught.update(
            {section: to_dict(value) for section, value in zip(sections, values[: len(sections)], strict=True)}
        )
        return 130  # as if interrupted: nothing that would follow is done

    monkeypatch.setattr(module, body, instead)
    assert module.main(arguments(name, *extra)) == 130
    return caught | ({"kind": read(name)["kind"]} if "kind" in read(name) else {})


def missing(stated: dict, complete: dict, prefix: str = "") -> set[str]:
    """Keys of `complete` that `stated` leaves to the defaults."""
    found = set()
    for key, value in complete.items():
        if key not in stated:
            found.add(prefix + key)
        elif isinstance(value, dict) and key != "weights":
            found |= missing(stated[key], value, f"{prefix}{key}.")
    return found


def differences(stated: dict, found: dict, prefix: str = "") -> list[str]:
    """Keys whose parsed value is not the stated one."""
    wrong = []
    for key, value in stated.items():
        if isinstance(value, dict):
            wrong += differences(value, found[key], f"{prefix}{key}.")
        elif found[key] != value:
            wrong.append(f"{prefix}{key}: {value!r} -> {found[key]!r}")
    return wrong


def test_every_recipe_has_a_miniature_and_no_miniature_is_left_over():
    assert NAMES
    assert sorted(path.name for path in (CONFIGS / "smoke").glob("*")) == NAMES
    others = (STUDENTS, PITCH.values(), CLASSIFIERS, SEGMENTS, FLOWS, WAVEVAES)
    assert set(NAMES) == set(TEACHERS).union(*others)


@pytest.mark.parametrize("name", FILES)
def test_recipe_is_read_as_it_is_written(name, monkeypatch):
    stated = read(name)
    found = parsed(name, monkeypatch)
    assert set(stated) == set(found)
    assert differences(stated, found) == []


@pytest.mark.parametrize("name", FILES)
def test_command_line_wins_over_the_recipe(name, monkeypatch):
    found = parsed(name, monkeypatch, "--train.steps", "7", "--data.root", "elsewhere")
    assert (found["train"]["steps"], found["data"]["root"]) == (7, "elsewhere")


@pytest.mark.parametrize("name", FILES)
def test_model_is_complete_and_numbers_are_numbers(name, monkeypatch):
    """What decides the model and the loss is in the file, not in a default that may change."""
    stated, found = read(name), parsed(name, monkeypatch)
    left_out = missing(stated["model"], found["model"])
    kind = found["model"].get("distribution", {}).get("kind")
    allowed = {"speaker_channels", "speaker_names", "pitch"}  # pitch: its own recipe's
    if Path(name).name in STUDENTS:
        allowed |= {"audio", "gain", "speakers"}  # the teacher's
        allowed |= {"source_filter"} if found["model"].get("prior") == "none" else set()
    elif Path(name).name in WAVEVAES:
        allowed |= {"source_filter"}  # of another prior
    elif kind != "mol":
        allowed |= {"distribution.components", "distribution.bits", "distribution.log_scale_floor"}
    assert left_out <= allowed
    if "objective" in stated:
        left_out = missing(stated["objective"], found["objective"])
        used = {key for term in stated["objective"].get("weights", ()) for key in SETTINGS.get(term, ())}
        assert left_out <= set().union(*SETTINGS.values()) - used | {"kl_estimator"}
    assert not re.search(r": \d+e-?\d", (CONFIGS / name).read_text(encoding="utf-8")), "5e-4 is a string in YAML 1.1"


@pytest.mark.parametrize(
    ("name", "section"),
    [
        (name, section)
        for name in [
            "demo_teacher.yaml",
            "demo_student.yaml",
            "demo_pitch.yaml",
            "demo_phones.yaml",
            "segmentvae.yaml",
            "demo_wavevae.yaml",
        ]
        for section in ["", *(key for key, value in read(name).items() if isinstance(value, dict))]
    ],
)
def test_unknown_keys_are_refused(name, section, tmp_path, capsys):
    recipe = read(name)
    (recipe[section] if section else recipe)["colour"] = 1
    (tmp_path / name).write_text(yaml.safe_dump(recipe))
    assert command(name)[0].main(["--config", str(tmp_path / name), *arguments(name)[2:]]) == 2
    error = capsys.readouterr().err.strip()
    assert "colour" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("name", NAMES)
def test_miniature_is_the_same_kind_of_recipe(name):
    large, small = read(name), read(f"smoke/{name}")
    assert large.keys() == small.keys()
    assert missing(small["model"], large["model"]) == missing(large["model"], small["model"]) == set()
    for choice in (
        "noise",
        "prior",
        "source",
        "pre_emphasis",
        "warm_start",
        "initial_log_scale",
        "log_scale_range",
        "distribution",
        "posterior",
        "frames",
        "squeeze",
        "mixing",
        "likelihood",
        "linear_prediction",
        "posterior_scale",
        "output_scale",
    ):
        assert large["model"].get(choice) == small["model"].get(choice)
    if "objective" in large:
        for choice in ("weights", "kl_weight", "annealing", "reconstruction", "prior"):
            assert large["objective"].get(choice) == small["objective"].get(choice)


@pytest.mark.parametrize("folder", ["", "smoke/"])
@pytest.mark.parametrize(("adapted", "original"), ADAPTED.items())
def test_an_adapting_recipe_has_the_model_and_objective_of_what_it_adapts_and_goes_gently(adapted, original, folder):
    new, old = read(folder + adapted), read(folder + original)
    assert new["model"] == old["model"]
    assert new.get("objective") == old.get("objective")
    assert new["train"]["lr"] <= old["train"]["lr"] / 2
    assert new["train"]["warmup_steps"] <= old["train"]["warmup_steps"]
    assert new["train"]["steps"] <= old["train"]["steps"]


@pytest.mark.parametrize("folder", ["", "smoke/"])
@pytest.mark.parametrize(("new", "original"), ANOTHER_LAW.items())
def test_a_recipe_of_another_law_differs_in_that_alone(new, original, folder):
    ours, theirs = (read(folder + name) for name in (new, original))
    (one, other), absent = (flat(recipe["model"]) for recipe in (ours, theirs)), object()
    differing = {key for key in one.keys() | other.keys() if one.get(key, absent) != other.get(key, absent)}
    assert differing <= {"distribution.kind", "distribution.components", "distribution.bits", "noise"}
    assert len(differing & {"distribution.kind", "noise"}) == 1
    assert ours.get("objective") == theirs.get("objective")


@pytest.mark.parametrize(("name", "original"), ADAPTED.items())
def test_the_shipped_weights_fit_the_recipes_that_adapt_them(name, original):
    kind = "student" if name in STUDENTS else "teacher"
    shipped, model = models.load(kind), build(name)
    ours = {key: value.shape for key, value in model.state_dict().items() if not key.startswith("pitch.")}
    theirs = {key: value.shape for key, value in shipped.state_dict().items() if not key.startswith("pitch.")}
    assert ours == theirs


@pytest.mark.parametrize(("student", "teacher"), STUDENTS.items())
@pytest.mark.parametrize("folder", ["", "smoke/"])
def test_student_fits_its_teacher(student, teacher, folder):
    audio = from_dict(TeacherConfig, read(folder + teacher)["model"]).audio
    recipe = read(folder + student)
    assert recipe["model"]["pre_emphasis"] == read(folder + teacher)["model"]["pre_emphasis"]
    assert recipe["train"]["crop_length"] % audio.hop_length == 0
    assert recipe["train"]["crop_length"] // 2 >= max(recipe["objective"]["stft_sizes"])


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(PITCH.values()) - set(SEGMENTS)))
def test_table_of_the_documentation_is_true(name):
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| \[{name.removesuffix('.yaml')}\]\(.*$", page, flags=re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    model = build(name)
    found = [
        model.config.audio.sample_rate,
        sum(parameter.numel() for parameter in model.parameters()),
        model.macs_per_sample,
        model.receptive_field,
    ]
    assert [int(cells[place]) for place in (3, 5, 6, 7)] == found


@pytest.mark.parametrize("name", PITCH.values())
def test_table_of_the_pitch_networks_is_true(name):
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| \[{name.removesuffix('.yaml')}\]\(.*$", page, flags=re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    model = build(name)
    assert isinstance(model, PitchNet)
    weights = [module.weight for module in model.network if isinstance(module, torch.nn.Conv1d)]
    found = [
        model.config.audio.sample_rate,
        sum(parameter.numel() for parameter in model.parameters()),
        sum(weight.numel() for weight in weights),
        2 * model.reach + 1,
    ]
    assert [int(cells[place]) for place in (2, 4, 5, 6)] == found


@pytest.mark.parametrize("name", SEGMENTS)
def test_table_of_the_segment_models_is_true(name):
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    (row,) = re.findall(rf"^\| \[{name.removesuffix('.yaml')}\]\(.*$", page, flags=re.MULTILINE)
    cells = [cell.strip() for cell in row.split("|")]
    model = build(name)
    assert isinstance(model, SegmentVAE)
    found = [model.config.audio.sample_rate, model.config.frames, model.config.dimensions]
    found.append(sum(parameter.numel() for parameter in model.parameters()))
    assert [int(cells[place]) for place in (2, 3, 4, 6)] == found


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return short_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, corpus):
    return Miniatures(tmp_path_factory.mktemp("runs"), corpus)


@pytest.mark.parametrize("name", NAMES)
def test_miniature_runs_end_to_end(name, runs, corpus):
    out = runs(name)
    assert (out / "checkpoint.pt").is_file()
    assert (out / "metrics.jsonl").is_file()
    model = models.load(out)
    assert type(model) is type(build(name))
    audio = model.config.audio
    wav = load_clip(open_corpus(str(corpus), audio).test[0], audio)[None]
    mel = LogMel(audio)(wav)
    if isinstance(model, PhoneClassifier):
        assert model(wav).logits.shape == (1, len(PHONES), mel.shape[2])
        return
    if isinstance(model, SegmentVAE):
        assert model.decode(model.posterior(mel[:, :, : model.config.frames]).centre()).shape == (1, 80, 26)
        return
    if isinstance(model, PitchNet):
        pitch = model.predict(mel)
        assert pitch.f0.shape == pitch.voiced.shape == (1, mel.shape[2])
        assert float(pitch.f0.min()) >= 40
        return
    mel = mel[:, :, :2]
    made = model.sample(mel, generator=torch.Generator().manual_seed(0))
    assert made.shape == (1, 2 * audio.hop_length)
    assert torch.isfinite(made).all()
    assert float(made.std()) > 1e-4
