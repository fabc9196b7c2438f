"""Every recipe has a miniature under its name; all parse as written; every miniature runs from end to end."""

import re
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import distill.coupling.train
import distill.latent.train
import distill.phones.train
import distill.train
import distill.wavevae.train
import wavenet.pitch.train
import wavenet.train
from distill import models
from distill.coupling.config import FlowConfig
from distill.coupling.model import CouplingFlow
from distill.latent.segmentvae import SegmentConfig, SegmentVAE
from distill.phones.alignment import PHONES
from distill.phones.classifier import PhoneClassifier, PhoneConfig
from distill.student import Student
from distill.wavevae.config import WaveVAEConfig
from distill.wavevae.model import WaveVAE
from wavenet.arguments import from_dict, to_dict
from wavenet.config import PitchConfig, TeacherConfig
from wavenet.data import corpus_folder, load_clip, open_corpus
from wavenet.features import LogMel
from wavenet.pitch.net import PitchNet
from wavenet.run import flat
from wavenet.teacher import Teacher

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
NAMES = sorted(path.name for path in CONFIGS.glob("*.yaml"))
FILES = [*NAMES, *(f"smoke/{name}" for name in NAMES)]
TEACHERS = [name for name in NAMES if "teacher" in name]
# teacher_mulaw has no student: its density is constant within a class, so draws of x_t carry no gradient.
STUDENTS = {
    "adapt_student.yaml": "adapt_teacher.yaml",
    "demo_coupling_student.yaml": "demo_teacher.yaml",
    "demo_source_filter.yaml": "demo_teacher.yaml",
    "demo_student.yaml": "demo_teacher.yaml",
    "kathleen_gaussian_student.yaml": "kathleen_gaussian_teacher.yaml",
    "kathleen_student.yaml": "kathleen_teacher.yaml",
    "kathleen_textbook.yaml": "kathleen_teacher.yaml",
    "paper_24khz_student.yaml": "paper_24khz_teacher.yaml",
    "student_gaussian.yaml": "teacher_gaussian.yaml",
    "student_mol.yaml": "teacher_mol.yaml",
}
# Recipes that begin with the weights of another: on another voice, or with another law.
ADAPTED = {"adapt_teacher.yaml": "kathleen_teacher.yaml", "adapt_student.yaml": "kathleen_student.yaml"}
ANOTHER_LAW = {
    "kathleen_gaussian_teacher.yaml": "kathleen_teacher.yaml",
    "kathleen_gaussian_student.yaml": "kathleen_student.yaml",
}
BEGUN = ADAPTED | ANOTHER_LAW
# What an objective need not state where it does not weigh the term.
SETTINGS = {
    "power": {"power_size"},
    "contrastive": {"contrastive_gamma", "contrastive_cap"},
    "perceptual": {"style_weight"},
}
# The network that a source-filter student takes F0 from, by sample rate.
PITCH = {8000: "demo_pitch.yaml", 22050: "pitch.yaml"}
CLASSIFIERS = ["demo_phones.yaml", "phones.yaml"]
SEGMENTS = ["segmentvae.yaml"]
FLOWS = ["demo_flow.yaml", "flow.yaml"]
WAVEVAES = ["demo_wavevae.yaml", "wavevae.yaml"]


def read(name: str) -> dict:
    return yaml.safe_load((CONFIGS / name).read_text(encoding="utf-8"))


def arguments(name: str, *extra: str) -> list[str]:
    found = ["--config", str(CONFIGS / name), "--out", "run", *extra]
    return [*found, "--teacher", "teacher"] if Path(name).name in STUDENTS else found


def command(name: str):
    """The module whose main takes a recipe, the function that does its work, and the recipe's sections."""
    if Path(name).name in STUDENTS:
        return distill.train, "train_student", ("model", "objective", "data", "train")
    if Path(name).name in PITCH.values():
        return wavenet.pitch.train, "train_pitch", ("model", "data", "train")
    if Path(name).name in CLASSIFIERS:
        return distill.phones.train, "train_phones", ("model", "data", "train")
    if Path(name).name in SEGMENTS:
        return distill.latent.train, "train_segments", ("model", "data", "train")
    if Path(name).name in FLOWS:
        return distill.coupling.train, "train_flow", ("model", "data", "train")
    if Path(name).name in WAVEVAES:
        return distill.wavevae.train, "train_wavevae", ("model", "objective", "data", "train")
    return wavenet.train, "train_teacher", ("model", "data", "train")


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


def build(name: str) -> Teacher | Student | PitchNet | PhoneClassifier | SegmentVAE | CouplingFlow:
    """The model of a recipe, untrained."""
    if name in PITCH.values():
        return PitchNet(from_dict(PitchConfig, read(name)["model"]))
    if name in CLASSIFIERS:
        return PhoneClassifier(from_dict(PhoneConfig, read(name)["model"]))
    if name in SEGMENTS:
        return SegmentVAE(from_dict(SegmentConfig, read(name)["model"]))
    if name in WAVEVAES:
        return WaveVAE(from_dict(WaveVAEConfig, read(name)["model"]))
    if name in STUDENTS:
        teacher = build(STUDENTS[name])
        assert isinstance(teacher, Teacher)
        if read(name).get("kind") == "flow":
            stated = from_dict(distill.train.FlowRecipe, read(name)["model"])
            return CouplingFlow(distill.train.adopt_flow(stated, teacher))
        return Student(distill.train.adopt(from_dict(distill.train.StudentRecipe, read(name)["model"]), teacher))
    if name in FLOWS:
        return CouplingFlow(from_dict(FlowConfig, read(name)["model"]))
    return Teacher(from_dict(TeacherConfig, read(name)["model"]))


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
    """Six short clips of the bundled speech, 24 kHz."""
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "wavs").mkdir()
    clips = sorted((corpus_folder("bundled") / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:6]
    for clip in clips:
        shutil.copy(clip, folder / "wavs")
    for split, part in (("train", clips[:4]), ("dev", clips[4:5]), ("test", clips[5:])):
        (folder / f"{split}.txt").write_text("".join(f"{clip.stem}\n" for clip in part))
    shutil.copy(corpus_folder("bundled") / "metadata.csv", folder)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory, corpus):
    """name of a miniature -> its run folder after three steps; made once, when first asked for."""
    folder, done = tmp_path_factory.mktemp("runs"), {}
    brief = ["--data.root", str(corpus), "--data.validation_clips", "1", "--train.steps", "3"]

    def run(name: str) -> Path:
        if name not in done:
            out = folder / Path(name).stem
            call = ["--config", str(CONFIGS / "smoke" / name), "--out", str(out), *brief]
            call += ["--train.sample_seconds", "0.01"]
            call += ["--alignments", str(folder / "alignments")] if name in CLASSIFIERS else []
            if name in BEGUN:
                call += ["--init", str(run(BEGUN[name]))]
            if name in STUDENTS:
                if name not in BEGUN and read(name)["model"].get("prior") == "source_filter":
                    call += ["--pitch", str(run(PITCH[read(STUDENTS[name])["model"]["audio"]["sample_rate"]]))]
                assert distill.train.main([*call, "--teacher", str(run(STUDENTS[name])), "--force"]) == 0
            else:
                assert command(name)[0].main(call) == 0
            done[name] = out
        return done[name]

    return run


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
