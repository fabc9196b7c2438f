"""`distill-vector-costs`: passes and time of density and sampling, MAF against IAF, as vectors get longer.

A pass is one evaluation of the flow's network on a batch: density takes 1 for a MAF and m for an IAF, sampling m and 1
(arXiv 1705.07057, section 3.3). Passes are counted as they happen, not assumed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import Tensor

from distill import markers
from distill.evaluate import write_json
from distill.flows.base import Flow, Inverse, log_prob
from distill.flows.vectors import VectorIAF
from distill.speed.machine import describe
from distill.speed.passes import passes_of
from distill.speed.timing import conditions, measure
from wavenet.arguments import parse_arguments
from wavenet.config import require
from wavenet.distributions.gaussian import Gaussian
from wavenet.errors import DONE, command

SECTION = "vector-costs"
OPERATIONS = ("density", "sampling")
_TOLERANCE = 1e-3  # of float32 there and back


@command("distill-vector-costs")
def main(argv: Sequence[str] | None = None) -> int:
    """Count passes and time density and sampling of MAF and IAF: --out FILE.json. The last line printed is JSON."""
    parser = jsonargparse.ArgumentParser(prog="distill-vector-costs", description=main.__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[2, 4, 8, 16, 32, 64], help="entries of a vector, m")
    parser.add_argument("--width", type=int, default=128, help="of the two hidden layers")
    parser.add_argument("--batch", type=int, default=256, help="vectors at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", type=str, help="a Markdown page with markers, e.g. docs/vectors.md, to fill")
    parser.add_argument("--out", type=str, required=True)
    found = parse_arguments(parser, argv)
    require(found.out.endswith(".json"), "--out", found.out, "a file name that ends in .json")
    for name in ("width", "batch", "repeats", "threads"):
        require(getattr(found, name) > 0, f"--{name}", getattr(found, name), "a positive integer")
    if found.page:
        markers.check(Path(found.page), SECTION)
    result: dict[str, Any] = {"machine": describe(), "width": found.width, "batch": found.batch}
    with conditions(found.threads):
        result["rows"] = [row for size in found.sizes for row in costs(size, found.width, found.batch, found.repeats)]
    write_json(Path(found.out), result)
    text = table(result)
    print(text)
    if found.page:
        picture = Path(found.page).with_name(f"{SECTION}.png")
        draw(picture, result["rows"])
        caption = f"![Passes and time of density and sampling against m]({picture.name})"
        markers.fill(Path(found.page), f"{text}\n\n{caption}", SECTION)
    print(json.dumps(result, allow_nan=False), flush=True)
    return DONE


@torch.no_grad()
def costs(size: int, width: int, batch: int, repeats: int) -> list[dict[str, Any]]:
    """Rows {"flow", "operation", "size", "passes", "ms", "min", "max", "wall_ms"} of one flow on vectors (batch, size).

    MAF and IAF have the same weights. ms, min, max: processor time, which others on the machine do not lengthen much,
    median and extremes of `repeats` after a warm-up, the four in turns; wall_ms: median wall time.
    """
    torch.manual_seed(0)
    iaf = VectorIAF(size, [width, width])
    flows: dict[str, Flow] = {"MAF": Inverse(iaf), "IAF": iaf}
    vectors = torch.randn(batch, size, generator=torch.Generator().manual_seed(0))
    returned, _ = iaf.inverse(iaf(vectors)[0])
    assert float((returned - vectors).abs().max()) < _TOLERANCE, "the two directions are not each other's inverse"
    runs = {(name, what): _operation(flow, what, vectors) for name, flow in flows.items() for what in OPERATIONS}
    passes = {key: passes_of([[iaf.network]], run) for key, run in runs.items()}
    timings = measure({" ".join(key): run for key, run in runs.items()}, repeats)
    rows = []
    for (name, what), count in passes.items():
        timing = timings[f"{name} {what}"]
        ms = {"ms": timing.median_cpu, "min": min(timing.cpu), "max": max(timing.cpu), "wall_ms": timing.median_wall}
        row = {"flow": name, "operation": what, "size": size, "passes": count}
        rows.append(row | {key: 1e3 * seconds for key, seconds in ms.items()})
    return rows


def table(result: dict[str, Any]) -> str:
    """The rows in Markdown, a length a line."""
    keys = [(flow, what) for what in OPERATIONS for flow in ("MAF", "IAF")]
    lines = [
        "| m | " + " | ".join(f"{flow} {what}" for flow, what in keys) + " |",
        "|---:|" + "---:|" * len(keys),
    ]
    for size in dict.fromkeys(row["size"] for row in result["rows"]):
        found = {(row["flow"], row["operation"]): row for row in result["rows"] if row["size"] == size}
        cells = [
            f"{one['passes']}: {one['ms']:.2f} ms ({one['min']:.2f} to {one['max']:.2f})"
            for one in (found[key] for key in keys)
        ]
        lines.append(f"| {size} | " + " | ".join(cells) + " |")
    machine = result["machine"]
    return "\n".join(lines) + (
        f"\n\nPasses of the network: processor time, median (fastest to slowest), {result['batch']} vectors, one "
        f"flow of two hidden layers of {result['width']}. {machine['cpu']}, torch {machine['torch']}, load average "
        f"{machine['load_average']} on {machine['usable_cores']} cores when it began."
    )


def draw(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write passes and times against m as a PNG, both axes logarithmic. Raises ImportError without matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    styles = {"MAF": ("#2563c9", "o"), "IAF": ("#d2521f", "s")}
    for axes, quantity, label in zip(
        figure.subplots(1, 2), ("passes", "ms"), ("network passes", "processor time [ms]"), strict=True
    ):
        for flow, (colour, marker) in styles.items():
            for what, line in zip(OPERATIONS, ("-", "--"), strict=True):
                chosen = [row for row in rows if row["flow"] == flow and row["operation"] == what]
                x, y = [row["size"] for row in chosen], [row[quantity] for row in chosen]
                axes.plot(x, y, line, color=colour, marker=marker, markersize=5, label=f"{flow} {what}", alpha=0.8)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("entries of a vector, m")
        axes.set_ylabel(label)
        axes.grid(color="#d9dde3", linewidth=0.6)
    axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def _operation(flow: Flow, what: str, vectors: Tensor) -> Callable[[], object]:
    zero = vectors.new_zeros(())
    if what == "density":
        return lambda: log_prob(flow, Gaussian(zero, zero), vectors, None)
    return lambda: flow(vectors)
