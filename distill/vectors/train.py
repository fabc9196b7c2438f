"""`distill-vectors`: fit an autoregressive flow to vectors, measure it against Gaussians, draw data, samples, noise."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import Tensor, nn

from distill import markers, models
from distill.dequantization import UniformDequantizer, bound
from distill.evaluate import write_json
from distill.vectors.baselines import fit_baselines
from distill.vectors.data import VectorBatches, VectorData, open_data
from distill.vectors.densities import divergence
from distill.vectors.model import VectorConfig, VectorModel
from distill.vectors.normality import normality
from distill.vectors.picture import draw
from wavenet.arguments import parse_arguments, to_dict
from wavenet.config import TrainConfig, require
from wavenet.errors import DONE, UserError, command
from wavenet.trainer import Task, Validation, train

KIND = "vectors"
REPORT, PICTURE = "vectors.json", "vectors.png"
_DRAWS = 16  # of dequantising noise for each held-out vector
_QUIET = {"log_every": 100, "validate_every": 500, "checkpoint_every": 500}
_PLANE = TrainConfig(steps=3000, batch_size=256, crop_length=1, lr=2e-3, ema_decay=0.99, **_QUIET)  # type: ignore[arg-type]
_SMALL = TrainConfig(optimizer="adamw", batch_size=128, crop_length=1, ema_decay=0.99, **_QUIET)  # type: ignore[arg-type]

# What each data set is fitted with unless the command line says otherwise; the tables' by their validation split.
RECIPES: dict[str, tuple[dict[str, Any], TrainConfig]] = {
    "moons": ({"log_scale_range": (-2.0, 2.0)}, _PLANE),
    "eight-gaussians": ({"flows": 8, "log_scale_range": (-2.0, 2.0)}, _PLANE),
    "banana": ({"flows": 2}, _PLANE),
    "cancer": (
        {"flows": 3, "hidden": [64], "log_scale_range": (-2.0, 2.0)},
        dataclasses.replace(_SMALL, steps=120, lr=1e-3, weight_decay=0.1, validate_every=30),
    ),
    "digits": (
        {"flows": 5, "hidden": [128], "log_scale_range": (-2.0, 2.0), "whitening": "diagonal"},
        dataclasses.replace(_SMALL, steps=700, lr=1e-3, weight_decay=0.1, validate_every=100),
    ),
}


@command("distill-vectors")
def main(argv: Sequence[str] | None = None) -> int:
    """Fit a flow to vectors: --data moons --out RUN. The same command resumes. Prints figures, draws a picture."""
    parser = jsonargparse.ArgumentParser(prog="distill-vectors", description=main.__doc__)
    parser.add_argument("--data", type=str, default="moons", help=f"one of {', '.join(RECIPES)}")
    parser.add_argument(
        "--out", type=str, required=True, help="run folder: checkpoint, logs, vectors.json, vectors.png"
    )
    parser.add_argument("--direction", type=str, default="maf", help="maf: density in one pass; iaf: sampling")
    parser.add_argument("--flows", type=int, help="how many, instead of the recipe's")
    parser.add_argument("--hidden", type=int, nargs="+", help="widths of each flow's hidden layers")
    parser.add_argument("--components", type=int, default=0, help="a mixture for each conditional of the first flow")
    parser.add_argument("--order", type=str, default="reverse", help="reverse or random, between flows")
    parser.add_argument("--dequantization", type=str, default="uniform", help="uniform or variational, for levels")
    parser.add_argument("--steps", type=int, help="training steps, instead of the recipe's")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--page", type=str, help="a Markdown page with markers, e.g. docs/vectors.md, to fill")
    found = parse_arguments(parser, argv)
    data = open_data(found.data)
    config, training = _settings(found, data)
    section = f"vectors-{Path(found.out).name}"
    if found.page:
        markers.check(Path(found.page), section)
    status = fit(data, config, training, Path(found.out))
    if status != DONE:
        return status
    report = measure(models.load(found.out), data, Path(found.out))
    write_json(Path(found.out) / REPORT, report)
    text = table(report)
    print(text)
    if found.page:
        picture = Path(found.page).with_name(f"{section}.png")
        shutil.copyfile(Path(found.out) / PICTURE, picture)
        caption = f"![{data.name}: data, samples, data sent back to noise, quantiles]({picture.name})"
        markers.fill(Path(found.page), f"{text}\n\n{caption}", section)
    print(json.dumps(report, allow_nan=False), flush=True)
    return DONE


def fit(data: VectorData, config: VectorConfig, training: TrainConfig, run: Path) -> int:
    """Maximum likelihood (of levels: of their bound) by the one training loop. Returns its exit status."""
    torch.manual_seed(training.seed)
    model = VectorModel(config)
    model.whiten(data.train)

    def loss(model: nn.Module, batch: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        assert isinstance(model, VectorModel)
        nll = -model.bound(batch, 1, generator).mean()
        return {"loss": nll, "nll": nll}

    def validate(average: nn.Module) -> Validation:
        assert isinstance(average, VectorModel)
        nll = -average.bound(data.validation, 4, torch.Generator().manual_seed(0)).mean()
        return Validation({"nll": float(nll)}, {}, 1)

    record = {"model": to_dict(config), "data": {"name": data.name}, "train": to_dict(training)}
    task = Task(KIND, model, to_dict(config), loss, validate, record=record)
    return train(task, training, VectorBatches(data.train, training.batch_size, training.seed), 0, run)


@torch.no_grad()
def measure(model: VectorModel, data: VectorData, run: Path) -> dict[str, Any]:
    """Held-out nats a vector of the flow and of the baselines, the KL where it is known, the noise's figures.

    Writes the picture into the run. "systems": {name: {"nats", "standard_error", "above_gaussian", "its_error", "kl" or
    None, "note"}}; above_gaussian: mean of the differences from the Gaussian, vector by vector.
    """
    model = model.double()
    seeded = torch.Generator().manual_seed(0)
    laws: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {}
    rows = [data.train, data.validation]
    if model.dequantizer is not None:  # the baselines see levels filled uniformly, as their densities need it
        assert data.step is not None
        rows = [split + data.step * (torch.rand(split.shape, generator=seeded) - 0.5) for split in rows]
    for name, fitted in fit_baselines(*rows).items():
        note = f"{fitted.components} full covariances" if fitted.components > 1 else "full covariance"
        laws[name] = (fitted.log_prob, note)
    config = model.config
    mixed = f", mixtures of {config.components} in the first" if config.components else ""
    laws[config.direction.upper()] = (model.log_prob, f"{config.flows} flows, {config.order} order{mixed}")
    systems: dict[str, Any] = {}
    first: Tensor | None = None
    for name, (law, note) in laws.items():
        values = _held_out(law, model, data, name in ("Gaussian", "mixture"))
        kl, entropy = (None, None) if data.density is None else divergence(data.density, law)
        first = values if first is None else first
        systems[name] = {"kl": kl, "note": note}
        for key, error, found in (
            ("nats", "standard_error", values),
            ("above_gaussian", "its_error", values - first),
        ):
            systems[name] |= {key: float(found.mean()), error: float(found.std()) / math.sqrt(len(found))}
    noise = model.noise(data.test.double(), torch.Generator().manual_seed(1))
    figures = normality(noise)
    samples = model.sample(len(data.test), torch.Generator().manual_seed(2))
    other = 0 if figures.worst else min(1, data.size - 1)
    shown = (min(other, figures.worst), max(other, figures.worst))
    draw(run / PICTURE, data.test.double(), samples, noise, shown, data.image)
    return {
        "data": data.name,
        "size": data.size,
        "rows": {"train": len(data.train), "validation": len(data.validation), "test": len(data.test)},
        "parameters": sum(value.numel() for value in model.parameters()),
        "levels": data.step is not None,
        "dequantization": config.dequantization if data.step is not None else None,
        "entropy": entropy,
        "systems": systems,
        "noise": dataclasses.asdict(figures),
    }


def table(report: dict[str, Any]) -> str:
    """A report of `measure` in Markdown."""
    kind = "log mass, lower bound" if report["levels"] else "log density"
    known = report["entropy"] is not None
    lines = [
        f"| {report['data']} | held-out {kind} [nats] | above the Gaussian |"
        + (" KL(data, model) [nats] |" if known else "")
        + " |",
        "|---|---:|---:|" + ("---:|" if known else "") + "---|",
    ]
    for name, one in report["systems"].items():
        kl = f" {one['kl']:.4f} |" if known else ""
        nats = f"{one['nats']:.3f} ± {one['standard_error']:.3f}"
        above = "" if name == "Gaussian" else f" {one['above_gaussian']:.3f} ± {one['its_error']:.3f}"
        lines.append(f"| {name} | {nats} |{above} |{kl} {one['note']} |")
    if known:
        lines.append(f"| the density itself | {-report['entropy']:.3f} | | 0 | minus its entropy |")
    noise, rows = report["noise"], report["rows"]
    return "\n".join(lines) + (
        f"\n\n{rows['test']} held-out vectors of {report['size']} entries (fitted to {rows['train']}); ± is the "
        "standard error, of differences vector by vector. Sent back to noise: largest Kolmogorov-Smirnov distance of a "
        f"coordinate {noise['ks']:.3f} (true noise stays below {noise['ks_limit']:.3f} in 95%), of the squared radius "
        f"{noise['ks_radius']:.3f} ({noise['ks_radius_limit']:.3f}); mean at most {noise['mean']:.3f}, entries of "
        f"cov - I at most {noise['covariance']:.3f}; the KL that these two moments see {noise['gaussian_kl']:.4f} nats."
    )


def _held_out(law: Callable[[Tensor], Tensor], model: VectorModel, data: VectorData, uniform: bool) -> Tensor:
    """log p of every test vector (N,); of levels the bound, over uniform noise for the baselines."""
    test = data.test.double()
    if model.dequantizer is None:
        return law(test)
    assert data.step is not None
    dequantizer = UniformDequantizer(data.step) if uniform else model.dequantizer
    return bound(law, dequantizer, test, _DRAWS, torch.Generator().manual_seed(3))


def _settings(found: Any, data: VectorData) -> tuple[VectorConfig, TrainConfig]:
    for name, allowed in (
        ("direction", ("maf", "iaf")),
        ("order", ("reverse", "random")),
        ("dequantization", ("uniform", "variational")),
    ):
        require(getattr(found, name) in allowed, f"--{name}", getattr(found, name), " or ".join(allowed))
    if data.step is None and found.dequantization != "uniform":
        raise UserError(f"--dequantization: found {found.dequantization!r} for {data.name}, expected a set of levels")
    chosen, training = RECIPES[data.name]
    chosen = chosen | {name: getattr(found, name) for name in ("flows", "hidden") if getattr(found, name) is not None}
    config = VectorConfig(
        data.size,
        found.direction,
        components=found.components,
        order=found.order,
        step=data.step,
        dequantization=found.dequantization,
        **chosen,
    )
    steps = training.steps if found.steps is None else found.steps
    return config, dataclasses.replace(training, steps=steps, seed=found.seed, threads=found.threads)
