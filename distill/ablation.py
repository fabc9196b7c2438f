"""`distill-ablate`: what each part of the student and of its loss adds, by leaving it out, over several seeds.

Every variant starts from the same seed and runs for the same steps on the demo's recipes; only what its name says
differs. Networks that variants share (pitch, teachers, phone classifier) are trained once, or taken from a demo run.
Everything resumes where it was left.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import torch
from torch import Tensor
from tqdm import tqdm

from distill import models
from distill.ablation_page import write_page
from distill.clips import NamedClip
from distill.evaluate import evaluate, write_json
from distill.gates import RECORDING
from distill.jobs import Job, exit_status, run_jobs
from distill.phones.train import main as train_phones
from distill.ranking import nearness
from wavenet.arguments import parse_arguments
from wavenet.config import require
from wavenet.data import load_clip, open_corpus
from wavenet.errors import DONE, INTERRUPTED, UserError, command
from wavenet.pitch.train import main as train_pitch
from wavenet.train import main as train_teacher

RECIPES = Path(__file__).resolve().parent.parent / "configs"
PITCH, TEACHER, SOURCED, PHONES = "pitch", "teacher", "teacher-source", "phones"
_SOURCE_FILTER, _TEXTBOOK = "demo_source_filter.yaml", "demo_student.yaml"
_CLIPS = 4


class Variant(NamedTuple):
    """A student: its recipe, the weights of its loss, its teacher; predicts: it makes linear prediction's residual."""

    recipe: str
    weights: dict[str, float]
    teacher: str = TEACHER
    predicts: bool = False


# Weights bring the gradients of stft, mel, power and perceptual to one order of size, as `health/grad/...` shows them.
VARIANTS = {
    "textbook IAF": Variant(_TEXTBOOK, {"kl": 1.0, "stft": 30.0}),
    "linear prediction, KL + STFT": Variant(_TEXTBOOK, {"kl": 1.0, "stft": 30.0}, predicts=True),
    "linear prediction, KL only": Variant(_TEXTBOOK, {"kl": 1.0}, predicts=True),
    "linear prediction, STFT only": Variant(_TEXTBOOK, {"stft": 30.0}, predicts=True),
    "source-filter, KL + STFT": Variant(_SOURCE_FILTER, {"kl": 1.0, "stft": 30.0}),
    "source-filter, KL only": Variant(_SOURCE_FILTER, {"kl": 1.0}),
    "source-filter, STFT only": Variant(_SOURCE_FILTER, {"stft": 30.0}),
    "source-filter, KL + power": Variant(_SOURCE_FILTER, {"kl": 1.0, "power": 0.05}),
    "source-filter, KL + STFT + mel": Variant(_SOURCE_FILTER, {"kl": 1.0, "stft": 30.0, "mel": 30.0}),
    "source-filter, KL + STFT + contrastive": Variant(_SOURCE_FILTER, {"kl": 1.0, "stft": 30.0, "contrastive": 1.0}),
    "source-filter, KL + STFT + perceptual": Variant(_SOURCE_FILTER, {"kl": 1.0, "stft": 30.0, "perceptual": 10.0}),
    "source teacher, KL + STFT": Variant(_SOURCE_FILTER, {"kl": 1.0, "stft": 30.0}, SOURCED),
    "source teacher, STFT only": Variant(_SOURCE_FILTER, {"stft": 30.0}, SOURCED),
    "source teacher, KL only": Variant(_SOURCE_FILTER, {"kl": 1.0}, SOURCED),
}
FLOW_0 = "flow 0 untrained"
# What KL adds to the sound beyond STFT, with either kind of student, under either teacher: (with, without).
QUESTIONS = {
    "student without a signal model, plain teacher": ("linear prediction, KL + STFT", "linear prediction, STFT only"),
    "plain teacher": ("source-filter, KL + STFT", "source-filter, STFT only"),
    "source-conditioned teacher": ("source teacher, KL + STFT", "source teacher, STFT only"),
}


@command("distill-ablate")
def main(argv: Sequence[str] | None = None) -> int:
    """Train every variant over every seed, measure, fill the page. Returns 0, 1 when a training failed, or 130."""
    arguments = parse_arguments(_parser(), argv)
    require(len(set(arguments.seeds)) == len(arguments.seeds), "--seeds", arguments.seeds, "different seeds")
    require(arguments.steps > 0, "--steps", arguments.steps, "at least 1")
    require(arguments.jobs > 0, "--jobs", arguments.jobs, "at least 1")
    shared = None if arguments.demo is None else Path(arguments.demo)
    ablation = Ablation(Path(arguments.out), Path(arguments.recipes), arguments.data, shared, arguments.teacher_steps)
    status = ablation.train_shared() or ablation.train_students(arguments.seeds, arguments.steps, arguments.jobs)
    if status:
        return status
    figures = ablation.measure(arguments.seeds) | {"steps": arguments.steps, "data": arguments.data}
    write_json(ablation.out / "ablation.json", figures)
    if arguments.page:
        write_page(figures, ablation.out, Path(arguments.page))
    return DONE


class Ablation:
    """The stages over one output folder; `demo`: a finished demo whose pitch network and teacher are taken."""

    def __init__(
        self, out: Path, recipes: Path, data: str, demo: Path | None = None, teacher_steps: int | None = None
    ) -> None:
        self.out, self.recipes, self.data, self.demo, self.teacher_steps = out, recipes, data, demo, teacher_steps

    def train_shared(self) -> int:
        """The networks that variants share. Returns the first exit status that is not 0."""
        short = [] if self.teacher_steps is None else ["--train.steps", str(self.teacher_steps)]
        taken = () if self.demo is None else (PITCH, TEACHER)
        stages: list[tuple[str, Callable[[list[str]], int], str, list[str]]] = [
            (PITCH, train_pitch, "demo_pitch.yaml", short),
            (TEACHER, train_teacher, "demo_teacher.yaml", short),
            (PHONES, train_phones, "demo_phones.yaml", short),
            (
                SOURCED,
                train_teacher,
                "demo_teacher.yaml",
                [*short, "--model.source", "true", "--pitch", str(self.place(PITCH))],
            ),
        ]
        for run, train, recipe, extra in stages:
            if run not in taken:
                print(f"{run}:", file=sys.stderr)
                if status := train(self._arguments(recipe, self.out / run, extra)):
                    return status
        return DONE

    def place(self, run: str) -> Path:
        """Where a shared network is."""
        return self.demo / run if self.demo is not None and run in (PITCH, TEACHER) else self.out / run

    def train_students(self, seeds: Sequence[int], steps: int, at_once: int) -> int:
        """All variants over all seeds, `at_once` processes of one thread; each one's output goes to a file."""
        jobs = {str(self.run(seed, name)): self._job(seed, name, steps) for seed in seeds for name in VARIANTS}
        with tqdm(total=len(jobs), desc="students", unit="student") as progress:
            statuses = run_jobs(jobs, at_once, lambda _: progress.update())
        for run, status in statuses.items():
            if status not in (DONE, INTERRUPTED):
                print(f"{run}: ended with status {status}, see {run}.log", file=sys.stderr)
        return exit_status(statuses)

    def run(self, seed: int, name: str) -> Path:
        """The run folder of a variant."""
        return self.out / f"seed-{seed}" / name.replace(",", "").replace(" + ", "-").replace(" ", "-")

    def measure(self, seeds: Sequence[int]) -> dict[str, Any]:
        """Every student and flow 0 untrained on held-out clips: means over clips and seeds, spread between seeds."""
        audio = models.load(self.place(TEACHER)).config.audio
        corpus = open_corpus(self.data, audio)
        chosen = (corpus.test or corpus.dev)[:_CLIPS]
        clips = [NamedClip(clip.id, load_clip(clip, audio)) for clip in chosen]
        by_seed = {}
        for seed in seeds:
            loaded = {name: models.load(self.run(seed, name)) for name in VARIANTS}
            systems = {name: _system(model) for name, model in loaded.items()}
            systems[FLOW_0] = _system(loaded["source-filter, KL + STFT"], signal_model=True)
            systems |= {"teacher": _system(models.load(self.place(TEACHER)))} if seed == seeds[0] else {}
            systems |= {SOURCED: _system(models.load(self.place(SOURCED)))} if seed == seeds[0] else {}
            by_seed[seed] = evaluate(clips, systems, audio, self.out / f"evaluation-{seed}", seed)["systems"]
        first = by_seed[seeds[0]]
        names = [name for name in first if any(first[name]["mean"].values())]
        return {
            "seeds": list(seeds),
            "clips": [clip.name for clip in clips],
            "systems": {
                name: _over_seeds([found[name] for found in by_seed.values() if name in found]) for name in names
            },
            "answers": {teacher: _paired(list(by_seed.values()), *pair) for teacher, pair in QUESTIONS.items()},
        }

    def _job(self, seed: int, name: str, steps: int) -> Job:
        variant = VARIANTS[name]
        run = self.run(seed, name)
        run.parent.mkdir(parents=True, exist_ok=True)
        extra = ["--teacher", str(self.place(variant.teacher)), "--objective.weights", json.dumps(variant.weights)]
        extra += ["--train.steps", str(steps), "--train.seed", str(seed), "--train.threads", "1", "--force"]
        if variant.recipe == _SOURCE_FILTER:
            extra += ["--pitch", str(self.place(PITCH))]
        elif not variant.predicts:
            extra += ["--model.linear_prediction", "0"]
        if "perceptual" in variant.weights:
            extra += ["--phones", str(self.place(PHONES))]
        return Job(self._arguments(variant.recipe, run, extra), Path(f"{run}.log"))

    def _arguments(self, recipe: str, run: Path, extra: list[str]) -> list[str]:
        path = self.recipes / recipe
        if not path.is_file():
            raise UserError(f"{path}: found no such recipe; run from a clone, or say --recipes")
        return ["--config", str(path), "--data.root", self.data, "--out", str(run), *extra]


def _system(model: Any, **options: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
    return lambda mel, generator: model.sample(mel, generator=generator, **options)


def _over_seeds(found: list[dict[str, Any]]) -> dict[str, Any]:
    """{"mean", "spread", "seeds"}: mean over seeds of the mean over clips; spread: largest minus smallest."""
    mean, spread = {}, {}
    for metric in found[0]["mean"]:
        values = [one["mean"][metric] for one in found if one["mean"][metric] is not None]
        mean[metric] = statistics.fmean(values) if values else None
        spread[metric] = max(values) - min(values) if len(values) > 1 else None
    return {"mean": mean, "spread": spread, "seeds": len(found)}


def _paired(by_seed: list[dict[str, Any]], better: str, plain: str) -> dict[str, dict[str, float | bool | None]]:
    """Differences `better` - `plain` clip by clip: {metric: {"difference", "ci95", "agree"}}.

    Of a metric that is better the nearer it is to the recording's, differences of that distance. Seeds of a clip are
    averaged first: clips are what the interval (Student's t) is over. agree: means differ in the same direction for
    every seed.
    """
    from scipy.stats import t

    answers: dict[str, dict[str, float | bool | None]] = {}
    for metric in by_seed[0][better]["mean"]:
        seeds = [nearness(one, metric, RECORDING) for one in by_seed]
        differences = []
        for clip in seeds[0][better]["clips"]:
            pairs = [(one[better]["clips"][clip].get(metric), one[plain]["clips"][clip].get(metric)) for one in seeds]
            known = [a - b for a, b in pairs if a is not None and b is not None]
            if known:
                differences.append(statistics.fmean(known))
        n = len(differences)
        by_mean = (
            [one[better]["mean"].get(metric, 0.0) for one in seeds],
            [one[plain]["mean"].get(metric, 0.0) for one in seeds],
        )
        signs = {(a or 0.0) > (b or 0.0) for a, b in zip(*by_mean, strict=True)}
        width = float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5 if n > 1 else None
        answers[metric] = {
            "difference": statistics.fmean(differences) if n else None,
            "ci95": width,
            "agree": len(signs) == 1,
        }
    return answers


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-ablate", description=main.__doc__)
    parser.add_argument("--out", type=str, default="runs/ablation", help="where everything goes")
    parser.add_argument("--recipes", type=str, default=str(RECIPES), help="where the demo_*.yaml are")
    parser.add_argument("--data", type=str, default="bundled", help="a corpus folder, or the bundled speech")
    parser.add_argument("--demo", type=str, help="a finished demo, whose pitch network and teacher are taken")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="seeds of the students")
    parser.add_argument("--steps", type=int, default=1200, help="steps of every student")
    parser.add_argument("--teacher_steps", type=int, help="steps of what they share, to try it out with fewer")
    parser.add_argument("--jobs", type=int, default=2, help="students trained at once, a thread each")
    parser.add_argument("--page", type=str, help="a Markdown page with markers, e.g. docs/results.md, to fill")
    return parser
