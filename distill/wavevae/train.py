"""`distill-train-wavevae`: encoder and flows from recordings alone, by the ELBO."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import torch
from torch import nn
from torch.utils.data import Dataset

from distill.diagnoses import HealthConfig
from distill.health import Health
from distill.wavevae.config import ElboConfig, WaveVAEConfig
from distill.wavevae.learning import Numbered, StepBatch, VariationalLearning
from distill.wavevae.model import WaveVAE
from wavenet import checkpoint
from wavenet.adaptation import Initial
from wavenet.arguments import parse_arguments, to_dict
from wavenet.config import DataConfig, TrainConfig
from wavenet.errors import UserError, command
from wavenet.pitch.load import load_pitch, with_pitch
from wavenet.train import build_measured, open_training_corpus, record_of, training_crops
from wavenet.trainer import Task, Validation, train

KIND = "wavevae"


@command("distill-train-wavevae")
def main(argv: Sequence[str] | None = None) -> int:
    """Train a WaveVAE: --config RECIPE.yaml --data.root DIR --out RUN. The same command resumes."""
    parser = jsonargparse.ArgumentParser(prog="distill-train-wavevae", description=main.__doc__)
    parser.add_argument("--config", action="config", help="a recipe, e.g. configs/wavevae.yaml")
    parser.add_argument("--kind", choices=(KIND,), default=KIND, help="of model")
    parser.add_argument("--model", type=WaveVAEConfig, default=WaveVAEConfig())
    parser.add_argument("--objective", type=ElboConfig, default=ElboConfig())
    parser.add_argument("--data", type=DataConfig, default=DataConfig())
    parser.add_argument("--train", type=TrainConfig, default=TrainConfig())
    parser.add_argument("--health", type=HealthConfig, default=HealthConfig(), help="when the model is called ill")
    parser.add_argument("--pitch", type=str, help="a run of wavenet-train-pitch, for a decoder with a source_filter")
    parser.add_argument("--init", type=str, help="begin with these weights: file or run of a WaveVAE")
    parser.add_argument("--out", type=str, required=True, help="run folder: checkpoint, configuration, logs")
    found = parse_arguments(parser, argv)
    return train_wavevae(
        found.model,
        found.objective,
        found.data,
        found.train,
        Path(found.out),
        found.pitch,
        found.health,
        found.init,
    )


def train_wavevae(
    model_config: WaveVAEConfig,
    objective: ElboConfig,
    data: DataConfig,
    config: TrainConfig,
    run: Path,
    pitch: str | None = None,
    health: HealthConfig | None = None,
    init: str | None = None,
) -> int:
    """Train, or resume, the WaveVAE of a run folder. Returns the exit status.

    pitch: the network that a source-filter decoder takes F0 from, trained before; it becomes part of the model.
    health: thresholds of the monitor, which may change between one call and the next. init: as of train_student; the
    weight of the KL is then not annealed.
    """
    initial, net = None if init is None else Initial(init, KIND, run), None
    if initial is not None and pitch is not None:
        raise UserError(f"--pitch: found {pitch}, expected none with --init, which brings its own")
    if model_config.prior == "source_filter":
        if pitch is None and initial is None:
            raise UserError(
                "--pitch: found none, expected a run of wavenet-train-pitch, for the source_filter needs F0"
            )
        net = initial.pitch() if initial is not None else load_pitch(str(pitch), model_config.audio)
        model_config = dataclasses.replace(model_config, pitch=net.config)
    elif pitch is not None:
        raise UserError(f"--pitch: found {pitch}, expected none for a decoder without a source_filter")
    if initial is not None:  # a posterior that is trained already would drift off while the KL weighs nothing
        objective = dataclasses.replace(objective, annealing_steps=0)
    learning = VariationalLearning(objective, model_config.audio, config.crop_length)
    corpus = open_training_corpus(data, model_config.audio)
    heard = learning.long_enough(corpus.dev)[: data.validation_clips]  # known now, not at the first validation
    torch.manual_seed(config.seed)
    model_config, model = build_measured(WaveVAE, KIND, model_config, corpus, run)
    if model.pitch is not None and net is not None:
        model.pitch.load_state_dict(net.state_dict())
    if initial is not None and not (run / checkpoint.FILE_NAME).exists():
        print(f"{initial.into(model)}; KL at its full weight from step 0", file=sys.stderr)
    crops = training_crops(corpus, model_config, config)

    def validate(average: nn.Module) -> Validation:
        assert isinstance(average, WaveVAE)
        return learning.validate(average, heard)

    def batches() -> Dataset[StepBatch]:
        return Numbered(crops if net is None else with_pitch(crops, run, data.workers, pitch))

    task = Task(
        kind=KIND,
        model=model,
        model_config=to_dict(model_config),
        loss=learning.loss,
        validate=validate,
        progress="elbo/elbo",
        monitor=Health(health or HealthConfig(), model_config.log_scale_floor),
        record=record_of(model_config, data, corpus, config, initial, objective, pitch=net),
    )
    return train(task, config, batches, data.workers, run)
