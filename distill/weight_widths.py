"""Whether weights of 24 bits pay on this processor: samplers that read them beside samplers that read float32."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import numpy as np
import torch
from tqdm import tqdm

from distill.evaluate import write_json
from distill.markers import check, fill
from distill.speed.machine import describe
from distill.speed.references import REFERENCES, reference
from distill.speed.tables import where
from distill.speed.timing import conditions
from wavenet.arguments import parse_arguments
from wavenet.config import StackConfig, TeacherConfig, require
from wavenet.errors import DONE, UserError, command
from wavenet.fused.narrow import pays, second_level
from wavenet.fused.weights import pack, packed, streamed
from wavenet.teacher import Teacher

_RUNS = 3  # of which the median counts


def compare_widths(name: str, *, seconds: float = 0.3, places: int = 10) -> dict[str, Any]:
    """`fused` on one thread with weights of 32 and of 24 bits, in turn, packed `places` times each.

    name: a reference net's (distill.speed.references), or the channels of a teacher of 20 layers (residual and skip;
    twice as many gates). Where weights lie in memory moves a processor's speed on them, so that one place is no
    measurement.

    Returns "net", streamed_mib (read as float32 for every sample), "wide" and "narrow" (samples a second: "median",
    "min", "max"), "ratio" (narrow over wide, of the medians), "places", and "chosen": whether `fused` takes 24 bits.
    """
    model = _net(name)
    audio = model.config.audio
    frames = max(1, round(seconds * audio.sample_rate / audio.hop_length))
    mel = torch.randn(1, audio.n_mels, frames, generator=torch.Generator().manual_seed(0))
    speeds: dict[bool, list[float]] = {False: [], True: []}
    count = sum(inputs * outputs for inputs, outputs in streamed(model.stack))

    def run() -> float:
        start = time.perf_counter()
        made = model.sample(mel, "fused", seed=0).shape[-1]
        return made / (time.perf_counter() - start)

    held = []  # so that the next ones lie elsewhere
    with conditions(1), torch.inference_mode():
        for _ in tqdm(range(places), name, unit="place", leave=False):
            for width, found in speeds.items():
                with packed(width):
                    run()
                    found.append(statistics.median(run() for _ in range(_RUNS)))
                    held.append(pack(model.stack, alone=True))
    wide, narrow = (
        {"median": statistics.median(speeds[width]), "min": min(speeds[width]), "max": max(speeds[width])}
        for width in (False, True)
    )
    return {
        "net": name,
        "streamed_mib": 4 * count / 2**20,
        "wide": wide,
        "narrow": narrow,
        "ratio": narrow["median"] / wide["median"],
        "chosen": pays(np.float32, count),
        "places": places,
    }


def widths_table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows of `compare_widths` as a Markdown table."""
    heads = ["net", "streamed MiB", "32 bits, samples/s", "slowest to fastest", "24 bits, samples/s"]
    heads += ["slowest to fastest", "ratio", "taken"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    for row in rows:
        name = f"{row['net']} channels" if row["net"].isdigit() else row["net"]
        cells = [name, f"{row['streamed_mib']:.1f}"]
        for width in (row["wide"], row["narrow"]):
            cells += [f"{width['median']:,.0f}", f"{width['min']:,.0f} to {width['max']:,.0f}"]
        cells += [f"{row['ratio']:.2f}", "24" if row["chosen"] else "32"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@command("distill-weight-widths")
def main(argv: Sequence[str] | None = None) -> int:
    """NET... --out FILE.json: the sequential sampler with weights of 24 bits and of 32. NET: small, paper or channels.

    --page PAGE: the table goes between the markers of --section there too.
    """
    parser = jsonargparse.ArgumentParser(prog="distill-weight-widths", description=main.__doc__)
    parser.add_argument("nets", nargs="+", type=str, help="small, paper, or the channels of a teacher of 20 layers")
    parser.add_argument("--seconds", type=float, default=0.3, help="of audio, of every run")
    parser.add_argument("--places", type=int, default=10, help="how often weights are packed; three runs each")
    parser.add_argument("--out", type=str, required=True)
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--page", type=str, help="a Markdown page whose section takes the table")
    parser.add_argument("--section", type=str, default="weight-widths", help="name of the page's markers")
    found = parse_arguments(parser, argv)
    if found.page:
        check(Path(found.page), found.section)  # before the wait
    require(found.out.endswith(".json"), "--out", found.out, "a file name that ends in .json")
    if Path(found.out).exists() and not found.overwrite:
        raise UserError(f"{found.out}: found an existing file, expected none (--overwrite replaces it)")
    require(found.seconds > 0, "--seconds", found.seconds, "a positive number of seconds")
    require(found.places > 0, "--places", found.places, "at least 1")
    for name in found.nets:
        _require_net(name)
    machine = describe()
    rows = [compare_widths(name, seconds=found.seconds, places=found.places) for name in found.nets]
    table = f"{widths_table(rows)}\n\nMachine: {where(machine)}, second-level cache {second_level() / 2**20:.3g} MiB."
    print(table)
    result = {"machine": machine | {"second_level_bytes": second_level()}, "rows": rows}
    write_json(Path(found.out), result)
    if found.page:
        fill(Path(found.page), table, found.section)
    print(json.dumps(result, allow_nan=False), flush=True)
    return DONE


def _require_net(name: str) -> None:
    teachers = [net for net in REFERENCES if net != "student"]
    sensible = name in teachers or (name.isdigit() and int(name) > 0)
    require(sensible, "NET", name, f"{', '.join(teachers)} or a number of channels")


def _net(name: str) -> Any:
    _require_net(name)
    if name in REFERENCES:
        return reference(name)
    channels, state = int(name), torch.random.get_rng_state()
    try:
        torch.manual_seed(0)
        config = TeacherConfig(stack=StackConfig(2, 10, 2, channels, 2 * channels, channels), gain=10.0)
        return Teacher(config).eval().requires_grad_(False)
    finally:
        torch.random.set_rng_state(state)
