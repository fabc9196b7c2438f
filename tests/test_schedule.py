"""The learning rate is a pure function of the step, with the shape that its name says."""

import math

import pytest

from wavenet.config import TrainConfig
from wavenet.schedule import learning_rate


def rate(step, **settings):
    return learning_rate(TrainConfig(**{"steps": 1000, "lr": 1.0, "warmup_steps": 0, **settings}), step)


def test_warm_up_is_linear():
    found = [rate(step, warmup_steps=4, schedule="constant") for step in range(6)]
    assert found == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    falling = [rate(step, warmup_steps=4, schedule="linear", steps=8, final_ratio=0.0) for step in (1, 6)]
    assert falling == [0.5 * 7 / 8, 1 / 4]


@pytest.mark.parametrize("schedule", ["cosine", "linear"])
def test_flat_then_down_to_the_final_ratio(schedule):
    settings = {"schedule": schedule, "flat": 0.5, "final_ratio": 0.1}
    assert all(rate(step, **settings) == 1.0 for step in (0, 250, 500))
    middle = rate(750, **settings)
    assert middle == pytest.approx(0.55)
    assert rate(1000, **settings) == rate(1500, **settings) == pytest.approx(0.1)
    quarter = rate(625, **settings)
    expected = 0.75 if schedule == "linear" else 0.5 * (1 + math.cos(math.pi / 4))
    assert quarter == pytest.approx(0.1 + 0.9 * expected)


def test_halving():
    found = [rate(step, schedule="halving", halve_every=100) for step in (0, 99, 100, 199, 200)]
    assert found == [1.0, 1.0, 0.5, 0.5, 0.25]
