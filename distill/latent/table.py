"""`distill-latent-table`: what an ELBO of speech consists of, by latent dimensions and prior, beside probabilistic PCA.

One command trains a VAE for every number of dimensions and every prior, takes each ELBO apart over all training
patches, measures held-out patches, and fills a page. Everything resumes where it was left.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import torch
from torch import Tensor

from distill import models
from distill.evaluate import write_json
from distill.latent.patches import load_patches
from distill.latent.picture import draw
from distill.latent.posteriors import Posterior
from distill.latent.ppca import PPCA, Spectrum
from distill.latent.priors import Aggregate, Prior, StandardNormal
from distill.latent.segmentvae import SegmentConfig, SegmentVAE, active_units
from distill.latent.surgery import Estimate, Surgery, elbo_terms, surgery
from distill.latent.table_page import write_page
from distill.latent.train import KIND, Likelihood, Patches, check_length, fit, likelihood_of, read, statistics
from distill.markers import check
from wavenet import checkpoint
from wavenet.arguments import parse_arguments, to_dict
from wavenet.config import DataConfig, TrainConfig, require
from wavenet.data import Corpus
from wavenet.errors import DONE, command
from wavenet.train import open_training_corpus

# The rows of a number of dimensions beside PPCA's: what of the recipe's model differs.
VARIANTS: dict[str, dict[str, str]] = {
    "normal": {"prior": "normal", "posterior": "gaussian"},
    "mixture": {"prior": "mixture", "posterior": "gaussian"},
    "vamp": {"prior": "vamp", "posterior": "gaussian"},
    "iaf": {"prior": "normal", "posterior": "iaf"},
}
PPCA_ROW, AGGREGATED = "ppca", "aggregated"
FIGURES, SECTION = "latent.json", "latent"


@command("distill-latent-table")
def main(argv: Sequence[str] | None = None) -> int:
    """--config RECIPE.yaml --data.root DIR --out DIR: the table over --dimensions and priors; --page fills a page."""
    arguments = parse_arguments(_parser(), argv)
    dimensions = arguments.dimensions
    require(len(set(dimensions)) == len(dimensions) > 0, "--dimensions", dimensions, "different numbers")
    values = arguments.model.frames * arguments.model.audio.n_mels
    fits = all(0 < d < values for d in dimensions)
    require(fits, "--dimensions", dimensions, f"positive numbers below a patch's {values} values")
    require(arguments.draws >= 2, "--draws", arguments.draws, "at least 2: their spread is the error")
    require(arguments.flow_patches > 1, "--flow_patches", arguments.flow_patches, "at least 2")
    page = None if arguments.page is None else Path(arguments.page)
    if page is not None:
        check(page, SECTION)
        drawn = importlib.util.find_spec("matplotlib") is not None
        require(drawn, "--page", arguments.page, "matplotlib beside it, for the picture: pip install matplotlib")
    check_length(arguments.model, arguments.train)
    table = Table(
        Path(arguments.out), arguments.model, arguments.data, arguments.train, arguments.draws, arguments.flow_patches
    )
    status = table.train(dimensions)
    if status != DONE:
        return status
    figures = table.measure(dimensions)
    write_json(table.out / FIGURES, figures)
    if page is not None:
        write_page(figures, page, SECTION)
        if 2 in dimensions:
            table.draw(page.parent / f"{SECTION}.png", dimensions, figures)
    return DONE


class Table:
    """The stages over one output folder: patches, a run for each (d, variant), a row for each."""

    def __init__(
        self, out: Path, model: SegmentConfig, data: DataConfig, config: TrainConfig, draws: int, flow_patches: int
    ) -> None:
        self.out, self.model, self.data, self.config = out, model, data, config
        self.draws, self.flow_patches = draws, flow_patches
        self.corpus: Corpus = open_training_corpus(data, model.audio)
        held_out = self.corpus.test or self.corpus.dev
        self.patches: Patches = read(self.corpus, model, data)
        self.test = load_patches(held_out, model.audio, model.frames)
        self._spectrum: Spectrum | None = None

    def run(self, dimensions: int, variant: str) -> Path:
        """The run folder of a VAE."""
        return self.out / f"{dimensions}d-{variant}"

    def draw(self, path: Path, dimensions: Sequence[int], figures: dict[str, Any]) -> None:
        """The picture, of a table that has two dimensions among its rows."""
        runs = {(d, variant): self.run(d, variant) for d in dimensions for variant in VARIANTS}
        draw(path, runs, self.ppca(2), self._standard(self.patches.train), self.patches.train, figures)

    def train(self, dimensions: Sequence[int]) -> int:
        """Every VAE. Returns the first exit status that is not 0."""
        for d in dimensions:
            for variant, choice in VARIANTS.items():
                print(f"{self.run(d, variant)}:", file=sys.stderr)
                model: Any = dataclasses.replace(self.model, dimensions=d, **choice)  # type: ignore[arg-type]
                status = fit(model, self.data, self.config, self.run(d, variant), self.corpus, self.patches)
                if status != DONE:
                    return status
        return DONE

    def measure(self, dimensions: Sequence[int]) -> dict[str, Any]:
        """All rows, those that are there already for these weights and settings taken from their run folders."""
        rows = []
        for d in dimensions:
            rows.append(self._ppca_row(d))
            for variant in VARIANTS:
                rows += self._rows(d, variant)
        return {
            "data": self.corpus.digest,
            "n": len(self.patches.train),
            "held_out": len(self.test),
            "values": self.test[0].numel(),
            "seconds": self.model.frames * self.model.audio.hop_length / self.model.audio.sample_rate,
            "steps": self.config.steps,
            "draws": self.draws,
            "recipe": to_dict(self.model),
            "rows": rows,
        }

    def ppca(self, dimensions: int) -> PPCA:
        """Probabilistic PCA of the training patches, standardised as a VAE's are."""
        if self._spectrum is None:
            self._spectrum = Spectrum.of(self._standard(self.patches.train))
        return PPCA.of_spectrum(self._spectrum, dimensions)

    def _ppca_row(self, dimensions: int) -> dict[str, Any]:
        model, data, new = self.ppca(dimensions), self._standard(self.patches.train), self._standard(self.test)
        shift = float(statistics(self.patches.train)[1].double().log().sum()) * self.model.frames
        found = surgery(
            model.independent_posterior(data),
            StandardNormal(dimensions, model.mean),
            lambda z, places: model.log_likelihood(data[places], z) - shift,
            self.draws,
            _generator(),
        )
        exact = {"log_likelihood": float(model.log_prob(data).mean()) - shift}
        held_out = {"value": float(model.log_prob(new).mean()) - shift, "error": 0.0}
        return (
            _row(dimensions, PPCA_ROW, found, found.elbo, found.average_kl, dimensions) | exact | {"held_out": held_out}
        )

    def _rows(self, dimensions: int, variant: str) -> list[dict[str, Any]]:
        """The row of a VAE; of the one with a normal prior, also that under its exact aggregated posterior."""
        run = self.run(dimensions, variant)
        model: SegmentVAE = models.load(run)
        key = [checkpoint.fingerprint(model), self.corpus.digest, self.draws, self.flow_patches]
        kept = run / "rows.json"
        if kept.is_file() and (stored := json.loads(kept.read_text(encoding="utf-8")))["key"] == key:
            return list(stored["rows"])
        train, test = model.posteriors(self.patches.train), model.posteriors(self.test)
        likelihood, new = likelihood_of(model, self.patches.train), likelihood_of(model, self.test)
        prior = model.prior()
        if variant == "iaf":  # the density of a point under every one of them takes d passes a pair
            places = torch.linspace(0, len(train) - 1, min(self.flow_patches, len(train))).long()
            some = likelihood_of(model, self.patches.train[places])
            found = surgery(train[places], prior, some, self.draws, _generator())
            elbo, kl = elbo_terms(train, prior, likelihood, self.draws, _generator())
        else:
            found = surgery(train, prior, likelihood, self.draws, _generator())
            elbo, kl = found.elbo, found.average_kl
        rows = [_row(dimensions, variant, found, elbo, kl, active_units(train)) | self._held_out(test, prior, new)]
        if variant == "normal":
            rows.append(
                self._aggregated(dimensions, found, train, likelihood) | self._held_out(test, Aggregate(train), new)
            )
        write_json(kept, {"key": key, "rows": rows})
        return rows

    def _aggregated(self, dimensions: int, plain: Surgery, train: Posterior, likelihood: Likelihood) -> dict[str, Any]:
        """The same encoder and decoder with q(z) itself as the prior: nothing of the marginal KL is left."""
        elbo, kl = elbo_terms(train, Aggregate(train), likelihood, self.draws, _generator())
        found = dataclasses.replace(plain, elbo=elbo, average_kl=kl, marginal_kl=Estimate(0.0, 0.0))
        return _row(dimensions, AGGREGATED, found, elbo, kl, active_units(train))

    def _held_out(self, posterior: Posterior, prior: Prior, likelihood: Likelihood) -> dict[str, Any]:
        elbo, _ = elbo_terms(posterior, prior, likelihood, 8 * self.draws, _generator())
        return {"held_out": dataclasses.asdict(elbo)}

    def _standard(self, patches: Tensor) -> Tensor:
        mean, std = statistics(self.patches.train)
        return ((patches - mean[:, None]) / std[:, None]).flatten(1).double()


def _row(
    dimensions: int, name: str, found: Surgery, elbo: Estimate, average_kl: Estimate, active: int
) -> dict[str, Any]:
    """elbo and average_kl are over all patches; the parts over found.n of them, the remainder theirs."""
    whole = elbo.value + average_kl.value
    return {
        "dimensions": dimensions,
        "name": name,
        "n": found.n,
        "elbo": dataclasses.asdict(elbo),
        "reconstruction": whole,
        "average_kl": dataclasses.asdict(average_kl),
        "mutual_information": dataclasses.asdict(found.mutual_information),
        "marginal_kl": dataclasses.asdict(found.marginal_kl),
        "remainder": dataclasses.asdict(found.remainder),
        "active": active,
    }


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _parser() -> jsonargparse.ArgumentParser:
    parser = jsonargparse.ArgumentParser(prog="distill-latent-table", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/segmentvae.yaml")
    parser.add_argument("--kind", choices=(KIND,), default=KIND, help="of model")
    parser.add_argument("--model", type=SegmentConfig, default=SegmentConfig())
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--out", type=str, required=True, help="folder of all runs and of latent.json")
    parser.add_argument("--dimensions", type=int, nargs="+", default=[2, 10, 20], help="latent dimensions")
    parser.add_argument("--draws", type=int, default=2, help="draws of z for every training patch")
    parser.add_argument("--flow_patches", type=int, default=256, help="patches of an IAF's mutual information")
    parser.add_argument("--page", type=str, help="a Markdown page with markers, e.g. docs/results.md, to fill")
    return parser
