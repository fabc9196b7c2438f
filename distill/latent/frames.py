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
from torch import Tensor, nn
from torch.distributions import MultivariateNormal

from distill import markers, models
from distill.evaluate import write_json
from distill.latent.patches import load_patches
from distill.latent.ppca import PPCA
from distill.latent.segmentvae import SegmentConfig, SegmentVAE
from distill.latent.train import Patches
from distill.latent.train import fit as fit_vae
from distill.speed.machine import describe
from distill.speed.timing import conditions, measure
from distill.vectors.data import VectorData
from distill.vectors.distillation import distil, divergence
from distill.vectors.model import VectorConfig, VectorModel
from distill.vectors.train import fit as fit_maf
from wavenet.arguments import parse_arguments
from wavenet.config import AudioConfig, DataConfig, TrainConfig, require
from wavenet.data import Corpus
from wavenet.errors import DONE, command
from wavenet.train import open_training_corpus

SECTION, FIGURES = "map-frames", "frames.json"
_FLOW = {"flows": 3, "hidden": [256], "log_scale_range": (-2.0, 2.0)}
_TRAINING = TrainConfig(
    steps=3000, optimizer="adamw", weight_decay=1e-2, lr=1e-3, batch_size=256, crop_length=1, ema_decay=0.99
)
_DRAWS = 16  # of z for each held-out frame of a bound
_KL_DRAWS = 10_000
_SPEED_ROWS = 1024  # frames at once where speed is measured


class System(NamedTuple):
    """A row: what it learns from, log density or bound (N, M) -> (N,), draws, the networks that either may call.

    networks: groups that work one after the other; those of a group are one stack, of which a pass is one through each.
    """

    title: str
    signal: str
    density: str
    log_density: Callable[[Tensor], Tensor]
    sample: Callable[[int], Tensor]
    networks: Sequence[Sequence[nn.Module]] = ()


@command("distill-frame-family")
def main(argv: Sequence[str] | None = None) -> int:
    """--data.root DIR --out DIR: densities of single mel frames, trained and measured; --page fills a page."""
    parser = jsonargparse.ArgumentParser(prog="distill-frame-family", description=main.__doc__)
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--audio", type=AudioConfig, default=AudioConfig())
    parser.add_argument("--dimensions", type=int, default=20, help="latent dimensions, of PCA and of the VAEs")
    parser.add_argument("--steps", type=int, default=_TRAINING.steps, help="of each training")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=str, required=True, help=f"folder of all runs and of {FIGURES}")
    parser.add_argument("--page", type=str, help="a Markdown page with markers, e.g. docs/theory.md, to fill")
    found = parse_arguments(parser, argv)
    bands = found.audio.n_mels
    require(0 < found.dimensions < bands, "--dimensions", found.dimensions, f"1 to {bands - 1}, below a frame's bands")
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
        self.out, self.audio, self.data, self.training, self.dimensions = out, audio, data, training, dimensions
        self.corpus: Corpus = open_training_corpus(data, audio)
        self.frames = _frames(self.corpus.train, audio)
        self.dev = _frames(self.corpus.dev[: data.validation_clips], audio)
        # Frames of a clip are alike: what is independent is a clip.
        self.held_out = [_frames([clip], audio) for clip in self.corpus.test or self.corpus.dev]

    def train(self) -> int:
        """Every training. Returns the first exit status that is not 0."""
        data = VectorData(f"frames of {self.corpus.digest}", self.frames, self.dev, torch.cat(self.held_out))
        config = VectorConfig(self.audio.n_mels, "maf", **_FLOW)  # type: ignore[arg-type]
        status = fit_maf(data, config, self.training, self.out / "maf")
        if status == DONE:
            status = distil(models.load(self.out / "maf"), data, self.training, self.out / "iaf")
        for posterior in ("gaussian", "iaf"):
            if status != DONE:
                break
            status = self._train_vae(posterior)
        return status

    def _train_vae(self, posterior: str) -> int:
        model = SegmentConfig(self.audio, 1, self.dimensions, posterior=posterior)  # type: ignore[arg-type]
        training = dataclasses.replace(self.training, crop_length=self.audio.hop_length, lr=2e-3)
        patches = Patches(self.frames[:, :, None], self.dev[:, :, None])
        return fit_vae(model, self.data, training, self.out / f"vae-{posterior}", self.corpus, patches)

    def systems(self) -> list[System]:
        """Every row, from the runs and in closed form."""
        rows = self.frames.double()
        normal = MultivariateNormal(rows.mean(0), torch.cov(rows.T))
        # Standardised, as the VAEs' frames are: their noise has one size for all bands, and so has PCA's.
        mean, std = rows.mean(0), rows.std(0)
        ppca = PPCA.fit((rows - mean) / std, self.dimensions)
        systems = [
            System(
                "Gaussian, full covariance",
                "likelihood, closed form",
                "exact",
                lambda x: normal.log_prob(x.double()),
                lambda count: normal.sample(torch.Size([count])),
            ),
            System(
                f"probabilistic PCA, {self.dimensions} dimensions",
                "likelihood, closed form",
                "exact",
                lambda x: ppca.log_prob((x.double() - mean) / std) - std.log().sum(),
                lambda count: ppca.sample(count, _generator()) * std + mean,
            ),
        ]
        for name, signal in (("maf", "likelihood"), ("iaf", "KL to the MAF")):
            flow: VectorModel = models.load(self.out / name)
            nets = [module for module in flow.modules() if type(module).__name__ == "MADE"]
            systems.append(
                System(
                    name.upper(),
                    signal,
                    "exact",
                    flow.log_prob,
                    lambda count, flow=flow: flow.sample(count, _generator()),  # type: ignore[misc]
                    [nets],
                )
            )
        for posterior, title in (("gaussian", "VAE"), ("iaf", "VAE, IAF posterior")):
            vae: SegmentVAE = models.load(self.out / f"vae-{posterior}")
            systems.append(
                System(
                    f"{title}, {self.dimensions} dimensions",
                    "bound",
                    "lower bound",
                    lambda x, vae=vae: bound(vae, x, 1),  # type: ignore[misc]
                    lambda count, vae=vae: draw(vae, count),  # type: ignore[misc]
                    [[vae.encoder], [vae.decoder]],
                )
            )
        return systems

    @torch.no_grad()
    def measure(self) -> dict[str, Any]:
        """{"rows": [...], "kl": of the IAF to the MAF, ...}: nats a held-out frame, passes counted, frames a CPU-s."""
        systems = self.systems()
        some = torch.cat(self.held_out)[:_SPEED_ROWS]
        works: dict[str, Callable[[], object]] = {}
        for place, system in enumerate(systems):
            works[f"density {place}"] = lambda system=system: system.log_density(some)  # type: ignore[misc]
            works[f"sampling {place}"] = lambda system=system: system.sample(len(some))  # type: ignore[misc]
        passes = {key: passes_of(systems[int(key.split()[1])].networks, work) for key, work in works.items()}
        timings = measure(works, 3)
        rows = []
        for place, system in enumerate(systems):
            nats, error = self._nats(system)
            row: dict[str, Any] = {"title": system.title, "signal": system.signal, "density": system.density}
            row |= {"nats": nats, "standard_error": error}
            for what in ("density", "sampling"):
                key = f"{what} {place}"
                row |= {f"{what}_passes": passes[key], f"{what}_rate": len(some) / timings[key].median_cpu}
            rows.append(row)
        student, teacher = (models.load(self.out / name) for name in ("iaf", "maf"))
        kl, error = divergence(student, teacher, _KL_DRAWS, _generator())
        return {
            "data": self.corpus.digest,
            "machine": describe(),
            "bands": self.audio.n_mels,
            "frames": len(self.frames),
            "held_out": sum(map(len, self.held_out)),
            "clips": len(self.held_out),
            "steps": self.training.steps,
            "rows": rows,
            "kl": {"value": kl, "standard_error": error},
        }

    def _nats(self, system: System) -> tuple[float, float]:
        """Mean -log density of a held-out frame [nats], and its standard error by clips."""
        draws = _DRAWS if system.density != "exact" else 1
        sums = torch.stack(
            [
                torch.stack([-system.log_density(clip).double().sum() for _ in range(draws)]).mean()
                for clip in self.held_out
            ]
        )
        lengths = torch.tensor([len(clip) for clip in self.held_out], dtype=torch.float64)
        mean = float(sums.sum() / lengths.sum())
        deviation = (sums - mean * lengths).square().sum().sqrt()  # of a ratio of sums
        return mean, float(deviation / lengths.sum() * math.sqrt(len(sums) / max(1, len(sums) - 1)))


def bound(vae: SegmentVAE, frames: Tensor, draws: int) -> Tensor:
    """ELBO (N,) [nats] of frames (N, M), of patches that are one frame long."""
    found = vae.elbo(frames[:, :, None], draws)
    return found.reconstruction - found.kl


def draw(vae: SegmentVAE, count: int) -> Tensor:
    """Draws of x (count, M), the decoder's noise included."""
    generator = _generator()
    z = vae.prior().sample(count, generator)
    mean = vae.decode(z)[..., 0]
    noise = torch.randn(mean.shape, generator=generator)
    return mean + noise * vae.log_noise.exp() * vae.std


def passes_of(networks: Sequence[Sequence[nn.Module]], work: Callable[[], object]) -> int:
    """How often `work` goes through the networks, as it happens: the busiest of each group; 1 without any."""
    if not networks:
        return 1
    counts = {module: 0 for group in networks for module in group}

    def tick(module: nn.Module, *_: object) -> None:
        counts[module] += 1

    hooks = [module.register_forward_hook(tick) for module in counts]
    work()
    for hook in hooks:
        hook.remove()
    return sum(max(counts[module] for module in group) for group in networks)


def lines(figures: dict[str, Any]) -> list[str]:
    """The figures as Markdown: a row a system, and what they are of."""
    found = [
        "| system | learns from | density | passes | frames/s | -log density [nats/frame] | samples: passes "
        "| frames/s |",
        "|---|---|---|---:|---:|---:|---:|---:|",
    ]
    for row in figures["rows"]:
        sign = "≤ " if row["density"] != "exact" else ""
        cells = [
            row["title"],
            row["signal"],
            row["density"],
            str(row["density_passes"]),
            _rounded(row["density_rate"]),
            f"{sign}{row['nats']:.2f} ± {row['standard_error']:.2f}",
            str(row["sampling_passes"]),
            _rounded(row["sampling_rate"]),
        ]
        found.append("| " + " | ".join(cells) + " |")
    kl = figures["kl"]
    return [
        *found,
        "",
        f"{figures['held_out']} frames of {figures['bands']} bands from {figures['clips']} held-out clips (trained on "
        f"{figures['frames']}, {figures['steps']} steps); ± is the standard error, by clips. Frames a CPU-second, "
        f"{_SPEED_ROWS} at once. KL(IAF || MAF) {kl['value']:.2f} ± {kl['standard_error']:.2f} nats.",
    ]


def _frames(clips: Sequence[Any], audio: AudioConfig) -> Tensor:
    return load_patches(clips, audio, 1)[:, :, 0]


def _rounded(rate: float) -> str:
    """Two digits: what a shared machine gives."""
    return f"{float(f'{rate:.2g}'):,.0f}"


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
