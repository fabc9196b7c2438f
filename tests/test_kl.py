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


def sequence(phi: torch.Tensor, log_s: torch.Tensor, length: int) -> torch.distributions.MultivariateNormal:
    """x_t = phi x_{t-1} + s e_t from x_{-1} = 0, as one joint law."""
    time = torch.arange(length)
    lag = time[:, None] - time[None, :]
    powers = torch.where(lag >= 0, phi ** lag.clamp(min=0), torch.zeros((), dtype=phi.dtype))
    return torch.distributions.MultivariateNormal(torch.zeros(length).double(), scale_tril=powers * log_s.exp())


def autoregression(phi: torch.Tensor, log_s: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """The same law's x (rows, T) of noise (rows, T), phi and log_s (rows, 1), sample by sample."""
    x = [torch.zeros_like(noise[:, :1])]
    for t in range(noise.shape[1]):
        x.append(phi * x[-1] + log_s.exp() * noise[:, t : t + 1])
    return torch.cat(x, 1)


@pytest.mark.parametrize("estimator", ["log_ratio", "conditional"])
def test_sequence_estimators_have_value_and_gradient_of_the_closed_form(estimator):
    """Two Gaussian autoregressions; gradients in phi and log s of the student. Each row has parameters of its own."""
    rows, length, teacher_phi, teacher_log_s = 20_000, 6, 0.3, 0.2
    noise = torch.randn(rows, length, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    phi = torch.full((rows, 1), 0.8, dtype=torch.float64, requires_grad=True)
    log_s = torch.full((rows, 1), -0.3, dtype=torch.float64, requires_grad=True)
    x = autoregression(phi, log_s, noise)
    past, wav = x[:, :-1], x[:, 1:]
    teacher = Gaussian(teacher_phi * past, torch.full_like(past, teacher_log_s))
    if estimator == "log_ratio":
        base = Gaussian(value(0.0)[0, 0], value(0.0)[0, 0])
        estimate = kl.log_ratio(base, noise, length * log_s[:, 0], teacher, wav)
    else:
        student = Gaussian(phi * past, log_s.expand_as(past))
        crossed = kl.cross_entropy(student, teacher, 4, torch.Generator().manual_seed(1))
        estimate = (crossed - kl.entropy(student)).sum(1)
    one_phi, one_log_s = (torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.8, -0.3))
    exact = torch.distributions.kl_divergence(
        sequence(one_phi, one_log_s, length),
        sequence(torch.tensor(teacher_phi).double(), torch.tensor(teacher_log_s).double(), length),
    )
    wanted = [exact, *torch.autograd.grad(exact, (one_phi, one_log_s))]
    found = [estimate, *torch.autograd.grad(estimate.sum(), (phi, log_s))]
    for one, expected in zip(found, wanted, strict=True):
        error = float(one.detach().std()) / rows**0.5
        assert abs(float(one.detach().mean() - expected.detach())) < 3 * error


def test_log_ratio_serves_a_coupling_layer_that_has_no_law_of_each_sample():
    """x_b = z_b exp(s) + w z_a, x_a = z_a: log q is the joint normal's, and the estimate its divergence."""
    rows, s, w = 20_000, -0.4, 0.7
    noise = torch.randn(rows, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wav = torch.stack([noise[:, 0], noise[:, 1] * torch.tensor(s).double().exp() + w * noise[:, 0]], 1)
    zero = torch.zeros((), dtype=torch.float64)
    base, log_det = Gaussian(zero, zero), torch.full((rows,), s, dtype=torch.float64)
    lower = torch.tensor([[1.0, 0.0], [w, 0.0]], dtype=torch.float64)
    lower[1, 1] = torch.tensor(s).double().exp()
    joint = torch.distributions.MultivariateNormal(torch.zeros(2).double(), scale_tril=lower)
    torch.testing.assert_close(kl.flow_log_density(base, noise, log_det), joint.log_prob(wav))
    past = torch.cat([torch.zeros(rows, 1).double(), wav[:, :1]], 1)
    found = kl.log_ratio(base, noise, log_det, Gaussian(0.3 * past, torch.full_like(past, 0.1)), wav)
    expected = torch.distributions.kl_divergence(
        joint, sequence(torch.tensor(0.3).double(), torch.tensor(0.1).double(), 2)
    )
    assert abs(float(found.mean() - expected)) < 3 * float(found.std()) / rows**0.5


def test_conditional_estimator_varies_less_than_the_log_ratio():
    student, teacher, rows = small_student().requires_grad_(False), small_teacher().requires_grad_(False), 400
    mel = random_mel(1, 4).expand(rows, -1, -1)
    generator = torch.Generator().manual_seed(0)
    sample = student(student.noise(mel, generator=generator), mel)
    judged = teacher(sample.wav, mel)
    conditional = kl.cross_entropy(sample.distribution, judged, 8, generator) - kl.entropy(sample.distribution)
    ratio = kl.log_ratio(student.base(mel), sample.noise, sample.log_det, judged, sample.wav)
    exact = student.log_prob(sample.wav[:20], mel[:20]) - judged.log_density(sample.wav)[:20].sum(1)
    torch.testing.assert_close(ratio[:20], exact)
    assert 2 * float(conditional.sum(1).std()) < float(ratio.std())
