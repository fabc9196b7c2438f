"""A student whose flows make the prediction residual: its law, its density, its gradient, its chunks."""

import dataclasses

import pytest
import torch

from distill.config import StudentConfig
from distill.flows.prediction import Synthesis
from distill.student import Student
from tests.conftest import AUDIO, random_mel, random_wav, randomise, small_student
from tests.test_prediction import jumps
from wavenet.errors import UserError
from wavenet.fused.lattice import colour, transposed
from wavenet.upsample import Conditioning

ORDER = 5


def predicting_student(noise: str = "logistic") -> Student:
    """small_student over a residual."""
    config = dataclasses.replace(small_student(noise).config, linear_prediction=ORDER)
    torch.manual_seed(0)
    model = randomise(Student(config).double(), 1, 0.2).eval().requires_grad_(False)
    assert isinstance(model, Student)
    return model


def test_the_gradient_of_the_recursion_is_its_transpose():
    """Of the whole matrix, on a mel that jumps; and autograd takes it."""
    lattice, kernel = jumps()
    identity = torch.eye(16 * 12, dtype=torch.float64)
    matrix = colour(identity, lattice.expand(len(identity), -1, -1), kernel).T
    gradient = torch.randn(1, len(identity), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = transposed(gradient, lattice, kernel)[0]
    torch.testing.assert_close(found, matrix.T @ gradient[0], rtol=1e-10, atol=1e-10)
    synthesis = Synthesis(AUDIO.hop_length).double()
    cond = Conditioning(lattice[:, :1], kernel, whitening=lattice)
    noise = torch.randn(1, len(identity), dtype=torch.float64).requires_grad_()
    (synthesis(noise, cond)[0] * gradient).sum().backward()
    torch.testing.assert_close(noise.grad[0], found, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("noise", ["logistic", "normal"])
def test_the_law_of_each_sample_is_the_maps_own(noise):
    """Triangular, its diagonal the scale, its sum of logarithms log_det, and z the draw: by autograd's Jacobian."""
    student, mel = predicting_student(noise), random_mel(1, 3)
    z = torch.randn(1, 48, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = student(z, mel)
    jacobian = torch.autograd.functional.jacobian(lambda values: student(values[None], mel).wav[0], z[0])
    assert float(jacobian.triu(1).abs().max()) == 0.0
    torch.testing.assert_close(jacobian.diagonal().log(), found.distribution.log_scale[0], rtol=0, atol=1e-10)
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, found.log_det[0], rtol=0, atol=1e-10)
    law = found.distribution
    torch.testing.assert_close(law.loc + law.log_scale.exp() * z, found.wav, rtol=0, atol=1e-10)
    expected = student.base(z).log_prob(z).sum() - found.log_det
    torch.testing.assert_close(student.log_prob(found.wav, mel), expected, rtol=0, atol=1e-8)


def test_samples_are_one_pass_and_chunks_change_nothing():
    student, mel = predicting_student(), random_mel(2, 24)
    noise = student.noise(mel, generator=torch.Generator().manual_seed(0))
    whole = student.sample(mel, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(whole, student(noise, mel).wav, rtol=0, atol=1e-10)
    student.chunk_length = 64
    cut = student.sample(mel, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-10)


def test_a_loss_on_audio_and_law_reaches_the_flows():
    """Both by way of the recursion, against differences."""
    student, mel = predicting_student(), random_mel(1, 2)
    z, target = torch.randn(1, 32, dtype=torch.float64), random_wav(1, 2)
    weight = student.iafs[0].stack.output.bias.requires_grad_()

    def loss():
        found = student(z, mel)
        return (found.wav - target).square().sum() + (found.distribution.loc * target).sum()

    loss().backward()
    found, step = weight.grad.clone(), 1e-6
    for place in range(len(weight)):
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                weight[place] += sign * step
                ends.append(float(loss()))
                weight[place] -= sign * step
        assert float(found[place]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-4, abs=1e-6)


def test_the_networks_make_what_the_filter_does_not():
    """With flows that only pass the noise on, audio has the mel's levels: frame by frame within what noise scatters."""
    config = dataclasses.replace(small_student("normal", flows=1).config, linear_prediction=12, initial_log_scale=0.0)
    torch.manual_seed(0)
    student = Student(config).double().eval().requires_grad_(False)
    student.iafs[0].stack.output.weight.zero_()
    mel = (torch.linspace(-4, -1, AUDIO.n_mels)[None, :, None] + torch.zeros(1, 1, 400)).double()
    heard = student.log_mel(student.sample(mel, generator=torch.Generator().manual_seed(0)))
    assert float((heard.mean(2) - mel.mean(2)).abs().mean()) < 0.3


@pytest.mark.parametrize("setting", [{"linear_prediction": -1}, {"linear_prediction": 4, "prior": "source_filter"}])
def test_what_cannot_be(setting):
    with pytest.raises(UserError, match="linear_prediction"):
        StudentConfig(audio=AUDIO, **setting)


def test_an_order_beyond_the_spectrum_is_refused():
    with pytest.raises(UserError, match="linear_prediction: found 99, expected 1 to"):
        Student(dataclasses.replace(small_student().config, linear_prediction=99))
