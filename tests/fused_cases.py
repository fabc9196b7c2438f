"""Cases of tests/test_fused_layers.py, computed in a process of their own: Triton chooses its interpreter at import.

TRITON_INTERPRET=1 python -m tests.fused_cases FILE      # {name: (reference in float64, found)}, by torch.save
"""

from __future__ import annotations

import copy
import dataclasses
import sys

import torch

from distill.config import StudentConfig
from distill.engines.fused_layers import FusedFlows
from distill.student import Student
from tests.conftest import AUDIO, UPSAMPLE, random_mel, randomise, small_student
from wavenet.config import StackConfig
from wavenet.noise import uniforms


@dataclasses.dataclass(frozen=True)
class Case:
    """A student of one flow and its pass: signals, frames of 16 samples, samples of a program."""

    exact: bool = True
    kernel_size: int = 2
    layers: int = 2
    batch: int = 1
    frames: int = 3
    tile: int = 32
    channels: tuple[int, int, int] = (7, 10, 9)
    flows: int = 1
    prior: str = "none"
    hop_length: int = 16


CASES = {
    "kernel 1": Case(kernel_size=1),
    "kernel 2": Case(),
    "kernel 3": Case(kernel_size=3, batch=2),
    "rounded, kernel 1": Case(exact=False, kernel_size=1),
    "rounded, kernel 2": Case(exact=False, batch=2),
    "rounded, kernel 3": Case(exact=False, kernel_size=3, layers=4, flows=2),
    "dilations beyond a tile": Case(layers=6, frames=5, tile=16),
    "frames shorter than a tile, several to it": Case(hop_length=6, frames=13, tile=64),
    "a tile within a frame": Case(tile=16, hop_length=40, frames=2),
    "wide": Case(channels=(34, 70, 18), layers=1),
    "flows, signals and conditioning": Case(prior="source_filter", flows=2, batch=2, kernel_size=3),
    "one frame": Case(frames=1, tile=128, exact=False),
}


def student(case: Case) -> Student:
    """Its student, in float32, far from its gentle start."""
    residual, gates, skip = case.channels
    stack = StackConfig(1, case.layers, case.kernel_size, residual, gates, skip)
    audio = dataclasses.replace(AUDIO, hop_length=case.hop_length)
    base = small_student(prior=case.prior).config
    config = StudentConfig(
        audio=audio,
        flows=[stack] * case.flows,
        upsample=UPSAMPLE,
        gain=2.0,
        prior=case.prior,
        source_filter=base.source_filter,
        pitch=dataclasses.replace(base.pitch, audio=audio),
    )
    torch.manual_seed(0)
    model = randomise(Student(config), scale=0.2)
    assert isinstance(model, Student)
    return model.eval()


@torch.no_grad()
def run(case: Case, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """What torch makes of a signal in float64, and the programs' result in float32."""
    model = student(case)
    mel = random_mel(case.batch, case.frames) - 6
    wide = copy.deepcopy(model).double()
    length = case.frames * case.hop_length
    noise = wide.base(mel).transform(uniforms(range(case.batch), length, 1, dtype=torch.float64))
    cond = wide.conditioning(mel)
    narrow = dataclasses.replace(
        cond,
        frames=cond.frames.float().to(device),
        kernel=cond.kernel.float().to(device),
        signals=None if cond.signals is None else cond.signals.float().to(device),
    )
    flows = FusedFlows(model.to(device).iafs, case.exact, case.tile)
    return wide.through(noise, cond), flows(noise.float().to(device), narrow).cpu()


def main(path: str) -> None:
    """Compute all cases."""
    torch.set_num_threads(1)
    torch.save({name: run(case) for name, case in CASES.items()}, path)


if __name__ == "__main__":
    main(sys.argv[1])
