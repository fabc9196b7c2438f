"""`distill-compare`: every kind of vocoder here, trained on one corpus for the same minutes, side by side.

Each training gets the same minutes of processor time: a step is measured first, and the steps that fit are what its
schedule is made for. What a system learns from comes on top: a student's teacher, a signal model's pitch network. Then
held-out clips: density, sound, cost. All of it again for every seed. Everything resumes where it was left.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse

from distill import models
from distill.clips import NamedClip
from distill.comparison_page import MAP, TABLE, map_lines, table_lines
from distill.coupling.train import main as train_flow
from distill.evaluate import evaluate, write_json
from distill.family import figures_of
from distill.markers import check, fill
from distill.systems import as_system
from distill.train import main as distil
from distill.wavevae.train import main as train_wavevae
from wavenet import checkpoint
from wavenet.arguments import parse_arguments
from wavenet.config import require
from wavenet.data import load_clip, open_corpus
from wavenet.errors import DONE, STOPPED, UserError, command
from wavenet.pitch.train import main as train_pitch
from wavenet.train import main as train_teacher

RECIPES = Path(__file__).resolve().parent.parent / "configs"
PITCH, TEACHER, GAUSSIAN = "pitch", "teacher", "teacher-gaussian"
_PROBE = {"train.validate_every": 2**40, "train.checkpoint_every": 2**40, "data.validation_clips": 1}
_SHORT, _LONG = 5, 35  # steps of the trainings that measure a step
_LEAST = 1e-3  # seconds that they differ at least, on a clock that is coarse
_PACE, _TAKEN, _STATUS = "seconds-a-step.json", "seconds.json", "status.json"


class System(NamedTuple):
    """A row: title, what teaches it, its training and recipe, runs that it learns from by option, what it is told."""

    title: str
    signal: str
    train: Callable[[Sequence[str]], int]
    recipe: str
    needs: Mapping[str, str] = {}
    settings: Mapping[str, str] = {}


_LIKELIHOOD, _KL = "likelihood of recordings", "KL to the teacher, spectra"
_OF_TEACHER = {"--teacher": TEACHER}
SYSTEMS = {
    TEACHER: System("WaveNet, mixture", _LIKELIHOOD, train_teacher, "demo_teacher.yaml"),
    GAUSSIAN: System(
        "WaveNet, Gaussian",
        _LIKELIHOOD,
        train_teacher,
        "demo_teacher.yaml",
        settings={"model.distribution.kind": "gaussian"},
    ),
    "iaf": System("IAF student, mixture", _KL, distil, "demo_student.yaml", _OF_TEACHER),
    "iaf-gaussian": System(
        "IAF student, Gaussian", _KL, distil, "demo_student.yaml", {"--teacher": GAUSSIAN}, {"model.noise": "normal"}
    ),
    "source-filter": System(
        "source-filter IAF student", _KL, distil, "demo_source_filter.yaml", _OF_TEACHER | {"--pitch": PITCH}
    ),
    "coupling": System("coupling student", _KL, distil, "demo_coupling_student.yaml", _OF_TEACHER),
    "flow": System("RealNVP", _LIKELIHOOD, train_flow, "demo_flow.yaml"),
    "wavevae": System("WaveVAE", "bound of recordings, spectra", train_wavevae, "demo_wavevae.yaml"),
}


@command("distill-compare")
def main(argv: Sequence[str] | None = None) -> int:
    """Train every system for --minutes, measure them, fill the pages. Returns 0, or the status of a training."""
    arguments = parse_arguments(_parser(), argv)
    require(0 < arguments.minutes < math.inf, "--minutes", arguments.minutes, "a positive number")
    require(arguments.clips > 0, "--clips", arguments.clips, "at least 1")
    pages = {name: Path(page) for name, page in ((TABLE, arguments.page), (MAP, arguments.map)) if page is not None}
    for section, page in pages.items():
        check(page, section)
    require(len(set(arguments.seeds)) == len(arguments.seeds), "--seeds", arguments.seeds, "different seeds")
    out, found = Path(arguments.out), []
    for seed in arguments.seeds:
        comparison = Comparison(out / f"seed-{seed}", Path(arguments.recipes), arguments.data, arguments.minutes, seed)
        try:
            comparison.train()
        except _Ended as ended:
            return ended.status
        found.append(comparison.measure(arguments.clips))
    figures = {"seeds": arguments.seeds} | over_seeds(found) | {"each": found}
    write_json(out / "comparison.json", figures)
    for section, page in pages.items():
        fill(page, "\n".join((table_lines if section == TABLE else map_lines)(figures)), section)
    return DONE


def over_seeds(found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Comparisons of several seeds as one: means, and in "spread" of a row and of its sound the largest less the least.

    A figure that a seed lacks is the mean of the others'. What was stopped is what any seed's monitor stopped.
    """
    result = dict(found[0])
    for part in ("rows", "others"):
        together = zip(*(figures[part] for figures in found), strict=True)
        result[part] = [_row_over_seeds(rows) for rows in together]
    return result


def _row_over_seeds(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    first = dict(rows[0])
    numbers = [name for name, value in first.items() if isinstance(value, (int, float))]
    first["sound"], heard = _over_seeds([row["sound"] for row in rows])
    means, spread = _over_seeds([{name: row[name] for name in numbers} for row in rows])
    if "stopped" in first:
        first["stopped"] = list(dict.fromkeys(title for row in rows for title in row["stopped"]))
    return first | means | {"spread": spread | heard}


def _over_seeds(values: Sequence[dict[str, float | None]]) -> tuple[dict[str, float | None], dict[str, float | None]]:
    means: dict[str, float | None] = {}
    spread: dict[str, float | None] = {}
    for name in values[0]:
        known = [value for row in values if (value := row[name]) is not None]
        means[name] = statistics.fmean(known) if known else None
        spread[name] = max(known) - min(known) if known else None
    return means, spread


class Comparison:
    """The trainings and figures of one seed, in a folder."""

    def __init__(self, out: Path, recipes: Path, data: str, minutes: float, seed: int = 0) -> None:
        self.out, self.recipes, self.data, self.minutes, self.seed = out, recipes, data, minutes, seed
        self.pitch = System("pitch network", "labels of a tracker", train_pitch, "demo_pitch.yaml")

    def train(self) -> None:
        """Every system in turn; one that its monitor stops stays so, and is compared as it is then. Raises _Ended."""
        self._once(PITCH, self.pitch, {})
        for run, system in SYSTEMS.items():
            self._once(run, system, {"train.steps": self.steps(run)})

    def steps(self, run: str) -> int:
        """Steps of a system's training that fit into the minutes.

        Seconds a step are the difference of a longer and a shorter training, so that setting up does not count, after
        one that compiles what wants compiling: processor time, measured once and kept.
        """
        known = self._kept(_PACE).get(run)
        if known is None:
            lengths = (_SHORT, _SHORT, _LONG)
            taken = []
            for number, steps in enumerate(lengths):
                probe = self.out / "probes" / f"{run}-{number}"
                status, seconds = self._train(SYSTEMS[run], probe, _PROBE | {"train.steps": steps})
                if status != DONE:  # fewer steps than were asked for have no pace
                    raise _Ended(status)
                taken.append(seconds)
            known = max(taken[2] - taken[1], _LEAST) / (_LONG - _SHORT)
            self._keep(_PACE, run, known)
        return max(1, round(60 * self.minutes / known))

    def measure(self, clips: int) -> dict[str, Any]:
        """{"minutes", "data", "clips", "rows": a row for each system}: see distill.family and the table's columns."""
        loaded = {run: models.load_vocoder(self.out / run) for run in SYSTEMS}
        audio = loaded[TEACHER].config.audio
        corpus = open_corpus(self.data, audio)
        chosen = (corpus.test or corpus.dev)[:clips]
        named = [NamedClip(clip.id, load_clip(clip, audio)) for clip in chosen]
        systems = {run: as_system(model) for run, model in loaded.items()}
        heard = evaluate(named, systems, audio, self.out / "evaluation")["systems"]
        rows = [
            {"run": run, "title": SYSTEMS[run].title, "signal": SYSTEMS[run].signal, "planned": self.steps(run)}
            | {"steps": checkpoint.load(self.out / run).step, "stopped": self.stopped(run)}
            | {"sound": heard[run]["mean"], "cpu_seconds": self._kept(_TAKEN)[run]}
            | figures_of(model, chosen)
            for run, model in loaded.items()
        ]
        others = [{"title": name, "sound": found["mean"]} for name, found in heard.items() if name not in loaded]
        return {
            "minutes": self.minutes,
            "data": self.data,
            "sample_rate": audio.sample_rate,
            "clips": [clip.name for clip in named],
            "rows": rows,
            "others": others,
        }

    def stopped(self, run: str) -> list[str]:
        """Titles of what its monitor stopped: the system itself, and what it learned from."""
        known = SYSTEMS | {PITCH: self.pitch}
        ended = self._kept(_STATUS)
        return [known[name].title for name in (run, *known[run].needs.values()) if ended.get(name) == STOPPED]

    def _once(self, run: str, system: System, settings: Mapping[str, object]) -> None:
        """Train, or go on, and add up the processor time; what was stopped is not trained again. Raises _Ended."""
        if self._kept(_STATUS).get(run) == STOPPED:
            return
        status, taken = self._train(system, self.out / run, settings)
        self._keep(_TAKEN, run, self._kept(_TAKEN).get(run, 0.0) + taken)
        self._keep(_STATUS, run, status)

    def _kept(self, name: str) -> dict[str, float]:
        path = self.out / name
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def _keep(self, name: str, run: str, value: float) -> None:
        write_json(self.out / name, self._kept(name) | {run: value})

    def _train(self, system: System, run: Path, settings: Mapping[str, object]) -> tuple[int, float]:
        """Train, or go on; status, DONE or STOPPED, and CPU-seconds taken. Raises _Ended."""
        recipe = self.recipes / system.recipe
        if not recipe.is_file():
            raise UserError(f"{recipe}: found no such recipe; run from a clone, or say --recipes")
        print(f"{system.title} ({run.relative_to(self.out)}):", file=sys.stderr)
        arguments = ["--config", str(recipe), "--data.root", self.data, "--out", str(run), "--train.threads", "1"]
        arguments += ["--train.seed", str(self.seed)]
        for name, value in {**system.settings, **settings}.items():
            arguments += [f"--{name}", str(value)]
        for option, needed in system.needs.items():
            arguments += [option, str(self.out / needed)]
        if "--teacher" in system.needs:
            arguments.append("--force")  # a teacher of few minutes may know little: the table says so
        begun = time.process_time()
        if (status := system.train(arguments)) not in (DONE, STOPPED):
            raise _Ended(status)
        return status, time.process_time() - begun


class _Ended(Exception):
    """A training ended before its time, and not by its monitor: a mistake, or Ctrl-C."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-compare", description=main.__doc__)
    parser.add_argument("--out", type=str, default="runs/comparison", help="where everything goes")
    parser.add_argument("--recipes", type=str, default=str(RECIPES), help="where the demo_*.yaml are")
    parser.add_argument("--data", type=str, default="bundled", help="a corpus folder, or the bundled speech")
    parser.add_argument("--minutes", type=float, default=10.0, help="of processor time, for each training")
    parser.add_argument("--clips", type=int, default=4, help="held-out clips to measure on")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the trainings: all of it for each")
    parser.add_argument("--page", type=str, help="a page with markers for the table, e.g. docs/results.md")
    parser.add_argument("--map", type=str, help="a page with markers for the map, e.g. docs/theory.md")
    return parser
