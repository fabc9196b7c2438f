"""Dequantisation: the exact mass is the mean of p / q, the bound lies below it, and closes where it should."""

import itertools
import math

import pytest
import torch
from scipy.stats import multivariate_normal

from distill.dequantization import UniformDequantizer, VariationalDequantizer, bound
from tests.conftest import randomise
from wavenet.distributions.logistic import DiscretizedMixtureLogistic
from wavenet.errors import UserError
from wavenet.quantize import Grid


def mixture(bits: int, narrower: float = 0.0) -> DiscretizedMixtureLogistic:
    """Two logistics well inside [-1, 1], exact masses on 2^bits levels."""
    logits, loc, log_scale = (
        torch.tensor([row], dtype=torch.float64) for row in ([0.3, -0.2], [-0.31, 0.27], [-3, -2])
    )
    return DiscretizedMixtureLogistic(logits, loc, log_scale - narrower, Grid(bits))


def levels_of(law: DiscretizedMixtureLogistic, inner: bool = True) -> torch.Tensor:
    """Every level (Q, 1), without the two that take the tails beyond the grid."""
    levels = law.grid.value(torch.arange(law.grid.levels), torch.float64)[:, None]
    return levels[1:-1] if inner else levels


def nodes() -> tuple[torch.Tensor, torch.Tensor]:
    """Places u = sigma(t) in (0, 1) and weights, t equidistant: exact to rounding, powers of u at its ends included."""
    t = torch.linspace(-30, 30, 201, dtype=torch.float64)
    return torch.sigmoid(t), 0.3 * torch.sigmoid(t) * torch.sigmoid(-t)


def log_ratios(law, dequantizer, levels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """log p(y) - log q(y|x) at every node (nodes, Q), and the nodes' weights (nodes, 1)."""
    places, weights = nodes()
    y, log_q = dequantizer.transform(levels.repeat(len(places), 1), places.repeat_interleave(len(levels))[:, None])
    return (law.log_density(y)[:, 0] - log_q).unflatten(0, (len(places), -1)), weights[:, None]


def exact_bound(law, dequantizer, levels: torch.Tensor) -> torch.Tensor:
    ratios, weights = log_ratios(law, dequantizer, levels)
    return (weights * ratios).sum(0)


def dequantizers(step: float, size: int = 1):
    torch.manual_seed(0)
    fresh = VariationalDequantizer(step, size, (8, 8)).double()
    moved = randomise(VariationalDequantizer(step, size, (8, 8)).double(), 1, 0.1)
    return {"uniform": UniformDequantizer(step), "variational at first": fresh, "variational, any weights": moved}


@pytest.mark.parametrize("bits", [3, 5, 8])
@pytest.mark.parametrize("name", ["uniform", "variational at first", "variational, any weights"])
def test_mean_ratio_is_the_exact_mass_whatever_q(name, bits):
    """E_q[p(y) / q(y|x)] by quadrature: a wrong half step, sign or determinant moves it. Any q gives the same mass."""
    law = mixture(bits)
    dequantizer, levels = dequantizers(law.grid.step)[name], levels_of(law)
    with torch.no_grad():
        ratios, weights = log_ratios(law, dequantizer, levels)
    found = (torch.log(weights) + ratios).logsumexp(0)
    torch.testing.assert_close(found, law.log_prob(levels)[:, 0], rtol=0, atol=1e-7)


@pytest.mark.parametrize("wrong", ["half step", "step's sign", "q's sign"])
def test_the_check_above_would_notice(wrong):
    """Each of three mistakes moves the mean ratio by more than a hundredth of a nat somewhere."""
    law = mixture(5)
    levels, step = levels_of(law), law.grid.step
    places, weights = nodes()
    shift = {"half step": 0.0, "step's sign": 0.5, "q's sign": 0.5}[wrong]
    log_q = math.log(step) if wrong in ("step's sign", "q's sign") else -math.log(step)
    ratios = torch.stack([law.log_density(levels + step * (u - shift))[:, 0] - log_q for u in places])
    found = (torch.log(weights[:, None]) + ratios).logsumexp(0)
    assert (found - law.log_prob(levels)[:, 0]).abs().max() > 1e-2


@pytest.mark.parametrize("bits", [3, 5, 8])
@pytest.mark.parametrize("name", ["uniform", "variational at first", "variational, any weights"])
def test_bound_lies_below_the_exact_mass(name, bits):
    law = mixture(bits)
    levels = levels_of(law, inner=False)  # the end levels too: what lies beyond them is only left out
    with torch.no_grad():
        below = exact_bound(law, dequantizers(law.grid.step)[name], levels)
    assert (below <= law.log_prob(levels)[:, 0] + 1e-9).all()


def test_variational_begins_as_the_uniform_one():
    law = mixture(5)
    levels, found = levels_of(law), dequantizers(law.grid.step)
    uniforms = torch.rand(levels.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    pairs = zip(*(found[name].transform(levels, uniforms) for name in ("uniform", "variational at first")), strict=True)
    for mine, other in pairs:
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-12)


def test_uniform_gap_falls_as_the_square_of_the_step():
    """To second order the gap is (step d log p / dx)^2 / 24: a quarter for each bit, and to zero."""
    gaps = []
    for bits in (6, 7, 8, 9):
        law = mixture(bits)
        levels = levels_of(law)
        mass = law.log_prob(levels)[:, 0].exp()
        gap = law.log_prob(levels)[:, 0] - exact_bound(law, UniformDequantizer(law.grid.step), levels)
        gaps.append(float((mass * gap).sum()))
    ratios = [before / after for before, after in itertools.pairwise(gaps)]
    assert all(3.5 < ratio < 4.5 for ratio in ratios[1:])
    assert 0 < gaps[-1] < 1e-3
    x = levels_of(mixture(9)).requires_grad_()
    (slope,) = torch.autograd.grad(mixture(9).log_density(x).sum(), x)
    expected = float((mass * (Grid(9).step * slope[:, 0]) ** 2 / 24).sum())
    assert gaps[-1] == pytest.approx(expected, rel=0.01)


def test_end_levels_lack_exactly_the_tails():
    """As the density gets smooth the gap of an end level tends to the log of the share of its mass inside its cell."""
    law = mixture(10, narrower=-2.0)
    levels = levels_of(law, inner=False)[[0, -1]]
    half = law.grid.half_step
    inside = (law.cdf(levels + half) - law.cdf(levels - half))[:, 0]
    assert (inside / law.log_prob(levels)[:, 0].exp() < 0.9).all()
    gap = inside.log() - exact_bound(law, UniformDequantizer(law.grid.step), levels)
    assert ((gap > -1e-9) & (gap < 1e-5)).all()


def test_variational_is_tighter_than_uniform_and_stays_below():
    """On a density narrower than a cell: more than half of the uniform bound's gap goes, in the mean over levels."""
    law = mixture(4, narrower=0.5)
    levels = levels_of(law)
    exact = law.log_prob(levels)[:, 0]
    torch.manual_seed(0)
    dequantizer = VariationalDequantizer(law.grid.step, 1, (24, 24), flows=1, scale=0.5).double()
    optimizer = torch.optim.Adam(dequantizer.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    drawn = levels[torch.multinomial(exact.exp(), 256, True, generator=generator)]
    for _ in range(200):
        optimizer.zero_grad()
        (-bound(lambda y: law.log_density(y)[:, 0], dequantizer, drawn, 1, generator).mean()).backward()
        optimizer.step()
    with torch.no_grad():
        variational = exact_bound(law, dequantizer, levels)
    uniform = exact_bound(law, UniformDequantizer(law.grid.step), levels)
    assert (variational <= exact + 1e-6).all()
    gaps = [float((exact.exp() * (exact - found)).sum()) for found in (uniform, variational)]
    assert gaps[0] > 0.1
    assert gaps[1] < 0.4 * gaps[0]


@pytest.mark.parametrize("name", ["uniform", "variational, any weights"])
def test_vectors_against_rectangles_of_a_correlated_normal(name):
    """Two coordinates, correlation 0.8, cells of 0.7 deviations: masses by scipy's bivariate CDF."""
    step, covariance = 0.7, [[1.0, 0.8], [0.8, 1.0]]
    law = torch.distributions.MultivariateNormal(torch.zeros(2).double(), torch.tensor(covariance).double())
    levels = step * torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 2.0], [2.0, 2.0]]).double()
    exact = [
        multivariate_normal([0, 0], covariance).cdf(x + step / 2, lower_limit=x - step / 2) for x in levels.numpy()
    ]
    places, weights = (part[33:-33:2] for part in nodes())
    weight = 2 * 2 * torch.outer(weights, weights).flatten()[:, None]
    u = torch.cartesian_prod(places, places).repeat_interleave(4, 0)
    with torch.no_grad():
        y, log_q = dequantizers(step, 2)[name].transform(levels.repeat(len(weight), 1), u)
    ratio = (law.log_prob(y) - log_q).unflatten(0, (-1, 4))
    total, mean = (weight * ratio.exp()).sum(0), (weight * ratio).sum(0)
    torch.testing.assert_close(total, torch.tensor(exact).double(), rtol=1e-5, atol=0)
    assert (mean < torch.tensor(exact).double().log()).all()


def test_monte_carlo_bounds_are_ordered_and_agree_with_quadrature():
    law = mixture(4)
    levels, uniform = levels_of(law), UniformDequantizer(law.grid.step)
    generator = torch.Generator().manual_seed(0)

    def density(y: torch.Tensor) -> torch.Tensor:
        return law.log_density(y)[:, 0]

    exact, below = law.log_prob(levels)[:, 0], exact_bound(law, uniform, levels)
    many = levels.repeat(1, 2000).reshape(-1, 1)
    single = bound(density, uniform, many, 1, generator).unflatten(0, (-1, 2000))
    error = single.std(1) / math.sqrt(2000)
    assert ((single.mean(1) - below).abs() < 4 * error).all()
    weighted = bound(density, uniform, many, 16, generator, weighted=True).unflatten(0, (-1, 2000)).mean(1)
    assert (weighted > below).all()
    assert (weighted < exact + 4 * error).all()


def test_user_mistakes():
    with pytest.raises(UserError, match="step"):
        UniformDequantizer(0.0)
    with pytest.raises(UserError, match="draws"):
        bound(lambda y: y[:, 0], UniformDequantizer(1.0), torch.zeros(1, 1), draws=0)
