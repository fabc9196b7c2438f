"""Timing: the order of the rounds, what the clocks count, and what the memory figure sees and forgets."""

import functools
import time

import numpy as np
import pytest

from distill.speed.machine import describe
from distill.speed.timing import measure, peak_memory_mb


def test_rounds_are_interleaved_after_one_warm_up_of_each():
    order = []
    measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4


def test_what_is_measured_around_a_run_stands_right_beside_it():
    order = []
    runs = {name: functools.partial(order.append, name) for name in "ab"}
    timings = measure(runs, 2, around={"b": lambda: order.append("-") or len(order)})
    assert "".join(order) == "ab" + "a-b-" * 2
    assert timings["b"].beside == [(4, 6), (8, 10)]
    assert timings["a"].beside == []


def test_sleep_is_wall_time_and_work_is_processor_time():
    def work():
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass

    timing = measure({"sleep": lambda: time.sleep(0.05), "work": work}, 3)
    assert timing["sleep"].median_wall >= 0.05
    assert timing["sleep"].median_cpu < 0.02
    assert timing["work"].median_cpu >= 0.05
    assert len(timing["work"].wall) == len(timing["work"].cpu) == 3


def test_one_slow_round_does_not_move_the_median():
    pauses = iter([0, 0.001, 0.2, 0.001])
    timing = measure({"uneven": lambda: time.sleep(next(pauses))}, 3)["uneven"]
    assert timing.median_wall < 0.1 < max(timing.wall)


def test_peak_memory_sees_what_a_run_frees_and_forgets_the_run_before():
    def hold(megabytes):
        return lambda: np.ones(megabytes * 1_000_000, dtype=np.uint8).sum()

    before = peak_memory_mb(lambda: None)
    if before is None:
        pytest.skip("this system keeps no peak that can be reset")
    large, after = peak_memory_mb(hold(200)), peak_memory_mb(lambda: None)
    assert 190 < large - before < 260
    assert abs(after - before) < 40


def test_the_machine_is_named():
    found = describe("cpu")
    assert found["cpu"]
    assert 1 <= found["usable_cores"] <= found["cores"]
    assert found["torch"].startswith("2.")
    assert "gpu" not in found
