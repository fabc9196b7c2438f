"""Limits of a GPU and what is held on one, on a CPU: the clock and the device's books are invented."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from distill.speed import ceilings, gpu_ceilings, measurement
from distill.speed.contestants import Contestant
from distill.speed.gpu_ceilings import arithmetic_limit
from distill.speed.tables import limits_line
from distill.speed.timing import Timing, measure, peak_memory_mb
from tests.conftest import random_mel, small_student

LAUNCH, EVENT = 2e-6, 1e-5  # seconds of a launch, and what is read beside it


class Seen(TorchDispatchMode):
    """Operations with the precision and shapes of what they read, and whether TF32 was on."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        shapes = [(x.dtype, tuple(x.shape)) for x in args]
        self.found.append((function._schema.name, *shapes, torch.backends.cuda.matmul.allow_tf32))
        return function(*args, **(kwargs or {}))


def found_with(rows):
    seen = Seen()

    def clock(run, count):
        rows.append(count)
        with seen:
            run()
        return EVENT + count * LAUNCH

    return gpu_ceilings.gpu_ceilings("cpu", 0.1, side=16, copied=64, clock=clock), seen.found


def test_many_launches_are_timed_at_once_in_every_precision():
    rows = []
    before = torch.backends.cuda.matmul.allow_tf32
    found, seen = found_with(rows)
    assert torch.backends.cuda.matmul.allow_tf32 == before
    assert max(rows) * LAUNCH > 0.02  # so that what is read beside a row is little
    products = {"gemm_gflops", "gemm_tf32_gflops", "gemm_float16_gflops", "gemm_bfloat16_gflops"}
    assert found.keys() == products | {"gemv_gflops", "copy_gb_per_s"}
    for name in products:
        assert found[name] == pytest.approx(2 * 16**3 / LAUNCH / 1e9, rel=1e-3)
    assert found["gemv_gflops"] == pytest.approx(2 * 16**2 / LAUNCH / 1e9, rel=1e-3)
    assert found["copy_gb_per_s"] == pytest.approx(2 * 4 * 64 / LAUNCH / 1e9, rel=1e-3)
    square = {(dtype, (16, 16)) for dtype in (torch.float32, torch.float16, torch.bfloat16)}
    assert {(one[1], one[3]) for one in seen if one[0] == "aten::mm"} == {
        *((shape, False) for shape in square),
        ((torch.float32, (16, 16)), True),
    }
    assert {one[1:3] for one in seen if one[0] == "aten::copy_"} == {((torch.float32, (64,)),) * 2}


def test_a_gpus_operands_are_large(monkeypatch):
    assert gpu_ceilings.SIDE == 8192
    assert 4 * gpu_ceilings.COPIED >= 1e9
    monkeypatch.setattr(ceilings, "gpu_ceilings", lambda device, seconds: {device: seconds})
    assert ceilings.ceilings("cuda", 0.3) == {"cuda": 0.3}


def test_a_method_is_held_against_what_it_multiplies_in():
    limits, _ = found_with([])
    limits |= {"gemm_gflops": 50.0, "gemm_float16_gflops": 600.0}
    net, timing = {"macs_per_sample": 10**6, "floor": None}, Timing([1.0], [1.0], None)

    def share(method):
        one = Contestant("net", method, 1, 1.0, 5000, len)  # 10 GFLOP in a second
        return measurement._row(one, timing, "cuda", 1, net, limits)["share_of_fma"]

    for method in ("parallel", "cudagraph", "graph", "persistent"):
        assert share(method) == pytest.approx(10 / 50)
    assert share("triton16") == pytest.approx(10 / 600)
    assert share("triton") == pytest.approx(3 * 10 / 600)
    assert share("fused") is None  # a CPU's, whose limits were not measured
    assert arithmetic_limit("parallel", {"fma_gflops": 1.0, "gemm_gflops": 1.0}) is None
    assert limits_line(limits).startswith("matrix x matrix 50.0 GFLOP/s, in tf32 ")


def test_memory_on_a_gpu_is_the_contestants_own(monkeypatch):
    """7 MB of nets and other contestants, 2 MB that this one keeps, 5 MB in its run."""
    book = {"now": 7_000_000, "peak": 0}
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: book["now"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: book["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: book.update(peak=book["now"]))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    book["now"] += 2_000_000
    assert peak_memory_mb(lambda: book.update(peak=book["now"] + 5_000_000), "cuda", 2_000_000) == 7.0


def test_memory_may_be_watched_by_name():
    found = measure({"a": len, "b": len}, 0, peak=lambda name, run: {"a": 1.0, "b": 2.0}[name])
    assert [one.peak_memory_mb for one in found.values()] == [1.0, 2.0]


def test_what_a_method_keeps_is_counted_from_before_its_first_trial(monkeypatch):
    """Its own rows, at other lengths too, and nobody else's."""
    held, kept = [0], measurement.pace
    monkeypatch.setattr(measurement, "allocated", lambda device: held[0])
    monkeypatch.setattr(measurement, "ceilings", lambda device: {"gemm_gflops": 1.0, "copy_gb_per_s": 1.0})

    def pace(name, model, mel, method, *arguments):
        held[0] += {"parallel": 3, "tiled": 40}[method]
        return kept(name, model, mel, method, *arguments)

    seen = []
    monkeypatch.setattr(measurement, "pace", pace)
    monkeypatch.setattr(measurement, "peak_memory_mb", lambda run, device, held: seen.append(held))
    measurement.benchmark(
        {"net": small_student().float()},
        random_mel(1).float(),
        methods=("parallel", "tiled"),
        seconds=0.02,
        repeats=1,
        batches=(2,),
        announce=len,
    )
    assert seen == [3, 3, 40, 40]
