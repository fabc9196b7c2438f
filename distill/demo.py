"""The whole road in minutes: bundled speech -> teacher -> students -> WAV -> figures and a page to listen to.

Five trainings (the network that reads pitch off the mel; the teacher; the source-filter student; the textbook's, whose
flows shape white noise; that one by KL alone, to show why the spectral term is there), then the test clips through
every system, the benchmark, and one page. Every stage resumes where it was left. Before all that, a test clip through
the student that the package brings along, so that there is something to hear at once.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import Tensor

from distill import models
from distill.clips import NamedClip
from distill.evaluate import evaluate
from distill.gates import FLOW_0, KL_ONLY, SOURCE_FILTER, TEXTBOOK, check_gates
from distill.jobs import Job, exit_status, run_jobs
from distill.projection import project
from distill.report import write_report
from distill.speed.measurement import benchmark
from distill.speed.tables import markdown_table
from wavenet.arguments import parse_arguments
from wavenet.audio import write_audio
from wavenet.data import load_clip, open_corpus
from wavenet.errors import DONE, INTERRUPTED, SOME_FAILED, UserError, command
from wavenet.pitch.train import main as train_pitch
from wavenet.run import read_metrics
from wavenet.train import main as train_teacher
from wavenet.weights import USUAL, shipped

RECIPES = Path(__file__).resolve().parent.parent / "configs"
TEACHER, PITCH = "teacher", "pitch"
RECIPE_FILES = ("demo_pitch.yaml", "demo_teacher.yaml", "demo_source_filter.yaml", "demo_student.yaml")


@command("demo")
def main(argv: Sequence[str] | None = None) -> int:
    """Train, distil, synthesise, measure and show. Returns the exit status."""
    arguments = parse_arguments(_parser(), argv)
    out, recipes = Path(arguments.out), Path(arguments.recipes)
    for name in RECIPE_FILES:
        if not (recipes / name).is_file():
            raise UserError(f"{recipes / name}: found no such recipe; run the demo from a clone, or say --recipes")
    return Demo(out, recipes, arguments.data, arguments.steps).run()


class Demo:
    """The stages, in order, over one output folder."""

    def __init__(self, out: Path, recipes: Path, data: str, steps: list[int] | None) -> None:
        self.out, self.recipes, self.data, self.steps = out, recipes, data, steps
        self.started = time.monotonic()

    def run(self) -> int:
        """Every stage. 130: interrupted, goes on next time. 1: an expected figure missed, or a training failed."""
        self._speak()
        self._say(1, "train the network that reads pitch and voicing off the mel", "about 1 minute")
        status = train_pitch(self._arguments("demo_pitch.yaml", PITCH, 1))
        if status:
            return status
        self._say(2, "train a teacher: WaveNet, mixture of logistics, 8 kHz", "about 4 minutes")
        status = train_teacher(self._arguments("demo_teacher.yaml", TEACHER, 0))
        if status:
            return status
        self._say(3, "distil three students: source-filter, textbook, and textbook by KL alone", "about 10 minutes")
        status = self._distil()
        if status:
            return status
        self._say(4, "synthesise the test clips with every system and measure", "about 2 minutes")
        metrics, texts = self._evaluate()
        self._say(5, "benchmark: sequential sampling against the students' one pass", "about 1 minute")
        speed = self._benchmark()
        self._say(6, "write the page", "seconds")
        gates = check_gates(self._history(TEXTBOOK), metrics)
        (self.out / "demo.json").write_text(
            json.dumps(
                {"gates": gates, "metrics": metrics["systems"], "benchmark": speed, "teacher": self._teacher_score()}
            )
        )
        page = write_report(
            self.out,
            title="Parallel WaveNet in minutes",
            metrics=metrics,
            curves=self._curves(),
            benchmark=speed,
            notes=[gate["line"] for gate in gates],
            texts=texts,
        )
        print(markdown_table(speed))
        for gate in gates:
            print(gate["line"])
        minutes = (time.monotonic() - self.started) / 60
        print(f"\nDone in {minutes:.1f} minutes. Look and listen: {page.resolve()}")
        missed = not self.steps and any(not gate["passed"] for gate in gates)
        return SOME_FAILED if missed else DONE

    def _speak(self) -> None:
        """A bundled test clip through the shipped student, before any training; nothing where none is shipped."""
        path = shipped().get(USUAL)
        if path is None:
            return
        model = models.load(path)
        audio = model.config.audio
        clip = open_corpus("bundled", audio).test[0]
        mel = model.log_mel(load_clip(clip, audio)[None])
        wav = project(model.sample(mel, generator=torch.Generator().manual_seed(0)), mel, audio)[0]
        target = self.out / "shipped" / f"{clip.path.stem}.wav"
        target.parent.mkdir(parents=True, exist_ok=True)
        write_audio(target, wav, audio.sample_rate)
        print("\nTo hear at once: a test sentence through the trained student that the package brings along,")
        print(f"{target.resolve()} (the recording: {clip.path})", flush=True)

    def _say(self, stage: int, what: str, duration: str) -> None:
        print(f"\n[{stage}/6] {what} ({duration})", flush=True)

    def _arguments(self, recipe: str, run: str, place: int) -> list[str]:
        found = ["--config", str(self.recipes / recipe), "--data.root", self.data, "--out", str(self.out / run)]
        return found + (["--train.steps", str(self.steps[place])] if self.steps else [])

    def _distil(self) -> int:
        """All students at once."""
        runs = {
            SOURCE_FILTER: ["demo_source_filter.yaml", "--pitch", str(self.out / PITCH)],
            TEXTBOOK: ["demo_student.yaml"],
            KL_ONLY: ["demo_student.yaml", "--objective.weights", json.dumps({"kl": 1.0})],
        }
        jobs = {}
        for run, (recipe, *extra) in runs.items():
            arguments = [*self._arguments(recipe, run, 1), "--teacher", str(self.out / TEACHER), *extra]
            if self.steps:
                arguments.append("--force")
            # Several progress bars would overwrite each other: the others go to files.
            jobs[run] = Job(arguments, None if run == SOURCE_FILTER else self.out / f"{run}.log")
        statuses = run_jobs(jobs, len(jobs))
        for run, status in statuses.items():
            if status not in (DONE, INTERRUPTED):
                where = "" if run == SOURCE_FILTER else f": see {self.out / run}.log"
                print(f"training {run} ended with status {status}{where}", file=sys.stderr)
        return exit_status(statuses)

    def _evaluate(self) -> tuple[dict[str, Any], dict[str, str]]:
        loaded = {run: models.load(self.out / run) for run in (TEACHER, SOURCE_FILTER, TEXTBOOK, KL_ONLY)}
        audio = loaded[TEACHER].config.audio
        corpus = open_corpus(self.data, audio)
        chosen = (corpus.test or corpus.dev)[:4]
        clips = [NamedClip(clip.id, load_clip(clip, audio)) for clip in chosen]

        def system(model: Any, **options: bool) -> Callable[[Tensor, torch.Generator], Tensor]:
            return lambda mel, generator: model.sample(mel, generator=generator, **options)

        systems = {run: system(model) for run, model in loaded.items()}
        systems[FLOW_0] = system(loaded[SOURCE_FILTER], signal_model=True)
        return evaluate(clips, systems, audio, self.out), {clip.id: clip.text for clip in chosen}

    def _benchmark(self) -> dict[str, Any]:
        named = {run: models.load(self.out / run) for run in (TEACHER, SOURCE_FILTER, TEXTBOOK)}
        audio = named[TEACHER].config.audio
        corpus = open_corpus(self.data, audio)
        wav = load_clip((corpus.test or corpus.dev)[0], audio)[None]
        mel = named[TEACHER].log_mel(wav)
        return benchmark(named, mel, seconds=1.0, repeats=3, threads=1, naive_seconds=0.02)

    def _history(self, run: str) -> list[dict[str, float]]:
        return read_metrics(self.out / run)

    def _teacher_score(self) -> dict[str, float]:
        return [line for line in self._history(TEACHER) if "validation/nll" in line][-1]

    def _curves(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        def points(run: str, name: str) -> list[tuple[float, float]]:
            return [(line["step"], line[name]) for line in self._history(run) if name in line]

        teacher = {"training": points(TEACHER, "nll"), "held out": points(TEACHER, "validation/nll")}
        parts = {
            "KL": points(SOURCE_FILTER, "kl/kl"),
            "entropy of the student": points(SOURCE_FILTER, "kl/entropy"),
            "cross entropy": points(SOURCE_FILTER, "kl/cross_entropy"),
        }
        students = {run: points(run, "kl/kl") for run in (SOURCE_FILTER, TEXTBOOK, KL_ONLY)}
        return {
            "Teacher: NLL [nats/sample]": teacher,
            "Source-filter student: KL and its parts [nats/sample]": parts,
            "KL of the students [nats/sample]": students,
        }


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="demo", description=main.__doc__)
    parser.add_argument("--out", type=str, default="runs/demo", help="where everything goes")
    parser.add_argument("--recipes", type=str, default=str(RECIPES), help="where the demo_*.yaml are")
    parser.add_argument("--data", type=str, default="bundled", help="a corpus folder, or the bundled speech")
    parser.add_argument("--steps", type=int, nargs=2, help="steps of teacher and student, to try it out with fewer")
    return parser
