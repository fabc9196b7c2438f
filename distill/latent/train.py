"""`distill-train-segments`: a VAE of log-mel patches, by its ELBO."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jsonargparse
import torch
from torch import Tensor, nn

from distill.latent.patches import PatchBatch, PatchBatches, load_patches
from distill.latent.posteriors import Gaussian
from distill.latent.segmentvae import SegmentConfig, SegmentVAE, active_units
from wavenet.arguments import parse_arguments, to_dict
from wavenet.config import DataConfig, TrainConfig, require
from wavenet.data import Corpus
from wavenet.errors import command
from wavenet.train import open_training_corpus, record_of
from wavenet.trainer import Task, Validation, train

KIND = "segmentvae"


class Patches(NamedTuple):
    """What a VAE learns from and is validated on: patches (n, M, F) [nats]."""

    train: Tensor
    dev: Tensor


@command("distill-train-segments")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a VAE of mel patches: --config RECIPE.yaml --data.root DIR --out RUN. The same command resumes."""
    parser = jsonargparse.ArgumentParser(prog="distill-train-segments", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/segmentvae.yaml")
    parser.add_argument("--kind", choices=(KIND,), default=KIND, help="of model")
    parser.add_argument("--model", type=SegmentConfig, default=SegmentConfig())
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--out", type=str, required=True, help="run folder: checkpoint, configuration, logs")
    arguments = parse_arguments(parser, argv)
    return train_segments(arguments.model, arguments.data, arguments.train, Path(arguments.out))


def train_segments(model_config: SegmentConfig, data: DataConfig, config: TrainConfig, run: Path) -> int:
    """Train, or resume, the VAE of a run folder. Returns the exit status."""
    check_length(model_config, config)
    corpus = open_training_corpus(data, model_config.audio)
    return fit(model_config, data, config, run, corpus, read(corpus, model_config, data))


def check_length(model: SegmentConfig, config: TrainConfig) -> None:
    """UserError unless train.crop_length is a patch's length, by which the loop counts its speed."""
    length = model.frames * model.audio.hop_length
    fits = config.crop_length == length
    require(fits, "train.crop_length", config.crop_length, f"model.frames * audio.hop_length = {length}")


def read(corpus: Corpus, config: SegmentConfig, data: DataConfig) -> Patches:
    """The patches of the training clips, and of the first dev clips."""
    audio, frames = config.audio, config.frames
    patches = Patches(
        load_patches(corpus.train, audio, frames), load_patches(corpus.dev[: data.validation_clips], audio, frames)
    )
    print(f"{data.root}: {len(patches.train)} patches of {frames} frames to train on", file=sys.stderr)
    return patches


def fit(
    model_config: SegmentConfig, data: DataConfig, config: TrainConfig, run: Path, corpus: Corpus, patches: Patches
) -> int:
    """Train on patches that are there already. Returns the exit status."""
    torch.manual_seed(config.seed)
    model = SegmentVAE(model_config)
    model.set_statistics(*statistics(patches.train))
    if model_config.prior == "vamp":
        model.set_pseudo_inputs(patches.train[torch.randint(len(patches.train), (model_config.components,))])

    def validate(average: nn.Module) -> Validation:
        assert isinstance(average, SegmentVAE)
        return Validation(measure(average, patches.dev.to(average.mean)), {}, model_config.audio.sample_rate)

    record = record_of(model_config, data, corpus, config)
    task = Task(KIND, model, to_dict(model_config), elbo_loss, validate, "", record)
    return train(task, config, PatchBatches(patches.train, config.batch_size, config.seed), data.workers, run)


def statistics(patches: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (M,) and deviation (M,) of each band over patches (n, M, F) [nats]."""
    return patches.mean((0, 2)), patches.std((0, 2)).clamp(min=1e-3)


def elbo_loss(model: nn.Module, batch: PatchBatch, generator: torch.Generator) -> dict[str, Tensor]:
    """-ELBO per mel value; beside it the ELBO's terms in nats per patch, of one draw of z for each patch."""
    assert isinstance(model, SegmentVAE)
    found = model.elbo(batch.patches, 1, generator)
    elbo = (found.reconstruction - found.kl).mean()
    return {
        "loss": -elbo / batch.patches[0].numel(),
        "elbo/elbo": elbo.detach(),
        "elbo/reconstruction": found.reconstruction.mean().detach(),
        "elbo/kl": found.kl.mean().detach(),
        "elbo/noise": model.log_noise.detach().exp().mean(),
    }


@torch.no_grad()
def measure(model: SegmentVAE, patches: Tensor, draws: int = 4) -> dict[str, float]:
    """ELBO of held-out patches in nats per patch and per mel value, its terms, and what each dimension carries."""
    found = model.elbo(patches, draws, torch.Generator().manual_seed(0))
    elbo = float((found.reconstruction - found.kl).mean())
    scalars = {
        "elbo": elbo,
        "elbo_per_value": elbo / patches[0].numel(),
        "reconstruction": float(found.reconstruction.mean()),
        "kl": float(found.kl.mean()),
        "active_units": float(active_units(found.posterior)),
    }
    if isinstance(found.posterior, Gaussian) and model.config.prior == "normal":  # others do not split over dimensions
        each = found.posterior.kl_to_standard_normal().mean(0)
        scalars |= {f"kl/dimension_{place}": float(value) for place, value in enumerate(each)}
    return scalars


Likelihood = Callable[[Tensor, slice], Tensor]


def likelihood_of(model: SegmentVAE, patches: Tensor) -> Likelihood:
    """log p(x_i | z) of patches (n, M, F) by place, as ELBO surgery asks for it: z (draws, b, d) -> (draws, b)."""

    def likelihood(z: Tensor, places: slice) -> Tensor:
        with torch.no_grad():
            return model.log_likelihood(patches[places], z.to(model.mean)).double()

    return likelihood
