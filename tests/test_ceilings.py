"""The limits of the machine, and the floor of a sampler, counted by hand."""

import pytest
import torch

import distill.speed.ceilings as ceilings_module
from distill.speed.ceilings import ceilings, sequential_limits
from distill.speed.references import REFERENCES, reference
from wavenet.fused.rates import multiply_add_rate, stream_rate


def test_every_limit_is_positive_and_arithmetic_in_the_nearest_cache_is_the_fastest():
    torch.set_num_threads(1)
    found = ceilings("cpu", seconds=0.1)
    assert found.keys() == {"fma_gflops", "gemm_gflops", "gemv_gflops", "copy_gb_per_s"}
    assert found["fma_gflops"] > found["gemv_gflops"] > 0
    assert found["gemm_gflops"] > 0
    assert found["copy_gb_per_s"] > 0


def test_streaming_a_large_net_is_slower_than_a_small_one_and_that_than_multiplying():
    assert stream_rate([(512, 512)] * 64, 0.2) < 0.8 * stream_rate([(128, 128)], 0.2) < multiply_add_rate(0.2)


def test_streamed_weights_are_counted(monkeypatch):
    """small: 20 layers of 64 -> 128 and 64 -> 128, the last without its residual; 2 inputs, the head, 30 outputs."""
    streamed = 2 * 64 + 20 * 2 * 64 * 128 - 64 * 64 + 64 * 64 + 64 * 30
    limits = sequential_limits(reference("small"), 0.02)
    assert limits["streamed_weights"] == streamed
    assert 0 < limits["bound"] < limits["floor"]
    monkeypatch.setattr(ceilings_module, "stream_rate", lambda shapes, seconds, sustained: 3e9)
    monkeypatch.setattr(ceilings_module, "multiply_add_rate", lambda seconds, sustained: 5e9)
    limits = sequential_limits(reference("small"), 0.02)
    assert limits["floor"] == pytest.approx(3e9 / streamed)
    assert limits["bound"] == pytest.approx(1 / (streamed / 3e9 + 20 * 64 * 128 / 5e9))


def test_a_student_has_no_floor():
    assert sequential_limits(reference("student")) == {"streamed_weights": None, "floor": None, "bound": None}


@pytest.mark.parametrize("name", REFERENCES)
def test_references_are_always_the_same_net(name):
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, second = reference(name), reference(name)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
