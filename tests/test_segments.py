"""segmentvae: densities against torch.distributions and quadrature, bounds below the likelihood, patches joined."""

import math

import pytest
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from distill.latent.linear import LinearVAE
from distill.latent.patches import PatchBatches, cut, overlap_add
from distill.latent.posteriors import Flowing
from distill.latent.segmentvae import SegmentConfig, SegmentVAE, active_units
from distill.latent.surgery import elbo_terms, surgery
from distill.latent.train import likelihood_of
from tests.conftest import AUDIO, randomise
from wavenet.errors import UserError


def small(**settings) -> SegmentVAE:
    """A randomised float64 VAE of patches of 3 frames, with uneven statistics."""
    config = {"frames": 3, "dimensions": 2, "channels": 8, "iaf_channels": 6, "components": 4} | settings
    torch.manual_seed(0)
    model = SegmentVAE(SegmentConfig(AUDIO, **config)).double()
    model.set_statistics(torch.linspace(-6, -3, 6), torch.linspace(0.5, 2, 6))
    randomise(model, scale=0.3)
    return model.eval().requires_grad_(False)


def some_patches(n: int = 5, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return -4.5 + 1.5 * torch.randn(n, 6, 3, generator=generator).double()


@pytest.mark.parametrize("noise", ["global", "band"])
def test_likelihood_is_a_normal_density_of_the_mel_itself(noise):
    """Around the decoded patch, with sigma times each band's deviation: the standardisation leaves no trace."""
    model, patches = small(noise=noise), some_patches()
    z = torch.randn(7, 5, 2).double()
    scale = (model.log_noise.exp() * model.std)[:, None]
    expected = Normal(model.decode(z), scale).log_prob(patches).sum((-2, -1))
    torch.testing.assert_close(model.log_likelihood(patches, z), expected)


def test_vamp_prior_is_the_mean_of_the_posteriors_at_its_pseudo_inputs():
    model = small(prior="vamp")
    pseudo = model.pseudo_inputs * model.std[:, None] + model.mean[:, None]
    parts = model.posterior(pseudo)
    reference = MixtureSameFamily(
        Categorical(logits=torch.zeros(4).double()), Independent(Normal(parts.loc, parts.scale), 1)
    )
    z = torch.randn(9, 2).double()
    torch.testing.assert_close(model.prior().log_prob(z), reference.log_prob(z))
    patches = some_patches(4)
    model.set_pseudo_inputs(patches)
    torch.testing.assert_close(model.posterior(patches).loc, model.prior().parts.loc)


@pytest.mark.parametrize(
    ("prior", "posterior"), [("normal", "gaussian"), ("mixture", "gaussian"), ("vamp", "gaussian"), ("normal", "iaf")]
)
def test_every_elbo_is_the_likelihood_less_the_posteriors_divergence(prior, posterior):
    """One latent dimension, by quadrature: log p(x) - ELBO = KL(q || p(z | x)) > 0; the estimate agrees with it."""
    model, patches = small(dimensions=1, prior=prior, posterior=posterior), some_patches(3)
    model.heads.weight *= 0.2  # scales that the grid resolves
    grid = torch.linspace(-25, 25, 10001, dtype=torch.float64)[:, None]
    step = float(grid[1] - grid[0])
    joint = model.log_likelihood(patches, grid[:, None]) + model.prior().log_prob(grid)[:, None]  # (10001, 3)
    evidence = joint.logsumexp(0) + math.log(step)
    log_q = model.posterior(patches).log_prob_all(grid)
    q = log_q.exp() * step
    torch.testing.assert_close(q.sum(0), torch.ones(3).double(), atol=1e-6, rtol=0)
    bound = (q * (joint - log_q)).sum(0)
    divergence = (q * (log_q - (joint - evidence))).sum(0)
    assert (divergence > 1e-3).all()
    torch.testing.assert_close(evidence - bound, divergence, atol=1e-5, rtol=1e-5)
    draws = [model.elbo(patches, 2000, torch.Generator().manual_seed(seed)) for seed in range(8)]
    means = torch.stack([found.reconstruction - found.kl for found in draws])
    error = means.std(0) / 8**0.5
    assert float(((means.mean(0) - bound) / error).abs().max()) < 5


def test_without_layers_it_is_the_linear_vae():
    """The stochastic ELBO of linear networks against the closed form, at the same weights."""
    model, patches = small(layers=0), some_patches()
    model.heads.weight[2:] = 0  # one scale for every patch
    linear = LinearVAE(18, 2).double().requires_grad_(False)
    decoder = model.decoder[0]
    linear.bias.copy_(decoder.bias)
    linear.decoder.copy_(decoder.weight)
    linear.encoder.copy_(model.heads.weight[:2])
    linear.log_scale.copy_(model.heads.bias[2:])
    linear.log_noise.copy_(model.log_noise[0])
    model.heads.bias[:2] = -linear.encoder @ linear.bias
    exact = linear.elbo(model.standardised(patches).flatten(1)) - 3 * model.std.log().sum()
    found, _ = elbo_terms(model.posteriors(patches), model.prior(), likelihood_of(model, patches), 3000)
    assert abs(found.value - float(exact.mean())) < 4 * found.error < 1.5


@pytest.mark.parametrize("posterior", ["gaussian", "iaf"])
def test_posteriors_of_many_patches_are_those_of_each(posterior):
    model, patches = small(posterior=posterior), some_patches(6)
    many, z = model.posteriors(patches), torch.randn(4, 2).double()
    torch.testing.assert_close(many.log_prob_all(z), model.posterior(patches).log_prob_all(z))
    torch.testing.assert_close(many[2:4].log_prob_all(z), model.posterior(patches[2:4]).log_prob_all(z))
    assert isinstance(many, Flowing) == (posterior == "iaf")
    single = small(posterior=posterior).float()
    assert single.posteriors(patches.float()).draw(1)[0].dtype == torch.float64


def test_surgery_of_a_model_adds_up():
    for settings in ({"prior": "mixture"}, {"prior": "vamp"}, {"posterior": "iaf"}):
        model, patches = small(**settings), some_patches(20)
        found = surgery(model.posteriors(patches), model.prior(), likelihood_of(model, patches), 50)
        assert abs(found.remainder.value) < 3 * found.remainder.error, settings


def test_active_units_are_those_that_move():
    model, patches = small(dimensions=3), some_patches(50)
    assert active_units(model.posterior(patches)) == 3
    model.heads.weight[1] = 0
    assert active_units(model.posterior(patches)) == 2


@pytest.mark.parametrize("step", [1, 2, 5, 7])
def test_patches_of_a_mel_join_to_that_mel(step):
    mel = torch.randn(6, 7 + 4 * step).double()
    torch.testing.assert_close(overlap_add(cut(mel, 7, step), step), mel)


def test_levels_cross_over_in_nats():
    """Two patches of constant level, 4 frames each, over each other by 2: thirds of the way between."""
    patches = torch.stack([torch.zeros(1, 4), torch.full((1, 4), 3.0)]).double()
    expected = torch.tensor([[0.0, 0.0, 1.0, 2.0, 3.0, 3.0]]).double()
    torch.testing.assert_close(overlap_add(patches, 2), expected)
    with pytest.raises(UserError, match="step: found 5, expected 1 to 4 frames"):
        overlap_add(patches, 5)


def test_patches_lie_side_by_side_and_batches_are_a_function_of_seed_and_step():
    mel = torch.arange(20).float().expand(2, -1)
    assert cut(mel, 6)[:, 0].tolist() == [[float(i) for i in range(first, first + 6)] for first in (0, 6, 12)]
    patches = torch.arange(50).float()[:, None, None]
    one, two = PatchBatches(patches, 8, seed=1), PatchBatches(patches, 8, seed=1)
    first = [one[step].patches for step in (0, 1, 2)]
    assert all(torch.equal(a, two[step].patches) for a, step in zip(first, (0, 1, 2), strict=True))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], PatchBatches(patches, 8, seed=2)[0].patches)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"prior": "vamp", "posterior": "iaf"}, "model.posterior: found 'iaf', expected gaussian"),
        ({"frames": 0}, "model.frames: found 0, expected a positive integer"),
        ({"layers": -1}, "model.layers: found -1"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(UserError, match=message):
        small(**settings)


def test_patches_of_another_length_are_refused():
    with pytest.raises(UserError, match="expected 3 frames"):
        small().posterior(torch.randn(2, 6, 4).double())
