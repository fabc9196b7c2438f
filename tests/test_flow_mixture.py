"""Mixtures as an autoregressive flow: torch.distributions' density, Jacobian, inverse, tails, gradients, reach."""

import copy
import math

import numpy as np
import pytest
import torch
from scipy.special import ndtri_exp

from distill.flows.base import log_prob
from distill.flows.mixture import VectorMixture, normal_quantile
from distill.flows.vectors import VectorMAF, conditioning
from distill.vectors.model import VectorConfig, VectorModel
from tests.conftest import randomise
from wavenet.distributions.gaussian import Gaussian
from wavenet.errors import UserError

STANDARD = Gaussian(torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64))
ORDERS = [(0,), (1, 0), (2, 0, 3, 1)]


def mixture(order, components=3, features=0, seed=0) -> VectorMixture:
    torch.manual_seed(seed)
    flow = VectorMixture(len(order), (16, 12), components, order, features).double()
    randomise(flow, seed, 0.4)
    return flow


def points(rows, size, seed=0, dtype=torch.float64):
    return torch.randn(rows, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_the_density_is_the_product_of_mixtures(order):
    """By torch.distributions, coordinate after coordinate in the network's own order."""
    flow, x = mixture(order), 2 * points(50, len(order))
    log_weight, loc, log_scale = flow.conditionals(x)
    expected = torch.zeros(50).double()
    for place in range(len(order)):
        parts = torch.distributions.Normal(loc[:, :, place], log_scale[:, :, place].exp())
        weights = torch.distributions.Categorical(logits=log_weight[:, :, place])
        expected += torch.distributions.MixtureSameFamily(weights, parts).log_prob(x[:, place])
    torch.testing.assert_close(log_prob(flow, STANDARD, x, None), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", ORDERS, ids=str)
def test_jacobian_inverse_and_what_depends_on_what(order):
    """Autograd's determinant; x_i hangs on z_i and on what stands before it, on nothing else."""
    flow, z = mixture(order), 2 * points(6, len(order), 1)
    x, log_det = flow(z)
    back, inverse_log_det = flow.inverse(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-12)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-12)
    places = torch.tensor(order).argsort()
    for row in range(6):
        jacobian = torch.autograd.functional.jacobian(lambda noise: flow(noise[None])[0][0], z[row])
        expected = torch.linalg.slogdet(jacobian).logabsdet
        torch.testing.assert_close(log_det[row].detach(), expected, rtol=0, atol=1e-10)
        assert torch.equal(jacobian != 0, places[None] <= places[:, None])


def test_gradients_of_both_directions_are_autograds_own():
    flow, z = mixture((1, 0)), points(3, 2, 1).requires_grad_()
    x = flow(z)[0].detach().requires_grad_()
    assert torch.autograd.gradcheck(flow.inverse, (x,))
    assert torch.autograd.gradcheck(flow, (z,))
    weight = flow.network.last.weight

    def moved(value):
        return torch.func.functional_call(flow, {"network.last.weight": value}, (z.detach(),))

    assert torch.autograd.gradcheck(moved, (weight.detach().clone().requires_grad_(),))


def test_one_component_is_the_affine_flow(monkeypatch):
    """With the means and scales of a MAF: its z = x e^s + m is a normal of scale e^-s around -m e^-s."""
    torch.manual_seed(0)
    maf, one = (
        randomise(VectorMAF(3, (16,)).double(), 3, 0.4).requires_grad_(False),
        VectorMixture(3, (16,), 1).double(),
    )

    def turned(signal, cond=None):
        loc, log_scale = maf.flow.affine(signal, cond)
        return torch.zeros_like(loc)[:, None], (-loc * (-log_scale).exp())[:, None], -log_scale[:, None]

    monkeypatch.setattr(one, "conditionals", turned)
    for direction in ("forward", "inverse"):
        for found, expected in zip(*(getattr(flow, direction)(points(20, 3)) for flow in (one, maf)), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_quantiles_are_exact_in_both_tails():
    """SciPy's quantile of a logarithm, from the median to 250 standard deviations, in both precisions."""
    log_p = torch.from_numpy(-np.logspace(math.log10(math.log(2)), 4.5, 300))
    rest = torch.log(-torch.expm1(log_p))
    expected = torch.from_numpy(ndtri_exp(log_p.numpy()))
    for dtype, atol, rtol in ((torch.float64, 1e-12, 1e-12), (torch.float32, 1e-5, 1e-6)):
        low, high = log_p.to(dtype), rest.to(dtype)
        torch.testing.assert_close(normal_quantile(low, high).double(), expected, atol=atol, rtol=rtol)
        torch.testing.assert_close(normal_quantile(high, low).double(), -expected, atol=atol, rtol=rtol)
    p = log_p[::30].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda y: normal_quantile(y, torch.zeros_like(y)), (p,), rtol=1e-3)


def test_far_out_the_way_back_is_the_way_there():
    """Noise 30 standard deviations out, where the distribution function itself is 0 or 1 to any precision."""
    flow = mixture((0, 1, 2))
    z = torch.tensor([[30.0, -30.0, 12.0], [-12.0, 8.5, -30.0]]).double()
    x, log_det = flow(z)
    back, inverse_log_det = flow.inverse(x)
    torch.testing.assert_close(back, z, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=1e-9)


@pytest.mark.parametrize("log_scale_range", [(-7.0, 5.0), (-2.0, 1.0)], ids=str)
@pytest.mark.parametrize("components", [1, 2, 3, 8])
def test_it_begins_near_the_identity_with_components_apart(components, log_scale_range):
    """Mean and variance those of the noise, whatever the soft bounds of the scales: nothing is learnt yet."""
    torch.manual_seed(0)
    flow = VectorMixture(2, (8,), components, output_gain=0.0, log_scale_range=log_scale_range).double()
    log_weight, loc, log_scale = flow.conditionals(points(1, 2))
    weight, variance = log_weight.exp(), (2 * log_scale).exp()
    torch.testing.assert_close((weight * loc).sum(1), torch.zeros(1, 2).double(), rtol=0, atol=1e-6)
    second = (weight * (loc.square() + variance)).sum(1)
    torch.testing.assert_close(second, torch.ones(1, 2).double(), rtol=0, atol=1e-6)
    assert len(loc[0, :, 0].unique()) == components
    z = points(400, 2)
    assert float((flow(z)[0].detach() - z).abs().max()) < (1e-5 if components == 1 else 1.0)


def test_in_float32_nothing_is_lost_far_out():
    """A thousand widths out and more: density, slope and gradient as in float64, and all of them finite."""
    flow = mixture((0, 1), components=4)
    with torch.no_grad():
        flow.network.last.bias.view(3, 4, 2)[2] -= 6.0
    single = copy.deepcopy(flow).float()
    x = torch.cat([direction * torch.logspace(-1, 2, 60).double()[:, None] for direction in points(8, 2)])
    expected = log_prob(flow, STANDARD, x, None).detach()
    assert float(expected.min()) < -1e6  # thousands of widths
    found = log_prob(single, Gaussian(torch.zeros(()), torch.zeros(())), x.float(), None)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(single.inverse(x.float())[1].double(), flow.inverse(x)[1], rtol=1e-4, atol=1e-2)
    found.sum().backward()
    assert all(torch.isfinite(value.grad).all() for value in single.parameters())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_quantiles_a_million_deviations_out(dtype):
    """Against the expansion log Phi(z) = -z^2 / 2 - log(-z) - log(2 pi) / 2 - 1 / z^2, exact to 1e-10 there."""
    z = -torch.logspace(2.5, 6, 200, dtype=torch.float64)
    log_p = -0.5 * z.square() - (-z).log() - 0.5 * math.log(2 * math.pi) - z**-2
    found = normal_quantile(log_p.to(dtype), torch.zeros_like(z).to(dtype))
    torch.testing.assert_close(found.double(), z, rtol=1e-12 if dtype == torch.float64 else 2e-7, atol=0)


def test_features_reach_every_coordinate_and_its_law():
    flow = mixture((1, 0), features=2)
    z, features = points(1, 2), points(1, 2, 5)
    by = torch.autograd.functional.jacobian(lambda f: flow(z, conditioning(f, 2))[0][0], features)[:, 0]
    assert (by != 0).all()


def test_a_model_takes_it_next_to_the_noise_and_only_as_a_maf():
    model = VectorModel(VectorConfig(2, flows=3, components=4))
    assert isinstance(model.chain.flows[0], VectorMixture)
    assert sum(isinstance(flow, VectorMixture) for flow in model.chain.flows) == 1
    with pytest.raises(UserError, match=r"model\.components: found 4, expected 0 with direction iaf"):
        VectorConfig(2, "iaf", components=4)
    with pytest.raises(UserError, match=r"model\.components: found -1"):
        VectorConfig(2, components=-1)


def test_it_reaches_what_affine_steps_cannot():
    """Two blobs apart, 200 steps from the same seed: the affine flow leaves a bridge between them."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(2000, 2, generator=generator) * 0.2
    rows[:, 0] += torch.where(torch.rand(2000, generator=generator) < 0.5, -2.0, 2.0)
    entropy = math.log(2 * math.pi * math.e * 0.04) + math.log(2)
    excess = {}
    for components in (0, 2):
        torch.manual_seed(0)
        model = VectorModel(VectorConfig(2, flows=2, hidden=[32], components=components))
        model.whiten(rows)
        optimizer = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(200):
            optimizer.zero_grad()
            loss = -model.log_prob(rows).mean()
            loss.backward()
            optimizer.step()
        excess[components] = float(loss.detach()) - entropy
    assert excess[2] < 0.05
    assert excess[0] > 0.2
