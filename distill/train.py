"""`distill-train`: a student from a teacher, by probability density distillation."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import nn

from distill import models
from distill.config import StudentConfig
from distill.coupling.config import FlowConfig
from distill.coupling.model import CouplingFlow
from distill.diagnoses import HealthConfig
from distill.distillation import Distillation
from distill.gate import check_teacher, linear_prediction_baseline, residual_baseline
from distill.objective import ObjectiveConfig
from distill.phones.classifier import PhoneClassifier
from distill.student import Student
from wavenet import checkpoint
from wavenet.adaptation import Initial
from wavenet.arguments import parse_arguments, to_dict
from wavenet.config import AudioConfig, DataConfig, PitchConfig, TrainConfig, require
from wavenet.data import Corpus
from wavenet.device import resolve_device
from wavenet.errors import UserError, command
from wavenet.kinds import stated_kind
from wavenet.likelihood import held_out
from wavenet.pitch.load import load_pitch, with_pitch
from wavenet.pitch.net import PitchNet
from wavenet.teacher import Teacher
from wavenet.train import check_speakers, open_training_corpus, record_of, training_crops
from wavenet.trainer import Task, Validation, train


@dataclasses.dataclass(frozen=True)
class StudentRecipe(StudentConfig):
    """A student as a recipe states it: audio and speakers are the teacher's, pitch its network's: need not be said."""

    audio: AudioConfig | None = None  # type: ignore[assignment]
    speakers: int | None = None  # type: ignore[assignment]
    pitch: PitchConfig | None = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class FlowRecipe(FlowConfig):
    """A coupling flow as a student, as its recipe states it; the rest is the teacher's."""

    audio: AudioConfig | None = None  # type: ignore[assignment]
    speakers: int | None = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        """Nothing yet: what fits is known with the teacher's audio settings."""


RECIPES: dict[str, type[Any]] = {"student": StudentRecipe, "flow": FlowRecipe}


@command("distill-train")
def main(argv: Sequence[str] | None = None) -> int:
    """Distil a student: --config RECIPE.yaml --teacher RUN --data.root DIR --out RUN2. The same command resumes."""
    parser = jsonargparse.ArgumentParser(prog="distill-train", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/student_mol.yaml")
    kinds = ", ".join(RECIPES)
    parser.add_argument("--kind", choices=tuple(RECIPES), default="student", help=f"of student: {kinds}")
    recipe = RECIPES.get(stated_kind(argv, "student"), StudentRecipe)
    parser.add_argument("--model", type=recipe, default=recipe())
    parser.add_argument("--objective", type=ObjectiveConfig, default=ObjectiveConfig())
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--health", type=HealthConfig, default=HealthConfig(), help="when a student is called ill")
    parser.add_argument("--teacher", type=str, required=True, help="the teacher's run folder, file, or shipped name")
    parser.add_argument("--pitch", type=str, help="a run of wavenet-train-pitch, for a student with a source_filter")
    parser.add_argument("--phones", type=str, help="a run of distill-train-phones, for the perceptual term")
    parser.add_argument("--init", type=str, help="begin with these weights: shipped name, file or run of a student")
    parser.add_argument("--out", type=str, required=True, help="run folder: checkpoint, configuration, logs")
    parser.add_argument("--force", action="store_true", help="distil even a teacher weaker than linear prediction")
    found = parse_arguments(parser, argv)
    return train_student(
        found.model,
        found.objective,
        found.data,
        found.train,
        Path(found.teacher),
        Path(found.out),
        found.force,
        found.pitch,
        found.phones,
        found.health,
        found.init,
    )


def train_student(
    recipe: StudentRecipe | FlowRecipe,
    objective: ObjectiveConfig,
    data: DataConfig,
    config: TrainConfig,
    teacher_path: Path,
    run: Path,
    force: bool = False,
    pitch: str | None = None,
    phones: str | None = None,
    health: HealthConfig | None = None,
    init: str | None = None,
) -> int:
    """Distil, or resume distilling, the student of a run folder. Returns the exit status.

    pitch: the network that a source-filter student takes F0 from, trained before; it becomes part of the student.
    phones: the classifier of the perceptual term; it stays outside. health: thresholds of the monitor, which may change
    between one call and the next. init: trained weights that a new run begins with, at step 0; the pitch network is
    among them.
    """
    teacher = models.load(teacher_path, resolve_device(config.device))
    if not isinstance(teacher, Teacher):
        raise UserError(f"{teacher_path}: found a {type(teacher).__name__.lower()}, expected a teacher")
    if teacher.config.distribution.kind == "mulaw":
        # Its density is constant over each class: no gradient tells the student where to move.
        raise UserError(f"{teacher_path}: found a mulaw teacher, expected mol or gaussian, which have a smooth density")
    model_config = adopt_flow(recipe, teacher) if isinstance(recipe, FlowRecipe) else adopt(recipe, teacher)
    kind = "flow" if isinstance(model_config, FlowConfig) else "student"
    lawful = kind == "student" or objective.kl_estimator == "log_ratio" or "kl" not in objective.weights
    expected = "log_ratio: a coupling flow has no law of x_t given its past"
    require(lawful, "objective.kl_estimator", objective.kl_estimator, expected)
    initial = None if init is None else Initial(init, kind, run)
    net = _pitch_network(model_config, teacher, pitch, initial)
    if net is not None and isinstance(model_config, StudentConfig) and _filtering(model_config):
        model_config = dataclasses.replace(model_config, pitch=net.config)
    corpus = open_training_corpus(data, model_config.audio)
    check_speakers(model_config, corpus)
    _gate(teacher, corpus, data.validation_clips, str(teacher_path), force)
    torch.manual_seed(config.seed)
    model = CouplingFlow(model_config) if isinstance(model_config, FlowConfig) else Student(model_config)
    if initial is None:
        print(warm_start(model, teacher), file=sys.stderr)
        if isinstance(model, Student) and model.pitch is not None and net is not None:
            model.pitch.load_state_dict(net.state_dict())
    elif not (run / checkpoint.FILE_NAME).exists():
        print(initial.into(model), file=sys.stderr)
    crops = training_crops(corpus, model_config, config)
    classifier = None if phones is None else _classifier(phones, objective, resolve_device(config.device))
    distillation = Distillation(teacher, objective, config.crop_length, config.batch_size, classifier)
    distillation.long_enough(corpus.dev, model_config.audio)  # known now, not at the first validation

    def validate(average: nn.Module) -> Validation:
        assert isinstance(average, Student | CouplingFlow)
        return distillation.validate(average, corpus, data.validation_clips)

    task = Task(
        kind=kind,
        model=model,
        model_config=to_dict(model_config),
        loss=distillation.loss,
        validate=validate,
        progress="kl/kl",
        monitor=distillation.monitor(health or HealthConfig()),
        record=record_of(
            model_config, data, corpus, config, initial, objective, teacher=teacher, pitch=net, phones=classifier
        ),
    )
    batches = crops if net is None else functools.partial(with_pitch, crops, run, data.workers, pitch)
    return train(task, config, batches, data.workers, run)


def adopt(config: StudentRecipe, teacher: Teacher) -> StudentConfig:
    """The student's configuration with what must be the teacher's: audio, speakers, and the level unless it is given.

    Audio settings are typed in once, with the teacher. A recipe that states others raises UserError.
    """
    pitch = PitchConfig(audio=teacher.config.audio) if config.pitch is None else config.pitch
    return StudentConfig(**_adopted(config, teacher) | {"pitch": pitch})


def adopt_flow(config: FlowRecipe, teacher: Teacher) -> FlowConfig:
    """The same for a coupling flow."""
    return FlowConfig(**_adopted(config, teacher))


def _adopted(config: StudentRecipe | FlowRecipe, teacher: Teacher) -> dict[str, Any]:
    stated = {} if config.audio is None else dataclasses.asdict(config.audio)
    for name, ours in stated.items():
        theirs = getattr(teacher.config.audio, name)
        if ours != theirs:
            raise UserError(
                f"model.audio.{name}: found {ours}, expected the teacher's {theirs} (leave model.audio out)"
            )
    if config.speakers not in (None, teacher.config.speakers):
        raise UserError(f"model.speakers: found {config.speakers}, expected the teacher's {teacher.config.speakers}")
    gain = teacher.config.gain if config.gain is None else config.gain
    if config.gain is None and config.pre_emphasis != teacher.config.pre_emphasis:
        raise UserError(
            f"model.pre_emphasis: found {config.pre_emphasis}, expected the teacher's {teacher.config.pre_emphasis}, "
            "or a model.gain measured for it"
        )
    own = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    adopted = {
        "audio": teacher.config.audio,
        "gain": gain,
        "speakers": teacher.config.speakers,
        "speaker_names": teacher.config.speaker_names,
        "speaker_channels": teacher.config.speaker_channels,
    }
    return own | adopted


def _pitch_network(
    config: StudentConfig | FlowConfig, teacher: Teacher, path: str | None, initial: Initial | None
) -> PitchNet | None:
    """Where F0 comes from: --init, the run that is named, or the teacher's own network; None where nothing needs F0."""
    if initial is not None and path is not None:
        raise UserError(f"--pitch: found {path}, expected none with --init, which brings its own")
    if not _filtering(config) and path is not None:
        raise UserError(f"--pitch: found {path}, expected none for a student without a prior")
    if path is not None:
        return load_pitch(path, config.audio)
    if initial is not None and _filtering(config):
        return initial.pitch()
    if _filtering(config) and teacher.pitch is None:
        raise UserError("--pitch: found none, expected a run of wavenet-train-pitch, for the prior needs F0")
    return teacher.pitch


def _filtering(config: StudentConfig | FlowConfig) -> bool:
    return isinstance(config, StudentConfig) and config.prior == "source_filter"


def _classifier(path: str, objective: ObjectiveConfig, device: str) -> PhoneClassifier:
    if "perceptual" not in objective.weights:
        raise UserError(f"--phones: found {path}, expected none without the term perceptual in objective.weights")
    found = models.load(path, device)
    if not isinstance(found, PhoneClassifier):
        raise UserError(f"{path}: found a {type(found).__name__.lower()}, expected a run of distill-train-phones")
    return found


def warm_start(student: Student | CouplingFlow, teacher: Teacher) -> str:
    """Start the student's frame-rate network from the teacher's where sizes agree; returns a line that says which."""
    student.upsample.set_statistics(teacher.upsample.mean, teacher.upsample.std)
    if isinstance(student, Student) and not student.config.warm_start:
        return "student's frame-rate network: fresh"
    ours, theirs = student.upsample.state_dict(), teacher.upsample.state_dict()
    if isinstance(student, CouplingFlow):
        theirs["kernel"] = ours["kernel"]  # interpolation to squeezed time, which the teacher does not know
    if {name: value.shape for name, value in ours.items()} != {name: value.shape for name, value in theirs.items()}:
        return "student's frame-rate network: fresh (its sizes are not the teacher's)"
    student.upsample.load_state_dict(theirs)
    return "student's frame-rate network: the teacher's, to begin with"


def _gate(teacher: Teacher, corpus: Corpus, clips: int, name: str, force: bool) -> None:
    chosen = corpus.dev[:clips]
    baseline = linear_prediction_baseline(corpus.train, chosen, teacher.config.audio)
    if teacher.prediction is not None:
        baseline = min(baseline, residual_baseline(teacher, corpus.train, chosen))
    score = held_out(teacher, chosen)
    print(check_teacher(score.nll_density, baseline, name, force), file=sys.stderr)
