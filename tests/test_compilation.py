"""Compiled code: kept on disk where that can be, found there by the next process, announced where it lasts."""

import contextlib
import json
import os
import platform
import subprocess
import sys
import threading
import time

import numba
import pytest
from numba.core.event import trigger_event

from tests.conftest import random_mel, small_teacher
from wavenet.fused import compilation


def test_without_a_place_for_the_cache(monkeypatch):
    def refuse(*arguments, **settings):
        if settings.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    with monkeypatch.context() as patch:
        patch.setattr(compilation.numba, "njit", refuse)
        patch.setattr(compilation, "helper", lambda function: ("uncached", function))
        assert compilation.kept(test_without_a_place_for_the_cache) == ("uncached", test_without_a_place_for_the_cache)


def test_compiling_is_announced(monkeypatch, capsys):
    class Slow:
        def __init__(self, seconds, from_disk=False):
            self.overloads, self.seconds, self.from_disk = {}, seconds, from_disk

        def compile(self, signature):
            with contextlib.nullcontext() if self.from_disk else trigger_event(compilation.COMPILING):
                time.sleep(self.seconds)
            self.overloads[signature] = None

    monkeypatch.setattr(compilation, "_PATIENCE", 0.05)
    slow = Slow(0.3)
    compilation.ready(slow, 1.0)
    assert capsys.readouterr().err.count("compiling for this processor") == 1
    compilation.ready(slow, 1.0)  # known by now
    compilation.ready(Slow(0.0), 1.0)
    compilation.ready(Slow(0.3, from_disk=True), 1.0)
    other = threading.Thread(target=Slow(0.3).compile, args=[()])  # which numba tells of, too
    other.start()
    compilation.ready(Slow(0.3, from_disk=True), 1.0)
    other.join()
    assert capsys.readouterr().err == ""


def test_numba_tells_of_what_it_compiles_and_not_of_what_it_loads(tmp_path):
    """What the announcement rests on: an event for the engine's functions, none where they come from the disk."""
    (tmp_path / "kept.py").write_text("import numba\n\n@numba.njit(cache=True)\ndef f(x):\n    return x + 1\n")
    code = (
        "from numba.core import event; import kept\n"
        f"with event.install_recorder({compilation.COMPILING!r}) as told: kept.f(1)\n"
        "print(len(told.buffer))"
    )
    run = [sys.executable, "-c", code]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(tmp_path)}
    told = [int(subprocess.check_output(run, env=environment, cwd=tmp_path)) for _ in range(2)]
    assert told[0] > 0
    assert told[1] == 0


def test_a_kept_function_closes_over_the_sources_alone():
    compiled = numba.njit(lambda x: x)
    with pytest.raises(AssertionError, match="calls_it closes over"):

        @compilation.kept
        def calls_it(x):
            return compiled(x)


EVERY_SMALL_ONE = f"""
from numba.core import event
import torch
with event.install_recorder({compilation.COMPILING!r}) as told:
    from distill.engines import layer
    from wavenet.fused import filters, lattice, rates
    kernel, values = torch.full((3, 4), 1 / 3), torch.ones(1, 8)
    lattice.colour(values, torch.zeros(1, 3, 4), kernel)
    lattice.transposed(values, torch.zeros(1, 3, 4), kernel)
    filters.invert(values, torch.ones(1, 3, 4), kernel)
    layer.prepare()
    rates.stream_rate([(16, 16)], 0.01)
    rates.multiply_add_rate(0.01)
print(len(told.buffer))
"""


def test_the_next_process_finds_compiled_code(tmp_path):
    """All of it but the loop over samples, which takes longest (test_a_second_process_starts_at_once)."""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    told = [int(subprocess.check_output([sys.executable, "-c", EVERY_SMALL_ONE], env=environment)) for _ in range(2)]
    assert told[0] > 6
    assert told[1] == 0


GATES = """
import numba
from wavenet.fused.compilation import helper, whole_vectors
from wavenet.fused.rows import gate
gate.compile((numba.float32, numba.intp, numba.intp, numba.intp))
print([next(iter(gate.inspect_asm().values())).count(register) for register in ("ymm", "zmm")])

def halves(values):
    for i in range(len(values)):
        values[i] = 2 * values[i]

def whole(values):
    whole_vectors()
    for i in range(len(values)):
        values[i] = 2 * values[i]

for function in map(helper, (halves, whole)):
    function.compile((numba.float32[::1],))
    print([next(iter(function.inspect_asm().values())).count(register) for register in ("ymm", "zmm")])
"""


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="processors with AVX-512 are x86")
@pytest.mark.parametrize("wide", [True, False], ids=["AVX-512", "AVX2"])
def test_loops_take_whole_vectors(wide, tmp_path):
    """Compiled, not run: for a processor for which LLVM prefers halves, and for one that has no more than these."""
    features = "+sse4.2,+avx,+avx2,+fma" + ",+avx512f,+avx512vl,+avx512dq,+avx512bw,+avx512cd" * wide
    target = {"NUMBA_CPU_NAME": "skylake-avx512" if wide else "haswell", "NUMBA_CPU_FEATURES": features}
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | target
    found = subprocess.check_output([sys.executable, "-c", GATES], env=environment, text=True)
    of_gates, of_halves, of_whole = ([count > 0 for count in json.loads(line)] for line in found.splitlines())
    assert of_halves == [True, False]
    assert (of_gates[1], of_whole[1]) == (wide, wide)
    assert of_gates[0] or wide


START = """
import sys, time
import torch
from tests.conftest import random_mel, small_teacher
model, mel = small_teacher(), random_mel(1, 2)
start = time.perf_counter()
wav = model.float().sample(mel.float(), "fused", seed=0)
print(time.perf_counter() - start, float(wav.abs().sum()))
"""


@pytest.mark.slow
@pytest.mark.parametrize("features", [None, "+avx,+avx2,+fma,+sse4.2"], ids=["this processor", "AVX2 only"])
def test_a_second_process_starts_at_once(features, tmp_path):
    """The code comes from the disk; and narrower vectors give the same numbers."""
    extra = {} if features is None else {"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": features}
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)} | extra
    runs = [
        subprocess.run([sys.executable, "-c", START], env=environment, capture_output=True, text=True, check=True)
        for _ in range(2)
    ]
    (first, _), (second, total) = (map(float, run.stdout.split()) for run in runs)
    assert "compiling" in runs[0].stderr
    assert "compiling" not in runs[1].stderr
    assert second < 1.5 < first
    model, mel = small_teacher().float(), random_mel(1, 2).float()
    assert total == pytest.approx(float(model.sample(mel, "cached", seed=0).abs().sum()), abs=1e-3)
