"""`distill-benchmark`: how fast each model makes audio, beside the limits of the machine that it runs on."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
from torch import Tensor

from distill.charts import Bar, draw_bars
from distill.evaluate import write_json
from distill.inputs import read_mel
from distill.markers import check, fill
from distill.speed.contestants import KNOWN
from distill.speed.measurement import benchmark
from distill.speed.references import REFERENCES, reference
from distill.speed.tables import base, machine_line, markdown_table
from distill.systems import load_systems
from wavenet.arguments import parse_arguments
from wavenet.config import require
from wavenet.data import load_clip, open_corpus
from wavenet.device import resolve_device
from wavenet.errors import DONE, UserError, command

_QUICK: dict[str, Any] = {"seconds": 0.25, "repeats": 3, "naive_seconds": 0.0, "budget": 0.5}
_USUAL: dict[str, Any] = {"seconds": 1.0, "repeats": 5, "naive_seconds": 0.05, "budget": 4.0}
_STEPS = {True: {"steps": 3, "warmup": 1}, False: {"steps": 10, "warmup": 3}}  # of training; with --quick, without
_MINIATURES = "miniatures"


@command("distill-benchmark")
def main(argv: Sequence[str] | None = None) -> int:
    """[CHECKPOINT...] --out FILE.json: speeds of models, sequential and parallel, with a chart beside the file.

    Without checkpoints: untrained nets of the literature's sizes (--nets). --training [RECIPES]: recipes' training too,
    under the JSON's key "training". The last line on stdout is the same JSON.
    Returns the exit status.
    """
    arguments = parse_arguments(_parser(), argv)
    out, device = Path(arguments.out), resolve_device(arguments.device)
    require(out.suffix == ".json" and not out.is_dir(), "--out", arguments.out, "a file name that ends in .json")
    if out.exists() and not arguments.overwrite:
        raise UserError(f"{out}: found an existing file, expected none (--overwrite replaces it)")
    if arguments.page:
        check(Path(arguments.page), arguments.section)  # before the wait
    usual = _QUICK if arguments.quick else _USUAL
    settings = {name: usual[name] if (value := arguments[name]) is None else value for name in usual}
    nets = [name for name in arguments.nets.split(",") if name]
    for name in nets:
        require(name in REFERENCES, "--nets", name, f"some of {', '.join(REFERENCES)}")
    if not nets and not arguments.checkpoints:
        nets = list(REFERENCES)
    pairs = _pairs(arguments.training)
    named = load_systems(arguments.checkpoints, device) if arguments.checkpoints else {}
    named |= {name: reference(name, device) for name in nets}
    mel = _chosen_mel(arguments.mel, next(iter(named.values())))
    out.parent.mkdir(parents=True, exist_ok=True)  # a place that cannot be written is known before the wait
    result = benchmark(
        named,
        mel,
        **settings,
        threads=arguments.threads,
        batch=arguments.batch,
        device=device,
        methods=tuple(name.strip() for name in arguments.methods.split(",")) if arguments.methods else None,
        lengths=_numbers("--lengths", arguments.lengths, float),
        batches=_numbers("--batches", arguments.batches, int),
    )
    table = markdown_table(result)
    if pairs:
        from distill.speed.training import training_speeds, training_table

        result["training"] = training_speeds(pairs, threads=arguments.threads, device=device, **_STEPS[arguments.quick])
        table += f"\n\n{training_table(result['training'])}"
    print(f"\n{table}\n")
    write_json(out, result)
    if arguments.page:
        fill(Path(arguments.page), f"{table}\n\n{machine_line(result)}", arguments.section)
    _chart(out.with_suffix(".png"), result, next(iter(named.values())).config.audio.sample_rate)
    print(json.dumps(result, allow_nan=False), flush=True)
    return DONE


def _pairs(text: str | None) -> list[tuple[str, str]]:
    if text is None:
        return []
    from distill.speed.training import USUAL, pairs_of  # what trains takes seconds to import

    return pairs_of(USUAL if text == _MINIATURES else text)


def _chosen_mel(path: str | None, model: Any) -> Tensor:
    if path is None:
        audio = model.config.audio
        wav = load_clip(open_corpus("bundled", audio).test[0], audio)
        mel: Tensor = model.log_mel(wav[None].to(next(model.parameters())))
        return mel
    mel, notes = read_mel(Path(path), model)
    for note in notes:
        print(f"{path}: {note}", file=sys.stderr)
    return mel


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise UserError(f"{name}: found {text!r}, expected numbers separated by commas") from None


def _chart(path: Path, result: dict[str, Any], sample_rate: int) -> None:
    bars = [
        Bar(f"{row['net']}, {row['method']}", row["samples_per_second"], row["min"], row["max"])
        for row in base(result["rows"])
    ]
    try:
        draw_bars(path, bars, "Speed of synthesis", "samples a second", ("real time", float(sample_rate)))
    except ImportError:
        print(f"{path}: not drawn, matplotlib is missing (pip install matplotlib)", file=sys.stderr)


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-benchmark", description=main.__doc__)
    parser.add_argument("checkpoints", type=str, nargs="*", help="run folders, files, or names of shipped weights")
    parser.add_argument("--nets", type=str, default="", help=f"untrained nets beside them: {', '.join(REFERENCES)}")
    parser.add_argument("--out", type=str, required=True, help="FILE.json; a chart goes to FILE.png")
    parser.add_argument("--seconds", type=float, help="of audio for each run (default: 1)")
    parser.add_argument("--repeats", type=int, help="timed rounds (default: 5)")
    parser.add_argument("--naive_seconds", "--naive-seconds", type=float, help="by naive sampling (default: 0.05)")
    parser.add_argument("--budget", type=float, help="seconds that a run may take: slow methods make less (default: 4)")
    parser.add_argument("--lengths", type=str, default="", help="further lengths of audio [s], separated by commas")
    parser.add_argument("--batches", type=str, default="", help="further numbers of signals, separated by commas")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--batch", type=int, default=1, help="signals made at once")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--methods", type=str, help=f"some of {', '.join(KNOWN)} (default: all that pay)")
    parser.add_argument(
        "--training",
        type=str,
        nargs="?",
        const=_MINIATURES,
        help="recipes whose training is timed too, TEACHER.yaml or STUDENT.yaml:TEACHER.yaml, separated by commas "
        "(without any: two miniatures)",
    )
    parser.add_argument("--mel", type=str, help=".npy, .wav or .flac to be said (default: a bundled recording)")
    parser.add_argument("--page", type=str, help="a Markdown page whose section takes the tables, e.g. docs/results.md")
    parser.add_argument("--section", type=str, default="speed", help="name of the page's markers")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.json")
    parser.add_argument("--quick", action="store_true", help="less of all, no naive sampling: under a minute")
    return parser
