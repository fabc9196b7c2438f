"""Triton's programs: the naive sampler's numbers, by Triton's interpreter on a CPU and compiled on a GPU."""

import os
import subprocess
import sys
import time

import pytest
import torch

from tests.conftest import AUDIO
from tests.persistent_cases import CASES, run
from tests.test_graph import trained_size
from wavenet.errors import UserError
from wavenet.kernels.availability import available
from wavenet.noise import uniforms
from wavenet.sampling import persistent
from wavenet.sampling.persistent import sample_persistent

TRITON = pytest.mark.skipif(not available(), reason="needs Triton, which is not installed")


@pytest.fixture(scope="module")
def interpreted(tmp_path_factory) -> dict:
    """{case: (the reference's samples, the programs')}."""
    path = tmp_path_factory.mktemp("interpreted") / "cases.pt"
    command = [sys.executable, "-W", "ignore", "-m", "tests.persistent_cases", str(path)]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return torch.load(path)


@TRITON
@pytest.mark.parametrize("name", CASES)
def test_the_programs_equal_naive(name, interpreted):
    reference, found = interpreted[name]
    double = found.dtype == torch.float64
    assert double == (CASES[name].double and CASES[name].layout != "circle")
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-9 if double else 1e-4)
    # At temperature 0 the likeliest class may be one and the same.
    assert float(reference.std() if CASES[name].temperature else reference.abs().max()) > 0.01


@TRITON
@pytest.mark.parametrize("name", ["whole", "circle"])
@pytest.mark.parametrize("kind", ["mol", "mulaw"])
def test_the_programs_compile_for_a_gpu(name, kind, tmp_path, monkeypatch):
    """Down to machine code for compute capability 9.0, which needs no GPU."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    from triton import compile
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from wavenet.kernels.pipeline import circle
    from wavenet.kernels.program import whole
    from wavenet.kernels.weights import pack

    model = trained_size(kind)
    packed = pack(model.stack, model.head, model.gain, model.config.pre_emphasis, 1.0)
    constants = {
        "HOP": 256,
        "SLOTS": packed.slots,
        "CHANNELS": 2,
        "ROWS": 64,
        "HEAD_ROWS": 32,
        "THREADS": 256,
    }
    constants |= packed.sizes
    kernel = {"whole": whole, "circle": circle}[name]
    special = {"dilations": "*i32", "ring_at": "*i32", "numbers": "*fp64"}
    special |= dict.fromkeys(("streams", "skips_sent", "samples"), "*i64")
    integers = ("start", "stop", "length", "frame_count", "batch", "share")
    special |= dict.fromkeys(integers, "i32")
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else special.get(name, "*fp32") for name in names}
    used = {(names.index(name),): value for name, value in constants.items() if name in names}
    aligned = {(place,): [["tt.divisibility", 16]] for place, type_ in enumerate(signature.values()) if "*" in type_}
    source = ASTSource(fn=kernel, signature=signature, constexprs=used, attrs=aligned)
    code = compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    assert len(code.asm["cubin"]) > 1000
    assert code.metadata.shared < 48 * 1024
    assert "tf32" not in code.asm["ptx"]
    if (name, kind) == ("circle", "mol"):
        # Exchanges between threads are most of what a sample waits for; summed over the other axis, the gates take 312
        # with Triton 3.6 and 327 with 3.8, as they are 242 and 269.
        assert code.asm["ptx"].count("shfl.sync") < 290


def test_room_for_circles():
    """SMALL fits; a layer or a head beyond a program's registers does not, nor does float64."""
    sizes = {"HALF": 64, "WIDTH": 64, "SKIP": 64, "KINDS": 3, "COUNT_PADDED": 16, "LAYERS": 20}
    wav = torch.zeros(1, 1)
    assert persistent._room(sizes, wav) > 0
    assert persistent._room(sizes, wav.double()) == 0
    for wide in ({"HALF": 128, "WIDTH": 128}, {"COUNT_PADDED": 1024}, {"WIDTH": 256, "HALF": 16}):
        assert persistent._room(sizes | wide, wav) == 0


@TRITON
def test_a_layout_that_cannot_be_had_is_refused(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    model = trained_size("mol").double()
    mel = torch.zeros(1, AUDIO.n_mels, 1).double()
    noise = torch.full((1, AUDIO.hop_length, 2), 0.5).double()
    with pytest.raises(UserError, match="layout: found 'circle', expected whole"):
        sample_persistent(model, mel, noise, layout="circle")


def test_without_triton_the_user_is_told(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setattr("wavenet.kernels.availability.available", lambda: False)
    with pytest.raises(UserError, match="method persistent: found no Triton, expected"):
        sample_persistent(trained_size("mol"), torch.zeros(1, AUDIO.n_mels, 1), torch.full((1, 16, 2), 0.5))


@pytest.mark.gpu
@TRITON
@pytest.mark.parametrize("name", CASES)
def test_compiled_programs_equal_naive(name):
    reference, found = run(CASES[name], "cuda")
    torch.testing.assert_close(found, reference, rtol=0, atol=1e-4)


@pytest.mark.gpu
@TRITON
@pytest.mark.parametrize("layout", ["whole", "circle"])
def test_20000_samples_are_the_parallel_pass(layout):
    """Float32, on its own samples: a Gaussian's, whose draws have no edge for rounding to fall on either side of."""
    model = trained_size("gaussian").cuda()
    mel = torch.randn(2, AUDIO.n_mels, 20_000 // AUDIO.hop_length, generator=torch.Generator().manual_seed(0)).cuda()
    noise = uniforms([0, 1], mel.shape[2] * AUDIO.hop_length).cuda()
    wav = sample_persistent(model, mel, noise, layout=layout)
    with torch.no_grad():
        torch.testing.assert_close(model(wav, mel).transform(noise), wav, rtol=0, atol=1e-4)


@pytest.mark.gpu
@TRITON
def test_a_gpu_is_worth_having():
    """Loose: 2 x 10 layers, one signal, faster than real time at 8 kHz in either layout."""
    model = trained_size("mol").cuda()
    mel = torch.zeros(1, AUDIO.n_mels, 1000).cuda()
    noise = uniforms([0], 16_000, 2).cuda()
    for layout in ("whole", "circle"):
        sample_persistent(model, mel, noise, layout=layout)
        start = time.perf_counter()
        sample_persistent(model, mel, noise, layout=layout)
        assert time.perf_counter() - start < 2.0, layout
