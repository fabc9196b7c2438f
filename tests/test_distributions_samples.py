"""Draws follow the distribution; the same uniforms give the same draws; temperature does what it says."""

import pytest
import scipy.stats
import torch

from wavenet.distributions.categorical import MuLawCategorical
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import DiscretizedMixtureLogistic, Logistic, MixtureLogistic
from wavenet.quantize import Grid, MuLaw

N = 40_000
MIXTURE = [torch.tensor(part, dtype=torch.float64) for part in ([0.5, -0.5, 0.0], [-0.5, 0.1, 0.6], [-2.0, -3.0, -1.5])]


def uniforms(channels: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(N, channels, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize(
    "d",
    [
        Gaussian(torch.tensor(0.2, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)),
        Logistic(torch.tensor(0.2, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64)),
        MixtureLogistic(*MIXTURE),
    ],
    ids=lambda d: type(d).__name__,
)
def test_continuous_draws_follow_the_cdf(d):
    draws = d.transform(uniforms(d.noise_channels))
    assert scipy.stats.kstest(draws.numpy(), lambda x: d.cdf(torch.from_numpy(x)).numpy()).pvalue > 0.001
    torch.manual_seed(0)
    drawn = d.sample((N,))
    assert drawn.shape == (N,)
    assert scipy.stats.kstest(drawn.numpy(), lambda x: d.cdf(torch.from_numpy(x)).numpy()).pvalue > 0.001


@pytest.mark.parametrize(
    ("d", "values"),
    [
        (DiscretizedMixtureLogistic(*MIXTURE, Grid(4)), Grid(4).value(torch.arange(16), torch.float64)),
        (
            MuLawCategorical(torch.linspace(-2, 1, 16, dtype=torch.float64), MuLaw(4)),
            MuLaw(4).decode(torch.arange(16), torch.float64),
        ),
    ],
    ids=["discretised mixture", "mu-law"],
)
def test_discrete_draws_follow_the_masses(d, values):
    draws = d.transform(uniforms(d.noise_channels))
    counts = torch.stack([(draws == value).sum() for value in values])
    assert int(counts.sum()) == N
    expected = d.log_prob(values).exp() * N
    busy = expected >= 5
    observed = torch.cat([counts[busy], counts[~busy].sum()[None]]).double().numpy()
    wanted = torch.cat([expected[busy], expected[~busy].sum()[None]]).numpy()
    keep = wanted > 0.5
    assert (
        scipy.stats.chisquare(observed[keep], wanted[keep] * observed[keep].sum() / wanted[keep].sum()).pvalue > 0.001
    )


def test_edge_levels_take_the_tails():
    d = DiscretizedMixtureLogistic(*(torch.tensor([v], dtype=torch.float64) for v in (0.0, 0.9, 0.0)), Grid(16))
    draws = d.transform(uniforms(2))
    assert float(draws.max()) == 1.0
    share = float((draws == 1.0).double().mean())
    assert share == pytest.approx(float(d.log_prob(torch.tensor(1.0).double()).exp()), abs=4 * 0.5 / N**0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("end", [0.0, 1.0])
def test_rounded_uniforms_stay_finite(dtype, end):
    zero = torch.zeros((), dtype=dtype)
    row = torch.zeros(3, dtype=dtype)
    for d in (
        Gaussian(zero, zero),
        Logistic(zero, zero),
        MixtureLogistic(row, row, row),
        DiscretizedMixtureLogistic(row, row, row, Grid(8)),
        MuLawCategorical(row, MuLaw(8)),
    ):
        assert torch.isfinite(d.transform(torch.full((d.noise_channels,), end, dtype=dtype)))


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_the_ends_of_float32_noise_never_draw_what_has_no_mass(u, temperature):
    """Once in a quarter of an hour of audio: a cumulative sum that ends at 1 - 1e-7 would then draw the last class."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(500, 256, generator=generator)
    logits[:, :40] -= 60
    logits[:, 200:] -= 60
    mulaw = MuLaw(8)
    classes = mulaw.encode(MuLawCategorical(logits, mulaw).transform(torch.full((500, 1), u), temperature))
    assert classes.min() >= 40
    assert classes.max() < 200
    logits = 2 * torch.randn(500, 10, generator=generator)
    logits[:, [0, 9]] -= 60
    loc = torch.arange(10.0).expand(500, 10)
    mixture = MixtureLogistic(logits, loc, torch.full((500, 10), -9.0))
    draws = mixture.transform(torch.tensor([u, 0.5]).expand(500, 2), temperature)
    assert draws.min() > 0.5
    assert draws.max() < 8.5


def test_stratified_uniforms_keep_the_law_and_steady_the_mean():
    """u = (i + U) / n: the draws of all strata together follow the CDF, and their mean hardly moves."""
    n, rows = 16, 2500
    d = Logistic(torch.tensor(0.2, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64))
    jitter = torch.rand(n, rows, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    stratified = d.transform(((torch.arange(n)[:, None] + jitter) / n)[..., None])
    independent = d.transform(jitter[..., None])
    assert scipy.stats.kstest(stratified.flatten(), lambda x: d.cdf(torch.from_numpy(x)).numpy()).pvalue > 0.001
    spread = stratified.mean(0).std()
    assert float(spread) < float(independent.mean(0).std()) / 2
    assert abs(float(stratified.mean() - d.mean)) < 4 * float(spread) / rows**0.5


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_temperature_divides_the_logits_of_classes_and_spares_the_weights_of_a_mixture(temperature):
    logits, mulaw = torch.linspace(-2, 1, 16, dtype=torch.float64), MuLaw(4)
    values = mulaw.decode(torch.arange(16), torch.float64)
    draws = MuLawCategorical(logits, mulaw).transform(uniforms(1), temperature)
    counts = torch.stack([(draws == value).sum() for value in values]).double()
    expected = (logits / temperature).softmax(-1) * N
    assert scipy.stats.chisquare(counts.numpy(), expected.numpy()).pvalue > 0.001
    logits, loc, log_scale = MIXTURE
    hotter = MixtureLogistic(logits, loc, log_scale + torch.tensor(temperature).log())
    torch.testing.assert_close(
        MixtureLogistic(*MIXTURE).transform(uniforms(2), temperature), hotter.transform(uniforms(2))
    )


def test_temperature_scales_and_zero_is_the_centre():
    u = uniforms(1)
    for make in (Gaussian, Logistic):
        d = make(torch.tensor(0.2, dtype=torch.float64), torch.tensor(-1.0, dtype=torch.float64))
        torch.testing.assert_close(d.transform(u, 0.5) - 0.2, 0.5 * (d.transform(u) - 0.2))
        assert torch.equal(d.transform(u, 0.0), torch.full((N,), 0.2, dtype=torch.float64))
    cold = MixtureLogistic(*MIXTURE).transform(uniforms(2), 0.0)
    assert set(cold.tolist()) == {-0.5, 0.1, 0.6}
    weights = MIXTURE[0].softmax(0)
    for value, weight in zip((-0.5, 0.1, 0.6), weights, strict=True):
        assert float((cold == value).double().mean()) == pytest.approx(float(weight), abs=0.01)
    classes = MuLawCategorical(torch.tensor([0.0, 3.0, 1.0, 0.0]).double(), MuLaw(2))
    assert set(classes.transform(u, 0.0).tolist()) == {float(MuLaw(2).decode(torch.tensor(1), torch.float64))}
    hot, plain = (float((classes.transform(u, t) == classes.transform(u, 0.0)).double().mean()) for t in (4.0, 1.0))
    assert hot < plain


def test_reparametrised_gradient():
    """d x / d loc = 1 and d x / d log_scale = x - loc, for the same uniform."""
    for make in (Gaussian, Logistic):
        loc, log_scale = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.3, -0.7))
        x = make(loc, log_scale).transform(torch.tensor([0.81], dtype=torch.float64))
        gradients = torch.autograd.grad(x, (loc, log_scale))
        assert float(gradients[0]) == 1.0
        torch.testing.assert_close(gradients[1], (x - loc).detach())
