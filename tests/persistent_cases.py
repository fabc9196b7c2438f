"""Cases of tests/test_persistent.py, computed in a process of their own: Triton chooses its interpreter at import.

TRITON_INTERPRET=1 python -m tests.persistent_cases FILE      # {name: (reference, found)}, by torch.save
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import sys
from typing import Any

import pytest
import torch

from tests.conftest import AUDIO, random_mel, randomise, small_teacher
from wavenet.config import StackConfig
from wavenet.noise import uniforms
from wavenet.sampling import persistent
from wavenet.sampling.graph import sample_in_blocks
from wavenet.sampling.residual import sample_by_residual
from wavenet.teacher import Teacher


@dataclasses.dataclass(frozen=True)
class Case:
    """A teacher and how it is sampled. layout: of `persistent`, or block: the launches of a `graph`.

    linear_prediction: order; what is sampled is then the residual.
    tile, at_once: of wavenet.sampling.persistent or launches, where others than its own.
    together: all programs of a circle at the same time, for all samples in one launch, as on a GPU.
    before: signals made by the same model before, of which no trace may be left.
    backwards: the programs of a launch from the last to the first, which shows what hangs on their order.
    """

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
    together: bool = False
    before: int = 0
    backwards: bool = False
    linear_prediction: int = 0
    layers: int = 2
    samples: int = 12


BLOCK = 5
CASES = {
    "block mol": Case("block", batch=2),
    "block mol kernel 1": Case("block", kernel_size=1, batch=2),
    "block gaussian": Case("block", kind="gaussian", temperature=0.6),
    "block gaussian kernel 3 in float32": Case("block", kind="gaussian", kernel_size=3, double=False),
    "block mulaw kernel 4": Case("block", kind="mulaw", kernel_size=4, temperature=0.6),
    "block mulaw at temperature 0": Case("block", kind="mulaw", temperature=0.0),
    "block with a source and speakers": Case("block", kernel_size=3, source=True, batch=2),
    "block of 64 channels": Case("block", kind="gaussian", double=False, channels=(64, 128, 64), samples=6),
    "block in tiles": Case("block", batch=9, channels=(9, 20, 6), tile=64, samples=6),
    "block of one layer": Case("block", layers=1),
    "block with signals before": Case("block", kernel_size=3, before=1, samples=6),
    "block backwards": Case("block", kernel_size=3, batch=2, backwards=True),
    "block whose rings go round": Case("block", kind="gaussian", kernel_size=3, layers=3, samples=36),
    "whole mol": Case(batch=2),
    "block mol residual": Case("block", linear_prediction=3),
    "whole mol residual": Case(batch=2, linear_prediction=3),
    "whole mol kernel 1": Case(kernel_size=1),
    "whole gaussian kernel 3": Case(kind="gaussian", kernel_size=3),
    "whole mulaw kernel 4": Case(kind="mulaw", kernel_size=4),
    "whole gaussian in float32": Case(kind="gaussian", double=False, temperature=0.6),
    "whole mulaw at temperature 0": Case(kind="mulaw", temperature=0.0),
    "whole mol at temperature 0": Case(temperature=0.0),
    "whole with a source and speakers": Case(kernel_size=2, source=True, batch=2),
    "whole in tiles": Case(channels=(17, 34, 18), tile=512),
    "whole in several launches": Case(kind="gaussian", kernel_size=2, at_once=5),
    "circle mol": Case("circle", batch=3),
    "circle mol residual": Case("circle", linear_prediction=3),
    "circle mol kernel 1": Case("circle", kernel_size=1),
    "circle gaussian kernel 3": Case("circle", kind="gaussian", kernel_size=3),
    "circle mulaw kernel 4": Case("circle", kind="mulaw", kernel_size=4, temperature=0.6),
    "circle mulaw at temperature 0": Case("circle", kind="mulaw", temperature=0.0),
    "circle with a source and speakers": Case("circle", source=True, batch=2, channels=(17, 34, 18)),
    "circle together": Case("circle", kernel_size=3, together=True),
    "circle together, signals in turn": Case("circle", kind="gaussian", batch=3, together=True, at_once=7),
}


def run(case: Case, device: str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """The reference's samples and the programs', at one noise."""
    model = teacher(case)
    dtype = torch.float64 if case.double and case.layout != "circle" else torch.float32
    model = model.to(device, dtype)
    mel = random_mel(case.batch, case.samples // model.config.audio.hop_length).to(device, dtype)
    speaker = torch.arange(case.batch, device=device) if case.source else None
    noise = uniforms(range(case.batch), case.samples, model.noise_channels, dtype=dtype, device=device)
    reference = model.sample(mel, "naive", seed=0, temperature=case.temperature, speaker=speaker)
    sampler, settings = persistent.sample_persistent, {"layout": case.layout}
    if case.layout == "block":
        sampler, settings = sample_in_blocks, {"block": BLOCK, "kernels": True}
    with pytest.MonkeyPatch.context() as patch:
        if case.tile is not None:
            # By name: the module imports Triton, which is not installed everywhere.
            module = "launches" if case.layout == "block" else "persistent"
            patch.setattr(f"wavenet.sampling.{module}._TILE", case.tile)
        patch.setattr(persistent, "_AT_ONCE", case.at_once or persistent._AT_ONCE)
        for _ in range(case.before):
            sampler(model, 1 - mel, 1 - noise, case.temperature, speaker, **settings)
        if case.linear_prediction:
            found = sample_by_residual(sampler, model, mel, noise, case.temperature, speaker, **settings)
        else:
            found = sampler(model, mel, noise, case.temperature, speaker, **settings)
    return reference, found


def teacher(case: Case) -> Teacher:
    """A teacher of 6 samples a frame, its weights far from their start."""
    residual, gates, skip = case.channels
    base = small_teacher(case.kind, source=case.source, bits=5 if case.kind == "mulaw" else None).config
    pitch = dataclasses.replace(base.pitch, audio=dataclasses.replace(AUDIO, hop_length=6))
    config = dataclasses.replace(
        base,
        stack=StackConfig(1, case.layers, case.kernel_size, residual, gates, skip),
        audio=pitch.audio,
        pitch=pitch,
        speakers=2 if case.source else 0,
        linear_prediction=case.linear_prediction,
    )
    torch.manual_seed(0)
    model = randomise(Teacher(config).double(), scale=0.25 if residual < 32 else 0.05).eval().requires_grad_(False)
    assert isinstance(model, Teacher)
    return model


class Together:
    """Stands for the kernel `circle`: each program in a process of its own, over shared memory.

    The interpreter runs the programs of a launch one after the other, which never has one wait for another.
    """

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, int]) -> Any:
        def launch(*arguments: Any, **settings: Any) -> None:
            for argument in arguments:
                if isinstance(argument, torch.Tensor) and argument.numel():
                    argument.share_memory_()
            places = itertools.product(range(grid[0]), range(grid[1]))
            fork = multiprocessing.get_context("fork")
            programs = [fork.Process(target=self.program, args=(grid, place, arguments, settings)) for place in places]
            for program in programs:
                program.start()
            for program in programs:
                program.join(100)
            codes = [program.exitcode for program in programs]
            for program in programs:
                program.kill()  # one that waits for ever
            assert codes == [0] * len(codes), codes

        return launch

    def program(self, grid: tuple[int, int], place: tuple[int, int], arguments: Any, settings: Any) -> None:
        """The program at `place` of the grid, in this process."""
        from triton.runtime import interpreter

        builder = interpreter.interpreter_builder
        builder.set_grid_dim = lambda *_: setattr(builder, "grid_dim", (*grid, 1))
        builder.set_grid_idx = lambda *_: setattr(builder, "grid_idx", (*place, 0))
        interpreter.GridExecutor._restore_args_dev = lambda *_: None  # nothing was copied, and others still write
        self.kernel[(1, 1)](*arguments, **settings)


def run_together(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """`run`, with the programs side by side: two circles, or as many as there are signals."""
    from wavenet.kernels import pipeline

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "circle", Together(pipeline.circle))
        patch.setattr(persistent, "_interpreted", lambda: False)  # several samples a launch
        patch.setattr(persistent, "_expect_device", lambda device: None)
        return run(case)


def run_backwards(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """`run`, with the interpreter's programs in the opposite order."""
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    forwards = builder.set_grid_idx

    def turned(*place: int) -> None:
        forwards(*(size - 1 - i for size, i in zip(builder.grid_dim, place, strict=True)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builder, "set_grid_idx", turned)
        return run(case)


def main(path: str) -> None:
    """Compute all cases."""
    torch.set_num_threads(1)
    results = {}
    for name, case in CASES.items():
        way = run_together if case.together else run_backwards if case.backwards else run
        results[name] = way(case)
    torch.save(results, path)


if __name__ == "__main__":
    main(sys.argv[1])
