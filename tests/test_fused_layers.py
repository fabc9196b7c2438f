"""Flows with one launch a layer, and recorded passes: torch's samples, by Triton's interpreter and on a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from distill.engines.fused_layers import FusedFlows
from distill.engines.recorded import Recorded, rounded_up
from distill.engines.table import ROUNDS, build
from tests.conftest import random_mel, small_student
from tests.fused_cases import CASES, Case, run, student
from wavenet.errors import UserError
from wavenet.kernels.availability import available

TRITON = pytest.mark.skipif(not available(), reason="needs Triton, which is not installed")
EXACT = 2e-5  # of samples around 1: float32's own rounding through the layers


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict:
    """{case: (torch's samples in float64, the programs')}."""
    path = tmp_path_factory.mktemp("interpreted") / "cases.pt"
    command = [sys.executable, "-W", "ignore", "-m", "tests.fused_cases", str(path)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(path)


def check(case: Case, expected: torch.Tensor, found: torch.Tensor) -> None:
    assert found.dtype == torch.float32
    assert float(expected.std()) > 0.1
    apart = (found - expected).abs().max()
    if case.exact:
        assert apart < EXACT
    else:
        # float16 in a few layers: -60 dB and better; and it does round.
        level = 10 * torch.log10((found - expected).square().mean() / expected.square().mean())
        assert -110 < level < -60
        assert apart < ROUNDS["triton16"] * expected.abs().max()


@TRITON
@pytest.mark.parametrize("name", CASES)
def test_the_programs_equal_torch(name, interpreted):
    check(CASES[name], *interpreted[name])


@pytest.mark.gpu
@TRITON
@pytest.mark.parametrize("name", CASES)
def test_compiled_programs_equal_torch(name):
    check(CASES[name], *run(CASES[name], "cuda"))


@TRITON
@pytest.mark.parametrize(("name", "parts"), [("enter", 2), ("layer", 1), ("layer", 2), ("leave", 2)])
def test_the_programs_compile_for_a_gpu(name, parts, tmp_path, monkeypatch):
    """Down to machine code for compute capability 9.0, which needs no GPU: tensor cores, and nothing spilt."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from distill.engines import programs

    kernel, width = getattr(programs, name), 64
    constants = {"INPUTS": 1, "TAPS": 3, "WINDOW": 16, "WIDTH": width, "HALF": width, "SKIP": width, "LAYERS": 10}
    constants |= {"HOP": 256, "AROUND": 16, "PARTS": parts, "TILE": 128, "FIRST": False, "LAST": False, "KINDS": 16}
    halves = ("stream", "after", "gates", "residual", "skip") if name == "layer" else ("stream",)
    types = dict.fromkeys(("length", "frame_count", "place", "dilation"), "i32") | {"low": "fp32", "high": "fp32"}
    types |= dict.fromkeys(halves, "*fp16") | dict.fromkeys(constants, "constexpr")
    names = kernel.arg_names
    signature = {argument: types.get(argument, "*fp32") for argument in names}
    used = {(names.index(argument),): value for argument, value in constants.items() if argument in names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, kind in enumerate(signature.values()) if "*" in kind}
    source = ASTSource(fn=kernel, signature=signature, constexprs=used, attrs=aligned)
    code = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert "wgmma" in code.asm["ptx"]
    assert code.metadata.shared < 112 * 1024  # two programs on a multiprocessor
    reader = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if reader.exists():
        (tmp_path / "code").write_bytes(code.asm["cubin"])
        command = [str(reader), "-res-usage", str(tmp_path / "code")]
        assert " STACK:0 " in subprocess.run(command, capture_output=True, text=True, check=True).stdout


@TRITON
def test_what_the_programs_do_not_take_is_refused(monkeypatch):
    model = student(Case())
    for name in ("triton", "triton16"):
        with pytest.raises(UserError, match=r"found a model in torch\.float32 on cpu, expected one .* on a CUDA GPU"):
            build(name, model)
    with pytest.raises(UserError, match="found 'cudagraph' for a model on cpu, expected one on a CUDA GPU"):
        build("cudagraph", model)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with pytest.raises(UserError, match=r"in torch\.float64 on cpu"):
        FusedFlows(small_student().iafs)
    with pytest.raises(UserError, match="found '256 channels', expected at most 128"):
        FusedFlows(student(Case(channels=(129, 10, 9))).iafs)
    with torch.no_grad():
        model.iafs[0].stack.blocks[0].dilated.weight[0] = 1e5
    with pytest.raises(UserError, match="float16's range"):
        FusedFlows(model.iafs)
    monkeypatch.setattr("wavenet.kernels.availability.available", lambda: False)
    with pytest.raises(UserError, match="found no Triton, expected `pip install triton`"):
        FusedFlows(student(Case()).iafs)


@pytest.mark.parametrize("prior", ["none", "source_filter"])
def test_recorded_passes_are_reused_and_do_not_show(prior):
    """Lengths of one rounding share a recording; what an earlier signal left is not seen."""
    model, made = small_student(prior=prior), []

    def record(run):
        made.append(run)
        return run

    engine = Recorded(model.through, record)
    for count, (batch, frames) in enumerate([(1, 40), (1, 37), (1, 39), (2, 37), (1, 33), (2, 40)]):
        mel = random_mel(batch, frames, seed=count) - 6
        with torch.no_grad():
            noise = model.noise(mel, generator=torch.Generator().manual_seed(count))
            cond = model.conditioning(mel)
            found, expected = engine(noise, cond), model.through(noise, cond)
            torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
            kept = found.clone()
            engine(torch.full_like(noise, torch.nan), cond)
            torch.testing.assert_close(found, kept, rtol=0, atol=0)
    assert len(made) == 3  # one signal of 40 frames and of 36, two of 40


def test_the_recordings_used_last_are_kept():
    made, cond = [], small_student().conditioning
    engine = Recorded(lambda signal, cond: signal, lambda run: made.append(run) or run)
    for frames in (*range(1, 9), 1, 9, 1, 2):
        engine(torch.zeros(1, frames * 16).double(), cond(random_mel(1, frames)))
    assert len(made) == 10  # nine lengths; 2, used longest ago when 9 came, was made again


def test_lengths_are_rounded_up_by_an_eighth_at_most():
    for frames in range(1, 5000):
        assert frames <= rounded_up(frames) <= frames * 9 / 8
    assert len({rounded_up(frames) for frames in range(1, 5000)}) < 90


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["cudagraph", "compile", "triton", "triton16"])
def test_engines_of_a_gpu_equal_torch(name):
    """Several lengths, weights changed in between, long enough for every dilation."""
    case = Case(layers=8, frames=300, channels=(64, 128, 64), flows=2, kernel_size=3)
    model = student(case).cuda()
    engine = build(name, model)
    for frames in (300, 290, 7):
        mel = (random_mel(2, frames, seed=frames) - 6).float().cuda()
        with torch.no_grad():
            noise = model.noise(mel, generator=torch.Generator().manual_seed(0))
            cond = model.conditioning(mel)
            expected, found = model.through(noise, cond), engine(noise, cond)
            allowed = ROUNDS[name] * float(expected.abs().max()) if name in ROUNDS else 1e-4
            torch.testing.assert_close(found, expected, rtol=0, atol=allowed)
            model.iafs[0].stack.blocks[0].dilated.weight.mul_(0.9)
