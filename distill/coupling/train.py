"""`distill-train-flow`: a coupling flow from recordings, by maximum likelihood."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import torch
from torch import nn

from distill.coupling.config import FlowConfig
from distill.coupling.likelihood import held_out, likelihood_loss
from distill.coupling.model import CouplingFlow
from wavenet import checkpoint
from wavenet.adaptation import Initial
from wavenet.arguments import parse_arguments, to_dict
from wavenet.config import DataConfig, TrainConfig
from wavenet.errors import command
from wavenet.train import build_measured, open_training_corpus, record_of, training_crops, validate_likelihood
from wavenet.trainer import Task, Validation, train

KIND = "flow"


@command("distill-train-flow")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a coupling flow: --config RECIPE.yaml --data.root DIR --out RUN. The same command resumes."""
    parser = jsonargparse.ArgumentParser(prog="distill-train-flow", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/flow.yaml")
    parser.add_argument("--kind", choices=(KIND,), default=KIND, help="of model")
    parser.add_argument("--model", type=FlowConfig, default=FlowConfig())
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--init", type=str, help="begin with these weights: file or run of a flow")
    parser.add_argument("--out", type=str, required=True, help="run folder: checkpoint, configuration, logs")
    found = parse_arguments(parser, argv)
    return train_flow(found.model, found.data, found.train, Path(found.out), found.init)


def train_flow(
    model_config: FlowConfig, data: DataConfig, config: TrainConfig, run: Path, init: str | None = None
) -> int:
    """Train, or resume, the flow of a run folder. Returns the exit status. init: as of wavenet.train.train_teacher."""
    initial = None if init is None else Initial(init, KIND, run)
    corpus = open_training_corpus(data, model_config.audio)
    torch.manual_seed(config.seed)
    model_config, model = build_measured(CouplingFlow, KIND, model_config, corpus, run)
    if initial is not None and not (run / checkpoint.FILE_NAME).exists():
        print(initial.into(model), file=sys.stderr)
    crops = training_crops(corpus, model_config, config)

    def validate(average: nn.Module) -> Validation:
        return validate_likelihood(average, held_out, corpus, data.validation_clips, config.sample_seconds)

    task = Task(
        kind=KIND,
        model=model,
        model_config=to_dict(model_config),
        loss=likelihood_loss,
        validate=validate,
        progress="nll",
        record=record_of(model_config, data, corpus, config, initial),
    )
    return train(task, config, crops, data.workers, run)
