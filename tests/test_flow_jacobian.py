"""Every flow: Jacobian strictly triangular off its diagonal, diagonal = scale, log_det = autograd's, inverse exact."""

import math

import pytest
import torch

from distill.flows.autoregressive import IAF, MAF
from distill.flows.base import Chain, Inverse, log_prob
from distill.flows.emphasis import DeEmphasis
from tests.conftest import random_mel, random_wav, randomise, small_stack, small_student
from wavenet.distributions.gaussian import Gaussian
from wavenet.distributions.logistic import Logistic
from wavenet.upsample import Conditioning

T = 48


def conditioning() -> Conditioning:
    generator = torch.Generator().manual_seed(5)
    return Conditioning(
        torch.randn(1, 5, 5, generator=generator).double(), torch.randn(3, 16, generator=generator).double()
    )


def build(name: str):
    torch.manual_seed(0)
    iaf, other = (IAF(small_stack(), 5, initial_log_scale=-0.5) for _ in range(2))
    flows = {
        "iaf": iaf,
        "maf": MAF(small_stack(), 5),
        "de-emphasis": DeEmphasis(0.9, 3.0),
        "chain": Chain([iaf, other, DeEmphasis(0.9, 3.0)]),
        "chain with maf": Chain([iaf, Inverse(other)]),
    }
    return randomise(flows[name].double(), scale=0.3)


def numerical_jacobian(function, point: torch.Tensor) -> torch.Tensor:
    """Central differences, column by column: the oracle where a direction is sequential and not differentiable."""
    step = 1e-6
    columns = []
    for index in range(point.shape[0]):
        shifted = point.clone(), point.clone()
        shifted[0][index] += step
        shifted[1][index] -= step
        columns.append((function(shifted[0]) - function(shifted[1])) / (2 * step))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("name", ["iaf", "de-emphasis", "chain"])
def test_jacobian_and_log_det_are_autograds(name):
    flow, cond, z = build(name), conditioning(), random_wav(1)[0]
    jacobian = torch.autograd.functional.jacobian(lambda noise: flow(noise[None], cond)[0][0], z)
    assert (jacobian.triu(1) == 0).all()
    assert (jacobian.diagonal() > 0).all()
    assert float(jacobian.tril(-1).abs().max()) > 1e-3
    log_det = flow(z[None], cond)[1][0]
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-10, atol=1e-10)


def test_iaf_diagonal_is_the_scale_and_loc_knows_nothing_of_z_t():
    flow, cond, z = build("iaf"), conditioning(), random_wav(1)[0]
    jacobian = torch.autograd.functional.jacobian(lambda noise: flow(noise[None], cond)[0][0], z)
    torch.testing.assert_close(jacobian.diagonal(), flow.affine(z[None], cond)[1][0].exp(), rtol=1e-12, atol=1e-12)
    for part in range(2):
        strict = torch.autograd.functional.jacobian(lambda noise, p=part: flow.affine(noise[None], cond)[p][0], z)
        assert (strict.triu(0) == 0).all()


@pytest.mark.parametrize("name", ["maf", "chain with maf"])
def test_maf_log_det_is_the_numerical_jacobians(name):
    flow, cond, z = build(name), conditioning(), random_wav(1)[0]
    jacobian = numerical_jacobian(lambda noise: flow(noise[None], cond)[0][0], z)
    assert float(jacobian.triu(1).abs().max()) < 1e-9
    log_det = flow(z[None], cond)[1][0]
    torch.testing.assert_close(log_det, torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["iaf", "maf", "de-emphasis", "chain", "chain with maf"])
def test_inverse_is_the_inverse(name):
    flow, cond, z = build(name), conditioning(), random_wav(1)
    x, log_det = flow(z, cond)
    back, inverse_log_det = flow.inverse(x, cond)
    torch.testing.assert_close(back, z, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=1e-9, atol=1e-9)


def test_maf_is_the_same_network_run_the_other_way():
    iaf, cond, z = build("iaf"), conditioning(), random_wav(1)
    maf = Inverse(iaf)
    x, _ = maf(z, cond)
    loc, log_scale = iaf.affine(x, cond)
    # The textbook form of a MAF: x_t = z_t s'_t(x_<t) + m'_t(x_<t), s' = 1 / s, m' = -m / s.
    torch.testing.assert_close(x, (z - loc) * torch.exp(-log_scale), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_student_is_its_own_chain(noise):
    student, mel = small_student(noise, flows=3), random_mel(1)
    z = student.noise(mel, generator=torch.Generator().manual_seed(0))
    sample = student(z, mel)
    chained, log_det = student.chain(z, student.upsample(mel))
    torch.testing.assert_close(sample.wav, chained, rtol=1e-11, atol=1e-11)
    torch.testing.assert_close(sample.log_det, log_det, rtol=1e-11, atol=1e-11)
    d = sample.distribution
    torch.testing.assert_close(sample.wav, d.loc + d.scale * z, rtol=1e-11, atol=1e-11)
    jacobian = torch.autograd.functional.jacobian(lambda noise: student(noise[None], mel).wav[0], z[0])
    torch.testing.assert_close(jacobian.diagonal(), d.scale[0], rtol=1e-10, atol=1e-12)
    assert (jacobian.triu(1) == 0).all()
    torch.testing.assert_close(sample.log_det[0], torch.linalg.slogdet(jacobian).logabsdet, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_student_log_prob_is_change_of_variables(noise):
    student, mel = small_student(noise), random_mel()
    z = student.noise(mel, generator=torch.Generator().manual_seed(0))
    sample = student(z, mel)
    if noise == "logistic":
        base = -(z + 2 * torch.nn.functional.softplus(-z))
    else:
        base = -0.5 * z**2 - 0.5 * math.log(2 * math.pi)
    torch.testing.assert_close(student.log_prob(sample.wav, mel), base.sum(1) - sample.log_det, rtol=1e-9, atol=1e-8)
    # And the same number once more, as the sum of the conditionals of x_t given z_<t.
    torch.testing.assert_close(
        student.log_prob(sample.wav, mel), sample.distribution.log_prob(sample.wav).sum(1), rtol=1e-9, atol=1e-8
    )


@pytest.mark.parametrize("turned", [False, True], ids=["iaf", "maf"])
@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_exact_density_integrates_to_one(turned, noise):
    """log_prob over a fixed grid of the plane: signals of two samples through two flows and de-emphasis."""
    torch.manual_seed(0)
    flows = [randomise(IAF(small_stack(layers=2), initial_log_scale=-0.3).double(), seed, 0.3) for seed in (1, 2)]
    chain = Chain([*(Inverse(flow) if turned else flow for flow in flows), DeEmphasis(0.9, 2.0)])
    zero = torch.zeros((), dtype=torch.float64)
    base = Logistic(zero, zero) if noise == "logistic" else Gaussian(zero, zero)
    # Where the mass is: the image of the noise's centre, and a grid many scales wide around it.
    centre = chain(torch.zeros(1, 2, dtype=torch.float64))[0][0]
    grid = torch.linspace(-1, 1, 201, dtype=torch.float64) * (20.0 if noise == "logistic" else 6.0)
    plane = torch.cartesian_prod(centre[0] + grid, centre[1] + grid)
    with torch.no_grad():
        density = log_prob(chain, base, plane, None).exp().reshape(201, 201)
    total = torch.trapezoid(torch.trapezoid(density, grid, dim=1), grid)
    assert float(total) == pytest.approx(1.0, abs=1e-4)


def test_zuko_agrees_on_an_affine_autoregressive_map():
    """The same conditioner inside zuko's AutoregressiveTransform gives the same signal and determinant."""
    zuko = pytest.importorskip("zuko")
    flow, cond, z = build("iaf"), conditioning(), random_wav(1)

    def meta(x: torch.Tensor):
        loc, log_scale = flow.affine(x, cond)
        return torch.distributions.transforms.AffineTransform(loc, log_scale.exp())

    # zuko's map is parallel x -> y with parameters from x: an IAF read from noise to signal.
    transform = zuko.transforms.AutoregressiveTransform(meta, passes=T)
    x, log_det = flow(z, cond)
    torch.testing.assert_close(transform(z), x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(transform.log_abs_det_jacobian(z, x).sum(1), log_det, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(transform.inv(x), flow.inverse(x, cond)[0], rtol=1e-9, atol=1e-9)
