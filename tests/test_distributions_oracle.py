"""log_prob, moments, entropy and quantiles against torch.distributions and against differences of the CDF."""

import mpmath
import pytest
import torch
from torch import distributions as td

from wavenet.distributions.categorical import MuLawCategorical
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import DiscretizedMixtureLogistic, Logistic, MixtureLogistic
from wavenet.quantize import Grid, MuLaw

GENERATOR = torch.Generator().manual_seed(0)
LOC, LOG_SCALE, X = (torch.randn(40, dtype=torch.float64, generator=GENERATOR) for _ in range(3))
LOGITS, LOCS, LOG_SCALES = (torch.randn(40, 5, dtype=torch.float64, generator=GENERATOR) for _ in range(3))


def torch_logistic(loc, scale):
    uniform = td.Uniform(torch.zeros_like(loc), torch.ones_like(loc))
    transforms = [td.SigmoidTransform().inv, td.AffineTransform(loc, scale)]
    return td.TransformedDistribution(uniform, transforms)


def test_gaussian_is_torchs():
    ours, theirs = Gaussian(LOC, LOG_SCALE), td.Normal(LOC, LOG_SCALE.exp())
    u = X.sigmoid()
    for name, arguments in (("log_prob", [X]), ("cdf", [X]), ("icdf", [u]), ("entropy", [])):
        torch.testing.assert_close(getattr(ours, name)(*arguments), getattr(theirs, name)(*arguments))
    for name in ("mean", "variance", "stddev"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


def test_logistic_is_torchs():
    ours, theirs = Logistic(LOC, LOG_SCALE), torch_logistic(LOC, LOG_SCALE.exp())
    u = X.sigmoid()
    for name, argument in (("log_prob", X), ("cdf", X), ("icdf", u)):
        torch.testing.assert_close(getattr(ours, name)(argument), getattr(theirs, name)(argument))
    # Midpoints of 10^6 equal slices of probability: the moments to the slices' share of the tails, without chance.
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    for loc, log_scale in ((0.3, -1.2), (-2.0, 0.7)):
        d = Logistic(torch.tensor(loc).double(), torch.tensor(log_scale).double())
        x = d.icdf(u)
        torch.testing.assert_close(x.mean(), d.mean, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(x.std(), d.stddev, rtol=1e-4, atol=0)
        torch.testing.assert_close(-d.log_prob(x).mean(), d.entropy(), rtol=0, atol=1e-5)


def test_mixture_is_torchs():
    ours = MixtureLogistic(LOGITS, LOCS, LOG_SCALES)
    weights = LOGITS.softmax(-1)
    parts = torch_logistic(LOCS, LOG_SCALES.exp())
    expected = (weights * parts.log_prob(X[:, None]).exp()).sum(-1).log()
    torch.testing.assert_close(ours.log_prob(X), expected)
    torch.testing.assert_close(ours.cdf(X), (weights * parts.cdf(X[:, None].expand(40, 5))).sum(-1))
    normals = td.MixtureSameFamily(td.Categorical(logits=LOGITS), td.Normal(LOCS, LOG_SCALES.exp() * torch.pi / 3**0.5))
    torch.testing.assert_close(ours.mean, normals.mean)
    torch.testing.assert_close(ours.variance, normals.variance)


@pytest.mark.parametrize("bits", [5, 8, 16])
def test_masses_are_differences_of_the_cdf(bits):
    grid = Grid(bits)
    d = DiscretizedMixtureLogistic(LOGITS, LOCS, LOG_SCALES - 2, grid)
    x = grid.quantize((X / 2).clamp(grid.step - 1, 1 - grid.step))
    expected = (d.cdf(x + grid.half_step) - d.cdf(x - grid.half_step)).log()
    torch.testing.assert_close(d.log_prob(x), expected, rtol=1e-8, atol=1e-8)
    ends = torch.ones(40, dtype=torch.float64)
    torch.testing.assert_close(d.log_prob(-ends), d.cdf(-ends + grid.half_step).log())
    torch.testing.assert_close(d.log_prob(ends), (1 - d.cdf(ends - grid.half_step)).log(), rtol=1e-6, atol=1e-6)


def test_values_off_the_grid_count_as_the_nearest_level():
    grid = Grid(8)
    d = DiscretizedMixtureLogistic(LOGITS, LOCS, LOG_SCALES, grid)
    x = grid.quantize(X / 3)
    torch.testing.assert_close(d.log_prob(x + 0.4 * grid.step * torch.sign(-x)), d.log_prob(x))


def test_continuous_density_is_the_limit_of_mass_over_step():
    grid = Grid(22)
    d = DiscretizedMixtureLogistic(LOGITS, LOCS, LOG_SCALES, grid)
    x = grid.quantize((X / 3).clamp(-0.9, 0.9))
    density = d.log_prob(x) - torch.tensor(grid.step).double().log()
    torch.testing.assert_close(d.log_density(x), density, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(d.log_density(x), d.continuous().log_prob(x))


def exact_log_mass(x: float, loc: float, log_scale: float, half: float) -> float:
    with mpmath.workdps(400):
        scale = mpmath.exp(mpmath.mpf(log_scale))
        upper, lower = ((mpmath.mpf(x) + sign * mpmath.mpf(half) - mpmath.mpf(loc)) / scale for sign in (1, -1))
        mass = 1 / (1 + mpmath.exp(-upper)) - 1 / (1 + mpmath.exp(-lower))
        return float(mpmath.log(mass))


@pytest.mark.parametrize("log_scale", [-12.0, -9.0, -5.0, 0.0])
@pytest.mark.parametrize("distance", [-300.0, -40.0, -1.0, 0.0, 0.3, 40.0, 300.0])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 2e-5)])
def test_log_mass_in_the_tails_is_exact(log_scale, distance, dtype, tolerance):
    """Up to hundreds of scales away, against 400-digit arithmetic, with a gradient that points to the data."""
    grid = Grid(16)
    level = grid.value(torch.tensor(40_000), dtype)
    loc = (level.double() - distance * torch.tensor(log_scale).double().exp()).to(dtype).requires_grad_()
    d = DiscretizedMixtureLogistic(torch.zeros(1, dtype=dtype), loc[None], torch.tensor([log_scale], dtype=dtype), grid)
    found = d.log_prob(level)
    exact = exact_log_mass(
        float(grid.value(torch.tensor(40_000), torch.float64)), float(loc.detach()), log_scale, grid.half_step
    )
    assert float(found.detach()) == pytest.approx(exact, rel=tolerance, abs=tolerance)
    (gradient,) = torch.autograd.grad(found, loc)
    assert torch.isfinite(gradient)
    if abs(distance) >= 1:
        assert float(gradient) * distance > 0


def test_float32_gradients_follow_float64():
    grid = Grid(16)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        parts = [t.to(dtype).requires_grad_() for t in (LOGITS, LOCS / 2, LOG_SCALES - 4)]
        d = DiscretizedMixtureLogistic(*parts, grid)
        x = grid.quantize((X / 3).clamp(-1, 1).float()).to(dtype)
        gradients.append(torch.autograd.grad(d.log_prob(x).sum(), parts))
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(single.double(), double, rtol=2e-3, atol=2e-3)


def test_gradcheck_of_every_log_prob():
    grid, x = Grid(8), (X / 3).clamp(-1, 1)[:6]
    parts = tuple(t[:6].clone().requires_grad_() for t in (LOGITS, LOCS, LOG_SCALES))
    assert torch.autograd.gradcheck(lambda *p: DiscretizedMixtureLogistic(*p, grid).log_prob(x), parts)
    assert torch.autograd.gradcheck(lambda *p: MixtureLogistic(*p).log_prob(x), parts)
    pair = tuple(t[:6].clone().requires_grad_() for t in (LOC, LOG_SCALE))
    for make in (Logistic, Gaussian):
        assert torch.autograd.gradcheck(lambda *p, make=make: make(*p).log_prob(x), pair)


def test_mulaw_categorical_is_torchs():
    mulaw = MuLaw(4)
    logits = torch.randn(40, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    ours, theirs = MuLawCategorical(logits, mulaw), td.Categorical(logits=logits)
    x = X.clamp(-1, 1)
    torch.testing.assert_close(ours.log_prob(x), theirs.log_prob(mulaw.encode(x)))
    torch.testing.assert_close(ours.entropy(), theirs.entropy())
    masked = logits.masked_fill(torch.arange(16) % 3 == 0, -torch.inf)
    expected = td.Categorical(logits=masked).entropy()
    torch.testing.assert_close(MuLawCategorical(masked, mulaw).entropy(), expected)
    centres = mulaw.decode(torch.arange(16), torch.float64)
    torch.testing.assert_close(ours.mean, theirs.probs @ centres)
    torch.testing.assert_close(ours.variance, theirs.probs @ centres**2 - (theirs.probs @ centres) ** 2)


def test_expand_keeps_the_distribution():
    grid = Grid(8)
    for d in (
        Gaussian(LOC, LOG_SCALE),
        Logistic(LOC, LOG_SCALE),
        MixtureLogistic(LOGITS, LOCS, LOG_SCALES),
        DiscretizedMixtureLogistic(LOGITS, LOCS, LOG_SCALES, grid),
        MuLawCategorical(LOGITS[:, :4], MuLaw(2)),
    ):
        wide = d.expand((3, 40))
        assert wide.batch_shape == (3, 40)
        torch.testing.assert_close(wide.log_prob(X.expand(3, 40))[1], d.log_prob(X))
