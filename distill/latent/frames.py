"""`distill-frame-family`: the family on single frames of log-mel, beside each other: what each gives, and at what cost.

Vectors of M bands, all from one corpus: a Gaussian and probabilistic PCA in closed form, a MAF by likelihood, an IAF
distilled from it by KL(q || p), variational autoencoders by their ELBO. Trainings resume where they were left.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jsonargparse
import torch
from torch import Tensor

from distill import markers, models
from distill.evaluate import write_json
from distill.latent.frame_systems import POSTERIORS, System, systems_of
from distill.latent.patches import load_patches
from distill.latent.segmentvae import SegmentConfig
from distill.latent.train import Patches
from distill.latent.train import fit as fit_vae
from distill.speed.machine import describe
from distill.speed.passes import passes_of
from distill.speed.timing import conditions, measure
from distill.vectors.data import VectorData
from distill.vectors.distillation import begun, distil, divergence
from distill.vectors.model import VectorConfig, VectorModel
from distill.vectors.train import fit as fit_maf
from wavenet.arguments import parse_arguments
from wavenet.config import AudioConfig, DataConfig, TrainConfig, require
from wavenet.data import Corpus
from wavenet.errors import DONE, command
from wavenet.manifest import fingerprint
from wavenet.train import open_training_corpus

SECTION, FIGURES = "map-frames", "frames.json"
_FLOW = {"flows": 3, "hidden": [256], "log_scale_range": (-2.0, 2.0)}
_TRAINING = TrainConfig(
    steps=3000, optimizer="adamw", weight_decay=1e-2, lr=1e-3, batch_size=256, crop_length=1, ema_decay=0.99
)
_VAE_RATE = 2e-3
_DRAWS = 16  # of z for each held-out frame of a bound
_KL_DRAWS = 10_000
_SPEED_ROWS = 1024  # frames at once where speed is measured


class Mean(NamedTuple):
    """A mean over frames and its standard error by clips; None of one clip, which says nothing of others."""

    value: float
    standard_error: float | None


@command("distill-frame-family")
def main(argv: Sequence[str] | None = None) -> int:
    """--data.root DIR --out DIR: densities of single mel frames, trained and measured; --page fills a page."""
    parser = jsonargparse.ArgumentParser(prog="distill-frame-family", description=main.__doc__)
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--audio", type=AudioConfig, default=AudioConfig())
    parser.add_argument("--dimensions", type=int, default=20, help="latent dimensions, of PCA and of the VAEs")
    parser.add_argument("--steps", type=int, default=_TRAINING.steps, help="of each training; others are new runs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=str, required=True, help=f"folder of all runs and of {FIGURES}")
    parser.add_argument("--page", type=str, help="a Markdown page with markers, e.g. docs/theory.md, to fill")
    found = parse_arguments(parser, argv)
    bands = found.audio.n_mels
    require(0 < found.dimensions < bands, "--dimensions", found.dimensions, f"1 to {bands - 1}, below a frame's bands")
    require(found.seed >= 0, "--seed", found.seed, "0 or more")
    require(found.threads > 0, "--threads", found.threads, "a positive integer")
    if found.page:
        markers.check(Path(found.page), SECTION)
    training = dataclasses.replace(_TRAINING, steps=found.steps, seed=found.seed, threads=found.threads)
    family = Family(Path(found.out), found.audio, found.data, training, found.dimensions)
    status = family.train()
    if status != DONE:
        return status
    with conditions(found.threads):
        figures = family.measure()
    write_json(Path(found.out) / FIGURES, figures)
    text = "\n".join(lines(figures))
    print(text)
    if found.page:
        markers.fill(Path(found.page), text, SECTION)
    return DONE


class Family:
    """The trainings over one output folder, and the figures of their runs."""

    def __init__(self, out: Path, audio: AudioConfig, data: DataConfig, training: TrainConfig, dimensions: int) -> None:
        self.audio, self.data, self.training, self.dimensions = audio, data, training, dimensions
        # A teacher that goes on is another teacher: what learned from it would be of neither.
        self.runs = out / f"{training.steps}-steps-seed-{training.seed}"
        self.corpus: Corpus = open_training_corpus(data, audio)
        self.frames = _frames(self.corpus.train, audio)
        self.dev = _frames(self.corpus.dev[: data.validation_clips], audio)
        # Frames of a clip are alike: what is independent is a clip.
        self.held_out = [_frames([clip], audio) for clip in self.corpus.test or self.corpus.dev]

    def train(self) -> int:
        """Every training. Returns the first exit status that is not 0."""
        name = f"frames of {self.corpus.digest}, {fingerprint(self.audio)}"
        data = VectorData(name, self.frames, self.dev, torch.cat(self.held_out))
        config = VectorConfig(self.audio.n_mels, "maf", **_FLOW)  # type: ignore[arg-type]
        status = fit_maf(data, config, self.training, self.runs / "maf")
        if status == DONE:
            status = distil(models.load(self.runs / "maf"), data, self.training, self.runs / "iaf")
        for posterior in POSTERIORS:
            if status != DONE:
                break
            status = self._train_vae(posterior)
        return status

    def _train_vae(self, posterior: str) -> int:
        model = SegmentConfig(self.audio, 1, self.dimensions, posterior=posterior)  # type: ignore[arg-type]
        training = dataclasses.replace(self.training, crop_length=self.audio.hop_length, lr=_VAE_RATE)
        patches = Patches(self.frames[:, :, None], self.dev[:, :, None])
        return fit_vae(model, self.data, training, self.runs / f"vae-{posterior}", self.corpus, patches)

    def systems(self) -> list[System]:
        """Every row, from the runs and in closed form."""
        return systems_of(self.frames, self.dimensions, self.runs)

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """{"rows": [...], "kl": of the IAF to the MAF, ...}: nats a held-out frame, passes counted, frames a CPU-s."""
        systems = self.systems()
        some = torch.cat(self.held_out)[:_SPEED_ROWS]
        works: dict[str, Callable[[], object]] = {}
        for place, system in enumerate(systems):
            works[f"density {place}"] = lambda system=system: system.log_density(some, _generator())  # type: ignore[misc]
            works[f"sampling {place}"] = lambda system=system: system.sample(len(some), _generator())  # type: ignore[misc]
        passes = {key: passes_of(systems[int(key.split()[1])].networks, work) for key, work in works.items()}
        timings = measure(works, 3)
        nats = [self.nats(system) for system in systems]
        rows = []
        for place, system in enumerate(systems):
            row: dict[str, Any] = {"title": system.title, "signal": system.signal, "density": system.density}
            row |= {"nats": self.mean(nats[place])._asdict()}
            row |= {"below_gaussian": self.mean([a - b for a, b in zip(nats[0], nats[place], strict=True)])._asdict()}
            for what in ("density", "sampling"):
                key = f"{what} {place}"
                row |= {f"{what}_passes": passes[key], f"{what}_rate": len(some) / timings[key].median_cpu}
            rows.append(row)
        return {
            "data": self.corpus.digest,
            "split": "test" if self.corpus.test else "dev",
            "machine": describe(),
            "bands": self.audio.n_mels,
            "frames": len(self.frames),
            "held_out": sum(map(len, self.held_out)),
            "clips": len(self.held_out),
            "at_once": len(some),
            "steps": self.training.steps,
            "seed": self.training.seed,
            "rows": rows,
            "kl": self._divergences(),
        }

    def nats(self, system: System) -> list[Tensor]:
        """-log density of every held-out frame [nats], clip by clip; of a bound the mean over draws."""
        draws = 1 if system.density == "exact" else _DRAWS
        generator = _generator()
        return [
            -torch.stack([system.log_density(clip, generator).double() for _ in range(draws)]).mean(0)
            for clip in self.held_out
        ]

    @staticmethod
    def mean(clips: Sequence[Tensor]) -> Mean:
        """Mean over frames; its error is that of a ratio of sums over clips."""
        sums = torch.stack([clip.sum() for clip in clips])
        lengths = torch.tensor([len(clip) for clip in clips], dtype=sums.dtype)
        mean, count = float(sums.sum() / lengths.sum()), len(clips)
        if count == 1:
            return Mean(mean, None)
        deviation = float((sums - mean * lengths).square().sum().sqrt())
        return Mean(mean, deviation / float(lengths.sum()) * math.sqrt(count / (count - 1)))

    def _divergences(self) -> dict[str, Any]:
        """KL(IAF || MAF) [nats], of the student as it began and as it is, with standard errors over its draws."""
        student, teacher = (models.load(self.runs / name) for name in ("iaf", "maf"))
        first: VectorModel = begun(teacher, self.frames, self.training.seed)
        found = {}
        for name, model in (("begun", first), ("trained", student)):
            value, error = divergence(model, teacher, _KL_DRAWS, _generator())
            found[name] = {"value": value, "standard_error": error}
        return found


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures as Markdown: a row a system, and what they are of."""
    found = [
        "| system | learns from | density | passes | frames/s | -log density [nats/frame] | below the Gaussian "
        "| samples: passes | frames/s |",
        "|---|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for place, row in enumerate(figures["rows"]):
        sign = "≤ " if row["density"] != "exact" else ""
        cells = [
            row["title"],
            row["signal"],
            row["density"],
            str(row["density_passes"]),
            _rounded(row["density_rate"]),
            sign + _stated(row["nats"]),
            _stated(row["below_gaussian"]) if place else "",
            str(row["sampling_passes"]),
            _rounded(row["sampling_rate"]),
        ]
        found.append("| " + " | ".join(cells) + " |")
    kl, machine = figures["kl"], figures["machine"]
    return [
        *found,
        "",
        f"{figures['held_out']} frames of {figures['bands']} bands from {figures['clips']} {figures['split']} clips; "
        f"one training each on {figures['frames']}, {figures['steps']} steps, seed {figures['seed']}. ± is the "
        f"standard error by clips, of differences frame by frame. Frames a CPU-second, {figures['at_once']} at once, "
        f"float32, {machine['cpu']}, torch {machine['torch']}. KL(IAF || MAF) {_stated(kl['begun'])} nats as "
        f"the IAF began, {_stated(kl['trained'])} as it is.",
    ]


def _stated(mean: dict[str, Any]) -> str:
    error = mean["standard_error"]
    return f"{mean['value']:.2f}" + ("" if error is None else f" ± {error:.2f}")


def _rounded(rate: float) -> str:
    """Two digits: what a shared machine gives."""
    return f"{float(f'{rate:.2g}'):,.0f}"


def _frames(clips: Sequence[Any], audio: AudioConfig) -> Tensor:
    return load_patches(clips, audio, 1)[:, :, 0]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
