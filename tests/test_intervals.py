"""Intervals of means and of pooled rates against their closed forms and against their coverage."""

import math

import numpy as np
import pytest

from distill.intervals import pooled, students


def test_students_interval():
    mean, half = students([1.0, 2.0, 3.0, None])
    assert mean == 2
    assert half == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)  # t of two degrees of freedom, 97.5%
    assert students([5.0]) == (5.0, None)
    assert students([None]) == (None, None)


def test_pooled_is_no_mean_of_rates():
    assert pooled([1, 0], [1, 9]).mean == pytest.approx(0.1)
    assert pooled([], []) == (None, None)
    assert pooled([1], [4]) == (0.25, None)
    assert pooled([2, 2, 2], [8, 8, 8]) == (0.25, 0.0)


def test_bootstrap_is_the_normal_interval_for_many_clips():
    generator = np.random.default_rng(0)
    errors = generator.binomial(10, 0.2, size=400)
    expected = 1.96 * math.sqrt(0.2 * 0.8 / 4000)
    assert pooled(errors.tolist(), [10] * 400).half_width == pytest.approx(expected, rel=0.1)


def test_a_paired_gap_is_narrower_than_two_rates():
    """Two systems that fail on the same clips differ by little, however hard the clips are."""
    generator = np.random.default_rng(1)
    recording = generator.binomial(10, np.tile([0.0, 0.5], 20))
    system = recording + generator.binomial(1, 0.2, size=40)
    words = [10] * 40
    gap = pooled((system - recording).tolist(), words)
    assert gap.mean == pytest.approx(0.02, abs=0.01)
    assert gap.half_width < 0.3 * pooled(system.tolist(), words).half_width


def test_bootstrap_covers():
    """95% of intervals hold the true rate, give or take; 30 clips."""
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(100):
        found = pooled(generator.binomial(8, 0.25, size=30).tolist(), [8] * 30)
        held += abs(found.mean - 0.25) <= found.half_width
    assert 87 <= held <= 100
