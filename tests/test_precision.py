"""Autocast to bf16 ends at the networks: distributions, signals and losses stay float32, and likelihoods stay close."""

import pytest
import torch

from distill.distillation import Distillation
from distill.objective import ObjectiveConfig
from tests.conftest import random_mel, random_wav, small_student, small_teacher
from wavenet.data import Batch
from wavenet.likelihood import likelihood_loss


def batch() -> Batch:
    return Batch(random_wav(2, 8).float(), random_mel(2, 8).float(), None)


@pytest.mark.parametrize("kind", ["mol", "gaussian", "mulaw"])
def test_teacher_likelihood(kind):
    teacher = small_teacher(kind).float()
    plain = likelihood_loss(teacher, batch())["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        cast = likelihood_loss(teacher, batch())["loss"]
    assert cast.dtype == torch.float32
    assert float(cast.detach()) != float(plain.detach())
    assert float(cast.detach()) == pytest.approx(float(plain.detach()), rel=0.02)


def test_gradient_of_the_teacher_keeps_its_direction():
    teacher = small_teacher().float()
    weights = [weight for weight in teacher.stack.parameters() if weight.requires_grad]

    def gradient():
        return torch.cat(
            [part.flatten() for part in torch.autograd.grad(likelihood_loss(teacher, batch())["loss"], weights)]
        )

    plain = gradient()
    with torch.autocast("cpu", torch.bfloat16):
        cast = gradient()
    assert cast.dtype == torch.float32
    assert 0 < float((cast - plain).norm()) < 0.05 * float(plain.norm())


@pytest.mark.parametrize(("kind", "noise"), [("mol", "logistic"), ("gaussian", "normal")])
def test_distillation(kind, noise):
    step = Distillation(small_teacher(kind).float(), ObjectiveConfig({"kl": 1.0, "stft": 1.0}, 4, [32, 16]), 128)
    student = small_student(noise).float()

    def terms():
        return step.loss(student, batch(), torch.Generator().manual_seed(0))

    plain = terms()
    with torch.autocast("cpu", torch.bfloat16):
        cast = terms()
    for name in ("kl/entropy", "kl/cross_entropy", "stft/32"):
        assert cast[name].dtype == torch.float32
        assert float(cast[name].detach()) == pytest.approx(float(plain[name].detach()), rel=0.05, abs=0.05), name


@pytest.mark.parametrize("prior", ["none", "source_filter"])
def test_sample_of_the_student_is_its_affine_map_in_full_precision(prior):
    """wav = loc + scale z must hold to float32 even when the networks run in bf16: the flow stays exact."""
    student, mel = small_student(prior=prior).float(), random_mel(2, 8).float()
    z = student.noise(mel, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        sample = student(z, mel)
    d = sample.distribution
    torch.testing.assert_close(sample.wav, d.loc + d.scale * z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sample.log_det, d.log_scale.sum(1))


def test_pitch_levels_and_phases_are_float32_under_autocast():
    student, teacher = small_student(prior="source_filter").float(), small_teacher(source=True).float()
    mel = random_mel(2, 8).float()
    plain, sourced = student.conditioning(mel), teacher.conditioning(mel)
    with torch.autocast("cpu", torch.bfloat16):
        cast, cast_source = student.conditioning(mel), teacher.conditioning(mel)
        z = student.noise(mel, generator=torch.Generator().manual_seed(0))
        filtered = student.prior.affine(z, plain)
    for name in ("filters", "voice", "signals"):
        assert torch.equal(getattr(cast, name), getattr(plain, name)), name
    assert torch.equal(cast_source.signals, sourced.signals)
    assert all(torch.equal(a, b) for a, b in zip(filtered, student.prior.affine(z, plain), strict=True))
