"""WaveVAE: closed forms and exact evidence as oracles of its bound, causality of both nets, collapse named."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from distill.config import SourceFilterConfig, StudentConfig
from distill.diagnoses import HealthConfig
from distill.health import Health
from distill.student import Student
from distill.wavevae.config import ElboConfig, WaveVAEConfig
from distill.wavevae.learning import StepBatch, VariationalLearning, signs
from distill.wavevae.model import WaveVAE
from tests.conftest import AUDIO, PITCH, UPSAMPLE, random_mel, random_wav, randomise, small_stack
from wavenet.arguments import from_dict, to_dict
from wavenet.data import Batch
from wavenet.emphasis import pre_emphasis
from wavenet.errors import UserError

LIKELIHOODS = pytest.mark.parametrize("likelihood", ["flow", "one_step_ahead"])


def small_wavevae(scale: float = 0.2, **settings) -> WaveVAE:
    """A randomised float64 WaveVAE of two flows."""
    config = WaveVAEConfig(
        audio=AUDIO,
        encoder=small_stack(),
        flows=[small_stack(cycles=1)] * 2,
        upsample=UPSAMPLE,
        source_filter=SourceFilterConfig(taps=12, channels=4, correction_points=5),
        pitch=PITCH,
        **({"gain": 2.0} | settings),
    )
    torch.manual_seed(2)
    model = randomise(WaveVAE(config).double(), seed=2, scale=scale)
    assert isinstance(model, WaveVAE)
    return model.eval()


def without_networks(c: float, m: float, sigma: float, eps: float, eta: float, **settings) -> WaveVAE:
    """Every network silent: f(z)_t = c z_t + m in emphasised units, z_t = (u_t - m) / sigma + eps noise."""
    model = small_wavevae(0.0, log_scale_range=(-80.0, 80.0), log_scale_floor=-90.0, **settings).requires_grad_(False)
    for stack in (model.encoder.stack, *(flow.stack for flow in model.iafs)):
        stack.output.weight.zero_()
    for flow in model.iafs:
        flow.stack.output.bias.zero_()
    model.encoder.stack.output.bias.copy_(torch.tensor([m, math.log(sigma)]))
    model.iafs[-1].stack.output.bias.copy_(torch.tensor([m, math.log(c)]))
    model.log_posterior_scale.fill_(math.log(eps))
    model.log_output_scale.fill_(math.log(eta))
    return model


def evidence(model: WaveVAE, mel: torch.Tensor) -> tuple[MultivariateNormal, torch.Tensor, torch.Tensor]:
    """Law of x of a model without networks, d f / d z and d (whitened x) / d x, by autograd's Jacobians."""
    length = mel.shape[2] * AUDIO.hop_length
    zero = torch.zeros(1, length).double()
    jacobian = torch.autograd.functional.jacobian(lambda z: model(z[None], mel).wav[0], zero[0])
    sample = model(zero, mel)
    white = torch.autograd.functional.jacobian(
        lambda x: x - model.likelihood(x[None], mel, sample).loc[0], sample.wav[0]
    )
    noise = torch.linalg.solve_triangular(
        white, torch.diag(model.likelihood(sample.wav, mel, sample).scale[0]), upper=False
    )
    return MultivariateNormal(sample.wav[0], jacobian @ jacobian.T + noise @ noise.T), jacobian, white


def bounds_of(model: WaveVAE, wav: torch.Tensor, mel: torch.Tensor, draws: int = 400) -> torch.Tensor:
    """The bound of one signal (1, T) at so many draws of z, (draws,)."""
    rows = wav.expand(draws, -1), mel.expand(draws, -1, -1)
    return model.elbo(*rows, generator=torch.Generator().manual_seed(1)).bound.sum(1).detach()


def error_of(bounds: torch.Tensor) -> float:
    return float(bounds.std()) / len(bounds) ** 0.5


def test_kl_is_the_one_of_torch_distributions():
    model, wav, mel = small_wavevae(), random_wav(), random_mel()
    found = model.elbo(wav, mel, generator=torch.Generator().manual_seed(0))
    reference = kl_divergence(Normal(found.posterior.loc, found.posterior.scale), Normal(0.0, 1.0))
    torch.testing.assert_close(found.kl, reference, rtol=1e-12, atol=1e-12)
    assert (found.kl > 0).all()


def test_bound_of_the_best_posterior_is_the_evidence_and_of_every_other_less():
    """With z_t's true posterior, N((u - m) / (c (1 + eta^2)), eta^2 / (1 + eta^2)), every draw gives log p(x)."""
    c, m, eta = 0.7, 0.2, 0.4
    best = {"sigma": c * (1 + eta**2), "eps": eta / math.sqrt(1 + eta**2)}
    wav, mel = random_wav(1), random_mel(1)
    model = without_networks(c, m, eta=eta, **best)
    exact = evidence(model, mel)[0].log_prob(wav[0])
    for draws in (1, 3):
        found = model.importance_weighted(wav, mel, draws, torch.Generator().manual_seed(0))
        torch.testing.assert_close(found[0], exact, rtol=1e-10, atol=1e-8)
    for change in ({"sigma": 1.3 * best["sigma"]}, {"eps": 0.5 * best["eps"]}, {"eps": 2 * best["eps"]}):
        model = without_networks(c, m, eta=eta, **(best | change))
        bounds = bounds_of(model, wav, mel)
        assert float(bounds.mean()) + 4 * error_of(bounds) < float(exact)


def test_a_sure_encoder_and_its_inverse_make_the_bound_the_flows_own_likelihood():
    """eps, eta -> 0 where the decoder inverts the encoder: ELBO = log density of encoder = that of decoder."""
    wav, mel = random_wav(1), random_mel(1)
    model = without_networks(0.7, 0.2, sigma=0.7, eps=1e-6, eta=1e-6)
    z = model.posterior(wav, mel).loc
    sample = model(z, mel)
    torch.testing.assert_close(sample.wav, wav, rtol=0, atol=1e-12)
    flow = Normal(0.0, 1.0).log_prob(z).sum() - sample.log_det[0]
    torch.testing.assert_close(model.encoder(wav, mel).log_prob(wav).sum(), flow, rtol=1e-10, atol=1e-8)
    bounds = bounds_of(model, wav, mel)
    assert abs(float(bounds.mean() - flow)) < 4 * error_of(bounds)


@pytest.mark.parametrize("order", [0, 4])
def test_what_the_bound_lacks_is_the_posteriors_divergence(order):
    """log p(x) - E[ELBO] = KL(q(z | x) || p(z | x)), the true posterior of all z together, with coloured noise too."""
    wav, mel = random_wav(1), 0.3 * random_mel(1)
    model = without_networks(0.7, 0.2, sigma=1.1, eps=0.3, eta=0.5, whitening=order)
    law, jacobian, white = evidence(model, mel)
    exact = law.log_prob(wav[0])
    assert (white.diagonal() == 1).all()
    assert (white.triu(1) == 0).all()
    found = model.elbo(wav, mel, generator=torch.Generator().manual_seed(0))
    scale = model.likelihood(wav, mel, found.sample).scale[0]
    design = white @ jacobian / scale[:, None]
    precision = torch.eye(len(scale)).double() + design.T @ design
    mean = torch.linalg.solve(precision, design.T @ (white @ (wav[0] - law.mean) / scale))
    true = MultivariateNormal(mean, precision_matrix=precision)
    ours = MultivariateNormal(found.posterior.loc[0], torch.diag(found.posterior.scale[0] ** 2))
    bounds, lacking = bounds_of(model, wav, mel, 2000), float(kl_divergence(ours, true))
    assert lacking > 8 * error_of(bounds)
    assert abs(float(exact - bounds.mean()) - lacking) < 4 * error_of(bounds)


@pytest.mark.parametrize("order", [0, 4])
@LIKELIHOODS
def test_importance_weighted_bounds_rise_with_their_draws(likelihood, order):
    wav, mel = random_wav(1), 0.3 * random_mel(1)
    model = small_wavevae(0.1, likelihood=likelihood, whitening=order, posterior_scale=0.9)
    rows, generator = (wav.expand(200, -1), mel.expand(200, -1, -1)), torch.Generator().manual_seed(0)
    one, few, many = (model.importance_weighted(*rows, draws, generator) for draws in (1, 4, 32))
    elbo = bounds_of(model, wav, mel, 200)
    assert abs(float(one.mean() - elbo.mean())) < 4 * (error_of(one) + error_of(elbo))
    for lower, upper in ((elbo, few), (few, many)):
        assert float(upper.mean() - lower.mean()) > 3 * (error_of(upper) + error_of(lower))


def jacobian_of(function, point: torch.Tensor) -> torch.Tensor:
    return torch.autograd.functional.jacobian(function, point)


@pytest.mark.parametrize("order", [0, 4])
def test_encoder_sees_the_past_and_present_and_inverts_step_by_step(order):
    model, wav, mel = small_wavevae(whitening=order), random_wav(1), 0.3 * random_mel(1)
    jacobian = jacobian_of(lambda x: model.posterior(x[None], mel).loc[0], wav[0])
    assert (jacobian.triu(1) == 0).all()
    torch.testing.assert_close(jacobian.diagonal(), model.encoder(wav, mel).scale[0].reciprocal(), rtol=1e-10, atol=0)
    assert float(jacobian.tril(-1).abs().max()) > 1e-3
    # z back to x by the encoder's own steps, one sample after the other.
    z, step, previous, made = model.posterior(wav, mel).loc, model.encoder.stepper(mel), wav.new_zeros(1, 1), []
    with torch.no_grad():
        for t in range(wav.shape[1]):
            law = step(previous)
            previous = law.loc + law.scale * z[:, t : t + 1]
            made.append(previous)
    torch.testing.assert_close(torch.cat(made, 1), wav, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", [0, 4])
@LIKELIHOODS
def test_decoder_and_likelihood_are_causal_and_the_likelihood_is_a_density(likelihood, order):
    """loc_t sees x_<t alone, so that the product over t integrates to 1; z_t, or z_<t one step ahead, and no later."""
    model, wav, mel = small_wavevae(likelihood=likelihood, whitening=order), random_wav(1), 0.3 * random_mel(1)
    z = torch.randn(wav.shape, generator=torch.Generator().manual_seed(3)).double()
    sample = model(z, mel)
    of_x = jacobian_of(lambda x: model.likelihood(x[None], mel, sample).loc[0], wav[0])
    assert (of_x.triu(0) == 0).all()
    assert float(of_x.abs().max()) > 0.1
    assert jacobian_of(lambda x: model.likelihood(x[None], mel, sample).log_scale[0], wav[0]).abs().max() == 0
    of_z = jacobian_of(lambda noise: model.likelihood(wav, mel, model(noise[None], mel)).loc[0], z[0])
    assert float(of_z.triu(1).abs().max()) < 1e-14
    now = model(z, mel).distribution.scale[0] if likelihood == "flow" else torch.zeros(len(of_z)).double()
    torch.testing.assert_close(of_z.diagonal(), now, rtol=1e-10, atol=1e-14)


@LIKELIHOODS
def test_likelihood_is_the_normal_law_of_emphasised_speech(likelihood):
    """Flow by flow: u_t ~ N(y_t, (eta s_t)^2) around the flows' output, or N(m_t, s_t^2), and log det of emphasis."""
    model, wav, mel = small_wavevae(likelihood=likelihood), random_wav(), random_mel()
    z = torch.randn(wav.shape, generator=torch.Generator().manual_seed(3)).double()
    output, mean, scale, cond = z, 0.0, 1.0, model.upsample(mel)
    for flow in model.iafs:
        loc, log_scale = flow.affine(output, cond)
        output, mean, scale = output * log_scale.exp() + loc, mean * log_scale.exp() + loc, scale * log_scale.exp()
    law = (
        Normal(mean, scale) if likelihood == "one_step_ahead" else Normal(output, scale * model.log_output_scale.exp())
    )
    expected = law.log_prob(pre_emphasis(wav, 0.9, 2.0)) + math.log(2.0)
    found = model.likelihood(wav, mel, model(z, mel)).log_prob(wav)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def learning(**settings) -> VariationalLearning:
    config = ElboConfig(**({"stft_sizes": [16, 32], "annealing_steps": 0} | settings))
    return VariationalLearning(config, AUDIO, 192)


def batch_of(frames: int = 12) -> Batch:
    return Batch(random_wav(2, frames), random_mel(2, frames), None)


@pytest.mark.parametrize("prior", ["none", "source_filter"])
def test_bound_trains_both_nets_and_prior_terms_only_the_decoder(prior):
    model, step = small_wavevae(prior=prior), learning()
    terms = step.loss(model, StepBatch(batch_of(), 0), torch.Generator().manual_seed(0))
    named = {name: value for name, value in terms.items() if name.startswith("loss/")}
    assert set(named) == {"loss/elbo", "loss/reconstruction_stft", "loss/prior_stft", "loss/prior_mel"}
    torch.testing.assert_close(terms["loss"], sum(named.values()))
    encoder = [*model.encoder.stack.parameters(), model.log_posterior_scale]
    decoder = [parameter for flow in model.iafs for parameter in flow.parameters()]
    for name, value in named.items():
        reached = torch.autograd.grad(value, encoder + decoder, retain_graph=True, allow_unused=True)
        moved = [one is not None and bool(one.abs().max() > 0) for one in reached]
        assert any(moved[: len(encoder)]) == ("prior" not in name)
        assert moved[len(encoder) - 1] == ("prior" not in name)
        assert any(moved[len(encoder) :])
    (noise,) = torch.autograd.grad(terms["loss/elbo"], [model.log_output_scale], retain_graph=True)
    assert float(noise.abs()) > 0


def test_weight_of_the_kl_is_in_the_loss():
    model = small_wavevae()
    losses = {
        step: learning(reconstruction={}, prior={}, annealing_steps=10, annealing="linear", kl_weight=2.0).loss(
            model, StepBatch(batch_of(), step), torch.Generator().manual_seed(0)
        )
        for step in (0, 5, 99)
    }
    for step, weight in ((0, 0.0), (5, 1.0), (99, 2.0)):
        terms = losses[step]
        assert float(terms["elbo/kl_weight"]) == weight
        torch.testing.assert_close(terms["loss"], weight * terms["elbo/kl"] - terms["elbo/reconstruction"])
    torch.testing.assert_close(losses[5]["loss"], -losses[5]["elbo/elbo"])


def test_annealing_rises_from_nothing_to_the_weight():
    sigmoid, linear = ElboConfig(annealing_steps=100), ElboConfig(annealing="linear", annealing_steps=100)
    assert [round(sigmoid.annealed(step), 3) for step in (0, 50, 100, 1000)] == [0.002, 0.5, 0.998, 1.0]
    assert [linear.annealed(step) for step in (0, 50, 100, 1000)] == [0.0, 0.5, 1.0, 1.0]
    assert ElboConfig(annealing_steps=0, kl_weight=0.3).annealed(0) == 0.3


@pytest.mark.parametrize("prior", ["none", "source_filter"])
def test_synthesis_is_the_students_and_knows_of_no_recording(prior):
    model, mel = small_wavevae(prior=prior), random_mel(1, 8)
    plain = {name: value for name, value in to_dict(model.config).items() if name in StudentConfig.__dataclass_fields__}
    student = Student(from_dict(StudentConfig, plain)).double().eval()
    own = student.state_dict().keys()
    student.load_state_dict({name: value for name, value in model.state_dict().items() if name in own})
    made = model.sample(mel, generator=torch.Generator().manual_seed(0))
    assert torch.equal(made, student.sample(mel, generator=torch.Generator().manual_seed(0)))
    randomise(model.encoder, 7)
    assert torch.equal(made, model.sample(mel, generator=torch.Generator().manual_seed(0)))


def test_posterior_collapse_is_seen_and_named():
    """An encoder whose sigma is huge and a posterior of the prior's width: z tells nothing; a healthy one is left."""
    wav, mel = random_wav(2, 6), random_mel(2, 6)
    collapsed = without_networks(0.7, 0.0, sigma=1e3, eps=1.0, eta=0.5)
    healthy = without_networks(0.7, 0.0, sigma=0.4, eps=0.2, eta=0.2)
    for model, expected in ((collapsed, ["posterior collapse"]), (healthy, [])):
        found = signs(model.elbo(wav, mel, generator=torch.Generator().manual_seed(0)))
        scalars = {name: float(value) for name, value in found.items()}
        health = Health(HealthConfig(after=0, persist=2), -9.0)
        assert health.judge(1, scalars).warnings == []
        said = health.judge(2, scalars).warnings
        assert [line.partition(":")[0] for line in said] == expected
        assert scalars["elbo/active"] == (0.0 if expected else 1.0)
    assert said == []


def test_signs_are_what_they_say():
    model, wav, mel = small_wavevae(), random_wav(2, 6), random_mel(2, 6)
    found = model.elbo(wav, mel, generator=torch.Generator().manual_seed(0))
    said = signs(found, 10)
    torch.testing.assert_close(said["elbo/elbo"], found.bound[:, 10:].mean())
    kl = found.kl[:, 10:].flatten()
    for percent in (10, 50, 90):
        below = float((kl <= said[f"elbo/kl_{percent}"]).double().mean())
        assert below == pytest.approx(percent / 100, abs=0.01)
    draws = found.posterior.draw(4000, torch.Generator().manual_seed(1))[0][:, :, 10:]
    assert float(said["elbo/aggregate"]) == pytest.approx(float(draws.detach().square().mean()), rel=0.02)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (WaveVAEConfig, {"noise": "logistic"}, "noise: found 'logistic', expected normal"),
        (WaveVAEConfig, {"warm_start": True}, "warm_start: found True, expected false"),
        (WaveVAEConfig, {"posterior_scale": 0.0}, "posterior_scale: found 0.0, expected a positive number"),
        (WaveVAEConfig, {"whitening": 4096}, "linear_prediction: found 4096"),
        (WaveVAEConfig, {"linear_prediction": 4}, "linear_prediction: found 4, expected 0: see whitening"),
        (WaveVAEConfig, {"likelihood": "teacher"}, "likelihood"),
        (ElboConfig, {"prior": {"kl": 1.0}}, "objective.prior: found 'kl', expected terms out of stft, mel, power"),
        (ElboConfig, {"reconstruction": {"stft": -1.0}}, "positive weights"),
        (ElboConfig, {"kl_weight": 0.0}, "objective.kl_weight: found 0.0"),
        (ElboConfig, {"annealing_steps": -1}, "objective.annealing_steps: found -1, expected 0 or more"),
    ],
)
def test_senseless_settings_are_named(cls, values, message):
    with pytest.raises(UserError) as caught:
        from_dict(cls, values)
    assert message in str(caught.value)


def test_windows_that_no_crop_holds_are_named():
    with pytest.raises(UserError, match=r"objective\.stft_sizes: found 128, expected at most 96"):
        learning(stft_sizes=[16, 128])
