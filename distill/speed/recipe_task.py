"""A recipe's training, ready to run on a few clips, for measurements: models start untrained, nothing is validated.

Run by itself it trains in turns: `python recipe_task.py SETTINGS`, SETTINGS a JSON of `RecipeTask`'s fields and `steps`
a turn; each line on stdin starts a turn, each turn ends with a line on stdout, {"cpu", "wall"} in seconds. It asks for
nothing but the training code itself, so one checkout's copy can measure another's (distill/training_speed.py).
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn
from torch.utils.data import Dataset

from distill.distillation import Distillation
from distill.objective import ObjectiveConfig
from distill.student import Student
from distill.train import StudentRecipe, adopt, warm_start
from wavenet.arguments import from_dict
from wavenet.config import DataConfig, TeacherConfig, TrainConfig, require
from wavenet.data import Batch, CropDataset, open_corpus
from wavenet.likelihood import likelihood_loss
from wavenet.pitch.load import with_pitch
from wavenet.teacher import Teacher
from wavenet.train import build_measured
from wavenet.trainer import Task, Validation, train

_CLIPS = 8  # are read, and where a recipe needs it their pitch tracked: more would change no step
_NEVER = 2**40


@dataclasses.dataclass(frozen=True)
class RecipeTask:
    """recipe: YAML of a vocoder's training; teacher: the teacher's YAML, for a student. Untrained, seed 0.

    threads, device, autocast: instead of the recipe's. Raises UserError for a student without a teacher, and for the
    perceptual term, whose classifier no recipe names.
    """

    recipe: str
    teacher: str | None = None
    threads: int = 1
    device: str = "cpu"
    autocast: str | None = None

    def build(self, folder: Path) -> tuple[Task, TrainConfig, Dataset[Any]]:
        """The task, its settings, and batches of the recipe's own corpus; `folder` takes the pitch labels."""
        settings = read(self.recipe)
        vocoder = {"model", "data", "train"} <= settings.keys() and "upsample" in settings["model"]
        require(vocoder, "recipe", self.recipe, "that of a vocoder's training")
        data, config = from_dict(DataConfig, settings["data"]), from_dict(TrainConfig, settings["train"])
        config = dataclasses.replace(config, threads=self.threads, device=self.device)
        config = dataclasses.replace(config, log_every=_NEVER, validate_every=_NEVER, checkpoint_every=_NEVER)
        if self.autocast is not None:
            config = from_dict(TrainConfig, dataclasses.asdict(config) | {"autocast": self.autocast})
        if not needs_teacher(settings):
            alone = _wavevae if "encoder" in settings["model"] else _by_likelihood
            return alone(settings, data, config, folder)
        require(self.teacher is not None, "teacher", None, f"the teacher's recipe, which {self.recipe} distils")
        return self._student(settings, data, config, folder)

    def _student(
        self, settings: dict[str, Any], data: DataConfig, config: TrainConfig, folder: Path
    ) -> tuple[Task, TrainConfig, Dataset[Batch]]:
        teacher = _measured(Teacher, "teacher", TeacherConfig, read(str(self.teacher)), data).to(self.device)
        objective = from_dict(ObjectiveConfig, settings["objective"])
        torch.manual_seed(0)
        model = _untrained(settings, teacher)
        warm_start(model, teacher)
        pitched = getattr(model, "pitch", None) is not None or teacher.pitch is not None
        batches = _batches(model, pitched, data, config, folder)
        loss = Distillation(teacher, objective, config.crop_length, config.batch_size).loss
        return Task("student", model, {}, loss, _nothing, progress="kl/kl"), config, batches


def needs_teacher(settings: dict[str, Any]) -> bool:
    """Whether a recipe's settings are those of a student."""
    return "objective" in settings and "encoder" not in settings.get("model", {})


def read(path: str) -> dict[str, Any]:
    """The settings of a recipe's YAML file."""
    settings: dict[str, Any] = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    return settings


# What follows imports other kinds where it needs them: a checkout that has none is measured all the same.


def _by_likelihood(
    settings: dict[str, Any], data: DataConfig, config: TrainConfig, folder: Path
) -> tuple[Task, TrainConfig, Dataset[Batch]]:
    """Of a teacher, or of a coupling flow."""
    if "squeeze" in settings["model"]:
        from distill.coupling import likelihood
        from distill.coupling.config import FlowConfig
        from distill.coupling.model import CouplingFlow

        flow = _measured(CouplingFlow, "flow", FlowConfig, settings, data)
        batches = _batches(flow, False, data, config, folder)
        return Task("flow", flow, {}, likelihood.likelihood_loss, _nothing), config, batches
    model = _measured(Teacher, "teacher", TeacherConfig, settings, data)
    batches = _batches(model, model.pitch is not None, data, config, folder)
    return Task("teacher", model, {}, likelihood_loss, _nothing), config, batches


def _wavevae(
    settings: dict[str, Any], data: DataConfig, config: TrainConfig, folder: Path
) -> tuple[Task, TrainConfig, Dataset[Any]]:
    from distill.wavevae.config import ElboConfig, WaveVAEConfig
    from distill.wavevae.learning import Numbered, VariationalLearning
    from distill.wavevae.model import WaveVAE

    model = _measured(WaveVAE, "wavevae", WaveVAEConfig, settings, data)
    objective = from_dict(ElboConfig, settings["objective"])
    learning = VariationalLearning(objective, model.config.audio, config.crop_length)
    batches = Numbered(_batches(model, model.pitch is not None, data, config, folder))
    return Task("wavevae", model, {}, learning.loss, _nothing, progress="elbo/elbo"), config, batches


def _untrained(settings: dict[str, Any], teacher: Teacher) -> Any:
    """A recipe's student, of flows or of couplings."""
    if settings.get("kind", "student") == "student":
        return Student(adopt(from_dict(StudentRecipe, settings["model"]), teacher))
    from distill.coupling.model import CouplingFlow
    from distill.train import FlowRecipe, adopt_flow

    return CouplingFlow(adopt_flow(from_dict(FlowRecipe, settings["model"]), teacher))


def _measured(build: Any, kind: str, config_type: Any, settings: dict[str, Any], data: DataConfig) -> Any:
    config = from_dict(config_type, settings["model"])
    corpus = open_corpus(data.root, config.audio)
    torch.manual_seed(0)
    few = dataclasses.replace(corpus, train=corpus.train[:_CLIPS])
    return build_measured(build, kind, config, few, Path("none"))[1]


def _batches(model: Any, pitched: bool, data: DataConfig, config: TrainConfig, folder: Path) -> Dataset[Batch]:
    clips = open_corpus(data.root, model.config.audio).train[:_CLIPS]
    crops = CropDataset(clips, model.config.audio, config.crop_length, config.batch_size, config.seed)
    return with_pitch(crops, folder, 0) if pitched else crops


def _nothing(_: nn.Module) -> Validation:
    return Validation({}, {}, 1)


class _Turns(Dataset[Batch]):
    """The batches of another; waits for a line before each turn of `steps`, and says afterwards what it took."""

    def __init__(self, batches: Dataset[Batch], steps: int) -> None:
        self.batches, self.steps = batches, steps
        self.began = (0.0, 0.0)

    def __getitem__(self, step: int) -> Batch:
        if step % self.steps == 0:
            cpu, wall = time.process_time() - self.began[0], time.perf_counter() - self.began[1]
            if step:
                print(json.dumps({"cpu": cpu, "wall": wall}), flush=True)
            if not sys.stdin.readline():
                raise SystemExit(0)
            self.began = time.process_time(), time.perf_counter()
        return self.batches[step]


def main() -> None:
    """Train in turns until stdin ends."""
    settings = json.loads(sys.argv[1])
    steps = settings.pop("steps")
    with tempfile.TemporaryDirectory() as folder:
        task, config, batches = RecipeTask(**settings).build(Path(folder))
        config = dataclasses.replace(config, steps=_NEVER)
        train(task, config, _Turns(batches, steps), 0, Path(folder) / "run")


if __name__ == "__main__":
    main()
