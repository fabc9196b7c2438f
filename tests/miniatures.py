"""The recipes, what belongs to which, and their miniatures (configs/smoke) as commands run them."""

import shutil
from pathlib import Path

import yaml

import distill.coupling.train
import distill.latent.train
import distill.phones.train
import distill.train
import distill.wavevae.train
import wavenet.pitch.train
import wavenet.train
from distill.coupling.config import FlowConfig
from distill.coupling.model import CouplingFlow
from distill.latent.segmentvae import SegmentConfig, SegmentVAE
from distill.phones.classifier import PhoneClassifier, PhoneConfig
from distill.student import Student
from distill.wavevae.config import WaveVAEConfig
from distill.wavevae.model import WaveVAE
from wavenet.arguments import from_dict
from wavenet.config import PitchConfig, TeacherConfig
from wavenet.data import corpus_folder
from wavenet.pitch.net import PitchNet
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


def short_corpus(folder: Path) -> Path:
    """Six short clips of the bundled speech, 24 kHz, in `folder`."""
    (folder / "wavs").mkdir()
    clips = sorted((corpus_folder("bundled") / "wavs").iterdir(), key=lambda path: path.stat().st_size)[:6]
    for clip in clips:
        shutil.copy(clip, folder / "wavs")
    for split, part in (("train", clips[:4]), ("dev", clips[4:5]), ("test", clips[5:])):
        (folder / f"{split}.txt").write_text("".join(f"{clip.stem}\n" for clip in part))
    shutil.copy(corpus_folder("bundled") / "metadata.csv", folder)
    return folder


class Miniatures:
    """Run folders of miniatures after three steps on `device`, with those that they need; each made once."""

    def __init__(self, folder: Path, corpus: Path, device: str = "cpu") -> None:
        self.folder, self.done = folder, {}
        self.brief = ["--data.root", str(corpus), "--data.validation_clips", "1", "--train.steps", "3"]
        self.brief += ["--train.sample_seconds", "0.01", "--train.device", device]

    def __call__(self, name: str) -> Path:
        """The run folder of configs/smoke/`name`."""
        if name not in self.done:
            out = self.folder / Path(name).stem
            call = ["--config", str(CONFIGS / "smoke" / name), "--out", str(out), *self.brief]
            call += ["--alignments", str(self.folder / "alignments")] if name in CLASSIFIERS else []
            if name in BEGUN:
                call += ["--init", str(self(BEGUN[name]))]
            if name in STUDENTS:
                if name not in BEGUN and read(name)["model"].get("prior") == "source_filter":
                    call += ["--pitch", str(self(PITCH[read(STUDENTS[name])["model"]["audio"]["sample_rate"]]))]
                assert distill.train.main([*call, "--teacher", str(self(STUDENTS[name])), "--force"]) == 0
            else:
                assert command(name)[0].main(call) == 0
            self.done[name] = out
        return self.done[name]
