"""KL estimators: 0 at equality, Monte Carlo within 3 standard errors of closed form and quadrature, gradients too."""

import pytest
import scipy.integrate
import torch

from distill import kl
from tests.conftest import random_mel, small_student, small_teacher
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import Logistic, MixtureLogistic


def value(number: float, requires_grad: bool = False) -> torch.Tensor:
    return torch.full((1, 1), number, dtype=torch.float64, requires_grad=requires_grad)


def mixture() -> MixtureLogistic:
    def row(*numbers: float) -> torch.Tensor:
        return torch.tensor([[numbers]], dtype=torch.float64)

    return MixtureLogistic(row(0.3, -0.5, 0.1), row(-0.4, 0.2, 1.1), row(-1.0, -2.0, -0.3))


def quadrature_cross_entropy(student, teacher) -> float:
    def integrand(x: float) -> float:
        point = value(x)
        return float(student.log_prob(point).exp() * -teacher.log_density(point))

    loc, scale = float(student.loc), float(student.scale)
    return scipy.integrate.quad(integrand, loc - 40 * scale, loc + 40 * scale, limit=500, points=[loc])[0]


def test_gaussian_closed_form_is_torchs():
    generator = torch.Generator().manual_seed(0)
    loc, log_scale, loc2, log_scale2 = torch.randn(4, 3, 50, generator=generator, dtype=torch.float64)
    student, teacher = Gaussian(loc, log_scale), Gaussian(loc2, log_scale2)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(loc, log_scale.exp()), torch.distributions.Normal(loc2, log_scale2.exp())
    )
    torch.testing.assert_close(kl.kl_gaussian(student, teacher), expected, rtol=1e-12, atol=1e-12)
    crossed = kl.cross_entropy_gaussian(student, teacher) - kl.entropy(student)
    torch.testing.assert_close(crossed, expected, rtol=1e-10, atol=1e-10)


def test_gaussian_kl_is_zero_at_equality_and_keeps_digits_beside_it():
    loc, log_scale = torch.tensor([[0.3]]), torch.tensor([[-4.0]])
    same = Gaussian(loc, log_scale)
    assert float(kl.kl_gaussian(same, same)) == 0.0
    near = Gaussian(loc.double(), log_scale.double() + 1e-6)
    assert float(kl.kl_gaussian(near, Gaussian(loc.double(), log_scale.double()))) == pytest.approx(1e-12, rel=1e-4)


def test_analytic_entropies():
    loc, log_scale = value(0.4), value(-1.3)
    normal = torch.distributions.Normal(loc, log_scale.exp()).entropy()
    torch.testing.assert_close(kl.entropy(Gaussian(loc, log_scale)), normal)
    logistic = Logistic(loc, log_scale)
    numeric = scipy.integrate.quad(
        lambda x: -float(logistic.log_prob(value(x)).exp() * logistic.log_prob(value(x))), -20, 20
    )
    assert float(kl.entropy(logistic)) == pytest.approx(numeric[0], abs=1e-8)


@pytest.mark.parametrize("make", [Logistic, Gaussian])
@pytest.mark.parametrize(("loc", "log_scale"), [(0.1, -1.5), (-0.6, -0.4), (1.4, -3.0)])
@pytest.mark.parametrize("draws", [1, 4, 16])
def test_monte_carlo_cross_entropy_is_unbiased(make, loc, log_scale, draws):
    teacher, repeats = mixture(), 2000
    student = make(value(loc).expand(repeats, 1), value(log_scale).expand(repeats, 1))
    estimates = kl.cross_entropy(student, teacher, draws, torch.Generator().manual_seed(1))[:, 0]
    expected = quadrature_cross_entropy(make(value(loc), value(log_scale)), teacher)
    error = float(estimates.std()) / repeats**0.5
    assert abs(float(estimates.mean()) - expected) < 3 * error + 1e-12


@pytest.mark.parametrize("make", [Logistic, Gaussian])
def test_monte_carlo_gradient_is_quadratures(make):
    """d/d loc and d/d log_scale of the cross entropy, against central differences of the quadrature."""
    teacher, repeats, step = mixture(), 4000, 1e-4
    loc = value(0.3).expand(repeats, 1).clone().requires_grad_()
    log_scale = value(-1.0).expand(repeats, 1).clone().requires_grad_()
    estimate = kl.cross_entropy(make(loc, log_scale), teacher, 8, torch.Generator().manual_seed(2))
    gradients = torch.autograd.grad(estimate.sum(), (loc, log_scale))
    for gradient, (dl, ds) in zip(gradients, ((step, 0.0), (0.0, step)), strict=True):
        up = quadrature_cross_entropy(make(value(0.3 + dl), value(-1.0 + ds)), teacher)
        down = quadrature_cross_entropy(make(value(0.3 - dl), value(-1.0 - ds)), teacher)
        error = float(gradient.std()) / repeats**0.5
        assert abs(float(gradient.mean()) - (up - down) / (2 * step)) < 3 * error + 1e-6


def test_kl_of_a_logistic_with_itself_is_zero_in_the_mean():
    one = MixtureLogistic(*(torch.tensor([[[number]]], dtype=torch.float64) for number in (0.0, 0.2, -1.0)))
    student = Logistic(value(0.2).expand(5000, 1), value(-1.0).expand(5000, 1))
    divergence = kl.cross_entropy(student, one, 8, torch.Generator().manual_seed(0)) - kl.entropy(student)
    assert abs(float(divergence.mean())) < 3 * float(divergence.std()) / 5000**0.5


def test_stratified_draws_beat_independent_ones():
    """At n = 16 the standard deviation is at least 3 times below that of 16 independent draws."""
    student, teacher, repeats = Logistic(value(0.1), value(-1.5)), mixture(), 3000
    generator = torch.Generator().manual_seed(0)
    stratified = kl.stratified_uniforms(torch.zeros(repeats, 1, dtype=torch.float64), 16, generator)
    independent = torch.rand(16, repeats, 1, generator=generator, dtype=torch.float64)
    spreads = []
    for uniforms in (stratified, independent):
        x = student.transform(uniforms[..., None])
        spreads.append(float(teacher.log_density(x).mean(0).std()))
    assert spreads[0] * 3 < spreads[1]


def test_strata_cover_the_unit_interval_uniformly():
    uniforms = kl.stratified_uniforms(torch.zeros(2000, dtype=torch.float64), 8, torch.Generator().manual_seed(0))
    assert torch.equal((uniforms * 8).floor(), torch.arange(8.0).double()[:, None].expand(8, 2000))
    within = (uniforms * 8).frac().flatten().sort().values
    gap = (within - torch.arange(1, 16001, dtype=torch.float64) / 16000).abs().max()
    assert float(gap) < 1.95 / 16000**0.5


def test_sequence_kl_estimate_matches_the_exact_log_ratio():
    """sum_t KL(p_s(x_t | z_<t) || p_t(x_t | x_<t)) and log p_s(x) - log p_t(x) have the same mean: KL(p_s || p_t)."""
    student, teacher, rows = small_student().requires_grad_(False), small_teacher().requires_grad_(False), 1500
    mel = random_mel(1, 2).expand(rows, -1, -1)
    generator = torch.Generator().manual_seed(0)
    sample = student(student.noise(mel, generator=generator), mel)
    judged = teacher(sample.wav, mel)
    conditional = kl.cross_entropy(sample.distribution, judged, 4, generator) - kl.entropy(sample.distribution)
    exact = student.log_prob(sample.wav, mel) - judged.log_density(sample.wav).sum(1)
    difference = conditional.sum(1) - exact
    assert float(exact.mean()) > 0
    assert abs(float(difference.mean())) < 3 * float(difference.std()) / rows**0.5


def test_regulariser_is_the_squared_log_ratio_of_scales():
    student, teacher = Gaussian(value(0.0), value(-1.0)), Gaussian(value(3.0), value(-3.0))
    assert float(kl.scale_regulariser(student, teacher)) == pytest.approx(4.0)
