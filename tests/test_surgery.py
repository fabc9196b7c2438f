"""ELBO surgery: known answers, bounds, quadrature, and three terms that make up the ELBO."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from distill.latent.masked import MaskedStep
from distill.latent.posteriors import Flowing, Gaussian, pairwise_log_normal
from distill.latent.priors import Aggregate, MixtureParameters, StandardNormal
from distill.latent.surgery import elbo_terms, surgery
from tests.conftest import randomise
from wavenet.errors import UserError


def gaussians(n: int = 40, dimensions: int = 2, seed: int = 0) -> Gaussian:
    generator = torch.Generator().manual_seed(seed)
    loc = torch.randn(n, dimensions, generator=generator).double()
    return Gaussian(loc, (0.4 * torch.randn(n, dimensions, generator=generator).double() - 1).exp())


def flowing(n: int = 30, dimensions: int = 3) -> Flowing:
    torch.manual_seed(0)
    steps = [randomise(MaskedStep(dimensions, 4, 9).double(), seed) for seed in (1, 2)]
    return Flowing(gaussians(n, dimensions), torch.randn(n, 4).double(), [step.requires_grad_(False) for step in steps])


def likelihood(z, places):
    """Some function of z and of the patch, to be reconstructed."""
    wanted = torch.arange(1000).double()[places] / 10
    return -0.5 * (z.square().sum(-1) - wanted).square() / 4


def normal(posterior):
    z, _ = posterior[0:1].draw(1)
    return StandardNormal(z.shape[-1], z)


@pytest.mark.parametrize("make", [gaussians, flowing])
@pytest.mark.parametrize("prior", ["normal", "mixture", "aggregated"])
def test_terms_sum_to_the_elbo_within_their_error(make, prior):
    posterior, generator = make(), torch.Generator().manual_seed(1)
    torch.manual_seed(3)
    dimensions = posterior.draw(1)[0].shape[-1]
    p = {
        "normal": normal(posterior),
        "mixture": MixtureParameters(5, dimensions).double().requires_grad_(False)(),
        "aggregated": Aggregate(posterior),
    }[prior]
    found = surgery(posterior, p, likelihood, 100, generator)
    assert abs(found.remainder.value) < 3 * found.remainder.error < 0.3
    assert 0.5 < found.mutual_information.value <= math.log(found.n)
    # Neither may the average KL be the sum of another pair: two independent estimates of it agree.
    both = found.mutual_information.value + found.marginal_kl.value
    error = math.hypot(found.average_kl.error, found.mutual_information.error + found.marginal_kl.error)
    assert abs(found.average_kl.value - both) < 3 * error + 1e-9
    if prior == "aggregated":
        assert found.marginal_kl.value == pytest.approx(0, abs=1e-10)


def test_equal_posteriors_share_no_information_with_the_patch():
    posterior = Gaussian(torch.full((50, 3), 0.7).double(), torch.full((50, 3), 0.5).double())
    found = surgery(posterior, normal(posterior), likelihood, 20)
    assert found.mutual_information.value == pytest.approx(0, abs=1e-9)
    expected = float(posterior.kl_to_standard_normal()[0].sum())
    assert found.marginal_kl.value == pytest.approx(expected, abs=4 * found.marginal_kl.error)


def test_posteriors_far_apart_tell_the_patch():
    loc = 100.0 * torch.arange(64)[:, None].double().expand(-1, 2)
    posterior = Gaussian(loc, torch.ones(64, 2).double())
    found = surgery(posterior, normal(posterior), likelihood, 2)
    assert found.mutual_information.value == pytest.approx(math.log(64), abs=1e-9)
    assert found.mutual_information.value <= math.log(64)


def test_information_never_leaves_its_bounds():
    for seed in range(8):
        for width in (1e-3, 0.3, 3.0):
            posterior = gaussians(17, 2, seed)
            narrow = Gaussian(posterior.loc.float(), width * posterior.scale.float())
            found = surgery(narrow, normal(narrow), likelihood, 2, torch.Generator().manual_seed(seed))
            assert 0 <= found.mutual_information.value <= math.log(17)


def test_gaussians_against_quadrature():
    """One dimension, three posteriors: mutual information and marginal KL by an integral over z."""
    posterior = Gaussian(torch.tensor([[-1.0], [0.2], [0.9]]).double(), torch.tensor([[0.5], [0.3], [1.1]]).double())
    grid = torch.linspace(-12, 12, 20_001, dtype=torch.float64)
    log_probs = Normal(posterior.loc[:, 0], posterior.scale[:, 0]).log_prob(grid[:, None])
    log_q = log_probs.logsumexp(1) - math.log(3)
    weights = (grid[1] - grid[0]) * log_q.exp()
    share = (log_probs - math.log(3) - log_q[:, None]).exp()
    information = math.log(3) + float((weights * torch.special.xlogy(share, share).sum(1)).sum())
    marginal = float((weights * (log_q - Normal(0.0, 1.0).log_prob(grid))).sum())
    found = surgery(posterior, normal(posterior), likelihood, 100_000, torch.Generator().manual_seed(0))
    assert 0.1 < information < math.log(3) - 0.1
    for estimate, exact in ((found.mutual_information, information), (found.marginal_kl, marginal)):
        assert abs(estimate.value - exact) < 3.5 * estimate.error
        assert estimate.error < 0.01
    assert information + marginal == pytest.approx(float(posterior.kl_to_standard_normal().sum(1).mean()), abs=1e-6)


def test_stated_errors_are_the_scatter_of_repetitions():
    posterior, generator = gaussians(12), torch.Generator().manual_seed(0)
    found = [surgery(posterior, normal(posterior), likelihood, 4, generator) for _ in range(150)]
    for term in ("elbo", "reconstruction", "mutual_information", "marginal_kl"):
        values = torch.tensor([getattr(one, term).value for one in found])
        stated = torch.tensor([getattr(one, term).error for one in found]).square().mean().sqrt()
        assert 0.8 < float(values.std() / stated) < 1.25, term


def test_one_draw_has_no_error_and_is_refused():
    with pytest.raises(UserError, match="draws: found 1, expected at least 2"):
        elbo_terms(gaussians(), normal(gaussians()), likelihood, 1)


def test_pairs_of_densities_are_the_ones_that_torch_states():
    posterior, z = gaussians(30, 4), 3 * torch.randn(20, 4, generator=torch.Generator().manual_seed(1)).double() + 50
    far = Gaussian(posterior.loc + 50, posterior.scale * 1e-2)
    expected = Normal(far.loc, far.scale).log_prob(z[:, None]).sum(-1)
    torch.testing.assert_close(pairwise_log_normal(z, far.loc, far.scale), expected, rtol=1e-10, atol=1e-6)
    one = Independent(Normal(posterior.loc, posterior.scale), 1)
    standard = Independent(Normal(torch.zeros(4).double(), torch.ones(4).double()), 1)
    kl = torch.distributions.kl_divergence(one, standard.expand([30]))
    torch.testing.assert_close(posterior.kl_to_standard_normal().sum(1), kl)


def test_mixtures_are_the_ones_that_torch_states():
    torch.manual_seed(0)
    parameters = randomise(MixtureParameters(6, 3).double()).requires_grad_(False)
    parts = Independent(Normal(parameters.loc, parameters.log_scale.exp()), 1)
    reference = MixtureSameFamily(Categorical(logits=parameters.logits), parts)
    z = torch.randn(4, 5, 3).double()
    torch.testing.assert_close(parameters().log_prob(z), reference.log_prob(z))
    drawn = parameters().sample(50_000, torch.Generator().manual_seed(0))
    error = reference.variance.sqrt() / 50_000**0.5
    assert float(((drawn.mean(0) - reference.mean) / error).abs().max()) < 4
    uniform = Aggregate(Gaussian(parameters.loc, parameters.log_scale.exp()))
    plain = MixtureSameFamily(Categorical(logits=torch.zeros(6).double()), parts)
    torch.testing.assert_close(uniform.log_prob(z), plain.log_prob(z))


def test_masked_step_is_triangular_and_its_inverse_exact():
    torch.manual_seed(0)
    step = randomise(MaskedStep(5, 3, 16).double(), 1, 0.5)
    z, context = torch.randn(4, 5).double(), torch.randn(4, 3).double()
    y, log_det = step(z, context)
    back, log_back = step.inverse(y, context)
    torch.testing.assert_close(back, z)
    torch.testing.assert_close(log_back, -log_det)
    for row in range(4):
        jacobian = torch.autograd.functional.jacobian(
            lambda z, row=row: step(z[None], context[row : row + 1])[0][0], z[row]
        )
        assert (jacobian.triu(1) == 0).all()
        assert (jacobian.tril(-1) != 0).sum() == 10  # every earlier one is seen
        torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[row])


def test_points_far_outside_a_flowing_posterior_have_no_density():
    """Where the inverse overflows nothing becomes NaN: the other terms of the sums are as they would be alone."""
    posterior = flowing(8)
    far = posterior.log_prob_all(torch.full((1, 3), 1e200, dtype=torch.float64))
    assert (far < -1e29).all()
    apart = Gaussian(posterior.base.loc.clone(), posterior.base.scale)
    apart.loc[0] = 1e160
    found = surgery(Flowing(apart, posterior.context, posterior.steps), normal(posterior), likelihood, 2)
    assert math.isfinite(found.mutual_information.value)


def test_flowing_density_is_that_of_its_draws_and_integrates_to_one():
    posterior = flowing()
    z, log_q = posterior.draw(3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(posterior.log_prob(z), log_q)
    every = posterior.log_prob_all(z[0])
    torch.testing.assert_close(every.diagonal(), log_q[0])
    torch.manual_seed(0)
    steps = [randomise(MaskedStep(2, 4, 8).double(), seed).requires_grad_(False) for seed in (1, 2)]
    flat = Flowing(gaussians(2, 2), torch.randn(2, 4).double(), steps)
    axis = torch.linspace(-9, 9, 361, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    mass = flat.log_prob_all(grid).exp().sum(0) * (axis[1] - axis[0]) ** 2
    torch.testing.assert_close(mass, torch.ones(2).double(), atol=1e-3, rtol=0)
