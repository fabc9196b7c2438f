"""`python -m distill.engines.measure`: how fast each engine is here, beside this machine's matrix products."""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
import yaml
from torch import Tensor

from distill import models
from distill.config import StudentConfig
from distill.engines.table import DEFAULT, ENGINES, build
from distill.speed.machine import cpu_model
from distill.speed.timing import conditions, measure
from distill.student import Engine, Student
from wavenet.arguments import from_dict, parse_arguments
from wavenet.config import require
from wavenet.errors import DONE, UserError, command
from wavenet.pitch.contour import Pitch

_BF16 = "bf16"  # measured, and not among the engines: it is another signal
_PRODUCT, _PRODUCTS, _SIDE = "products", 8, 1024  # of square matrices, and how many make a turn
_VOICE = 120.0  # Hz, of the mel's voice


@command("distill.engines.measure")
def main(argv: Sequence[str] | None = None) -> int:
    """STUDENT...: a table of the flows' speed on one CPU thread by each engine, medians of processor time.

    STUDENT is a run, or a recipe (.yaml) whose student is measured untrained. GMAC/s are the networks' own
    multiply-accumulates; `of products` relates them to the rate of 1024 x 1024 matrix products in between. apart: the
    greatest difference from torch at the same noise; dB: its level, over the signal's. bf16 is torch under autocast.
    """
    arguments = parse_arguments(_parser(), argv)
    require(arguments.seconds > 0, "--seconds", arguments.seconds, "a positive number")
    require(arguments.repeats > 0, "--repeats", arguments.repeats, "a positive integer")
    names = arguments.engines.split(",")
    for name in names:
        require(name in (*ENGINES, _BF16), "--engines", name, f"some of {', '.join((*ENGINES, _BF16))}")
    with conditions(1), torch.no_grad():
        print(f"{cpu_model()}, torch {torch.__version__}, 1 thread")
        print(
            "| student | engine | GMAC/s | of products | x real time | apart | dB |\n|---|---|---:|---:|---:|---:|---:|"
        )
        for path in arguments.students:
            for row in _rows(path, _student(path), names, arguments.seconds, arguments.repeats):
                print(row, flush=True)
    return DONE


def _rows(path: str, student: Student, names: Sequence[str], seconds: float, repeats: int) -> list[str]:
    audio = student.config.audio
    frames = max(1, round(seconds * audio.sample_rate / audio.hop_length))
    generator = torch.Generator().manual_seed(0)
    mel = torch.randn(1, audio.n_mels, frames, generator=generator) - 5
    pitch = Pitch(torch.full((1, frames), _VOICE), torch.ones(1, frames)) if student.prior is not None else None
    signal = student.noise(mel, generator=generator)
    cond = student.conditioning(mel, None, pitch)
    engines = {name: _engine(name, student) for name in {DEFAULT: None} | dict.fromkeys(names)}
    found = {name: engine(signal, cond) for name, engine in engines.items()}
    runs = {name: functools.partial(engine, signal, cond) for name, engine in engines.items()}
    # The products take their turn in every round: on a busy machine their rate is that of the same moments.
    matrix, result = torch.rand(_SIDE, _SIDE, generator=generator), torch.empty(_SIDE, _SIDE)
    timings = measure(runs | {_PRODUCT: functools.partial(_multiply, matrix, result)}, repeats)
    product = _PRODUCTS * _SIDE**3 / timings.pop(_PRODUCT).median_cpu / 1e9
    macs = sum(flow.macs_per_sample for flow in student.iafs) * signal.numel()
    rows = [f"| {Path(path).stem} | {_PRODUCT} | {product:.3g} | 1 | | | |"]
    for name, timing in timings.items():
        rate = macs / timing.median_cpu / 1e9
        real = signal.numel() / audio.sample_rate / timing.median_cpu
        apart, level = _apart(found[name], found[DEFAULT])
        cells = f"{rate:.3g} | {rate / product:.2f} | {real:.2f} | {apart:.1g} | {level:.0f}"
        rows.append(f"| {Path(path).stem} | {name} | {cells} |")
    return rows


def _multiply(matrix: Tensor, result: Tensor) -> None:
    for _ in range(_PRODUCTS):
        torch.mm(matrix, matrix, out=result)


def _apart(found: Tensor, expected: Tensor) -> tuple[float, float]:
    """Greatest difference, and its rms under the signal's [dB]."""
    difference = found - expected
    return float(difference.abs().max()), float(20 * torch.log10(difference.std() / expected.std()))


def _engine(name: str, student: Student) -> Engine:
    if name != _BF16:
        return build(name, student)

    def rounded(signal: Tensor, cond: Any) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return student.through(signal, cond)

    return rounded


def _student(path: str) -> Student:
    if Path(path).suffix != ".yaml":
        model = models.load(path)
        if not isinstance(model, Student):
            raise UserError(f"{path}: found a {type(model).__name__.lower()}, expected a student")
        return model
    recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    torch.manual_seed(0)
    return Student(from_dict(StudentConfig, recipe["model"])).eval().requires_grad_(False)


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="python -m distill.engines.measure", description=main.__doc__)
    parser.add_argument("students", type=str, nargs="+", help="run folders, checkpoint files, or recipes of students")
    parser.add_argument("--engines", type=str, default="tiled", help="which beside torch, separated by commas")
    parser.add_argument("--seconds", type=float, default=1.0, help="of audio for each run")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds")
    return parser


if __name__ == "__main__":
    sys.exit(main())
