"""Each distribution sums or integrates to one."""

import numpy as np
import pytest
import scipy.integrate
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavenet.distributions.categorical import MuLawCategorical
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import DiscretizedMixtureLogistic, Logistic, MixtureLogistic
from wavenet.quantize import Grid, MuLaw

# Wide, ordinary, narrower than a step, far off the grid, between two levels of 16 bits, at an edge.
CASES = [
    ([0.0, 1.0, -1.0], [0.0, 0.3, -0.6], [0.5, -1.0, -3.0]),
    ([0.0, 0.0, 0.0], [0.1, -0.2, 0.123456], [-9.0, -12.0, -14.0]),
    ([2.0, 0.0, 1.0], [1.7, -1.0, 1.0], [-2.0, -9.0, -10.5]),
    ([0.0, 3.0, 0.0], [-5.0, 0.5 / 65535, 8.0], [-9.0, -15.0, -1.0]),
]


def discretised(case, bits: int, dtype: torch.dtype) -> DiscretizedMixtureLogistic:
    return DiscretizedMixtureLogistic(*(torch.tensor(part, dtype=dtype) for part in case), Grid(bits))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("bits", [4, 8, 16])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
def test_masses_sum_to_one(case, bits, dtype, tolerance):
    grid = Grid(bits)
    masses = discretised(case, bits, dtype).log_prob(grid.value(torch.arange(grid.levels), dtype)).double().exp()
    assert float(masses.sum()) == pytest.approx(1.0, abs=tolerance)


component = st.tuples(st.floats(-5, 5), st.floats(-3, 3), st.floats(-17, 3))


@settings(max_examples=50, deadline=None)
@given(st.lists(component, min_size=1, max_size=4), st.sampled_from([1, 8, 16]), st.booleans())
def test_any_masses_sum_to_one(components, bits, single):
    dtype, tolerance = (torch.float32, 1e-6) if single else (torch.float64, 1e-10)
    grid = Grid(bits)
    d = discretised(list(zip(*components, strict=True)), bits, dtype)
    masses = d.log_prob(grid.value(torch.arange(grid.levels), dtype)).double().exp()
    assert float(masses.sum()) == pytest.approx(1.0, abs=tolerance)


@pytest.mark.parametrize("make", [Logistic, Gaussian])
@pytest.mark.parametrize("log_scale", [-9.0, -2.0, 1.0])
def test_densities_integrate_to_one(make, log_scale):
    scale = float(np.exp(log_scale))
    d = make(torch.tensor(0.3, dtype=torch.float64), torch.tensor(log_scale, dtype=torch.float64))
    total, _ = scipy.integrate.quad(
        lambda z: float(d.log_prob(torch.tensor(0.3 + scale * z, dtype=torch.float64)).exp()) * scale,
        -45,
        45,
        limit=200,
    )
    assert total == pytest.approx(1.0, abs=1e-8)


def test_mixture_density_integrates_to_one():
    d = MixtureLogistic(*(torch.tensor(part, dtype=torch.float64) for part in CASES[0]))
    x = torch.linspace(-80, 80, 2_000_001, dtype=torch.float64)
    assert float(torch.trapezoid(d.log_prob(x).exp(), x)) == pytest.approx(1.0, abs=1e-8)


@pytest.mark.parametrize("bits", [3, 8])
def test_mulaw_masses_sum_and_density_integrates_to_one(bits):
    mulaw = MuLaw(bits)
    logits = torch.randn(mulaw.levels, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    d, centres = MuLawCategorical(logits, mulaw), mulaw.decode(torch.arange(mulaw.levels), torch.float64)
    assert float(d.log_prob(centres).exp().sum()) == pytest.approx(1.0, abs=1e-12)
    assert float((d.log_density(centres).exp() * mulaw.edges().diff()).sum()) == pytest.approx(1.0, abs=1e-12)
