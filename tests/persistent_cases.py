"""Cases of tests/test_persistent.py, computed in a process of their own: Triton chooses its interpreter at import.

TRITON_INTERPRET=1 python -m tests.persistent_cases FILE      # {name: (reference, found)}, by torch.save
"""

from __future__ import annotations

import dataclasses
import sys

import torch

from tests.conftest import AUDIO, random_mel, randomise, small_teacher
from wavenet.config import StackConfig
from wavenet.noise import uniforms
from wavenet.sampling import persistent
from wavenet.teacher import Teacher


@dataclasses.dataclass(frozen=True)
class Case:
    """A teacher and how it is sampled. tile, at_once: of wavenet.sampling.persistent, where others than its own."""

    layout: str = "whole"
    kind: str = "mol"
    kernel_size: int = 2
    batch: int = 1
    temperature: float = 1.0
    source: bool = False
    double: bool = True
    channels: tuple[int, int, int] = (5, 6, 3)
    tile: int | None = None
    at_once: int | None = None


CASES = {
    "whole mol": Case(batch=2),
    "whole mol kernel 1": Case(kernel_size=1),
    "whole gaussian kernel 3": Case(kind="gaussian", kernel_size=3),
    "whole mulaw kernel 4": Case(kind="mulaw", kernel_size=4),
    "whole mol kernel 3 in float32": Case(kernel_size=3, double=False),
    "whole gaussian in float32": Case(kind="gaussian", double=False, temperature=0.6),
    "whole mulaw at temperature 0": Case(kind="mulaw", temperature=0.0),
    "whole mol at temperature 0": Case(temperature=0.0),
    "whole with a source and speakers": Case(kernel_size=2, source=True, batch=2),
    "whole in tiles": Case(channels=(17, 70, 33), tile=512),
    "whole in several launches": Case(kind="gaussian", kernel_size=2, at_once=5),
    "circle mol": Case("circle", batch=3),
    "circle mol kernel 1": Case("circle", kernel_size=1),
    "circle gaussian kernel 3": Case("circle", kind="gaussian", kernel_size=3),
    "circle mulaw kernel 4": Case("circle", kind="mulaw", kernel_size=4, temperature=0.6),
    "circle mulaw at temperature 0": Case("circle", kind="mulaw", temperature=0.0),
    "circle with a source and speakers": Case("circle", source=True, batch=2, channels=(17, 34, 18)),
}


def run(case: Case, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's samples and the programs', at one noise."""
    residual, gates, skip = case.channels
    stack = StackConfig(1, 2, case.kernel_size, residual_channels=residual, gate_channels=gates, skip_channels=skip)
    base = small_teacher(case.kind, source=case.source, bits=5 if case.kind == "mulaw" else None).config
    pitch = dataclasses.replace(base.pitch, audio=dataclasses.replace(AUDIO, hop_length=6))
    config = dataclasses.replace(base, stack=stack, audio=pitch.audio, pitch=pitch, speakers=2 if case.source else 0)
    torch.manual_seed(0)
    model = randomise(Teacher(config).double(), scale=0.25).eval().requires_grad_(False)
    assert isinstance(model, Teacher)
    dtype = torch.float64 if case.double and case.layout == "whole" else torch.float32
    model, mel = model.to(device, dtype), random_mel(case.batch, 2).to(device, dtype)
    speaker = torch.arange(case.batch, device=device) if case.source else None
    persistent._TILE = case.tile or persistent._TILE
    persistent._AT_ONCE = case.at_once or persistent._AT_ONCE
    noise = uniforms(range(case.batch), 12, model.noise_channels, dtype=dtype, device=device)
    reference = model.sample(mel, "naive", seed=0, temperature=case.temperature, speaker=speaker)
    found = persistent.sample_persistent(model, mel, noise, case.temperature, speaker, layout=case.layout)
    return reference, found


def main(path: str) -> None:
    """Compute all cases."""
    torch.set_num_threads(1)
    usual = persistent._TILE, persistent._AT_ONCE
    results = {}
    for name, case in CASES.items():
        persistent._TILE, persistent._AT_ONCE = usual
        results[name] = run(case)
    torch.save(results, path)


if __name__ == "__main__":
    main(sys.argv[1])
