"""`distill-benchmark`: how fast each model makes audio, beside the ceilings of the machine it runs on."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import torch
from torch import Tensor, nn

from distill import models
from distill.agreement import FLIPS, TOLERANCE, difference, not_given_back, speakers_of
from distill.charts import Bar, draw_bars
from distill.evaluate import write_json
from distill.machine import ceilings, describe
from distill.synthesize import read_mel
from distill.systems import load_systems
from distill.timing import Timing, conditions, measure
from wavenet.arguments import parse_arguments
from wavenet.config import require
from wavenet.data import load_clip, open_corpus
from wavenet.device import resolve_device
from wavenet.errors import DONE, UserError, command
from wavenet.teacher import SAMPLERS, Teacher

PARALLEL = "parallel"
METHODS = ("naive", "cached", "fused", PARALLEL)
_QUICK: dict[str, Any] = {"seconds": 0.2, "repeats": 2, "naive_seconds": 0.01}
_USUAL: dict[str, Any] = {"seconds": 1.0, "repeats": 5, "naive_seconds": 0.05}


class Contestant(NamedTuple):
    """One row to be: net and method by name, seconds of audio of each of the batch, samples of all, and the run."""

    net: str
    method: str
    seconds: float
    samples: int
    run: Callable[[], Tensor]


def benchmark(
    models: Mapping[str, nn.Module],
    mel: Tensor,
    *,
    seconds: float = 1.0,
    repeats: int = 5,
    threads: int = 1,
    naive_seconds: float = 0.05,
    batch: int = 1,
    device: str = "cpu",
    methods: Sequence[str] = METHODS,
    seed: int = 0,
    announce: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Time each model with each of `methods` that it has, on mel (1, M, F) repeated to `seconds` of audio.

    Sequential models run the sequential methods, students run "parallel". Returns {"machine", "nets", "ceilings",
    "rows", "ratios"}: samples_per_second counts the whole batch and is the median of `repeats` interleaved rounds, min
    and max the slowest and fastest round, x_real_time = batch x seconds of audio / wall seconds, peak_memory_mb as in
    timing.peak_memory_mb; a ratio is samples_per_second of "NET METHOD" over that of another, and its net is the
    first's. `naive` makes naive_seconds only. Models must be on `device`; TF32 is off and `threads` holds meanwhile.

    Raises UserError for settings without sense, and when a sequential method does not give the reference sampler's
    audio (at most 1e-4 apart at the same noise), or its own back under teacher forcing: such a method is not timed.
    """
    _check(models, mel, methods, device)
    for name, value in {"seconds": seconds, "naive_seconds": naive_seconds}.items():
        require(0 < value < math.inf, name, value, "a positive number of seconds")
    for name, count in {"repeats": repeats, "threads": threads, "batch": batch}.items():
        require(count > 0, name, count, "at least 1")
    with conditions(threads):
        machine, nets, limits = describe(device), [_net(*item) for item in models.items()], ceilings(device)
        for line in _header(machine, nets, limits, threads):
            announce(line)
        lengths = {method: naive_seconds if method == "naive" else seconds for method in methods}
        field = [
            _contestant(name, model, mel, method, lengths[method], batch, seed)
            for name, model in models.items()
            for method in _methods_of(model, methods)
        ]
        require(bool(field), "methods", list(methods), "a method that one of the models has")
        for name, model in models.items():
            for method in _methods_of(model, methods):
                if method not in ("naive", PARALLEL):
                    for line in _agree(name, model, mel, method, naive_seconds, seconds, seed):
                        announce(line)
        timings = measure({f"{c.net} {c.method}": c.run for c in field}, repeats, device)
        rows = [_row(c, timings[f"{c.net} {c.method}"], device, threads, batch) for c in field]
    return {"machine": machine, "nets": nets, "ceilings": limits, "rows": rows, "ratios": ratios(rows)}


def ratios(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each parallel row over each sequential one, and each sequential method over those before it for the same net."""
    pairs = [(of, over) for of in rows if of["method"] == PARALLEL for over in rows if over["method"] != PARALLEL]
    order = list(METHODS)  # slowest first: every faster sequential method over each slower one of the same net
    pairs += [
        (of, over)
        for of in rows
        for over in rows
        if of["net"] == over["net"] and PARALLEL not in (of["method"], over["method"])
        if order.index(over["method"]) < order.index(of["method"])
    ]
    return [
        {
            "of": f"{of['net']} {of['method']}",
            "over": f"{over['net']} {over['method']}",
            "net": of["net"],
            "device": of["device"],
            "value": of["samples_per_second"] / over["samples_per_second"],
        }
        for of, over in pairs
    ]


def markdown_table(result: dict[str, Any]) -> str:
    """The rows as a Markdown table, then a line for each ratio."""
    head = ("net", "method", "samples/s", "slowest to fastest", "samples/CPU-s", "x real time", "peak MB", "audio s")
    lines = ["| " + " | ".join(head) + " |", "|---|---|" + "---:|" * (len(head) - 2)]
    for row in result["rows"]:
        memory = "-" if row["peak_memory_mb"] is None else f"{row['peak_memory_mb']:,.0f}"
        speeds = [_short(row[name]) for name in ("samples_per_second", "min", "max", "samples_per_cpu_second")]
        cells = [row["net"], row["method"], speeds[0], f"{speeds[1]} to {speeds[2]}", speeds[3]]
        cells += [f"{row['x_real_time']:.3g}", memory, f"{row['seconds_of_audio']:.3g}"]
        lines.append("| " + " | ".join(cells) + " |")
    if result["rows"]:
        first = result["rows"][0]
        setting = f"{first['device']}, {first['threads']} thread(s), batch {first['batch']}"
        lines += ["", f"x real time is seconds of audio made in a second. Medians of {first['repeats']} on {setting}."]
    lines += [""] if result["ratios"] else []
    lines += [f"- {r['of']} is {_short(r['value'])} times as fast as {r['over']}" for r in result["ratios"]]
    return "\n".join(lines)


@command("distill-benchmark")
def main(argv: Sequence[str] | None = None) -> int:
    """CHECKPOINT... --out FILE.json: speeds of models, sequential and parallel, with a chart beside the file.

    The last line on stdout is the same JSON. Returns the exit status.
    """
    arguments = parse_arguments(_parser(), argv)
    out, device = Path(arguments.out), resolve_device(arguments.device)
    require(out.suffix == ".json" and not out.is_dir(), "--out", arguments.out, "a file name that ends in .json")
    if out.exists() and not arguments.overwrite:
        raise UserError(f"{out}: found an existing file, expected none (--overwrite replaces it)")
    usual = _QUICK if arguments.quick else _USUAL
    lengths = {name: usual[name] if (value := arguments[name]) is None else value for name in usual}
    named = load_systems(arguments.checkpoints, device)
    mel = _chosen_mel(arguments.mel, next(iter(named.values())))
    out.parent.mkdir(parents=True, exist_ok=True)  # a place that cannot be written is known before the wait
    result = benchmark(
        named,
        mel,
        **lengths,
        threads=arguments.threads,
        batch=arguments.batch,
        device=device,
        methods=tuple(name.strip() for name in arguments.methods.split(",")),
    )
    print(f"\n{markdown_table(result)}\n")
    write_json(out, result)
    _chart(out.with_suffix(".png"), result, next(iter(named.values())).config.audio.sample_rate)
    print(json.dumps(result, allow_nan=False), flush=True)
    return DONE


def _check(nets: Mapping[str, nn.Module], mel: Tensor, methods: Sequence[str], device: str) -> None:
    known = (*SAMPLERS, PARALLEL)
    for method in methods:
        require(method in known, "methods", method, f"one of {', '.join(known)}")
    require(bool(nets), "models", 0, "at least one")
    require(len(set(methods)) == len(methods), "methods", list(methods), "each once")
    first = next(iter(nets))
    configs: dict[str, Any] = {name: net.config for name, net in nets.items()}
    reference = configs[first].audio
    for name, net in nets.items():
        found = configs[name].audio
        require(found == reference, name, found, f"the audio settings of {first}, {reference}")
        where = next(net.parameters()).device.type
        require(where == torch.device(device).type, name, f"weights on {where}", f"weights on {device}")
    fits = mel.dim() == 3 and mel.shape[:2] == (1, reference.n_mels) and mel.shape[2] > 0
    require(fits, "mel", tuple(mel.shape), f"shape (1, {reference.n_mels}, F) with F > 0")


def _methods_of(model: nn.Module, methods: Sequence[str]) -> list[str]:
    sequential = isinstance(model, Teacher)
    return [method for method in methods if (method != PARALLEL) == sequential]


def _contestant(name: str, model: Any, mel: Tensor, method: str, seconds: float, batch: int, seed: int) -> Contestant:
    audio = model.config.audio
    tiled = _tiled(model, mel, seconds, batch)
    samples = tiled.shape[2] * audio.hop_length
    extra = speakers_of(model, batch, tiled.device) | ({} if method == PARALLEL else {"method": method})

    def run() -> Tensor:
        wav: Tensor = model.sample(tiled, generator=torch.Generator().manual_seed(seed), **extra)
        assert wav.shape == (batch, samples)
        return wav

    return Contestant(name, method, samples / audio.sample_rate, batch * samples, run)


def _tiled(model: Any, mel: Tensor, seconds: float, batch: int) -> Tensor:
    """mel (1, M, F) repeated to a batch of so many seconds, in the model's precision and place."""
    audio = model.config.audio
    frames = max(1, round(seconds * audio.sample_rate / audio.hop_length))
    return mel.repeat(batch, 1, -(-frames // mel.shape[2]))[:, :, :frames].to(next(model.parameters()))


def _agree(name: str, model: Any, mel: Tensor, method: str, short: float, long: float, seed: int) -> Iterator[str]:
    """What the checks of a sequential method found; UserError when it is not the reference's computation."""
    brief, whole = (_tiled(model, mel, seconds, 1) for seconds in (short, long))
    apart = difference(model, brief, method, "naive", seed)
    if not apart <= TOLERANCE:  # a NaN is no agreement
        raise UserError(
            f"{name}: found {method} and naive sampling {apart:.3g} apart, expected at most {TOLERANCE:g} at the "
            "same noise: not timed"
        )
    hop = model.config.audio.hop_length
    yield f"{name}: {method} equals naive sampling within {apart:.1g} over {brief.shape[2] * hop} samples"
    lost = not_given_back(model, whole, method, seed)
    if lost > FLIPS:
        raise UserError(
            f"{name}: found {lost:.2%} of {method} samples that teacher forcing does not give back, expected at most "
            f"{FLIPS:.1%}: not timed"
        )
    yield f"{name}: teacher forcing gives {1 - lost:.2%} of {whole.shape[2] * hop} {method} samples back"


def _row(contestant: Contestant, timing: Timing, device: str, threads: int, batch: int) -> dict[str, Any]:
    samples = contestant.samples
    return {
        "net": contestant.net,
        "method": contestant.method,
        "device": device,
        "threads": threads,
        "batch": batch,
        "seconds_of_audio": contestant.seconds,
        "samples_per_second": samples / timing.median_wall,
        "samples_per_cpu_second": samples / timing.median_cpu,
        "x_real_time": batch * contestant.seconds / timing.median_wall,
        "peak_memory_mb": timing.peak_memory_mb,
        "min": samples / max(timing.wall),
        "max": samples / min(timing.wall),
        "repeats": len(timing.wall),
    }


def _net(name: str, model: Any) -> dict[str, Any]:
    kind = next((kind for kind, (_, cls) in models.KINDS.items() if type(model) is cls), type(model).__name__)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return {"name": name, "kind": kind, "parameters": parameters, "macs_per_sample": model.macs_per_sample}


def _header(
    machine: dict[str, Any], nets: Sequence[dict[str, Any]], limits: dict[str, float], threads: int
) -> Iterator[str]:
    yield "machine: " + ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    for net in nets:
        macs = f"{net['macs_per_sample']:,} multiply-accumulates a sample"
        yield f"{net['name']}: {net['kind']}, {net['parameters']:,} parameters, {macs}"
    rates = f"matrix x matrix {limits['gemm_gflops']:.1f} GFLOP/s, matrix x vector {limits['gemv_gflops']:.1f} GFLOP/s"
    yield f"ceilings with {threads} thread(s): {rates}, copy {limits['copy_gb_per_s']:.1f} GB/s"


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


def _chart(path: Path, result: dict[str, Any], sample_rate: int) -> None:
    bars = [
        Bar(f"{row['net']}, {row['method']}", row["samples_per_second"], row["min"], row["max"])
        for row in result["rows"]
    ]
    try:
        draw_bars(path, bars, "Speed of synthesis", "samples a second", ("real time", float(sample_rate)))
    except ImportError:
        print(f"{path}: not drawn, matplotlib is missing (pip install matplotlib)", file=sys.stderr)


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-benchmark", description=main.__doc__)
    parser.add_argument("checkpoints", type=str, nargs="+", help="run folders or checkpoint files")
    parser.add_argument("--out", type=str, required=True, help="FILE.json; a chart goes to FILE.png")
    parser.add_argument("--seconds", type=float, help="of audio for each run (default: 1)")
    parser.add_argument("--repeats", type=int, help="timed rounds (default: 5)")
    parser.add_argument("--naive_seconds", "--naive-seconds", type=float, help="for naive sampling (default: 0.05)")
    parser.add_argument("--threads", type=int, default=1, help="of torch")
    parser.add_argument("--batch", type=int, default=1, help="signals made at once")
    parser.add_argument("--device", type=str, default="cpu", help="cpu, cuda or auto")
    parser.add_argument("--methods", type=str, default=",".join(METHODS), help="which, separated by commas")
    parser.add_argument("--mel", type=str, help=".npy, .wav or .flac to be said (default: a bundled recording)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE.json")
    parser.add_argument("--quick", action="store_true", help="short and rough: 0.2 s, 2 rounds, 0.01 s naive")
    return parser
