"""A task of four weight tensors and data that depend on the step alone, for the tests of the training loop."""

import dataclasses
import json
from typing import NamedTuple

import torch
from torch import nn
from torch.utils.data import Dataset

from wavenet import checkpoint
from wavenet.arguments import to_dict
from wavenet.config import TrainConfig
from wavenet.trainer import Task, Validation, train


class Pair(NamedTuple):
    wav: torch.Tensor
    mel: torch.Tensor


class Pairs(Dataset):
    """[step] -> a batch that depends on the step alone; `poison` gives steps whose batch is not finite."""

    def __init__(self, poison=(), on_step=None):
        self.poison, self.on_step = poison, on_step

    def __getitem__(self, step):
        if self.on_step is not None:
            self.on_step(step)
        wav = torch.randn(4, 3, generator=torch.Generator().manual_seed(step))
        return Pair(wav * float("nan") if step in self.poison else wav, wav.flip(1))


def loss(model, batch, generator):
    error = model(batch.wav + 0.1 * torch.randn(batch.wav.shape, generator=generator)) - batch.mel
    value = error.square().mean()
    return {"loss": value, "nll": value.detach(), "parts/largest": error.abs().max().detach()}


def task(record=None) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 3))

    def validate(average):
        assert not average.training
        return Validation({"norm": float(sum(p.square().sum() for p in average.parameters()))}, {}, 8000)

    return Task("toy", model, {"width": 8}, loss, validate, record=record or {})


CONFIG = TrainConfig(
    steps=20,
    batch_size=4,
    crop_length=3,
    lr=1e-2,
    warmup_steps=3,
    ema_decay=0.9,
    log_every=2,
    validate_every=8,
    checkpoint_every=5,
)


def run(folder, steps=20, data=None, config=CONFIG, workers=0, **changes) -> int:
    config = dataclasses.replace(config, steps=steps, **changes)
    return train(task({"train": to_dict(config)}), config, data or Pairs(), workers, folder)


def state(folder):
    stored = checkpoint.load(folder)
    tensors = dict(stored.model_state) | {f"ema.{k}": v for k, v in (stored.ema_state or {}).items()}
    for index, slots in stored.optimizer_state["state"].items():
        tensors |= {f"adam.{index}.{name}": value for name, value in slots.items()}
    return stored.step, tensors


def assert_same(one, two):
    (step_one, tensors_one), (step_two, tensors_two) = state(one), state(two)
    assert step_one == step_two
    assert tensors_one.keys() == tensors_two.keys()
    for name, value in tensors_one.items():
        assert torch.equal(value, tensors_two[name]), name


def logged(folder):
    """Lines of metrics.jsonl, without the speed, which no two runs share."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "train/samples_per_second"} for line in lines]
