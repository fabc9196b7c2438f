"""Models timed side by side: limits first, agreement before speed, rounds in turns."""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from distill import models
from distill.speed.ceilings import ceilings, sequential_limits
from distill.speed.contestants import KNOWN, PARALLEL, Contestant, agreement, contestant, methods_of, pace, sweep
from distill.speed.gpu_ceilings import arithmetic_limit
from distill.speed.machine import describe
from distill.speed.tables import limits_line, ratios, short
from distill.speed.timing import Timing, allocated, conditions, measure, peak_memory_mb
from wavenet.config import require
from wavenet.teacher import ON_CPU, SAMPLERS

_AROUND = 0.1  # seconds for each rate that is measured before and after a sampler's run
METHODS = ("naive", "cached", "fused", PARALLEL, "tiled")
GPU_METHODS = ("naive", "cached", "fused", "graph", "persistent", PARALLEL, "cudagraph", "triton", "triton16")


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
    methods: Sequence[str] | None = None,
    lengths: Sequence[float] = (),
    batches: Sequence[int] = (),
    budget: float = 30.0,
    seed: int = 0,
    announce: Callable[[str], object] = print,
) -> dict[str, Any]:
    """Time each model with each of `methods` that it has, on mel (1, M, F) repeated to `seconds` of audio.

    methods: METHODS, or GPU_METHODS, where none are named. A row's device is the one that its method computes on: a
    sampler of the CPU's keeps to it beside a GPU.

    Teachers run the sequential methods; students "parallel", their pass by torch, and their other engines by name.
    Returns {"machine", "nets", "ceilings", "rows", "ratios"}: samples_per_second counts the whole batch and is the
    median of `repeats` interleaved rounds, min and max the slowest and fastest round, x_real_time = batch x seconds of
    audio / wall seconds, peak_memory_mb as in timing.peak_memory_mb. share_of_fma is the net's multiply-adds a second
    over the machine's (on a GPU over its matrix products in what the method multiplies in, gpu_ceilings.py),
    share_of_floor and share_of_bound a sampler's speed per CPU second over these (ceilings.py), the median of rounds,
    each over what was measured right before and after its run. A net's floor and bound are medians of those, and the
    announced first measurement where no sampler ran at batch 1. A ratio is samples_per_second of "NET METHOD" over that
    of another, and its net is the first's.

    lengths [s], batches: further rows, one of the two at a time, where a method makes them in about `budget` seconds a
    run; slower methods make as much of `seconds` as they can, in batches too. `naive` makes naive_seconds only, and
    with 0 is left out, of the checks too. Models must be on `device`; TF32 is off and `threads` holds meanwhile.

    Raises UserError for settings without sense, and when a method does not give the reference's audio (at most 1e-4
    apart at the same noise, more beyond full scale or where an engine rounds), or a sampler not its own back under
    teacher forcing: such a method is not timed.
    """
    if methods is None:
        methods = METHODS if torch.device(device).type == "cpu" else GPU_METHODS
    _check(models, mel, methods, device)
    for name, value in {"seconds": seconds, "budget": budget}.items():
        require(0 < value < math.inf, name, value, "a positive number of seconds")
    require(0 <= naive_seconds < math.inf, "naive_seconds", naive_seconds, "0 (none) or a number of seconds")
    methods = [method for method in methods if method != "naive" or naive_seconds]
    for name, count in {"repeats": repeats, "threads": threads, "batch": batch}.items():
        require(count > 0, name, count, "at least 1")
    require(all(0 < length < math.inf for length in lengths), "lengths", list(lengths), "positive numbers of seconds")
    require(all(count > 0 for count in batches), "batches", list(batches), "numbers of at least 1")
    with conditions(threads):
        machine, limits = describe(device), ceilings(device)
        nets = [_net(name, model) for name, model in models.items()]
        for line in _header(machine, nets, limits, threads):
            announce(line)
        field: list[Contestant] = []
        swept: dict[str, Any] = {"lengths": lengths, "batches": batches, "seed": seed, "announce": announce}
        for name, model in models.items():
            for method in methods_of(model, methods):
                before = allocated(device)
                asked = naive_seconds if method == "naive" else seconds
                within = budget * pace(name, model, mel, method, asked, budget, seed)  # seconds of audio
                longest = min(asked, within)
                field.append(contestant(name, model, mel, method, longest, batch, seed))
                if method not in ("naive", PARALLEL):
                    for line in agreement(name, model, mel, method, naive_seconds, longest, seed):
                        announce(line)
                field[-1] = first = field[-1]._replace(held=allocated(device) - before)
                if method != "naive":
                    beside = sweep(first, model, mel, asked=asked, within=within, budget=budget, **swept)
                    field += [one._replace(held=first.held) for one in beside]
        require(bool(field), "methods", list(methods), "a method that one of the models has")
        runs = {str(place): c.run for place, c in enumerate(field)}
        on = {place: _place(field[int(place)].method, device) for place in runs}
        by_name = {net["name"]: net for net in nets}
        around = {
            str(place): functools.partial(sequential_limits, models[c.net], _AROUND)
            for place, c in enumerate(field)
            if c.method in SAMPLERS and c.batch == 1 and by_name[c.net]["floor"] is not None
        }
        timings = measure(
            runs, repeats, device, lambda place, run: peak_memory_mb(run, on[place], field[int(place)].held), around
        )
        for net in nets:
            _set_limits(net, [timings[place].beside for place in around if field[int(place)].net == net["name"]])
        rows = [_row(c, timings[str(place)], device, threads, by_name[c.net], limits) for place, c in enumerate(field)]
    return {"machine": machine, "nets": nets, "ceilings": limits, "rows": rows, "ratios": ratios(rows)}


def _check(nets: Mapping[str, nn.Module], mel: Tensor, methods: Sequence[str], device: str) -> None:
    for method in methods:
        require(method in KNOWN, "methods", method, f"one of {', '.join(KNOWN)}")
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


def _place(method: str, device: str) -> str:
    """The device that a method computes on, for a model on `device`."""
    return "cpu" if method in ON_CPU else device


def _row(
    contestant: Contestant,
    timing: Timing,
    device: str,
    threads: int,
    net: dict[str, Any],
    limits: Mapping[str, float],
) -> dict[str, Any]:
    samples = contestant.samples
    arithmetic = 2 * net["macs_per_sample"] * samples / timing.median_wall / 1e9
    limit = limits.get("fma_gflops")  # of the CPU's, where that is what was measured
    if contestant.method not in ON_CPU:
        limit = limit or arithmetic_limit(contestant.method, limits)
    return {
        "net": contestant.net,
        "method": contestant.method,
        "device": _place(contestant.method, device),
        "threads": threads,
        "batch": contestant.batch,
        "seconds_of_audio": contestant.seconds,
        "samples_per_second": samples / timing.median_wall,
        "samples_per_cpu_second": samples / timing.median_cpu,
        "x_real_time": contestant.batch * contestant.seconds / timing.median_wall,
        "peak_memory_mb": timing.peak_memory_mb,
        "min": samples / max(timing.wall),
        "max": samples / min(timing.wall),
        "repeats": len(timing.wall),
        "share_of_fma": arithmetic / limit if limit else None,
        "share_of_floor": _share_of("floor", samples, timing),
        "share_of_bound": _share_of("bound", samples, timing),
    }


def _share_of(name: str, samples: int, timing: Timing) -> float | None:
    """Samples per CPU second over the limit of that name: the median of rounds, each with its own; None without."""
    if not timing.beside:
        return None
    rounds = zip(timing.cpu, timing.beside, strict=True)
    return statistics.median(samples / cpu / _between(name, pair) for cpu, pair in rounds)


def _between(name: str, pair: tuple[Mapping[str, float], Mapping[str, float]]) -> float:
    """The limit of a run from those before and after it [samples/s]: the mean of their times."""
    return 2 / sum(1 / limits[name] for limits in pair)


def _set_limits(net: dict[str, Any], measured: Sequence[Sequence[tuple[Any, Any]]]) -> None:
    """Put the medians of what was measured around the runs of a net into it."""
    pairs = [pair for of_method in measured for pair in of_method]
    for name in ("floor", "bound") if pairs else ():
        net[name] = statistics.median(_between(name, pair) for pair in pairs)


def _net(name: str, model: Any) -> dict[str, Any]:
    kind = next((kind for kind, (_, cls) in models.KINDS.items() if type(model) is cls), type(model).__name__)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sizes = {"name": name, "kind": kind, "parameters": parameters, "macs_per_sample": model.macs_per_sample}
    return sizes | sequential_limits(model)


def _header(
    machine: dict[str, Any], nets: Sequence[dict[str, Any]], limits: dict[str, float], threads: int
) -> Iterator[str]:
    yield "machine: " + ", ".join(f"{key} {value}" for key, value in machine.items() if value is not None)
    yield f"ceilings with {threads} thread(s): {limits_line(limits)}"
    for net in nets:
        macs = f"{net['macs_per_sample']:,} multiply-accumulates a sample"
        limit = ""
        if net["floor"] is not None:
            read = f"{net['streamed_weights']:,} weights that each must read"
            limit = (
                f"; on one thread {short(net['floor'])} samples/s by the {read}, {short(net['bound'])} by all its work"
            )
        yield f"{net['name']}: {net['kind']}, {net['parameters']:,} parameters, {macs}{limit}"
