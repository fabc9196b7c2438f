"""The whole road in minutes: bundled speech -> teacher -> students -> WAV -> figures and a page to listen to.

Three trainings (teacher; the student; the same student by KL alone, to show why the spectral term is there), then the
test clips through every system, the benchmark, and one page. Every stage resumes where it was left.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import Tensor

from distill import models
from distill.benchmark import benchmark, markdown_table
from distill.clips import NamedClip
from distill.evaluate import evaluate
from distill.report import write_report
from wavenet.config import parse_arguments
from wavenet.data import load_clip, open_corpus
from wavenet.errors import DONE, INTERRUPTED, SOME_FAILED, UserError, command
from wavenet.run import read_metrics
from wavenet.train import main as train_teacher

RECIPES = Path(__file__).resolve().parent.parent / "configs"
STUDENT, KL_ONLY = "student", "student-kl-only"
# The textbook student whispers at this size; the page says so, and the demo does not fail for it.
PITCH = "pitch right on voiced frames"


@command("demo")
def main(argv: Sequence[str] | None = None) -> int:
    """Train, distil, synthesise, measure and show. Returns the exit status."""
    arguments = parse_arguments(_parser(), argv)
    out, recipes = Path(arguments.out), Path(arguments.recipes)
    for name in ("demo_teacher.yaml", "demo_student.yaml"):
        if not (recipes / name).is_file():
            raise UserError(f"{recipes / name}: found no such recipe; run the demo from a clone, or say --recipes")
    return Demo(out, recipes, arguments.data, arguments.steps).run()


class Demo:
    """The stages, in order, over one output folder."""

    def __init__(self, out: Path, recipes: Path, data: str, steps: list[int] | None) -> None:
        self.out, self.recipes, self.data, self.steps = out, recipes, data, steps
        self.started = time.monotonic()

    def run(self) -> int:
        """Every stage. 130: interrupted, goes on next time. 1: a required figure missed, or a training failed."""
        self._say(1, "train a teacher: WaveNet, mixture of logistics, 8 kHz", "about 4 minutes")
        status = train_teacher(self._arguments("demo_teacher.yaml", "teacher", 0))
        if status:
            return status
        self._say(2, "distil two students side by side: KL + STFT, and KL alone", "about 4 minutes")
        status = self._distil()
        if status:
            return status
        self._say(3, "synthesise the test clips with every system and measure", "about 2 minutes")
        metrics, texts = self._evaluate()
        self._say(4, "benchmark: sequential sampling against the student's one pass", "about 1 minute")
        speed = self._benchmark()
        self._say(5, "write the page", "seconds")
        gates = check_gates(self._history(STUDENT), metrics)
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
        missed = not self.steps and any(gate["required"] and not gate["passed"] for gate in gates)
        return SOME_FAILED if missed else DONE

    def _say(self, stage: int, what: str, duration: str) -> None:
        print(f"\n[{stage}/5] {what} ({duration})", flush=True)

    def _arguments(self, recipe: str, run: str, place: int) -> list[str]:
        found = ["--config", str(self.recipes / recipe), "--data.root", self.data, "--out", str(self.out / run)]
        return found + (["--train.steps", str(self.steps[place])] if self.steps else [])

    def _distil(self) -> int:
        """Both students at once, a process each: one thread apiece is faster than two threads one after the other."""
        alone = {"kl": 1.0}
        runs = {STUDENT: [], KL_ONLY: ["--objective.weights", json.dumps(alone)]}
        processes = []
        for run, extra in runs.items():
            arguments = [*self._arguments("demo_student.yaml", run, 1), "--teacher", str(self.out / "teacher"), *extra]
            if self.steps:
                arguments.append("--force")
            code = "import sys; from distill.train import main; sys.exit(main(sys.argv[1:]))"
            # Two progress bars would overwrite each other: the second student's goes to a file.
            log = None if run == STUDENT else (self.out / f"{run}.log").open("w")
            processes.append(subprocess.Popen([sys.executable, "-c", code, *arguments], stderr=log, stdout=log))
        try:
            statuses = [process.wait() for process in processes]
        except KeyboardInterrupt:
            for process in processes:  # the children got the signal too, and save
                process.wait()
            return INTERRUPTED
        finally:
            for process in processes:
                if process.poll() is None:
                    process.terminate()
                    process.wait()
        for run, status in zip(runs, statuses, strict=True):
            if status not in (DONE, INTERRUPTED):
                where = "" if run == STUDENT else f": see {self.out / run}.log"
                print(f"training {run} ended with status {status}{where}", file=sys.stderr)
        # A child that was killed has a negative status.
        return next((status if status > 0 else SOME_FAILED for status in statuses if status), DONE)

    def _evaluate(self) -> tuple[dict[str, Any], dict[str, str]]:
        teacher, student, alone = (models.load(self.out / run) for run in ("teacher", STUDENT, KL_ONLY))
        audio = student.config.audio
        corpus = open_corpus(self.data, audio)
        chosen = (corpus.test or corpus.dev)[:4]
        clips = [NamedClip(clip.id, load_clip(clip, audio)) for clip in chosen]

        def system(model: Any) -> Callable[[Tensor, torch.Generator], Tensor]:
            return lambda mel, generator: model.sample(mel, generator=generator)

        systems = {"teacher": system(teacher), STUDENT: system(student), KL_ONLY: system(alone)}
        return evaluate(clips, systems, audio, self.out), {clip.id: clip.text for clip in chosen}

    def _benchmark(self) -> dict[str, Any]:
        teacher, student = models.load(self.out / "teacher"), models.load(self.out / STUDENT)
        corpus = open_corpus(self.data, student.config.audio)
        wav = load_clip((corpus.test or corpus.dev)[0], student.config.audio)[None]
        named = {"teacher": teacher, STUDENT: student}
        return benchmark(named, student.log_mel(wav), seconds=1.0, repeats=3, threads=1, naive_seconds=0.02)

    def _history(self, run: str) -> list[dict[str, float]]:
        return read_metrics(self.out / run)

    def _teacher_score(self) -> dict[str, float]:
        return [line for line in self._history("teacher") if "validation/nll" in line][-1]

    def _curves(self) -> dict[str, dict[str, list[tuple[float, float]]]]:
        def points(run: str, name: str) -> list[tuple[float, float]]:
            return [(line["step"], line[name]) for line in self._history(run) if name in line]

        teacher = {"training": points("teacher", "nll"), "held out": points("teacher", "validation/nll")}
        parts = {
            "KL": points(STUDENT, "kl/kl"),
            "entropy of the student": points(STUDENT, "kl/entropy"),
            "cross entropy": points(STUDENT, "kl/cross_entropy"),
        }
        alone = {"KL + STFT": points(STUDENT, "kl/kl"), "KL alone": points(KL_ONLY, "kl/kl")}
        return {
            "Teacher: NLL [nats/sample]": teacher,
            "Student: KL and its parts [nats/sample]": parts,
            "KL of both students [nats/sample]": alone,
        }


def check_gates(history: list[dict[str, float]], metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """What a healthy demo shows: [{"name", "found", "expected", "passed", "required", "line"}]."""
    divergence = [line["kl/kl"] for line in history if "kl/kl" in line]
    mean = {name: system["mean"] for name, system in metrics["systems"].items()}
    mel, alone = mean[STUDENT]["mel_distance"], mean[KL_ONLY]["mel_distance"]
    pitch = mean[STUDENT]["f0_within_3_percent"] or 0.0  # None where nothing of the recordings is voiced
    found = [
        (
            "KL falls by half",
            divergence[-1],
            f"below {divergence[0] / 2:.2f} nats/sample",
            divergence[-1] < divergence[0] / 2,
        ),
        ("student's mel distance", mel, "below 0.55 nats", mel < 0.55),
        ("student beats KL alone", mel, f"below {alone:.3f} nats, the KL-only student's", mel < alone),
        (PITCH, pitch, "at least 0.30, below that it is hoarse", pitch >= 0.30),
    ]
    return [
        {
            "name": name,
            "found": value,
            "expected": expected,
            "passed": passed,
            "required": name != PITCH,
            "line": f"{'reached' if passed else 'NOT reached'}: {name}: {value:.3f} (expected {expected})",
        }
        for name, value, expected, passed in found
    ]


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="demo", description=main.__doc__)
    parser.add_argument("--out", type=str, default="runs/demo", help="where everything goes")
    parser.add_argument(
        "--recipes", type=str, default=str(RECIPES), help="where demo_teacher.yaml and demo_student.yaml are"
    )
    parser.add_argument("--data", type=str, default="bundled", help="a corpus folder, or the bundled speech")
    parser.add_argument("--steps", type=int, nargs=2, help="steps of teacher and student, to try it out with fewer")
    return parser
