"""How fast teachers and students train, where a step's time goes, and how two checkouts of the code compare.

The steps are those of the one training loop (wavenet/trainer.py) on a recipe's own corpus and crops; the parts are
named in the code that they time (wavenet/stopwatch.py). Not yet run on a GPU.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
from torch.utils.data import Dataset

from distill.evaluate import write_json
from distill.markers import check, fill
from distill.speed import recipe_task
from distill.speed.machine import describe
from distill.speed.recipe_task import RecipeTask
from distill.speed.tables import where
from distill.speed.timing import synchronize
from wavenet.arguments import parse_arguments
from wavenet.config import require
from wavenet.data import Batch
from wavenet.device import resolve_device
from wavenet.errors import DONE, UserError, command
from wavenet.stopwatch import Stopwatch
from wavenet.trainer import train

_RUN = "import runpy; runpy.run_path({path!r}, run_name='__main__')"
# One order for every table: what comes before the gradient, and after it.
_ORDER = (
    "data",
    "student",
    "teacher",
    "network",
    "likelihood",
    "kl",
    "contrastive",
    "stft",
    "mel",
    "power",
    "perceptual",
)


def profile_teacher(
    recipe: str, *, steps: int = 10, warmup: int = 3, threads: int = 1, device: str = "cpu"
) -> dict[str, Any]:
    """Training speed of a recipe without a teacher (a YAML file), and each part's share of a step.

    Parts of a teacher: data (crops and their mels), network (upsampler and stack), likelihood (the distribution's log
    mass), backward, gradient norm, optimiser, average (of the weights), rest (the loop itself). Returns "recipe",
    "kind", "device", "threads", "batch_size", "crop_length", "steps", samples_per_second, samples_per_cpu_second (audio
    samples of whole batches, means over `steps`), step_ms (wall), and "shares", which add up to 1: of processor time on
    a CPU, of wall time on a GPU, which is waited for between parts. Raises UserError for a device or a recipe that is
    none.
    """
    return _profile(RecipeTask(recipe, None, threads, resolve_device(device)), steps, warmup)


def profile_distillation(
    recipe: str, teacher: str, *, steps: int = 10, warmup: int = 3, threads: int = 1, device: str = "cpu"
) -> dict[str, Any]:
    """The same of a student's recipe under a teacher's, both YAML files.

    Parts: data, student (its pass), teacher (the frozen teacher's pass on the sample), each term of the objective (kl:
    draws scored under the teacher's law; contrastive: the teacher's second pass), and from the gradient on those of
    `profile_teacher`; backward is that of student, teacher and terms together.
    """
    return _profile(RecipeTask(recipe, teacher, threads, resolve_device(device)), steps, warmup)


def compare(
    recipe: str, contestants: Mapping[str, tuple[str, RecipeTask]], steps: int = 4, rounds: int = 5
) -> list[dict[str, Any]]:
    """Train one recipe in several ways, in turns: name -> (checkout of the code, task); a row for each.

    Every contestant has a process of its own; a round gives each a turn of `steps` steps, one after the other, so that
    a machine that slows down slows all. The first round counts for nothing. A row: "recipe", "name",
    samples_per_cpu_second and samples_per_second (medians of the rounds), min and max (of samples_per_cpu_second),
    "rounds", "steps", and ratio, the median over rounds of its samples_per_cpu_second over the first contestant's.
    """
    found = _turns(list(contestants.values()), steps, rounds)
    rows = []
    for (name, (_, task)), turns in zip(contestants.items(), found, strict=True):
        samples = steps * _samples(task)
        speeds = [samples / turn["cpu"] for turn in turns]
        rows.append(
            {
                "recipe": recipe,
                "name": name,
                "samples_per_cpu_second": statistics.median(speeds),
                "samples_per_second": statistics.median(samples / turn["wall"] for turn in turns),
                "min": min(speeds),
                "max": max(speeds),
                "rounds": rounds,
                "steps": steps,
                "ratio": statistics.median(one["cpu"] / turn["cpu"] for one, turn in zip(found[0], turns, strict=True)),
            }
        )
    return rows


def shares_table(profiles: Sequence[dict[str, Any]]) -> str:
    """Profiles side by side as a Markdown table: speeds, then each part's share of a step."""
    names = [name for profile in profiles for name in profile["shares"]]
    late = [name for name in dict.fromkeys(names) if name not in _ORDER]
    parts = [name for name in _ORDER if name in names] + sorted(late, key=lambda name: name == "rest")
    lines = ["| | " + " | ".join(Path(profile["recipe"]).stem for profile in profiles) + " |"]
    lines.append("|---|" + "---:|" * len(profiles))
    for title, key in (("samples/s", "samples_per_second"), ("samples/CPU-s", "samples_per_cpu_second")):
        lines.append(f"| {title} | " + " | ".join(f"{profile[key]:,.0f}" for profile in profiles) + " |")
    for part in parts:
        cells = [f"{profile['shares'][part]:.1%}" if part in profile["shares"] else "" for profile in profiles]
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def comparison_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `compare` as a Markdown table."""
    lines = [
        "| recipe | code | samples/CPU-s | slowest to fastest | samples/s | ratio |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in rows:
        cells = [row["recipe"], row["name"], f"{row['samples_per_cpu_second']:,.0f}"]
        cells += [f"{row['min']:,.0f} to {row['max']:,.0f}", f"{row['samples_per_second']:,.0f}", f"{row['ratio']:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@command("distill-training-speed")
def main(argv: Sequence[str] | None = None) -> int:
    """RECIPE... --out FILE.json: training speed, and the parts of a step; --before CHECKOUT: that code beside ours.

    --page PAGE: the tables go between the markers of --section there too.
    """
    parser = jsonargparse.ArgumentParser(prog="distill-training-speed", description=main.__doc__)
    parser.add_argument("recipes", nargs="+", type=str, help="YAML files of vocoders; for students STUDENT:TEACHER")
    parser.add_argument(
        "--before", type=str, help="the folder of another checkout, which trains in turns with this one"
    )
    parser.add_argument("--bf16", action="store_true", help="with --before: this code under autocast too")
    parser.add_argument("--steps", type=int, default=4, help="steps a turn; profiles take rounds x steps")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", type=str, default="cpu")
    parser.add_argument("--out", type=str, required=True)
    parser.add_argument("--page", type=str, help="a Markdown page whose section takes the tables, e.g. docs/results.md")
    parser.add_argument("--section", type=str, default="training-speed", help="name of the page's markers")
    found = parse_arguments(parser, argv)
    if found.page:
        check(Path(found.page), found.section)  # before the wait
    require(found.out.endswith(".json"), "--out", found.out, "a file name that ends in .json")
    if found.before is not None:
        require((Path(found.before) / "wavenet").is_dir(), "--before", found.before, "a checkout of this project")
    device, tasks = resolve_device(found.device), {}
    for pair in found.recipes:
        recipe, _, teacher = pair.partition(":")
        tasks[Path(recipe).stem] = RecipeTask(recipe, teacher or None, found.threads, device)
    result: dict[str, Any] = {"machine": describe(device)}
    result["profiles"] = [_profile(task, found.steps * found.rounds, found.steps) for task in tasks.values()]
    tables = [shares_table(result["profiles"])]
    print(tables[0])
    if found.before is not None:
        ours = str(Path(__file__).resolve().parent.parent)
        result["rows"] = []
        for name, task in tasks.items():
            field = {"before": (found.before, task), "after": (ours, task)}
            if found.bf16:
                field["after, bf16"] = (ours, dataclasses.replace(task, autocast="bf16"))
            result["rows"] += compare(name, field, found.steps, found.rounds)
        tables.append(comparison_table(result["rows"]))
        print("\n" + tables[1])
    write_json(Path(found.out), result)
    if found.page:
        fill(Path(found.page), "\n\n".join([*tables, f"Machine: {where(result['machine'])}."]), found.section)
    print(json.dumps(result, allow_nan=False), flush=True)
    return DONE


class _Profiled(Dataset[Batch]):
    """The batches of another; starts the watch when step `warmup` begins, and stops it `steps` later."""

    def __init__(self, batches: Dataset[Batch], watch: Stopwatch, warmup: int, steps: int) -> None:
        self.batches, self.watch, self.warmup, self.last = batches, watch, warmup, warmup + steps
        self.wall = self.cpu = 0.0

    def __getitem__(self, step: int) -> Batch:
        if step in (self.warmup, self.last):
            synchronize(self.watch.device)
            sign = -1 if step == self.warmup else 1
            self.wall += sign * time.perf_counter()
            self.cpu += sign * time.process_time()
            if step == self.warmup:
                self.watch.reset()
            else:
                self.watch.stop()
        return self.batches[step]


def _profile(task: RecipeTask, steps: int, warmup: int) -> dict[str, Any]:
    for name, count in {"steps": steps, "warmup": warmup}.items():
        require(count > 0, name, count, "at least 1")
    watch = Stopwatch(task.device)
    with tempfile.TemporaryDirectory() as folder:
        ready, config, batches = task.build(Path(folder))
        profiled = _Profiled(batches, watch, warmup, steps)
        # One step more than is measured: its batch is where the measurement ends.
        with watch.running():
            train(ready, dataclasses.replace(config, steps=warmup + steps + 1), profiled, 0, Path(folder) / "run")
    total = sum(watch.seconds.values())
    samples = steps * config.batch_size * config.crop_length
    return {
        "recipe": task.recipe,
        "kind": ready.kind,
        "device": task.device,
        "threads": task.threads,
        "batch_size": config.batch_size,
        "crop_length": config.crop_length,
        "steps": steps,
        "samples_per_second": samples / profiled.wall,
        "samples_per_cpu_second": samples / profiled.cpu,
        "step_ms": 1e3 * profiled.wall / steps,
        "shares": {part: seconds / total for part, seconds in watch.seconds.items()},
    }


def _samples(task: RecipeTask) -> int:
    settings = recipe_task.read(task.recipe)["train"]
    return int(settings["batch_size"]) * int(settings["crop_length"])


def _turns(contestants: Sequence[tuple[str, RecipeTask]], steps: int, rounds: int) -> list[list[dict[str, float]]]:
    """What each contestant's turns took, [contestant][round]."""
    with tempfile.TemporaryFile("w+") as errors:
        children = [_child(checkout, task, steps, errors) for checkout, task in contestants]
        try:
            found = [[_turn(child) for child in children] for _ in range(rounds + 1)]
        except (OSError, ValueError):
            errors.seek(0)
            last = errors.read().strip().splitlines()[-1:]
            names = " and ".join(checkout for checkout, _ in contestants)
            raise UserError(f"{contestants[0][1].recipe}: found no measurement of {names}: {last}") from None
        finally:
            for child in children:
                child.kill()
                child.wait()
    return [[one[place] for one in found[1:]] for place in range(len(contestants))]


def _child(checkout: str, task: RecipeTask, steps: int, errors: Any) -> subprocess.Popen[str]:
    recipes = {"recipe": task.recipe} | ({} if task.teacher is None else {"teacher": task.teacher})
    absolute = {name: str(Path(path).resolve()) for name, path in recipes.items()}
    settings = json.dumps(dataclasses.asdict(task) | absolute | {"steps": steps})
    source = _RUN.format(path=str(Path(recipe_task.__file__).resolve()))
    return subprocess.Popen(
        [sys.executable, "-c", source, settings],
        cwd=checkout,  # first on its import path
        env=os.environ | {"PYTHONPATH": str(Path(checkout).resolve())},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )


def _turn(child: subprocess.Popen[str]) -> dict[str, float]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    found: dict[str, float] = json.loads(child.stdout.readline())
    return found
