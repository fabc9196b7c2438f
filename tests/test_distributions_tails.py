"""Masses and their gradients where float32 is hard: far tails, end levels, scales far above and below a step."""

import math

import mpmath
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavenet.distributions.logistic import DiscretizedMixtureLogistic
from wavenet.quantize import Grid

GRID = Grid(16)
NAMES = ("logits", "loc", "log_scale")


def found(level: int, parts: list[list[float]], dtype: torch.dtype) -> tuple[float, list[torch.Tensor]]:
    """log mass of a level, and its gradient by every parameter."""
    tensors = [torch.tensor(part, dtype=dtype, requires_grad=True) for part in parts]
    log_prob = DiscretizedMixtureLogistic(*tensors, GRID).log_prob(GRID.value(torch.tensor(level), dtype))
    return float(log_prob.detach()), [g.double() for g in torch.autograd.grad(log_prob, tensors)]


def exact(level: int, parts: list[list[float]]) -> tuple[float, list[list[float]]]:
    """The same by 600-digit arithmetic from the definition, gradients by central differences."""
    with mpmath.workdps(600):
        x, h = mpmath.mpf(2 * level) / (GRID.levels - 1) - 1, mpmath.mpf(1) / (GRID.levels - 1)

        def sigma(z):
            return 1 / (1 + mpmath.exp(-z))

        def log_mass(values):
            logits, loc, log_scale = values
            total = mpmath.mpf(0)
            for logit, m, log_s in zip(logits, loc, log_scale, strict=True):
                s = mpmath.exp(log_s)
                edges = [-mpmath.inf if level == 0 else x - h, mpmath.inf if level == GRID.levels - 1 else x + h]
                # Above the location the difference is taken between the upper tails, which do not cancel.
                side = -1 if x > m else 1
                lower, upper = (sigma(side * (edge - m) / s) for edge in edges)
                total += mpmath.exp(logit) * side * (upper - lower)
            return mpmath.log(total / mpmath.fsum(mpmath.exp(logit) for logit in logits))

        values = [[mpmath.mpf(v) for v in part] for part in parts]
        gradients = []
        step = mpmath.mpf(10) ** -60
        for i in range(3):
            gradients.append([])
            for k in range(len(values[i])):
                sides = []
                for sign in (1, -1):
                    moved = [list(part) for part in values]
                    moved[i][k] += sign * step
                    sides.append(log_mass(moved))
                gradients[-1].append(float((sides[0] - sides[1]) / (2 * step)))
        return float(log_mass(values)), gradients


def single(parts: list[list[float]]) -> list[list[float]]:
    """Parameters rounded to float32, so that both precisions are asked the same question."""
    return [torch.tensor(part, dtype=torch.float32).double().tolist() for part in parts]


# logits, loc, log_scale: hundreds of scales away, inside, beyond both ends, all wide, all narrower than a step.
CASES = {
    "far": [[0.0, 1.0], [0.95, -0.9], [-6.0, -5.0]],
    "mixed": [[0.3, -0.7, 0.1], [0.21, 0.25, -1.3], [-9.0, -3.0, -6.5]],
    "wide": [[0.0, 0.5], [0.1, -3.0], [1.0, 3.0]],
    "narrow": [[0.0, 0.0], [0.2206454, 0.2207], [-13.0, -10.5]],
}


@pytest.mark.parametrize("level", [0, 1, 40_000, 65_534, 65_535])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-4)])
def test_log_mass_and_gradients_are_exact(level, name, dtype, tolerance):
    parts = single(CASES[name])
    log_prob, gradients = found(level, parts, dtype)
    expected, slopes = exact(level, parts)
    assert log_prob == pytest.approx(expected, rel=tolerance, abs=tolerance)
    for parameter, ours, slope in zip(NAMES, gradients, slopes, strict=True):
        scale = max(1.0, *(abs(value) for value in slope))
        assert ours.tolist() == pytest.approx(slope, rel=tolerance, abs=tolerance * scale), parameter


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("side", [-1.0, 1.0])
@pytest.mark.parametrize("scales", [10.0, 100.0, 800.0])
def test_a_far_mixture_is_drawn_to_the_data_by_one_over_its_scale(dtype, side, scales):
    """In the tail log p falls by one nat a scale: d log p / d loc = sign / s, and wider is better."""
    log_scale = -7.0
    loc = side * scales * math.exp(log_scale)
    log_prob, (_, pull, widen) = found(32_768, [[0.0], [loc], [log_scale]], dtype)
    assert math.isfinite(log_prob)
    assert float(pull) * math.exp(log_scale) == pytest.approx(-side, rel=1e-3)
    assert float(widen) == pytest.approx(scales, rel=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_scale", [-5.0, 0.0, 6.0])
def test_a_step_small_against_the_scale_gives_density_times_step(dtype, log_scale):
    x = GRID.value(torch.arange(1, 65_535, 101), dtype)
    d = DiscretizedMixtureLogistic(*(torch.tensor([v], dtype=dtype) for v in (0.0, 0.3, log_scale)), GRID)
    tolerance = (GRID.step / math.exp(log_scale)) ** 2 + (2e-6 if dtype == torch.float64 else 2e-4)
    torch.testing.assert_close(d.log_prob(x), d.log_density(x) + math.log(GRID.step), rtol=1e-6, atol=tolerance)


@settings(max_examples=50, deadline=None)
@given(
    st.floats(-1.2, 1.2),
    st.lists(st.tuples(st.floats(-20, 20), st.floats(-4, 4), st.floats(-14, 4)), min_size=1, max_size=3),
)
def test_nothing_is_infinite_and_float32_follows_float64(x, components):
    parts = single([list(part) for part in zip(*components, strict=True)])
    level = int(GRID.index(torch.tensor(x, dtype=torch.float64)))
    ours, gradients = found(level, parts, torch.float32)
    reference, slopes = found(level, parts, torch.float64)
    assert math.isfinite(ours)
    assert ours == pytest.approx(reference, rel=1e-5, abs=1e-4)
    for single_precision, double in zip(gradients, slopes, strict=True):
        assert torch.isfinite(single_precision).all()
        size = max(1.0, float(double.abs().max()))
        # A log mass of 10^5 nats is itself rounded by 10^-2, and the shares of the components with it.
        tolerance = 1e-4 + torch.finfo(torch.float32).eps * abs(reference)
        torch.testing.assert_close(single_precision, double, rtol=tolerance, atol=tolerance * size)
