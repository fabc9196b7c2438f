"""Probabilistic PCA: likelihood, posterior and optimum against torch.distributions, scikit-learn and gradients; PCA as
its limit; the linear VAE's ELBO reaches its likelihood and never passes it."""

import math

import pytest
import torch
from sklearn.decomposition import PCA
from torch.distributions import LowRankMultivariateNormal, MultivariateNormal

from distill.latent.linear import LinearVAE
from distill.latent.ppca import PPCA
from distill.latent.priors import StandardNormal
from distill.latent.surgery import elbo_terms
from wavenet.errors import UserError


def data(n: int = 400, width: int = 7, seed: int = 0) -> torch.Tensor:
    """Correlated float64 data with an eigenvalue gap and an offset."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator).double()
    mixing = mixing @ torch.diag(torch.linspace(2, 0.4, width).double())
    return torch.randn(n, width, generator=generator).double() @ mixing.T + torch.arange(width)


@pytest.fixture(scope="module")
def points():
    return data()


@pytest.mark.parametrize("dimensions", [1, 3, 6])
def test_likelihood_is_that_of_the_full_covariance(points, dimensions):
    model = PPCA.fit(points, dimensions)
    covariance = model.weight @ model.weight.T + model.variance * torch.eye(7).double()
    new = data(50, seed=1)
    found = model.log_prob(new)
    torch.testing.assert_close(found, MultivariateNormal(model.mean, covariance).log_prob(new), rtol=1e-10, atol=1e-10)
    low_rank = LowRankMultivariateNormal(model.mean, model.weight, model.variance.expand(7))
    torch.testing.assert_close(found, low_rank.log_prob(new), rtol=1e-10, atol=1e-10)


def test_likelihood_at_the_optimum_is_the_closed_form(points):
    """Tipping and Bishop, equation 7 at the optimum: -(N/2)(D log 2 pi + sum log L + (D - d) log sigma^2 + D)."""
    model = PPCA.fit(points, 3)
    values = torch.linalg.eigvalsh(torch.cov(points.T, correction=0)).flip(0)
    torch.testing.assert_close(model.variance, values[3:].mean())
    expected = -0.5 * (7 * math.log(2 * math.pi) + values[:3].log().sum() + 4 * model.variance.log() + 7)
    torch.testing.assert_close(model.log_prob(points).mean(), expected)


def test_no_step_from_the_optimum_gains(points):
    """Stationary in every parameter, and a maximum along random directions."""
    model = PPCA.fit(points, 2)
    free = [value.clone().requires_grad_() for value in (model.mean, model.weight, model.variance.log())]
    likelihood = PPCA(free[0], free[1], free[2].exp()).log_prob(points).mean()
    for gradient in torch.autograd.grad(likelihood, free):
        assert float(gradient.abs().max()) < 1e-10
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        moved = [v.detach() + 0.05 * torch.randn(v.shape, generator=generator).double() for v in free]
        assert PPCA(moved[0], moved[1], moved[2].exp()).log_prob(points).mean() < likelihood


def test_posterior_is_bayes_rule(points):
    """log p(z | x) = log p(x | z) + log p(z) - log p(x) at any z, for rotated weights too."""
    model = PPCA.fit(points, 3)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(2)).double()).Q
    turned = PPCA(model.mean, model.weight @ rotation, model.variance)
    z = torch.randn(20, 3, generator=torch.Generator().manual_seed(3)).double()
    for one in (model, turned):
        prior = StandardNormal(3, z).log_prob(z)
        expected = one.log_likelihood(points[:20], z) + prior - one.log_prob(points[:20])
        torch.testing.assert_close(one.posterior(points[:20]).log_prob(z), expected)
    torch.testing.assert_close(turned.log_prob(points), model.log_prob(points))
    plain, independent = model.posterior(points), model.independent_posterior(points)
    torch.testing.assert_close(plain.mean, independent.loc)
    torch.testing.assert_close(plain.covariance_matrix[0], independent.scale[0].square().diag(), atol=1e-12, rtol=0)
    with pytest.raises(AssertionError, match="not orthogonal"):
        turned.independent_posterior(points)


def test_pca_is_the_limit_of_no_noise(points):
    """sigma^2 -> 0: the posterior mean decodes to the orthogonal projection, at a rate of sigma^2."""
    reference = PCA(3).fit(points.numpy())
    projected = torch.from_numpy(reference.inverse_transform(reference.transform(points.numpy())))
    distances = []
    for variance in (1e-2, 1e-4, 1e-6):
        model = PPCA.fit(points, 3, variance)
        distances.append(float((model.decode(model.posterior(points).mean) - projected).abs().max()))
        assert float(model.posterior(points).covariance_matrix.abs().max()) < variance
    assert distances[2] < 1e-5
    assert distances[0] / distances[1] == pytest.approx(100, rel=0.05)


def test_samples_have_the_models_moments(points):
    model = PPCA.fit(points, 2)
    drawn = model.sample(200_000, torch.Generator().manual_seed(0))
    covariance = model.weight @ model.weight.T + model.variance * torch.eye(7).double()
    scale = covariance.diagonal().sqrt()
    assert float(((drawn.mean(0) - model.mean) / scale).abs().max()) < 4 / 200_000**0.5
    assert float(((torch.cov(drawn.T) - covariance) / scale[:, None] / scale).abs().max()) < 6 / 200_000**0.5


def test_elbo_with_the_exact_posterior_is_the_likelihood(points):
    """log p(x | z) - log q + log p(z) is log p(x) at every z: no spread at all when nothing is done by hand."""
    model = PPCA.fit(points, 3)
    posterior = model.independent_posterior(points)
    z, log_q = posterior.draw(2, torch.Generator().manual_seed(0))
    each = model.log_likelihood(points, z) - log_q + StandardNormal(3, z).log_prob(z)
    torch.testing.assert_close(each, model.log_prob(points).expand(2, -1))
    elbo, _ = elbo_terms(posterior, StandardNormal(3, z), lambda z, places: model.log_likelihood(points[places], z), 8)
    assert elbo.value == pytest.approx(float(model.log_prob(points).mean()), abs=4 * elbo.error)


def train_linear(points, dimensions, seed):
    """A linear VAE by L-BFGS; the ELBO after every round."""
    torch.manual_seed(seed)
    vae = LinearVAE(points.shape[1], dimensions).double()
    optimizer = torch.optim.LBFGS(vae.parameters(), max_iter=50, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def loss():
        optimizer.zero_grad()
        value = -vae.elbo(points).mean()
        value.backward()
        return value

    return vae, [-float(optimizer.step(loss).detach()) for _ in range(8)]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_elbo_of_a_linear_vae_converges_to_the_likelihood(points, seed):
    """From below; the decoder then spans PPCA's plane and the posterior is PPCA's."""
    model = PPCA.fit(points, 2)
    limit = float(model.log_prob(points).mean())
    vae, course = train_linear(points, 2, seed)
    assert all(value <= limit + 1e-9 for value in course)
    assert limit - course[0] > 0.1  # it had a way to go
    assert limit - course[-1] < 1e-6
    assert float(vae.log_noise.detach().exp() ** 2) == pytest.approx(float(model.variance), rel=1e-2)
    found = vae.decoder.detach()
    torch.testing.assert_close(found @ found.T, model.weight @ model.weight.T, atol=2e-2, rtol=1e-2)


def test_linear_vaes_elbo_is_the_monte_carlo_one(points):
    torch.manual_seed(0)
    points, vae = points[:40], LinearVAE(7, 2).double().requires_grad_(False)
    vae.bias.copy_(points.mean(0))
    loc, scale = (points - vae.bias) @ vae.encoder.T, vae.log_scale.exp()
    generator, noise = torch.Generator().manual_seed(1), vae.log_noise.exp()
    z = loc + scale * torch.randn(4000, *loc.shape, generator=generator).double()
    likelihood = torch.distributions.Normal(z @ vae.decoder.T + vae.bias, noise).log_prob(points).sum(-1)
    log_ratio = torch.distributions.Normal(loc, scale).log_prob(z).sum(-1) - StandardNormal(2, z).log_prob(z)
    draws = likelihood - log_ratio
    error = draws.std(0) / 4000**0.5
    assert float(((draws.mean(0) - vae.elbo(points)) / error).square().mean().sqrt()) < 1.2


@pytest.mark.parametrize(
    ("dimensions", "message"), [(0, "dimensions: found 0"), (7, "dimensions: found 7"), (-1, "found -1, expected more")]
)
def test_dimensions_that_leave_no_noise_are_refused(points, dimensions, message):
    with pytest.raises(UserError, match=message):
        PPCA.fit(points, dimensions)


def test_data_in_a_plane_are_refused(points):
    flat = points[:, :2] @ torch.randn(2, 7, generator=torch.Generator().manual_seed(0)).double()
    with pytest.raises(UserError, match="expected noise in the other 4"):
        PPCA.fit(flat, 3)
    assert PPCA.fit(flat, 1).variance > 0
