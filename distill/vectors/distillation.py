"""Probability density distillation on vectors: an IAF learns the density of a flow whose density takes one pass.

van den Oord et al. 2017, arXiv 1711.10433, without a waveform: KL(q || p) = E_q[log q(x) - log p(x)] at the student's
own draws, whose density is known as they are made.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from distill.kl import flow_log_density
from distill.vectors.data import VectorBatches, VectorData
from distill.vectors.model import VectorModel
from distill.vectors.train import KIND
from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.config import TrainConfig
from wavenet.distributions.gaussian import Gaussian
from wavenet.trainer import Task, Validation, train


def distil(teacher: VectorModel, data: VectorData, training: TrainConfig, run: Path) -> int:
    """Train, or resume, an IAF of the teacher's sizes by KL(q || p). Returns the exit status of the one training loop.

    data: its mean and covariance are where the IAF begins; its rows are not learned from.
    """
    student = begun(teacher, data.train, training.seed)
    config = student.config
    teacher = teacher.eval().requires_grad_(False)

    def loss(model: nn.Module, batch: Tensor, generator: torch.Generator | None) -> dict[str, Tensor]:
        assert isinstance(model, VectorModel)
        log_q, vectors = drawn(model, len(batch), generator)
        kl = (log_q - teacher.log_prob(vectors)).mean()
        return {"loss": kl, "kl": kl}

    def validate(average: nn.Module) -> Validation:
        return Validation({"kl": float(loss(average, data.validation, torch.Generator().manual_seed(0))["kl"])}, {}, 1)

    record: dict[str, Any] = {"model": to_dict(config), "data": {"name": data.name}, "train": to_dict(training)}
    record |= {"teacher": checkpoint.fingerprint(teacher)}
    task = Task(KIND, student, to_dict(config), loss, validate, "kl", record)
    return train(task, training, VectorBatches(data.train, training.batch_size, training.seed), 0, run)


def begun(teacher: VectorModel, rows: Tensor, seed: int) -> VectorModel:
    """The student before its training: an IAF of the teacher's sizes, all but a Gaussian of the rows' covariance."""
    torch.manual_seed(seed)
    student = VectorModel(dataclasses.replace(teacher.config, direction="iaf"))
    student.whiten(rows)
    return student


def drawn(model: VectorModel, count: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """log q (count,) [nats] of draws (count, m) of a flow, and the draws, in one pass of an IAF."""
    shift = model.whitening.shift
    noise = torch.randn(count, model.size, generator=generator).to(shift)
    vectors, log_det = model.chain(noise)
    zero = noise.new_zeros(())
    return flow_log_density(Gaussian(zero, zero), noise, log_det), vectors


@torch.no_grad()
def divergence(
    student: VectorModel, teacher: VectorModel, draws: int, generator: torch.Generator | None = None
) -> tuple[float, float]:
    """KL(student || teacher) [nats] over draws of the student, and its standard error."""
    log_q, vectors = drawn(student, draws, generator)
    apart = (log_q - teacher.log_prob(vectors)).double()
    return float(apart.mean()), float(apart.std()) / math.sqrt(draws)
