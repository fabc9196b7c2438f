"""Weights of 24 bits: products as exact as those of float32, at any size; a broken network shows."""

import json
import os
import platform
import subprocess
import sys
import types
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from distill.models import load
from tests.conftest import random_mel, small_teacher
from tests.test_fused import SIZES, teacher_of
from wavenet.audio import read_audio
from wavenet.fused import weights
from wavenet.fused.narrow import narrow_matmul, narrow_panels, narrow_size, pays, second_level
from wavenet.fused.products import address, padded
from wavenet.sampling.fused import forced_outputs

ROOT = Path(__file__).resolve().parent.parent


@numba.njit
def _narrow(w, n, columns, x, y):
    narrow_matmul(w.dtype.type(0), address(w), n, columns, address(x), address(y))


@pytest.fixture(params=[False, True], ids=["wide", "narrow"])
def narrow(request, monkeypatch):
    monkeypatch.setattr(weights, "pays", lambda dtype, count: request.param and dtype == np.float32)
    return request.param


@pytest.mark.parametrize(("n", "outputs"), [(1, 32), (2, 16), (7, 33), (64, 128), (65, 100), (3, 1), (5, 176)])
def test_products(n, outputs):
    """Off by no more than 2^-24 of a column's largest weight for each input, and float32's rounding of the sum."""
    generator = np.random.default_rng(0)
    w, x = generator.standard_normal((n, outputs)), generator.standard_normal(n).astype(np.float32)
    w *= 10.0 ** generator.integers(-25, 25, outputs)  # columns of very different sizes
    w[:, 0] = 0
    packed, columns = narrow_panels(w), padded(outputs)
    assert packed.dtype == np.float32
    assert len(packed) == narrow_size(n, columns)
    y = np.zeros(columns, np.float32)
    _narrow(packed, n, columns, x, y)
    error = np.abs(y[:outputs] - x.astype(float) @ w)
    allowed = np.abs(x).sum() * np.abs(w).max(0) + (n + 2) * (np.abs(x[:, None] * w).sum(0))
    assert (error <= 2.0**-24 * allowed).all()
    assert not y[outputs:].any()


PANELS = """
import json
import numba
from wavenet.fused import narrow
narrow.narrow_matmul.compile((numba.float32, *[numba.intp] * 5))
lines = next(iter(narrow.narrow_matmul.inspect_asm().values())).splitlines()
print(json.dumps([narrow._WIDTH, any("vcvtdq2ps" in line and "zmm" in line for line in lines)]))
"""
OF_AVX512 = "+sse4.2,+avx,+avx2,+fma,+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx512cd"


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="processors with AVX-512 are x86")
@pytest.mark.parametrize(
    ("name", "features", "width"),
    [("skylake-avx512", OF_AVX512, 64), ("haswell", "+sse4.2,+avx,+avx2,+fma", 32)],
    ids=["AVX-512", "AVX2"],
)
def test_panels_are_as_wide_as_vectors_allow(name, features, width):
    """Compiled, not run; and the narrower ones, which this processor may not take, give the same products."""
    environment = os.environ | {"NUMBA_CPU_NAME": name, "NUMBA_CPU_FEATURES": features}
    found = subprocess.check_output([sys.executable, "-c", PANELS], env=environment, cwd=ROOT)
    assert json.loads(found) == [width, width == 64]
    if name == "haswell":
        call = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{__file__}::test_products"]
        done = subprocess.run(call, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("size", [1e-27, 1e-30, 1e-36, 1e-42])
def test_columns_of_nearly_nothing(size):
    """Below 2.5e-29 a weight is off by as much as at it."""
    w, x = size * np.random.default_rng(4).standard_normal((9, 32)), np.ones(9, np.float32)
    y = np.zeros(32, np.float32)
    _narrow(narrow_panels(w), 9, 32, x, y)
    assert float(np.abs(y - w.sum(0)).max()) <= 2.0**-23 * 9 * max(2.5e-29, float(np.abs(w).max()))
    assert size < 1e-27 or y.any()


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("column", [3, 31, 40, 60, 70, 95])
def test_a_broken_column_shows_and_no_other(broken, column):
    w, y = np.random.default_rng(5).standard_normal((9, 96)), np.zeros(96, np.float32)
    w[4, column] = broken
    _narrow(narrow_panels(w), 9, 96, np.ones(9, np.float32), y)
    assert np.flatnonzero(~np.isfinite(y)).tolist() == [column]


def test_a_sum_is_added_to_what_is_there():
    generator = np.random.default_rng(1)
    w, x, y = generator.standard_normal((5, 48)), np.ones(5, np.float32), np.full(48, 3, np.float32)
    _narrow(narrow_panels(w), 5, 48, x, y)
    np.testing.assert_allclose(y, 3 + w.sum(0), rtol=0, atol=1e-5)


def test_products_round_as_those_of_float32_do():
    """Of weights as they are spread at a training's start and, with rare large ones, after it.

    Against one sum in float32, each product added without being rounded: any processor's, however many sums it has.
    """
    generator = np.random.default_rng(2)
    for draw in (lambda: generator.standard_normal((64, 128)), lambda: generator.standard_t(4, (64, 128))):
        narrow_errors, usual_errors = [], []
        for _ in range(30):
            w, x = draw(), generator.standard_normal(64).astype(np.float32)
            found, usual = np.zeros(128, np.float32), np.zeros(128, np.float32)
            _narrow(narrow_panels(w), 64, 128, x, found)
            for value, row in zip(x.astype(float), w.astype(np.float32), strict=True):
                usual = (usual + value * row).astype(np.float32)
            narrow_errors.append(found - x.astype(float) @ w)
            usual_errors.append(usual - x.astype(float) @ w)
        assert 0 < np.std(narrow_errors) < 1.25 * np.std(usual_errors)


@pytest.mark.parametrize("stack", SIZES, ids=lambda stack: f"kernel {stack.kernel_size}")
def test_any_size_in_float32(stack, narrow):
    """Teacher-forced outputs against those in float64."""
    model, mel = teacher_of(stack), random_mel(1, 6)
    wav = 0.3 * torch.randn(1, 96, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = forced_outputs(model, wav, mel)
    assert weights.pack(model.float().stack, alone=True)[0].narrow == narrow
    found = forced_outputs(model, wav.float(), mel.float())
    torch.testing.assert_close(found.double(), exact, rtol=1e-5, atol=1e-5)
    assert float(exact.std(1).mean()) > 1e-3


def test_one_signal_alone_is_narrow_and_lockstep_is_not(narrow):
    model, mel = teacher_of(SIZES[3]), random_mel(2, 6)
    torch.set_num_threads(1)
    assert not weights.pack(model.stack, alone=True)[0].narrow  # float64
    together = model.float().sample(mel.float(), "fused", seed=3)
    alone = torch.cat([model.sample(mel[n : n + 1].float(), "fused", seed=3 + n) for n in (0, 1)])
    assert weights.pack(model.stack, alone=True)[0].narrow == narrow
    assert not weights.pack(model.stack)[0].narrow
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_who_asks_for_narrow_weights(monkeypatch):
    """The engine, for one signal on a thread; the size asked about is that of the network's own weights."""
    asked, found = [], weights.pack
    monkeypatch.setattr(
        "wavenet.fused.engine.pack", lambda stack, alone=False: found(stack, asked.append(alone) or alone)
    )
    sizes = []
    monkeypatch.setattr(weights, "pays", lambda dtype, count: bool(sizes.append(count)))
    model = small_teacher("gaussian").float()
    torch.set_num_threads(1)
    for batch in (1, 2):
        model.sample(random_mel(batch, 2).float(), "fused", seed=0)
    assert asked == [True, False]
    blocks = [weight for block in model.stack.blocks for weight in (block.dilated.weight[..., -1], block.output.weight)]
    parts = [model.stack.input.weight, *blocks, model.stack.hidden.weight, model.stack.output.weight]
    last = model.stack.blocks[-1].output.weight[: model.stack.config.residual_channels]
    assert sizes == [sum(part.numel() for part in parts) - last.numel()]


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_a_broken_network_shows(broken, narrow):
    model, mel = small_teacher("gaussian").float(), random_mel(1, 4).float()
    model.stack.blocks[1].output.weight.data[0, 0, 0] = broken
    assert not bool(model.sample(mel, "fused", seed=0).isfinite().all())


@pytest.mark.parametrize("features", ["+avx,+avx2", "+avx,+avx2,+avx512f", "+avx"])
@pytest.mark.parametrize("stated", ["512K", "1280K\n", "", None])
def test_where_it_pays(features, stated, monkeypatch, tmp_path):
    """float32 beyond three quarters of the second-level cache, where there are vectors of eight."""
    codegen = types.SimpleNamespace(codegen=lambda: types.SimpleNamespace(magic_tuple=lambda: ("", "", features)))
    monkeypatch.setattr("wavenet.fused.narrow.cpu_target", types.SimpleNamespace(target_context=codegen))
    monkeypatch.setattr("wavenet.fused.narrow._SECOND_LEVEL", tmp_path / "size")
    if stated is not None:
        (tmp_path / "size").write_text(stated)
    room = (1280 if stated == "1280K\n" else 512) * 1024
    assert second_level() == room
    assert not pays(np.float64, 10**9)
    assert not pays(np.float32, room * 3 // 16)
    assert pays(np.float32, room * 3 // 16 + 1) == (features != "+avx")


def test_outputs_of_the_shipped_teacher_on_speech(monkeypatch):
    """As near to float64 as those of float32's own weights. `pytest -s` shows both (root mean square)."""
    model = load("teacher").eval().requires_grad_(False)
    clip = sorted((ROOT / "wavenet/bundled").rglob("*.flac"))[0]
    wav = read_audio(clip, model.config.audio.sample_rate)[0][None, 8192 : 8192 + 40 * 256]
    mel, outputs = model.log_mel(wav)[..., :40], {}
    for narrow in (False, True):
        monkeypatch.setattr(weights, "pays", lambda dtype, count, narrow=narrow: narrow and dtype == np.float32)
        outputs[narrow] = forced_outputs(model, wav, mel).double()
    exact = forced_outputs(model.double(), wav.double(), mel.double())
    errors = {narrow: float((found - exact).std()) for narrow, found in outputs.items()}
    print(f"narrow {errors[True]:.1e}, wide {errors[False]:.1e}, outputs {float(exact.std()):.1f}")
    assert not torch.equal(outputs[True], outputs[False])
    assert 0 < errors[True] < 1.5 * errors[False] < 1.5e-6
